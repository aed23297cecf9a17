// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// What all labs have in common.
const (
	as       = 64512
	vni      = 100 // of an E-VPN, and number of the route target
	instance = "lab"
	apiURL   = "http://127.0.0.1:8082"
	vmMTU    = 1420
	// underlayMTU has room for a VM's frame of 1500 in VXLAN over IPv6.
	underlayMTU    = 1600
	underlayBridge = "underlay"
	underlayDevice = "eth0"
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
	// Underlay are the checks between the nodes, which come before those between
	// the machines: a switch learns its neighbours by them.
	Underlay  []Ping
	Pings     []Ping
	Transfers []Transfer
	Crossings []Crossing
	// Setup are commands that finish the machines.
	Setup [][]string
	// Try are commands that show what the lab does.
	Try []string
}

// Bridge is the switch between the nodes.
type Bridge struct {
	Namespace, Name string
	Address         netip.Prefix
}

// Veth is a cable.
type Veth struct{ A, B End }

// End is one end of a cable. It is plugged in a bridge, or in a switch, or it
// has addresses.
type End struct {
	Namespace, Name string
	MTU             int
	MAC             string
	Bridge          string
	// Switch is the bridge of an Open vSwitch that takes the end; the host itself
	// answers nobody there.
	Switch    string
	Addresses []netip.Prefix
	// Gateways are where all other traffic goes.
	Gateways []netip.Addr
	// Checksums is set to have checksums computed before packets leave. A switch
	// that reads them at the other end in user space needs that.
	Checksums bool
}

// Process is a program that keeps running.
type Process struct {
	Name, Namespace string
	Args            []string
	// Env are "NAME=value" in addition to our own environment.
	Env []string
	// Config is the configuration file to write, if any, and its text.
	Config, ConfigText string
	Log                string
}

// Node is a bagpipe-bgp daemon.
type Node struct {
	Process
	Address netip.Addr
	// Switch is what forwards for driver ovs, else nil.
	Switch *Switch
}

// Attachment is a call of a node's API.
type Attachment struct {
	// Node is the index in Plan.Nodes.
	Node    int
	Request client.AttachRequest
}

// Ping is a check that one machine, or node, reaches an address of another.
type Ping struct {
	From, To string
	Address  netip.Addr
	// Fails is set when there must be no answer.
	Fails bool
}

// String names the check.
func (p Ping) String() string {
	if p.Fails {
		return fmt.Sprintf("no answer to ping %s -> %s %s", p.From, p.To, p.Address)
	}
	return fmt.Sprintf("ping %s -> %s %s", p.From, p.To, p.Address)
}

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

// NewPlan works out a lab: two nodes a and b, and machines a1, a2 and b1 or those of a scenario.
func NewPlan(o Options) (*Plan, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	p := &Plan{Options: o, Dir: stateDir(o)}
	p.addReflector()
	for i, name := range []string{"a", "b"} {
		p.addNode(i, name)
	}
	if s := findScenario(o.Scenario); s != nil {
		s.build(&sketch{Plan: p})
		p.addSwitches()
		return p, nil
	}
	machines := []machine{
		{name: "a1", node: 0, number: 11}, {name: "a2", node: 0, number: 12}, {name: "b1", node: 1, number: 21},
	}
	for i := range machines {
		machines[i].namespace = p.namespace("vm-" + machines[i].name)
		machines[i].place(o.VPN, i+1)
		p.addMachine(machines[i])
	}
	p.addSwitches()
	p.addChecks(machines)
	p.addHints(machines)
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

// Processes lists all that must run: the reflector, the nodes and what they need.
func (p *Plan) Processes() []Process {
	all := []Process{p.Reflector}
	for _, n := range p.Nodes {
		if n.Switch != nil {
			all = append(all, n.Switch.Database, n.Switch.Forwarder)
		}
		all = append(all, n.Process)
	}
	return all
}
