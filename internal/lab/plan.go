// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// What all labs have in common.
const (
	as       = 64512
	vni      = 100
	instance = "lab"
	apiURL   = "http://127.0.0.1:8082"
	vmMTU    = 1420
	// underlayMTU has room for a VM's frame of 1500 in VXLAN over IPv6.
	underlayMTU    = 1600
	underlayBridge = "underlay"
	routerIDRR     = "192.0.2.1"
	transferPort   = 5201
	transferBytes  = 4 << 20
)

// Plan is everything that makes up a lab.
type Plan struct {
	Options Options
	// Dir holds state, configurations and logs.
	Dir         string
	Namespaces  []string
	Bridge      Bridge
	Veths       []Veth
	Reflector   Process
	Nodes       []Node
	Attachments []Attachment
	Pings       []Ping
	Transfers   []Transfer
}

// Bridge is the switch between the nodes.
type Bridge struct {
	Namespace, Name string
	Address         netip.Prefix
}

// Veth is a cable.
type Veth struct{ A, B End }

// End is one end of a cable. It is plugged in a bridge or has addresses.
type End struct {
	Namespace, Name string
	MTU             int
	MAC             string
	Bridge          string
	Addresses       []netip.Prefix
}

// Process is a program that keeps running.
type Process struct {
	Name, Namespace string
	Args            []string
	// Config is the configuration file to write, if any, and its text.
	Config, ConfigText string
	Log                string
}

// Node is a bagpipe-bgp daemon.
type Node struct {
	Process
	Address netip.Addr
}

// Attachment is a call of a node's API.
type Attachment struct {
	// Node is the index in Plan.Nodes.
	Node    int
	Request client.AttachRequest
}

// Ping is a check that one machine reaches an address of another.
type Ping struct {
	From, To string
	Address  netip.Addr
}

// String names the check.
func (p Ping) String() string { return fmt.Sprintf("ping %s -> %s %s", p.From, p.To, p.Address) }

// Transfer is a check that bytes get from one machine to another by TCP.
type Transfer struct {
	From, To string
	Address  netip.AddrPort
	Bytes    int64
}

// String names the check.
func (t Transfer) String() string {
	return fmt.Sprintf("TCP transfer %s -> %s %s, %d MiB", t.From, t.To, t.Address.Addr(), t.Bytes>>20)
}

// machine is a virtual machine before it is spread over the plan.
type machine struct {
	name, namespace string
	node            int
	number          int
}

func (m machine) addresses() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/24", m.number)),
		netip.MustParsePrefix(fmt.Sprintf("2001:db8:1::%d/64", m.number)),
	}
}

func (m machine) mac() string { return fmt.Sprintf("00:00:5e:00:53:%02d", m.number) }

func (m machine) tap() string { return "tap-" + m.name }

// NewPlan works out a lab: two nodes a and b, machines a1, a2 and b1.
func NewPlan(o Options) (*Plan, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	p := &Plan{Options: o, Dir: stateDir(o)}
	p.addReflector()
	for i, name := range []string{"a", "b"} {
		p.addNode(i, name)
	}
	machines := []machine{
		{name: "a1", node: 0, number: 11}, {name: "a2", node: 0, number: 12}, {name: "b1", node: 1, number: 21},
	}
	for i := range machines {
		machines[i].namespace = p.namespace("vm-" + machines[i].name)
		p.addMachine(machines[i])
	}
	p.addChecks(machines)
	return p, nil
}

func stateDir(o Options) string {
	name := o.Name
	if name == "" {
		name = "default"
	}
	return filepath.Join(o.RunDir, name)
}

// namespace notes a namespace and returns its name.
func (p *Plan) namespace(base string) string {
	if p.Options.Name != "" {
		base = p.Options.Name + "-" + base
	}
	p.Namespaces = append(p.Namespaces, base)
	return base
}

// underlay returns an address between the nodes.
func (p *Plan) underlay(host int) netip.Prefix {
	if p.Options.Underlay == 6 {
		return netip.MustParsePrefix(fmt.Sprintf("2001:db8:ffff::%d/64", host))
	}
	return netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", host))
}

func (p *Plan) file(name string) string { return filepath.Join(p.Dir, name) }

func (p *Plan) addReflector() {
	ns := p.namespace("rr")
	address := p.underlay(1)
	p.Bridge = Bridge{Namespace: ns, Name: underlayBridge, Address: address}
	p.Reflector = Process{
		Name: "rr", Namespace: ns, Log: p.file("rr.log"),
		Args: []string{p.Options.Self, "rr", "--as", fmt.Sprint(as), "--router-id", routerIDRR,
			"--listen", address.Addr().String(), "--client-prefix", address.Masked().String()},
	}
}

func (p *Plan) addNode(i int, name string) {
	address := p.underlay(11 + i)
	ns := p.namespace("node-" + name)
	config := p.file("node-" + name + ".conf")
	p.Veths = append(p.Veths, Veth{
		A: End{Namespace: ns, Name: "eth0", MTU: underlayMTU, Addresses: []netip.Prefix{address}},
		B: End{Namespace: p.Bridge.Namespace, Name: "to-node-" + name, MTU: underlayMTU, Bridge: p.Bridge.Name},
	})
	p.Nodes = append(p.Nodes, Node{Address: address.Addr(), Process: Process{
		Name: "node-" + name, Namespace: ns, Log: p.file("node-" + name + ".log"),
		Args:   []string{p.Options.Daemon, "--config-file", config},
		Config: config, ConfigText: p.nodeConfig(address.Addr(), 11+i),
	}})
}

func (p *Plan) nodeConfig(address netip.Addr, number int) string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by bagpipe lab up.")
	line("[BGP]")
	line("local_address = %s", address)
	if address.Is6() {
		line("router_id = 192.0.2.%d", number)
	}
	line("peers = %s", p.Bridge.Address.Addr())
	line("my_as = %d", as)
	line("connect_retry_time = 1")
	line("\n[API]")
	line("host = 127.0.0.1")
	line("port = 8082")
	line("\n[DATAPLANE_DRIVER_EVPN]")
	line("dataplane_driver = %s", p.Options.Dataplane)
	line("\n[DATAPLANE_DRIVER_IPVPN]")
	line("dataplane_driver = dummy")
	return b.String()
}

func (p *Plan) addMachine(m machine) {
	node := p.Nodes[m.node]
	p.Veths = append(p.Veths, Veth{
		A: End{Namespace: node.Namespace, Name: m.tap(), MTU: vmMTU},
		B: End{Namespace: m.namespace, Name: "eth0", MTU: vmMTU, MAC: m.mac(), Addresses: m.addresses()},
	})
	rt := []string{fmt.Sprintf("%d:%d", as, vni)}
	for _, a := range m.addresses() {
		p.Attachments = append(p.Attachments, Attachment{Node: m.node, Request: client.AttachRequest{
			VPNType: client.EVPN, VPNInstanceID: instance, VNI: vni, ImportRT: rt, ExportRT: rt,
			MACAddress: m.mac(), IPAddress: a.String(), LocalPort: client.LocalPort{LinuxIF: m.tap()},
			Description: "machine " + m.name, InstanceDescription: "made by bagpipe lab",
		}})
	}
}

// addChecks has every machine ping every other by both IP versions, and the
// first send bytes to the last, which is on another node.
func (p *Plan) addChecks(machines []machine) {
	for _, from := range machines {
		for _, to := range machines {
			if from.name == to.name {
				continue
			}
			for _, a := range to.addresses() {
				p.Pings = append(p.Pings, Ping{From: from.namespace, To: to.namespace, Address: a.Addr()})
			}
		}
	}
	first, last := machines[0], machines[len(machines)-1]
	for _, a := range last.addresses() {
		p.Transfers = append(p.Transfers, Transfer{
			From: first.namespace, To: last.namespace,
			Address: netip.AddrPortFrom(a.Addr(), transferPort), Bytes: transferBytes,
		})
	}
}

// Processes lists all that must run: the reflector and the nodes.
func (p *Plan) Processes() []Process {
	all := []Process{p.Reflector}
	for _, n := range p.Nodes {
		all = append(all, n.Process)
	}
	return all
}

// String shows the plan as text, one step a line.
func (p *Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	for _, ns := range p.Namespaces {
		line("namespace %s", ns)
	}
	line("bridge %s:%s %s", p.Bridge.Namespace, p.Bridge.Name, p.Bridge.Address)
	for _, v := range p.Veths {
		line("veth %s -- %s", v.A, v.B)
	}
	for _, proc := range p.Processes() {
		line("run %s in %s: %s >%s", proc.Name, proc.Namespace, strings.Join(proc.Args, " "), proc.Log)
		if proc.Config != "" {
			line("  %s:\n    %s", proc.Config, strings.ReplaceAll(strings.TrimSpace(proc.ConfigText), "\n", "\n    "))
		}
	}
	for _, a := range p.Attachments {
		line("attach at %s: %s %s %s to %s, VNI %d, %v", p.Nodes[a.Node].Name, a.Request.LocalPort.LinuxIF,
			a.Request.MACAddress, a.Request.IPAddress, a.Request.VPNInstanceID, a.Request.VNI, a.Request.ImportRT)
	}
	for _, c := range p.Pings {
		line("check %s", c)
	}
	for _, c := range p.Transfers {
		line("check %s", c)
	}
	return b.String()
}

// String shows the end as text.
func (e End) String() string {
	text := fmt.Sprintf("%s:%s mtu %d", e.Namespace, e.Name, e.MTU)
	if e.MAC != "" {
		text += " " + e.MAC
	}
	for _, a := range e.Addresses {
		text += " " + a.String()
	}
	if e.Bridge != "" {
		text += " in " + e.Bridge
	}
	return text
}
