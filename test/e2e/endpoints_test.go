// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// TestSeveralAddressesPerMAC attaches a machine with two IPv4 and two IPv6
// addresses, and takes them away one by one.
func TestSeveralAddressesPerMAC(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	more := []string{"198.51.100.111/24", "2001:db8:1::111/64"}
	for _, m := range more {
		ip(t, a1.NS, "address add "+m+" dev eth0 nodad")
	}
	b1.attach(red)
	a1.attach(red)
	for _, m := range more {
		a.attach(a1.request(red, m))
	}
	want := forwarding{}.behind(a.addr, a1)
	for _, m := range more {
		want.Neighbours[netip.MustParsePrefix(m).Addr().String()] = a1.mac
	}
	b.forwards(red, want)
	for _, m := range append(more, a1.v4.String(), a1.v6.String()) {
		p := netip.MustParsePrefix(m)
		eventually(t, routeTimeout, func() error { return pings(t, b1, p.Addr()) })
	}
	for _, m := range append([]string{a1.v4.String()}, more...) {
		a.detach(a1.request(red, m))
		delete(want.Neighbours, netip.MustParsePrefix(m).Addr().String())
		b.forwards(red, want) // the MAC stays as long as one address does
	}
	if err := pings(t, b1, a1.v6.Addr()); err != nil {
		t.Errorf("the address that is left: %v", err)
	}
	a.detach(a1.request(red, "")) // without address: all that is left of the MAC
	b.forwards(red, forwarding{})
}

// TestWildcardEndpoint attaches a MAC alone: other nodes flood the question who
// has its address, and send the traffic itself straight to it.
func TestWildcardEndpoint(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	a.attach(a1.request(red, ""))
	b1.attach(red)
	want := forwarding{}.behind(a.addr, a1)
	clear(want.Neighbours)
	b.forwards(red, want)
	c := startCapture(t, b.NS)
	b1.reaches(a1)
	a1.reaches(b1)
	c.wait("arp request " + a1.v4.Addr().String())
	c.wait("ns " + a1.v6.Addr().String())

	// With an address the endpoint is no wildcard any more.
	a1.attach(red)
	b.forwards(red, forwarding{}.behind(a.addr, a1))
	for _, e := range a.endpoints(red, a1) {
		if e.IP == "" {
			t.Errorf("the wildcard endpoint is still there: %+v", e)
		}
	}
	eventually(t, routeTimeout, func() error {
		routes, err := b.routesOf(a1)
		if err == nil && len(routes) != 2 {
			err = fmt.Errorf("%d routes for %s, want one per address", len(routes), a1.mac)
		}
		return err
	})
	a.detach(a1.request(red, ""))
	b.forwards(red, forwarding{})
}

// TestExistingBridge attaches a port that is in a bridge of somebody else's,
// as Neutron's Linux bridge agent makes them.
func TestExistingBridge(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	ip(t, a.NS, "link add brq0 type bridge forward_delay 0", "link set brq0 up",
		"link set "+a1.tap+" master brq0", "link set "+a2.tap+" master brq0")
	b1.attach(red)
	before := a.stableDump()
	for _, v := range []*vm{a1, a2} {
		for _, r := range v.requests(red) {
			r.LinuxBridge = "brq0"
			a.attach(r)
		}
	}
	b.forwards(red, forwarding{}.behind(a.addr, a1, a2))
	b1.reaches(a1, a2)
	a1.reaches(a2, b1)
	a.forwardsInBridge("brq0", forwarding{}.behind(b.addr, b1))
	if links := a.Run("ip", "link"); strings.Contains(links, "evpn-") {
		t.Errorf("a bridge of our own was made:\n%s", links)
	}
	a1.detach(red)
	b.forwards(red, forwarding{}.behind(a.addr, a2))
	a2.detach(red)
	b.forwards(red, forwarding{})
	a.looksUntouched(before, a1, a2)
}

// TestReplacedDevice takes a port's device away and puts another one in its
// place: attaching again, as an agent does, is all that is needed.
func TestReplacedDevice(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	a1.attach(red)
	b1.attach(red)
	b1.reaches(a1)
	w := b.watch(red)
	ip(t, a.NS, "link del "+a1.tap)
	again := a.vm("a1", 11)
	again.attach(red)
	b1.reaches(again)
	again.reaches(b1)
	w.never(gone, a1) // nobody else has to know
}

// forwardsInBridge waits until the kernel has exactly what is wanted in an
// existing bridge.
func (n *node) forwardsInBridge(name string, want forwarding) {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		d, err := n.devices(red)
		if err != nil {
			return err
		}
		err = netspace.With(n.Name, func(h *netlink.Handle) error {
			l, err := h.LinkByName(name)
			if err == nil {
				d.bridge = l.Attrs().Index
			}
			return err
		})
		if err != nil {
			return err
		}
		got, err := n.forwardingOf(d)
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			err = fmt.Errorf("forwarding in %s at %s (-want +got):\n%s", name, n.label, diff)
		}
		return err
	})
}
