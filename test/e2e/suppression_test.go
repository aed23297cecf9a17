// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"net/netip"
	"testing"
)

// TestSuppression counts the ARP requests and neighbour solicitations that
// cross the underlay: none for addresses that BGP has told, and those for
// others, which shows that the counting works.
func TestSuppression(t *testing.T) {
	t.Parallel()
	for name, family := range map[string]int{"IPv4 underlay": 4, "IPv6 underlay": 6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := bareFabric(t, family, enoughMTU)
			f.startReflector()
			a, b := f.node("a", 11), f.node("b", 12)
			a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
			a1.attach(red)
			b1.attach(red)
			a.forwards(red, forwarding{}.behind(b.addr, b1))
			b.forwards(red, forwarding{}.behind(a.addr, a1))
			atA, atB := startCapture(t, a.NS), startCapture(t, b.NS)
			for range 3 {
				a1.forgetNeighbours()
				b1.forgetNeighbours()
				a1.reaches(b1)
				b1.reaches(a1)
			}
			for _, c := range []*capture{atA, atB} {
				for _, v := range []*vm{a1, b1} {
					c.wait("echo " + v.v4.Addr().String())
					c.wait("echo " + v.v6.Addr().String())
					c.wantNone("arp request " + v.v4.Addr().String())
					c.wantNone("ns " + v.v6.Addr().String())
				}
			}
			for _, unknown := range []netip.Addr{vmIPv4(99), vmIPv6(99)} {
				a1.asksFor(t, unknown)
			}
			atB.wait("arp request " + vmIPv4(99).String())
			atB.wait("ns " + vmIPv6(99).String())
		})
	}
}

func (c *capture) wantNone(what string) {
	c.t.Helper()
	if n := c.count(what); n > 0 {
		c.t.Errorf("%d packets %q crossed the underlay", n, what)
	}
}

// asksFor makes a machine look for an address, by a packet to it.
func (v *vm) asksFor(t *testing.T, addr netip.Addr) {
	t.Helper()
	conn := listen(t, v.NS, "udp", "")
	defer func() { _ = conn.Close() }()
	if _, err := conn.WriteTo([]byte("anybody?"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9))); err != nil {
		t.Errorf("send to %s: %v", addr, err)
	}
}
