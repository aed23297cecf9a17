// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

var allEncaps = []encap.Type{encap.MPLSInUDP, encap.GRE, encap.VXLAN}

// Pings and large segments, IPv4 and IPv6, in all encapsulations over both underlays. TCP
// over veth leaves 64 kB segments whole, unless something cuts them.
func TestTrafficBetweenNodes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, e := range allEncaps {
			t.Run(fmt.Sprintf("%s underlay v6=%v", e, v6), func(t *testing.T) {
				p := newPair(t, v6, e, Config{})
				p.a.ping(t, p.b.ip4)
				p.a.ping(t, p.b.ip6)
				listen(t, p.b.NS, netip.IPv6Unspecified(), 5001)
				for _, to := range []netip.Addr{p.b.ip4, p.b.ip6} {
					s := sniff(t, p.y.ns, "eth0")
					start := time.Now()
					const size = 64 << 20
					if err := transfer(p.a.NS, to, 5001, size); err != nil {
						t.Fatal(err)
					}
					t.Logf("%s: %.1f Gbit/s", to, size*8/time.Since(start).Seconds()/1e9)
					largest := 0
					for _, f := range s.all(isTunnel) {
						largest = max(largest, f.length)
					}
					if largest < 30000 {
						t.Errorf("to %s the largest frame on the underlay had %d octets", to, largest)
					}
				}
			})
		}
	}
}

// A VM's network card may fill in no checksums, and an underlay device cut no segments.
func TestTrafficWithoutOffloads(t *testing.T) {
	for _, e := range allEncaps {
		t.Run(e.String(), func(t *testing.T) {
			p := newPair(t, e == encap.GRE, e, Config{})
			for _, x := range []*node{p.x, p.y} {
				x.ns.Run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
				p.core.Run("ethtool", "-K", fmt.Sprintf("n%d", x.number), "tx", "off", "tso", "off", "gso", "off", "gro", "off")
			}
			p.core.Run("ethtool", "-K", "br0", "tx", "off", "gso", "off")
			p.a.Run("ethtool", "-K", "eth0", "tx", "off")
			listen(t, p.b.NS, netip.IPv6Unspecified(), 5001)
			for _, to := range []netip.Addr{p.b.ip4, p.b.ip6} {
				p.a.ping(t, to)
				if err := transfer(p.a.NS, to, 5001, 8<<20); err != nil {
					t.Errorf("to %s: %v", to, err)
				}
			}
		})
	}
}

// Two VRFs have VMs with the same addresses, and neither meets the other's.
func TestVRFsAreApart(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{})
	a2, b2 := p.x.vm(1), p.y.vm(17)
	p.x.vrf("blue", a2.ends(1002), a2.routes(p.x.hop(1002, encap.GRE)), b2.routes(p.y.hop(2002, encap.GRE)))
	p.y.vrf("blue", b2.ends(2002), b2.routes(p.y.hop(2002, encap.GRE)), a2.routes(p.x.hop(1002, encap.GRE)))
	red, blue := sniff(t, p.b.NS, "eth0"), sniff(t, b2.NS, "eth0")
	isPing := func(size int) func(frame) bool {
		return func(f frame) bool { return f.b[12] == 8 && f.b[13] == 0 && f.b[23] == 1 && f.length == size+42 }
	}
	p.a.ping(t, p.b.ip4, "-s", "100")
	a2.ping(t, b2.ip4, "-s", "200")
	if n := len(red.all(isPing(200))); n > 0 {
		t.Errorf("%d packets of blue in red", n)
	}
	if n := len(blue.all(isPing(100))); n > 0 {
		t.Errorf("%d packets of red in blue", n)
	}
	// Without its route, a VRF does not fall back on another's.
	apply(t, p.ha, changes(true, p.b.routes(p.y.hop(2001, encap.MPLSInUDP))...))
	p.a.noPing(t, p.b.ip4)
	if p.x.dropped("red", "no-route") == 0 {
		t.Error("packets without route are not counted")
	}
	a2.ping(t, b2.ip4)
}

// A VRF reaches an endpoint of another by a route that says so.
func TestLeakedRoute(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a, b := x.vm(1), x.vm(17)
	x.vrf("red", a.ends(1001), a.routes(x.hop(1001, encap.Default)), b.routes(x.hop(1002, encap.Default)))
	h := x.open(dataplane.Instance{ID: "blue", Type: dataplane.IPVPN, VNI: 101}, b.ends(1002), b.routes(x.hop(1002, encap.Default)))
	a.noPing(t, b.ip4)
	add(t, h, a.routes(x.hop(1001, encap.Default))...)
	a.ping(t, b.ip4)
	a.ping(t, b.ip6)
}

// Two ports of a VRF on one node; TTLs go down between subnets and not within one.
func TestLocalTraffic(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a, b, c := x.vm(1), x.vm(2), x.vm(17)
	var entries []dataplane.Entry
	for i, v := range []*vm{a, b, c} {
		// Routes first: order does not matter.
		entries = append(entries, v.routes(x.hop(uint32(1001+i), encap.Default))...)
		entries = append(entries, v.ends(uint32(1001+i))...)
	}
	inst := dataplane.Instance{ID: "red", Type: dataplane.IPVPN, VNI: 100, Gateway: netip.MustParsePrefix("198.51.100.14/28")}
	x.open(inst, entries)
	for _, v := range []*vm{b, c} {
		s := sniff(t, v.NS, "eth0")
		a.ping(t, v.ip4, "-t", "9")
		f, ok := s.next(time.Second, func(f frame) bool { return f.b[12] == 8 && f.b[13] == 0 && f.b[23] == 1 && f.b[34] == 8 })
		if want := map[*vm]byte{b: 9, c: 8}[v]; !ok || f.b[22] != want {
			t.Errorf("ping of %s: want TTL %d in %x", v.ip4, want, f.b)
		}
	}
	a.ping(t, c.ip6)
	listen(t, c.NS, netip.IPv6Unspecified(), 5001)
	for _, to := range []netip.Addr{c.ip4, c.ip6} {
		if err := transfer(a.NS, to, 5001, 8<<20); err != nil {
			t.Errorf("to %s: %v", to, err)
		}
	}
}

// Flows to a prefix that two nodes have are spread over both, each flow to one.
func TestSeveralNextHops(t *testing.T) {
	n := newNetwork(t, false)
	x, y, z := n.node(1, Config{}), n.node(2, Config{}), n.node(3, Config{})
	a, b, c := x.vm(1), y.vm(17), z.vm(17)
	hops := []dataplane.NextHop{y.hop(2001, encap.MPLSInUDP), z.hop(3001, encap.VXLAN)}
	h := x.vrf("red", a.ends(1001), b.routes(hops...))
	y.vrf("red", b.ends(2001), a.routes(x.hop(1001, encap.MPLSInUDP)))
	z.vrf("red", c.ends(3001), a.routes(x.hop(1001, encap.GRE)))
	listen(t, b.NS, netip.IPv6Unspecified(), 5001)
	listen(t, c.NS, netip.IPv6Unspecified(), 5001)
	ends := map[string]*sniffer{"y": sniff(t, b.NS, "eth0"), "z": sniff(t, c.NS, "eth0")}
	flows := func() map[string]int {
		for range 16 {
			for _, to := range []netip.Addr{b.ip4, b.ip6} {
				if err := transfer(a.NS, to, 5001, 10000); err != nil {
					t.Error(err)
				}
			}
		}
		out := map[string]int{}
		for name, s := range ends {
			out[name] = len(s.all(func(f frame) bool { // TCP SYN
				if f.outgoing {
					return false
				}
				if f.b[12] == 8 {
					return f.b[23] == 6 && f.b[47]&0x12 == 2
				}
				return f.b[20] == 6 && f.b[67]&0x12 == 2
			}))
		}
		return out
	}
	if got := flows(); got["y"]+got["z"] != 32 || got["y"] < 4 || got["z"] < 4 {
		t.Errorf("flows per node: %v", got)
	}
	add(t, h, b.routes(hops[1])...)
	if got := flows(); got["y"] != 0 || got["z"] != 32 {
		t.Errorf("flows per node with one left: %v", got)
	}
}

// A packet for a VRF's VNI goes to the endpoint that its inner destination is of.
func TestLayer3VNI(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay v6=%v", v6), func(t *testing.T) {
			n := newNetwork(t, v6)
			x, y := n.node(1, Config{}), n.node(2, Config{})
			a, b := x.vm(1), y.vm(17)
			far := func(o *node) dataplane.NextHop {
				h := o.hop(5000, encap.VXLAN)
				h.RouterMAC = o.d.Capabilities().RouterMAC
				return h
			}
			inst := dataplane.Instance{ID: "red", Type: dataplane.IPVPN, VNI: 5000, L3VNI: true}
			x.open(inst, a.ends(1001), a.routes(x.hop(1001, encap.Default)), b.routes(far(y)))
			h := y.open(inst, b.ends(2001), b.routes(y.hop(2001, encap.Default)), a.routes(far(x)))
			a.ping(t, b.ip4)
			a.ping(t, b.ip6)
			wrong := far(x)
			wrong.RouterMAC[5]++
			add(t, h, a.routes(wrong)...)
			a.noPing(t, b.ip4)
			if x.dropped("red", "router-mac") == 0 {
				t.Error("frames to another MAC are not counted")
			}
		})
	}
}

// The bridge of an E-VPN instance is a port: the VRF takes what is sent to the gateway,
// and leaves all else to the bridge.
func TestBridgeAsPort(t *testing.T) {
	n := newNetwork(t, false)
	x, y := n.node(1, Config{}), n.node(2, Config{})
	a, a2, b := x.vm(1), x.vm(2), y.vm(17)
	x.ns.Run("ip", "link", "add", "evi", "type", "bridge", "forward_delay", "0")
	x.ns.Run("ip", "link", "set", "evi", "up")
	for _, v := range []*vm{a, a2} {
		x.ns.Run("ip", "link", "set", v.port, "master", "evi")
	}
	x.ns.Run("bridge", "fdb", "add", dataplane.GatewayMAC.String(), "dev", "evi", "self", "permanent")
	a.port, a2.port = "evi", "evi"
	entries := append(a.ends(1001), a2.ends(1002)...)
	x.vrf("red", entries, a.routes(x.hop(1001, encap.Default)), a2.routes(x.hop(1002, encap.Default)), b.routes(y.hop(2001, encap.GRE)))
	y.vrf("red", b.ends(2001), a.routes(x.hop(1001, encap.GRE)), a2.routes(x.hop(1002, encap.GRE)))
	for _, v := range []*vm{a, a2} {
		v.ping(t, b.ip4)
		v.ping(t, b.ip6)
		v.ping(t, v.gw4)
		v.ping(t, v.gw6)
	}
	a.ping(t, a2.ip4)
	x.ns.Run("ip", "addr", "add", "198.51.100.12/28", "dev", "evi")
	a.ping(t, netip.MustParseAddr("198.51.100.12")) // of the host, at the bridge's own MAC
	if out := a.Run("ip", "neigh", "show", a2.ip4.String()); !strings.Contains(out, a2.mac.String()) {
		t.Errorf("neighbour in the same network: want its own MAC: %s", out)
	}
}

// Direction from-port sends and gets nothing, to-port the other way round.
func TestDirections(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a, b := x.vm(1), x.vm(17)
	entries := func(v *vm, label uint32, d dataplane.Direction) []dataplane.Entry {
		out := v.ends(label)
		for i := range out {
			out[i].Direction = d
		}
		return append(out, v.routes(x.hop(label, encap.Default))...)
	}
	h := x.vrf("red", entries(a, 1001, dataplane.FromPort), entries(b, 1002, dataplane.ToPort))
	s := sniff(t, b.NS, "eth0")
	a.noPing(t, b.ip4)
	isPing := func(f frame) bool { return !f.outgoing && f.b[12] == 8 && f.b[13] == 0 && f.b[23] == 1 }
	if _, ok := s.next(time.Second, isPing); !ok {
		t.Error("nothing arrives at a to-port endpoint")
	}
	add(t, h, entries(b, 1002, dataplane.Both)...)
	s = sniff(t, a.NS, "eth0")
	a.noPing(t, b.ip4)
	if f, ok := s.next(200*time.Millisecond, isPing); ok {
		t.Errorf("a from-port endpoint gets %x", f.b)
	}
	add(t, h, entries(a, 1001, dataplane.Both)...)
	a.ping(t, b.ip4)
}
