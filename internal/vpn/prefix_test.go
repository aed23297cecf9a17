// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// remotePrefix5 is an EVPN type 5 route of a remote node, with VNI 99.
func remotePrefix5(node int, p string) wire.Route {
	return wire.Route{NLRI: wire.PrefixRoute(remoteRD(node), prefix(p)), Label: 99}
}

// remoteMACOf is the router's MAC of a remote node.
func remoteMACOf(node int) ethernet.MAC { return ethernet.MAC{0, 0, 0x5e, 0, 0x53, byte(node)} }

// withRouter adds a router's MAC.
func withRouter(a wire.LocalAttrs, mac ethernet.MAC) wire.LocalAttrs {
	a.Communities = append(a.Communities[:len(a.Communities):len(a.Communities)], wire.RouterMACCommunity(mac))
	return a
}

func TestType5Import(t *testing.T) {
	t.Parallel()
	able := setup{ipvpnCaps: overVXLAN}
	lax := setup{ipvpnCaps: overVXLAN, accept: true}
	only4 := setup{ipvpnCaps: func(c *dataplane.Capabilities) { overVXLAN(c); c.IPv4Only = true }}
	noMAC := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.Encaps = []encap.Type{encap.MPLS, encap.VXLAN} }}
	noVXLAN := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.RouterMAC = routerMAC }}
	noDefault := setup{ipvpnCaps: func(c *dataplane.Capabilities) { overVXLAN(c); c.AcceptDefault = false }, accept: true}
	vx9 := withRouter(remoteAttrs(9, "64512:1"), remoteMACOf(9))
	vx8 := withRouter(remoteAttrs(8, "64512:1"), remoteMACOf(8))
	none9 := withRouter(withEncaps(vx9), remoteMACOf(9))
	five9, five8, vpn9 := remotePrefix5(9, "203.0.113.0/24"), remotePrefix5(8, "203.0.113.0/24"), remotePrefix(9, "203.0.113.0/24")
	gateway, noVNI, tagged, v6hop := five9, five9, five9, vx9
	gateway.Raw, noVNI.Label, tagged.NLRI.Tag, v6hop.NextHop = []byte{1}, 0, 7, addr("2001:db8::9")
	ordered := vx9
	ordered.Communities = append(ordered.Communities[:2:2], wire.HashOrderCommunity(3))
	mpls := withEncaps(remoteAttrs(9, "64512:1"), encap.MPLS)
	to9, to8 := " via 10.77.1.9/99/VXLAN/00:00:5e:00:53:09", " via 10.77.1.8/99/VXLAN/00:00:5e:00:53:08"
	net := "prefix 203.0.113.0/24"
	for _, tt := range []importCase{
		{name: "IPv4", setup: able, in: []received{{route: five9, attrs: vx9}}, want: []string{net + to9}},
		{name: "IPv6", setup: able, in: []received{{route: remotePrefix5(9, "2001:db8:1::/48"), attrs: vx9}}, want: []string{"prefix 2001:db8:1::/48" + to9}},
		{name: "IPv6, driver without", setup: only4, in: []received{{route: remotePrefix5(9, "2001:db8:1::/48"), attrs: vx9}}},
		{name: "withdrawn", setup: able, in: []received{{route: five9, attrs: vx9}, {route: five9, withdraw: true}}},
		{name: "other route target", setup: able, in: []received{{route: five9, attrs: withRouter(remoteAttrs(9, "64512:2"), remoteMACOf(9))}}},
		{name: "driver without a MAC", setup: noMAC, in: []received{{route: five9, attrs: vx9}}},
		{name: "driver without VXLAN", setup: noVXLAN, in: []received{{route: five9, attrs: vx9}}},
		{name: "no router's MAC", setup: able, in: []received{{route: five9, attrs: remoteAttrs(9, "64512:1")}}},
		{name: "multicast router's MAC", setup: able, in: []received{{route: five9, attrs: withRouter(remoteAttrs(9, "64512:1"), ethernet.MAC{1})}}},
		{name: "VNI 0", setup: able, in: []received{{route: noVNI, attrs: vx9}}},
		{name: "gateway", setup: able, in: []received{{route: gateway, attrs: vx9}}},
		{name: "gateway comes", setup: able, in: []received{{route: five9, attrs: vx9}, {route: gateway, attrs: vx9}}},
		{name: "gateway goes", setup: able, in: []received{{route: gateway, attrs: vx9}, {route: five9, attrs: vx9}}, want: []string{net + to9}},
		{name: "Ethernet tag is ignored", setup: able, in: []received{{route: tagged, attrs: vx9}}, want: []string{net + to9}},
		{name: "next hop of the other family", setup: able, in: []received{{route: five9, attrs: v6hop}}},
		{name: "no encapsulation, strict", setup: able, in: []received{{route: five9, attrs: none9}}},
		{name: "no encapsulation, accepted", setup: lax, in: []received{{route: five9, attrs: none9}}, want: []string{net + to9}},
		{name: "no encapsulation, accepted whatever the driver has for VPN routes", setup: noDefault, in: []received{{route: five9, attrs: none9}}, want: []string{net + to9}},
		{name: "MPLS only", setup: lax, in: []received{{route: five9, attrs: withRouter(withEncaps(vx9, encap.MPLS), remoteMACOf(9))}}},
		{name: "ECMP", setup: able, in: []received{{route: five9, attrs: vx9}, {route: five8, attrs: vx8}}, want: []string{net + to8 + to9}},
		{name: "VPN route wins", setup: able, in: []received{{route: five8, attrs: vx8}, {route: vpn9, attrs: mpls}}, want: []string{net + " via 10.77.1.9/99/MPLS"}},
		{name: "VPN route with lower LOCAL_PREF", setup: able, in: []received{{route: five8, attrs: vx8}, {route: vpn9, attrs: withPref(mpls, 99)}}, want: []string{net + to8}},
		{name: "hash order", setup: able, in: []received{{route: five9, attrs: ordered}}, want: []string{net + to9}},
		{name: "our own address as next hop", setup: able, in: []received{{route: five9, attrs: func() wire.LocalAttrs { a := vx9; a.NextHop = addr("10.77.2.1"); return a }()}}},
		{name: "own route wins", setup: able, in: []received{{route: remotePrefix5(9, "192.0.2.5/32"), attrs: vx9}}},
	} {
		t.Run(tt.name, tt.run(dataplane.IPVPN, vrf(1, "192.0.2.5")))
	}
	t.Run("not for an EVI", importCase{setup: setup{evpnCaps: overVXLAN}, in: []received{{route: five9, attrs: vx9}}}.run(dataplane.EVPN, evpn(1, "192.0.2.5")))
}

// The routes of an endpoint for each value of advertise_as.
func TestAdvertiseAs(t *testing.T) {
	t.Parallel()
	const five = "VRF-1 evpn:prefix::10.77.0.1:0:-:0:192.0.2.5/32: label 1 (16) via 10.77.2.1 pref 100 [encap:VXLAN router-mac:00:00:5e:00:53:01 target:64512:1]"
	vpn5 := strings.Replace(ip5, "encap:MPLS", "encap:MPLS encap:VXLAN", 1)
	order := func(a *vpn.Attachment) { a.HashOrder = 7 }
	for _, tt := range []struct {
		name  string
		in    vpn.Attachment
		want  []string
		l3vni string // in the plane
	}{
		{"default", vrf(1, "192.0.2.5"), []string{vpn5}, ""},
		{"vpn", vrf(1, "192.0.2.5", advertise(vpn.AsVPN)), []string{vpn5}, ""},
		{"evpn", vrf(1, "192.0.2.5", advertise(vpn.AsEVPN)), []string{five}, " l3vni"},
		{"both", vrf(1, "192.0.2.5", advertise(vpn.AsBoth)), []string{vpn5, five}, " l3vni"},
		{"LOCAL_PREF and hash order", vrf(1, "192.0.2.5", advertise(vpn.AsEVPN), pref(150), order), []string{strings.Replace(strings.Replace(five, "[", "[consistentHashSortOrder:7 ", 1), "pref 100", "pref 150", 1)}, " l3vni"},
		{"to-port", vrf(1, "192.0.2.5", advertise(vpn.AsEVPN), direction(dataplane.ToPort)), []string{five}, " l3vni"},
		{"from-port", vrf(1, "192.0.2.5", advertise(vpn.AsBoth), direction(dataplane.FromPort)), nil, " l3vni"},
		{"subnet: own RD", vrf(1, "192.0.2.5/24", advertise(vpn.AsEVPN), subnet), []string{strings.Replace(strings.Replace(five, "2.5/32", "2.0/24", 1), "0.1:0:", "0.1:1:", 1)}, " l3vni"},
		{"IPv6", vrf(1, "2001:db8::5", advertise(vpn.AsEVPN)), []string{strings.Replace(five, "192.0.2.5/32", "2001:db8::5/128", 1)}, " l3vni"},
		{"given VNI", vrf(1, "192.0.2.5", advertise(vpn.AsEVPN), vni(5000)), []string{strings.Replace(five, "label 1 (16)", "label 312 (5000)", 1)}, " l3vni"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{ipvpnCaps: overVXLAN})
				n.attach(tt.in)
				n.wantRoutes(tt.want...)
				if got := strings.Contains(n.plane.String(), "l3vni"); got != (tt.l3vni != "") {
					t.Errorf("plane:\n%s", n.plane)
				}
				wantLines(t, "breaches of the driver contract", nil, n.plane.Breaches())
				n.detach(tt.in)
				n.wantNothing()
			})
		})
	}
}

// Within the node, what a type 5 route leads to is an endpoint with a label: for the
// VRF itself, and for another VRF that imports the route.
func TestType5RoutesWithinTheNode(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{ipvpnCaps: overVXLAN})
		n.attach(
			vrf(1, "192.0.2.5", advertise(vpn.AsEVPN)), vrf(2, "192.0.2.6", onPort("tap2")),
			vrf(3, "192.0.2.7", named("green")),
		)
		all := []string{"prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS", "prefix 192.0.2.6/32 via 10.77.2.1/18/MPLS", "prefix 192.0.2.7/32 via 10.77.2.1/20/MPLS"}
		for _, id := range []string{"blue", "green"} {
			wantLines(t, "prefixes of "+id, all, n.prefixes(id))
		}
		wantLines(t, "breaches of the driver contract", nil, n.plane.Breaches())
		n.detach(vrf(1, "192.0.2.5"))
		wantLines(t, "prefixes of green when one is gone", all[1:], n.prefixes("green"))
		// The address moves to another MAC, with another label: the routes are the same.
		n.attach(vrf(4, "192.0.2.5"))
		n.detach(vrf(4, "192.0.2.5"))
		n.attach(vrf(2, "192.0.2.5", onPort("tap2")))
		wantLines(t, "prefixes of green when it is back", []string{"prefix 192.0.2.5/32 via 10.77.2.1/18/MPLS", all[1], all[2]}, n.prefixes("green"))
	})
}

// prefixes lists the routes that a VRF has in the plane.
func (n *node) prefixes(id string) (out []string) {
	for _, e := range n.plane.Entries(dataplane.IPVPN, id) {
		if strings.HasPrefix(e, "prefix ") {
			out = append(out, e)
		}
	}
	return out
}

// Two nodes reach each other over the wire by type 5 routes, IPv4 and IPv6, over
// either underlay; and nothing is left when they part.
func TestTwoNodesWithType5(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		tunnel6 bool
		via     string
	}{{"over IPv4", false, "10.77.2.1"}, {"over IPv6", true, "2001:db8:2::1"}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				other := func(c *dataplane.Capabilities) { overVXLAN(c); c.RouterMAC = remoteMACOf(2) }
				a := newNode(t, setup{number: 1, ipvpnCaps: overVXLAN, tunnel6: tt.tunnel6})
				b := newNode(t, setup{number: 2, ipvpnCaps: other, tunnel6: tt.tunnel6})
				end := connect(a, b)
				a.attach(
					vrf(1, "192.0.2.5", advertise(vpn.AsEVPN), vni(5000)), vrf(1, "2001:db8::5"), vrf(2, "198.51.100.9/24", subnet),
					vrf(5, "203.0.113.5", named("green"), exports("64512:1")), vrf(5, "2001:db8:9::5", named("green"), exports("64512:1")),
				)
				b.attach(vrf(6, "192.0.2.10", advertise(vpn.AsBoth)))
				far := " via " + tt.via + "/5000/VXLAN/00:00:5e:00:53:01"
				own := "prefix 192.0.2.10/32 via " + b.Tunnel[dataplane.IPVPN].String() + "/17/MPLS"
				wantLines(t, "prefixes", []string{
					own, "prefix 192.0.2.5/32" + far, "prefix 198.51.100.0/24" + far, "prefix 2001:db8:9::5/128 via " + tt.via + "/19/MPLS",
					"prefix 2001:db8::5/128" + far, "prefix 203.0.113.5/32 via " + tt.via + "/19/MPLS",
				}, b.prefixes("blue"))
				end()
				wantLines(t, "prefixes when the session has ended", []string{own}, b.prefixes("blue"))
				wantLines(t, "breaches of the driver contract", nil, append(a.plane.Breaches(), b.plane.Breaches()...))
			})
		})
	}
}

func TestAdvertiseAsRefusals(t *testing.T) {
	t.Parallel()
	macOnly := func(c *dataplane.Capabilities) { c.RouterMAC = routerMAC }
	vxlanOnly := func(c *dataplane.Capabilities) { c.Encaps = []encap.Type{encap.VXLAN} }
	for _, tt := range []struct {
		name string
		caps func(*dataplane.Capabilities)
		in   vpn.Attachment
		want string // field
	}{
		{"driver without MAC", vxlanOnly, vrf(1, "192.0.2.5", advertise(vpn.AsEVPN)), "advertise_as"},
		{"driver without VXLAN", macOnly, vrf(1, "192.0.2.5", advertise(vpn.AsBoth)), "advertise_as"},
		{"vpn is always possible", macOnly, vrf(1, "192.0.2.5", advertise(vpn.AsVPN)), ""},
		{"unknown value", overVXLAN, vrf(1, "192.0.2.5", advertise("l2vpn")), "advertise_as"},
		{"EVPN", overVXLAN, evpn(1, "192.0.2.5", advertise(vpn.AsVPN)), "advertise_as"},
		{"given VNI that is a label", overVXLAN, vrf(1, "192.0.2.5", named("pink"), advertise(vpn.AsBoth), vni(17)), "vni"},
		{"given VNI of another instance", overVXLAN, vrf(1, "192.0.2.5", named("pink"), advertise(vpn.AsBoth), vni(16)), "vni"},
		{"the same VNI without type 5", overVXLAN, vrf(1, "192.0.2.5", named("pink"), vni(17)), ""},
		{"a VNI that is no label", overVXLAN, vrf(1, "192.0.2.5", named("pink"), advertise(vpn.AsBoth), vni(18)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{ipvpnCaps: tt.caps})
				n.attach(vrf(9, "192.0.2.9", named("first"))) // has the labels 16 and 17
				before := n.state()
				err := n.Attach(context.Background(), tt.in)
				settle()
				wantRefused(t, err, tt.want)
				if err != nil {
					n.wantState(before)
				}
			})
		})
	}
}

// A VNI that type 5 routes announce is never a label, as long as the instance is there.
func TestVNIOfType5IsNoLabel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{ipvpnCaps: overVXLAN})
		blue := vrf(1, "192.0.2.5", advertise(vpn.AsEVPN), vni(17))
		n.attach(blue)
		if got, want := n.Labels()[17], n.Instance("blue").Name; got != want {
			t.Errorf("label 17 is of %q, want %q", got, want)
		}
		n.attach(vrf(2, "192.0.2.6"), vrf(3, "192.0.2.7"))
		for _, e := range n.Instance("blue").Snapshot().Endpoints {
			if e.Label == 17 {
				t.Errorf("the VNI is the label of %s", e.IP)
			}
		}
		n.detach(blue, vrf(2, "192.0.2.6"), vrf(3, "192.0.2.7"))
		n.wantNothing()
		n.attach(blue) // and it is free again
	})
}

func TestAdvertiseAsIsFixed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{ipvpnCaps: overVXLAN})
		n.attach(vrf(1, "192.0.2.5", advertise(vpn.AsEVPN)))
		before := n.routes()
		n.attach(vrf(1, "192.0.2.5"))
		if log := n.log.String(); strings.Contains(log, "advertise_as") {
			t.Errorf("an attach that leaves it out is logged:\n%s", log)
		}
		n.attach(vrf(1, "192.0.2.5", advertise(vpn.AsVPN)))
		if log := n.log.String(); !strings.Contains(log, "advertise_as is fixed at creation of the instance") {
			t.Errorf("another value is not logged:\n%s", log)
		}
		wantLines(t, "routes", before, n.routes())
		if got := n.Instance("blue").AdvertiseAs; got != vpn.AsEVPN {
			t.Errorf("advertise_as %q, want evpn", got)
		}
	})
}
