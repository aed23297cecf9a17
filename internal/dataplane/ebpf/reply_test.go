// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// The gateway answers ARP, ND and pings of any size; other addresses are answered for
// when they are elsewhere.
func TestGatewayAnswers(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{AntiSpoofing: true})
	a, b := x.vm(1), x.vm(2)
	x.vrf("red", a.ends(1001), a.routes(x.hop(1001, encap.Default)), b.ends(1002), b.routes(x.hop(1002, encap.Default)))
	for _, gw := range []netip.Addr{a.gw4, a.gw6} {
		a.ping(t, gw)
		a.ping(t, gw, "-s", "1400")
		if out := a.Run("ip", "neigh", "show", gw.String()); !strings.Contains(out, dataplane.GatewayMAC.String()) {
			t.Errorf("neighbour %s: %s", gw, out)
		}
	}
	a.ping(t, b.ip4) // the same subnets, but not one network
	a.ping(t, b.ip6)
	if out := a.Run("ip", "neigh", "show", b.ip4.String()); !strings.Contains(out, dataplane.GatewayMAC.String()) {
		t.Errorf("neighbour %s: %s", b.ip4, out)
	}
	a.noPing(t, netip.MustParseAddr("198.51.100.13"))
	if x.dropped("red", "neighbour") == 0 {
		t.Error("requests for unknown addresses are not counted")
	}
	// A duplicate address is found for the gateway's, and not for its own.
	for addr, taken := range map[string]bool{a.gw6.String(): true, "2001:db8:0::77": false} {
		a.Run("ip", "addr", "add", addr+"/64", "dev", "eth0")
		t.Cleanup(func() { a.Run("ip", "addr", "del", addr+"/64", "dev", "eth0") })
		eventuallyState(t, a, addr, taken)
	}
}

// The sender learns where a packet's path ends, and can find the path by that.
func TestTTLExceeded(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{})
	p.a.ping(t, p.b.ip4)
	for to, want := range map[netip.Addr][2]string{
		p.b.ip4: {"From " + p.a.gw4.String(), "Time to live exceeded"},
		p.b.ip6: {"From " + p.a.gw6.String(), "Hop limit"},
	} {
		out, _ := p.a.Try("ping", "-n", "-c", "1", "-W", "1", "-t", "1", to.String())
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("ping of %s with TTL 1: want %q in %s", to, w, out)
			}
		}
		p.a.ping(t, to, "-t", "2")
	}
	if x := p.x.dropped("red", "ttl-exceeded"); x < 2 {
		t.Errorf("%d packets counted", x)
	}
}

// What does not fit the underlay is refused with the size that does, and TCP adapts.
func TestTooBig(t *testing.T) {
	overhead := map[encap.Type]int{encap.MPLSInUDP: 32, encap.GRE: 28, encap.VXLAN: 50}
	for _, v6 := range []bool{false, true} {
		for _, e := range allEncaps {
			t.Run(fmt.Sprintf("%s underlay v6=%v", e, v6), func(t *testing.T) {
				p := newPair(t, v6, e, Config{})
				for _, x := range []*node{p.x, p.y} {
					x.ns.Run("ip", "link", "set", "eth0", "mtu", "1400")
				}
				fits := 1400 - overhead[e]
				if v6 {
					fits -= 20
				}
				for to, header := range map[netip.Addr]int{p.b.ip4: 28, p.b.ip6: 48} {
					p.a.ping(t, to, "-M", "do", "-s", fmt.Sprint(fits-header))
					out, _ := p.a.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(fits-header+1), to.String())
					if want := fmt.Sprint(fits); !strings.Contains(out, "mtu = "+want) && !strings.Contains(out, "mtu="+want) {
						t.Errorf("ping of %s: want an MTU of %d in %s", to, fits, out)
					}
					p.a.Run("ip", "route", "flush", "cache")
					p.a.Run("ip", "-6", "route", "flush", "cache")
				}
				listen(t, p.b.NS, netip.IPv6Unspecified(), 5001)
				for _, to := range []netip.Addr{p.b.ip4, p.b.ip6} {
					if err := transfer(p.a.NS, to, 5001, 4<<20); err != nil {
						t.Errorf("to %s: %v", to, err)
					}
				}
				if p.x.dropped("red", "too-big") == 0 {
					t.Error("not counted")
				}
			})
		}
	}
}

// A port of the node may have a smaller MTU than another.
func TestTooBigForLocalPort(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a, b := x.vm(1), x.vm(17)
	x.vrf("red", a.ends(1001), a.routes(x.hop(1001, encap.Default)), b.ends(1002), b.routes(x.hop(1002, encap.Default)))
	x.ns.Run("ip", "link", "set", b.port, "mtu", "1300")
	b.Run("ip", "link", "set", "eth0", "mtu", "1300")
	a.ping(t, b.ip4, "-M", "do", "-s", "1272")
	if out, _ := a.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1273", b.ip4.String()); !strings.Contains(out, "mtu = 1300") {
		t.Error(out)
	}
	listen(t, b.NS, netip.IPv6Unspecified(), 5001)
	for _, to := range []netip.Addr{b.ip4, b.ip6} {
		if err := transfer(a.NS, to, 5001, 1<<20); err != nil {
			t.Errorf("to %s: %v", to, err)
		}
	}
}

// Only addresses of the port's endpoints, and what they announce, may send.
func TestSpoofedSource(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{AntiSpoofing: true})
	p.a.ping(t, p.b.ip4)
	p.a.ping(t, p.b.ip6)
	p.a.Run("ip", "addr", "add", "198.51.100.9/28", "dev", "eth0")
	p.a.Run("ip", "addr", "add", "203.0.113.9/32", "dev", "eth0")
	add(t, p.hb, dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix("0.0.0.0/0"),
		NextHops: []dataplane.NextHop{p.x.hop(1001, encap.GRE)}})
	p.a.noPing(t, p.b.ip4, "-I", "198.51.100.9")
	p.a.noPing(t, p.b.ip4, "-I", "203.0.113.9")
	if got := p.x.dropped("red", "spoofed-source"); got < 4 {
		t.Errorf("%d packets counted", got)
	}
	announced := p.a.ends(1001)[1]
	announced.Prefix = netip.MustParsePrefix("203.0.113.0/24")
	add(t, p.ha, announced)
	p.a.ping(t, p.b.ip4, "-I", "203.0.113.9")
	p.a.ping(t, p.b.ip4, "-I", p.a.ip4.String())
	p.a.noPing(t, p.b.ip4, "-I", "198.51.100.9")
	// The MAC address counts too.
	p.a.Run("ip", "link", "set", "eth0", "address", "00:00:5e:00:53:99")
	p.a.noPing(t, p.b.ip4, "-I", p.a.ip4.String())
}
