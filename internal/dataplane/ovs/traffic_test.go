// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// Two hosts, ping and TCP both ways, IPv4 and IPv6 under one label, for each encapsulation.
func TestTraffic(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		encap  encap.Type
		change func(*Config)
	}{
		{"MPLS over GRE", encap.GRE, nil},
		{"VXLAN", encap.VXLAN, func(c *Config) { c.VXLANEncap = true }},
		{"MPLS over Ethernet", encap.MPLS, func(c *Config) { c.MPLSInterface = bare }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t)
			var vms [2]*vm
			var handles [2]*handle
			for i, n := range nodes {
				vms[i] = newVM(n, i+1, "tap0", 0)
				handles[i] = mustOpen(t, n.driver(tt.change), instance("red"))
				mustApply(t, handles[i], add(vms[i].entries()...)...)
			}
			for i := range nodes {
				mustApply(t, handles[i], add(vms[0].routes(nodes[0], tt.encap)...)...)
				mustApply(t, handles[i], add(vms[1].routes(nodes[1], tt.encap)...)...)
			}
			for i, v := range vms {
				wantPing(t, v.NS, v.gw4)
				wantPing(t, v.NS, v.gw6)
				far := vms[1-i]
				wantPing(t, v.NS, far.ip4)
				wantPing(t, v.NS, far.ip6)
			}
			// A traffic class that reads as a header length when IPv6 is taken as IPv4.
			out, err := vms[0].Try("ping", "-n", "-Q", "0xb8", "-c", "20", "-i", "0.05", "-W", "2", vms[1].ip6)
			if err != nil || !strings.Contains(out, " 0% packet loss") {
				t.Errorf("ping with a traffic class: %v: %s", err, out)
			}
			wantTCP(t, vms[0], vms[1], vms[1].ip4)
			wantTCP(t, vms[1], vms[0], vms[0].ip6)
		})
	}
}

// One host: traffic between ports of a VRF, a port with a VLAN, gateways on every
// port, what a port may not send, and another VRF with the same addresses.
func TestOneHost(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d := n.driver(nil)
	red, blue := mustOpen(t, d, instance("red")), mustOpen(t, d, instance("blue"))
	a, b, c := newVM(n, 1, "tapa", 0), newVM(n, 2, "tapb", 0), newVM(n, 3, "tapc", 42)
	x, y := newVM(n, 1, "tapx", 0), newVM(n, 2, "tapy", 0) // the same addresses
	x.label, y.label = 2001, 2002
	for _, v := range []*vm{a, b, c} {
		mustApply(t, red, add(v.entries()...)...)
		mustApply(t, red, add(v.routes(n, encap.GRE)...)...)
	}
	// Routes before endpoints, in one call, is an order, too.
	for _, v := range []*vm{x, y} {
		mustApply(t, blue, append(add(v.routes(n, encap.GRE)...), add(v.entries()...)...)...)
	}
	for _, v := range []*vm{a, b, c, x, y} {
		wantPing(t, v.NS, v.gw4)
		wantPing(t, v.NS, v.gw6)
	}
	for _, pair := range [][2]*vm{{a, b}, {b, a}, {a, c}, {c, b}, {x, y}} {
		wantPing(t, pair[0].NS, pair[1].ip4)
		wantPing(t, pair[0].NS, pair[1].ip6)
	}
	wantTCP(t, a, c, c.ip4)
	// Each machine has the gateway's MAC and nothing else.
	for _, v := range []*vm{a, b, c} {
		for _, gw := range []string{v.gw4, v.gw6} {
			if out := v.Run("ip", "neigh", "show", gw); !strings.Contains(out, dataplane.GatewayMAC.String()) {
				t.Errorf("gateway %s: %q", gw, out)
			}
		}
	}
	// x answers for a's address in the other VRF: only its own neighbour sees it.
	x.Run("ip", "link", "set", "eth0", "down")
	wantPing(t, b.NS, a.ip4)
	wantNoPing(t, y.NS, x.ip4)

	// A foreign source does not pass.
	a.Run("ip", "addr", "add", "203.0.113.1/32", "dev", "eth0")
	if out, err := a.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-I", "203.0.113.1", b.ip4); err == nil {
		t.Errorf("ping from a foreign source has an answer: %s", out)
	}

	// Route leaking: blue has a route to a machine of red by its label.
	leaked := route4("198.51.100.50/32", hop(n.addr, c.label, encap.GRE)) // c's own address
	mustApply(t, blue, add(leaked)...)
	mustApply(t, red, add(route4(y.ip4+"/32", hop(n.addr, y.label, encap.GRE)))...)
	wantPing(t, y.NS, "198.51.100.50")

	counters, err := d.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]uint64{}
	for _, k := range counters {
		seen[k.Instance+" "+k.Port+" "+k.Name] = k.Packets
	}
	for _, k := range []string{"red tapa received", "red tapa sent", "red tapc received", "blue tapy sent"} {
		if seen[k] == 0 {
			t.Errorf("counter %q is 0 in %v", k, counters)
		}
	}
	if err := red.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := n.Ofctl("dump-flows", "br-mpls", "reg0=0x1"); strings.Contains(left, "reg0=0x1") {
		t.Errorf("flows of a removed instance: %s", left)
	}
	ports := n.Vsctl("list-ports", "br-mpls")
	if strings.Contains(ports, "tapa") || !strings.Contains(ports, "tapx") || !strings.Contains(ports, trunk) {
		t.Errorf("ports after one instance was removed: %q", ports)
	}
}

// What an endpoint's direction forbids does not pass.
func TestDirections(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := mustOpen(t, n.driver(nil), instance("red"))
	a, b := newVM(n, 1, "tapa", 0), newVM(n, 2, "tapb", 0)
	set := func(d dataplane.Direction) {
		entries := b.entries()
		for i := range entries {
			entries[i].Direction = d
		}
		mustApply(t, h, add(entries...)...)
		wantInstalled(t, h, append(append(a.entries(), append(a.routes(n, encap.GRE), b.routes(n, encap.GRE)...)...), entries...)...)
	}
	mustApply(t, h, add(append(a.entries(), append(a.routes(n, encap.GRE), b.routes(n, encap.GRE)...)...)...)...)
	// b counts what reaches it, whether or not an answer gets back.
	received := func() string {
		return strings.Fields(b.Run("cat", "/proc/net/snmp"))[0] + icmpIn(b)
	}
	set(dataplane.Both)
	wantPing(t, a.NS, b.ip4)
	before := received()
	set(dataplane.FromPort)
	wantNoPing(t, a.NS, b.ip4)
	if after := received(); after != before {
		t.Errorf("a from-port endpoint received: %q, before %q", after, before)
	}
	set(dataplane.ToPort)
	wantNoPing(t, a.NS, b.ip4)
	if after := received(); after == before {
		t.Errorf("a to-port endpoint received nothing: %q", after)
	}
}

// icmpIn returns how many echo requests a machine has received.
func icmpIn(v *vm) string {
	lines := strings.Split(v.Run("cat", "/proc/net/snmp"), "\n")
	for i, l := range lines {
		if names := strings.Fields(l); len(names) > 0 && names[0] == "Icmp:" && names[1] == "InMsgs" {
			return strings.Fields(lines[i+1])[slices.Index(names, "InEchos")]
		}
	}
	return ""
}

// Traffic without a route goes to another port, with the MACs and the VLAN asked for.
func TestFallback(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := mustOpen(t, n.driver(nil), instance("red"))
	a := newVM(n, 1, "tapa", 0)
	mustApply(t, h, add(append(a.entries(), a.routes(n, encap.GRE)...)...)...)
	outside := nstest.New(t, "out")
	outside.Run("ip", "link", "add", "eth0", "address", vmMAC(9).String(), "type", "veth", "peer", "name", "tapo", "netns", n.Name)
	outside.Run("ip", "link", "set", "eth0", "up")
	outside.Run("ip", "addr", "add", "203.0.113.9/24", "dev", "eth0")
	outside.Run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
	outside.Run("ip", "neigh", "add", a.ip4, "lladdr", vmMAC(8).String(), "dev", "eth0")
	n.Run("ip", "link", "set", "tapo", "up")
	n.Vsctl("add-port", "br-mpls", "tapo", "--", "set", "interface", "tapo", "ofport_request=77")
	// The way back is of others: a flow at another priority that we must not touch.
	n.Ofctl("add-flow", "br-mpls", "priority=50,in_port=77,actions=set_field:"+a.mac.String()+"->eth_dst,output:tapa")
	wantNoPing(t, a.NS, "203.0.113.9")
	f := dataplane.Entry{Kind: dataplane.Fallback, OVS: dataplane.OVSPort{Number: 77}, MAC: vmMAC(9), Source: vmMAC(8)}
	mustApply(t, h, add(f)...)
	wantPing(t, a.NS, "203.0.113.9")
	wantInstalled(t, h, append(append(a.entries(), a.routes(n, encap.GRE)...), f)...)
	mustApply(t, h, del(f)...)
	wantNoPing(t, a.NS, "203.0.113.9")
	if out := n.Ofctl("dump-flows", "br-mpls"); !strings.Contains(out, "priority=50,in_port=tapo") && !strings.Contains(out, "priority=50,in_port=77") {
		t.Errorf("a flow of others is gone: %s", out)
	}
}
