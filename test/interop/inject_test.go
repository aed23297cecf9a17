// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// TestForeignRoutes has GoBGP announce routes that no bagpipe node would send:
// without encapsulation community, with an Ethernet segment or tag, of types we
// have no use for, of other families. What is usable gets into the kernel, the
// rest does no harm.
func TestForeignRoutes(t *testing.T) {
	f := newFabric(t)
	h := f.host("node-a", 1)
	rr := newGoBGP(f, h.v4)
	peer := rr.v4.String()
	a := newOurs(h, []string{peer}, quickRetry)
	v := h.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	up := a.established(peer)
	a.attachVM(v, "red", 1001, "64512:300")

	const common = " rd 10.77.0.9:1 rt 64512:300 nexthop 10.77.0.9"
	const esi = " esi arbitrary 01:02:03:04:05:06:07:08:09"
	unusable := []struct{ family, route string }{
		{"evpn", "prefix 203.0.113.0/24 etag 0 label 901" + common + " encap vxlan"},
		{"evpn", "a-d" + esi + " etag 0 label 0" + common},
		{"evpn", "esi 10.77.0.9" + esi + common},
		{"vpnv4", "203.0.113.0/24 label 77" + common},
		{"vpnv6", "2001:db8:77::/64 label 77" + common},
	}
	usable := []struct{ route, mac string }{
		{"macadv 02:dd:00:00:00:01 198.51.100.21 etag 0 label 901" + common + " encap vxlan", "02:dd:00:00:00:01"},
		{"macadv 02:dd:00:00:00:02 198.51.100.22 etag 0 label 902" + common, "02:dd:00:00:00:02"},
		{"macadv 02:dd:00:00:00:03 0.0.0.0 etag 0 label 903" + common + " encap vxlan", "02:dd:00:00:00:03"},
		{"macadv 02:dd:00:00:00:04 2001:db8:1::24 etag 0 label 904" + common + " encap vxlan router-mac 02:dd:00:00:00:99", "02:dd:00:00:00:04"},
		{"macadv 02:dd:00:00:00:05 198.51.100.25" + esi + " etag 0 label 905" + common + " encap vxlan", "02:dd:00:00:00:05"},
		{"multicast 10.77.0.9 etag 0" + common + " encap vxlan pmsi ingress-repl 900 10.77.0.9", "00:00:00:00:00:00"},
	}
	for _, r := range unusable {
		rr.rib("add", r.family, r.route)
	}
	for _, r := range usable {
		rr.rib("add", "evpn", r.route)
	}
	forwarding := func(mac string) bool {
		return hasLine(h.Run("bridge", "fdb", "show"), mac, "dst 10.77.0.9 ", "self")
	}
	for _, r := range usable {
		nstest.Eventually(t, routeTimeout, func() bool { return forwarding(r.mac) },
			func() string { return "no forwarding entry for " + r.route + "\n" + h.Run("bridge", "fdb", "show") })
	}
	if fdb := h.Run("bridge", "fdb", "show"); !hasLine(fdb, "02:dd:00:00:00:02", "dst 10.77.0.9", "vni 902") {
		t.Errorf("the VNI of the route is not used:\n%s", fdb)
	}
	var tables map[string][]map[string]lookingGlassRoute
	a.mustGet("bgp/routes", &tables)
	if got := len(tables["ipv4/mpls-vpn,*"]); got != 1 {
		t.Errorf("%d VPNv4 routes in the looking glass, want 1: %v", got, tables["ipv4/mpls-vpn,*"])
	}

	for _, r := range usable {
		route, _, _ := strings.Cut(r.route, " nexthop")
		rr.rib("del", "evpn", route)
	}
	for _, r := range usable {
		nstest.Eventually(t, routeTimeout, func() bool { return !forwarding(r.mac) },
			func() string { return "forwarding entry left of " + r.route })
	}
	if again := a.established(peer); again.Protocol.Since != up.Protocol.Since {
		t.Errorf("the session did not stay: up since %s, then %s", up.Protocol.Since, again.Protocol.Since)
	}
}

// TestFourOctetAS runs a network whose AS number needs four octets.
func TestFourOctetAS(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	const as = 4200000001
	rr := &gobgp{host: f.host("gobgp", 254), clients: addrs(ha.v4, hb.v4), as: as}
	rr.start()
	peer := rr.v4.String()
	bgp := options{"my_as": "4200000001"}
	a, b := newOurs(ha, []string{peer}, bgp), newOurs(hb, []string{peer}, bgp)
	v := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	b.attachVM(hb.vm("vm-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24"), "red", 0, "64512:300")
	a.attachVM(v, "red", 0, "64512:300")
	if p := a.established(peer); p.AS.Local != as || p.AS.Peer != as {
		t.Errorf("AS numbers %+v, want %d", p.AS, int64(as))
	}
	wantRoutes(t, "b has", b.from(peer), reflected(a.evi("red", "64512:300").routes(v), a.routerID, peer))
	rr.wantRTC(ha.v4, "4200000001:64512:300")
}
