// SPDX-License-Identifier: Apache-2.0

package interop

import "testing"

// overIPv6 are the options of a node whose sessions and tunnels use IPv6.
func overIPv6(h *host) options {
	return options{"local_address": h.v6.String(), "router_id": h.v4.String(), "connect_retry_time": "1"}
}

// TestIPv6SessionFRR runs two of our nodes with IPv6 sessions and IPv4 tunnels
// as clients of FRR's route reflector. FRR 8.4 takes a multicast route with an
// IPv6 originator or tunnel end for malformed and resets the session, so the
// tunnels are IPv4 here and the multicast route has to name their address.
func TestIPv6SessionFRR(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	rr := newFRR(f.host("frr", 254))
	rr.startReflector(false, ha.v6, hb.v6)
	peer := rr.v6.String()
	bgpA, bgpB := overIPv6(ha), overIPv6(hb)
	bgpA[dataplaneAddress], bgpB[dataplaneAddress] = ha.v4.String(), hb.v4.String()
	a, b := newOurs(ha, []string{peer}, bgpA), newOurs(hb, []string{peer}, bgpB)
	a.established(peer)
	b.established(peer)
	checkFRRNeighbor(t, rr.neighbor(a.local), a)
	ipv6Exchange(t, a, b, peer, rr.v4.String(), reflectorView{
		sent: func(n *node) func() ([]evpnRoute, error) { return rr.from(n.local) }, shows: frrView, passes: reflectedByFRR,
	})
}

// TestIPv6UnderlayGoBGP runs two of our nodes with IPv6 sessions, next hops
// and tunnels as clients of GoBGP's route reflector with RT constraint.
func TestIPv6UnderlayGoBGP(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	rr := newGoBGP(f, ha.v6, hb.v6)
	peer := rr.v6.String()
	a, b := newOurs(ha, []string{peer}, overIPv6(ha)), newOurs(hb, []string{peer}, overIPv6(hb))
	a.established(peer)
	b.established(peer)
	asSent := func(routes []evpnRoute) []evpnRoute { return routes }
	ipv6Exchange(t, a, b, peer, rr.v4.String(), reflectorView{
		sent: func(n *node) func() ([]evpnRoute, error) { return rr.adjIn(n.v6) }, shows: asSent, passes: reflected,
	})
	rr.wantRTC(ha.v6)
	rr.wantRTC(hb.v6, "64512:64512:300")
}

// A reflectorView is how a reflector shows what it has from a node, and what
// it makes of routes that it passes on.
type reflectorView struct {
	sent   func(*node) func() ([]evpnRoute, error)
	shows  func([]evpnRoute) []evpnRoute
	passes func(routes []evpnRoute, originator, cluster string) []evpnRoute
}

// ipv6Exchange attaches a port with IPv4 and IPv6 addresses on each node and
// checks routes and traffic.
func ipv6Exchange(t *testing.T, a, b *node, peer, cluster string, rr reflectorView) {
	t.Helper()
	vmA := a.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24", "2001:db8:1::10/64")
	vmB := b.vm("vm-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24", "2001:db8:1::11/64")
	a.attachVM(vmA, "red", 1001, "64512:300")
	b.attachVM(vmB, "red", 1002, "64512:300")
	routesA, routesB := a.evi("red", "64512:300").routes(vmA), b.evi("red", "64512:300").routes(vmB)
	wantRoutes(t, "the reflector has from a", rr.sent(a), rr.shows(routesA))
	wantRoutes(t, "the reflector has from b", rr.sent(b), rr.shows(routesB))
	wantRoutes(t, "a has", a.from(peer), rr.passes(routesB, b.routerID, cluster))
	wantRoutes(t, "b has", b.from(peer), rr.passes(routesA, a.routerID, cluster))
	for i := range vmA.ips {
		vmA.mustReach(vmB.ip(i))
		vmB.mustReach(vmA.ip(i))
	}
	for _, ip := range vmA.ips {
		a.detach(vmA.evpn("red", 1001, "64512:300").withIP(ip))
	}
	wantRoutes(t, "b has after a's withdraws", b.from(peer))
}
