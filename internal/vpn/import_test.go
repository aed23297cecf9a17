// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// received is a route with its attributes, or its withdrawal.
type received struct {
	route    wire.Route
	attrs    wire.LocalAttrs
	withdraw bool
}

// importCase is what an instance makes of routes of a peer.
type importCase struct {
	name  string
	setup setup
	own   []vpn.Attachment // beside the endpoint that makes the instance
	in    []received
	want  []string // remote entries
}

func (tt importCase) run(typ dataplane.VPNType, first vpn.Attachment) func(*testing.T) {
	return func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			for _, order := range []string{"instance first", "routes first"} {
				n := newNode(t, tt.setup)
				p := n.peer("BGP-10.77.0.9")
				if order == "instance first" {
					n.attach(first)
					n.attach(tt.own...)
					pass()
				}
				for _, r := range tt.in {
					if r.withdraw {
						p.withdraw(r.route)
					} else {
						p.announce(r.route, r.attrs)
					}
				}
				if order != "instance first" {
					n.attach(first)
					n.attach(tt.own...)
				}
				var got []string
				own := 0 // the route of a VRF's first endpoint
				for _, e := range n.plane.Entries(typ, first.InstanceID) {
					switch {
					case strings.HasPrefix(e, "prefix 192.0.2.5/32 via 10.77.2.1/17/"):
						own++
					case e[:5] != "local" && e[:5] != "port ":
						got = append(got, e)
					}
				}
				wantLines(t, "remote entries, "+order, tt.want, got)
				if want := map[dataplane.VPNType]int{dataplane.IPVPN: 1}[typ]; own != want {
					t.Errorf("%s: own route %d times, want %d", order, own, want)
				}
				wantLines(t, "breaches of the driver contract", nil, n.plane.Breaches())
			}
		})
	}
}

func TestEVPNImport(t *testing.T) {
	t.Parallel()
	vx := remoteAttrs(9, "64512:1")
	plain, mpls := withEncaps(vx), withEncaps(vx, encap.MPLS)
	v6hop := vx
	v6hop.NextHop = addr("2001:db8::9")
	twin := remoteFlood(9)
	twin.NLRI.RD = remoteRD(8)
	noVNI, etag := remoteMAC(9, 7, ""), remoteMAC(9, 7, "")
	noVNI.Label, etag.NLRI.Tag = 0, 42
	tunnel := vx
	tunnel.PMSI = &wire.PMSI{TunnelType: 3, Label: 99}
	other := func(m int, ip string) wire.Route { // another node's route for a MAC
		r := remoteMAC(8, m, ip)
		r.Label = 88
		return r
	}
	lower := remoteAttrs(8, "64512:1")
	strict, lax := setup{}, setup{accept: true}
	to7 := "mac 02:00:00:00:00:07 via 10.77.1.9/99/VXLAN"
	for _, tt := range []importCase{
		{name: "MAC", in: []received{{route: remoteMAC(9, 7, ""), attrs: vx}}, want: []string{to7}},
		{name: "withdrawn", in: []received{{route: remoteMAC(9, 7, ""), attrs: vx}, {route: remoteMAC(9, 7, ""), withdraw: true}}},
		{
			name: "MAC with IPv4 and IPv6: neighbours for both",
			in:   []received{{route: remoteMAC(9, 7, "192.0.2.7"), attrs: vx}, {route: remoteMAC(9, 7, "2001:db8::7"), attrs: vx}},
			want: []string{to7, "neigh 02:00:00:00:00:07 ip 192.0.2.7", "neigh 02:00:00:00:00:07 ip 2001:db8::7"},
		},
		{
			name: "one of two IPs withdrawn",
			in:   []received{{route: remoteMAC(9, 7, "192.0.2.7"), attrs: vx}, {route: remoteMAC(9, 7, "192.0.2.8"), attrs: vx}, {route: remoteMAC(9, 7, "192.0.2.7"), withdraw: true}},
			want: []string{to7, "neigh 02:00:00:00:00:07 ip 192.0.2.8"},
		},
		{name: "other route target", in: []received{{route: remoteMAC(9, 7, ""), attrs: remoteAttrs(9, "64512:2")}}},
		{name: "no encapsulation, strict", setup: strict, in: []received{{route: remoteMAC(9, 7, ""), attrs: plain}}},
		{name: "no encapsulation, accepted", setup: lax, in: []received{{route: remoteMAC(9, 7, ""), attrs: plain}}, want: []string{to7}},
		{name: "other encapsulation", setup: lax, in: []received{{route: remoteMAC(9, 7, ""), attrs: mpls}}},
		{name: "one encapsulation of two", in: []received{{route: remoteMAC(9, 7, ""), attrs: withEncaps(vx, encap.MPLS, encap.VXLAN)}}, want: []string{to7}},
		{name: "next hop of the other family", in: []received{{route: remoteMAC(9, 7, ""), attrs: v6hop}}},
		{name: "VNI 0", in: []received{{route: noVNI, attrs: vx}}},
		{name: "Ethernet tag is ignored", in: []received{{route: etag, attrs: vx}}, want: []string{to7}},
		{name: "LOCAL_PREF first", in: []received{{route: remoteMAC(9, 7, ""), attrs: withPref(vx, 200)}, {route: other(7, ""), attrs: withSeq(lower, 9)}}, want: []string{to7}},
		{name: "then mobility", in: []received{{route: remoteMAC(9, 7, ""), attrs: withSeq(vx, 2)}, {route: other(7, ""), attrs: withSeq(lower, 1)}}, want: []string{to7}},
		{name: "then the lowest next hop", in: []received{{route: remoteMAC(9, 7, ""), attrs: vx}, {route: other(7, ""), attrs: lower}}, want: []string{"mac 02:00:00:00:00:07 via 10.77.1.8/88/VXLAN"}},
		{name: "local MAC beats remote", in: []received{{route: remoteMAC(9, 1, "192.0.2.7"), attrs: withPref(vx, 999)}}, want: []string{"neigh 02:00:00:00:00:01 ip 192.0.2.7"}},
		{name: "local IP beats remote", in: []received{{route: remoteMAC(9, 7, "192.0.2.5"), attrs: withPref(vx, 999)}}, want: []string{to7}},
		{
			name: "local wildcard beats remote", own: []vpn.Attachment{evpn(7, "")},
			in: []received{{route: remoteMAC(9, 7, ""), attrs: withPref(vx, 999)}},
		},
		{name: "flood", in: []received{{route: remoteFlood(9), attrs: withPMSI(vx, "10.77.1.99", 77)}}, want: []string{"flood via 10.77.1.99/77/VXLAN"}},
		{
			name: "flood, same tunnel end and VNI twice",
			in:   []received{{route: remoteFlood(9), attrs: withPMSI(vx, "10.77.1.99", 77)}, {route: twin, attrs: withPMSI(vx, "10.77.1.99", 77)}, {route: twin, withdraw: true}},
			want: []string{"flood via 10.77.1.99/77/VXLAN"},
		},
		{
			name: "flood, same tunnel end with two VNIs",
			in:   []received{{route: remoteFlood(9), attrs: withPMSI(vx, "10.77.1.99", 77)}, {route: twin, attrs: withPMSI(vx, "10.77.1.99", 78)}},
			want: []string{"flood via 10.77.1.99/77/VXLAN", "flood via 10.77.1.99/78/VXLAN"},
		},
		{
			name: "flood, VNI changes",
			in:   []received{{route: remoteFlood(9), attrs: withPMSI(vx, "10.77.1.99", 77)}, {route: remoteFlood(9), attrs: withPMSI(vx, "10.77.1.99", 78)}},
			want: []string{"flood via 10.77.1.99/78/VXLAN"},
		},
		{name: "flood without tunnel", in: []received{{route: remoteFlood(9), attrs: vx}}},
		{name: "flood, other tunnel type", in: []received{{route: remoteFlood(9), attrs: tunnel}}},
		{name: "flood without encapsulation, strict", in: []received{{route: remoteFlood(9), attrs: withPMSI(plain, "10.77.1.99", 77)}}},
		{name: "flood without encapsulation, accepted", setup: lax, in: []received{{route: remoteFlood(9), attrs: withPMSI(plain, "10.77.1.99", 77)}}, want: []string{"flood via 10.77.1.99/77/VXLAN"}},
		{name: "VPN route", in: []received{{route: remotePrefix(9, "203.0.113.0/24"), attrs: vx}}},
	} {
		t.Run(tt.name, tt.run(dataplane.EVPN, evpn(1, "192.0.2.5")))
	}
}

func withPref(a wire.LocalAttrs, pref uint32) wire.LocalAttrs {
	a.LocalPref = pref
	return a
}

func TestVRFImport(t *testing.T) {
	t.Parallel()
	mpls := withEncaps(remoteAttrs(9, "64512:1"), encap.MPLS)
	second := withEncaps(remoteAttrs(8, "64512:1"), encap.MPLS)
	two := remotePrefix(9, "203.0.113.0/24")
	two.MultiLabel = true
	only4 := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.IPv4Only = true }}
	single := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.ECMP = false }}
	vxlan := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.Encaps = []encap.Type{encap.VXLAN, encap.MPLS} }}
	mplsFirst := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.Encaps = []encap.Type{encap.MPLS, encap.VXLAN} }}
	strict := setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.AcceptDefault = false }}
	net9, net8 := remotePrefix(9, "203.0.113.0/24"), remotePrefix(8, "203.0.113.0/24")
	to9 := "prefix 203.0.113.0/24 via 10.77.1.9/99/MPLS"
	for _, tt := range []importCase{
		{name: "prefix", in: []received{{route: net9, attrs: mpls}}, want: []string{to9}},
		{name: "IPv6 prefix", in: []received{{route: remotePrefix(9, "2001:db8:1::/48"), attrs: mpls}}, want: []string{"prefix 2001:db8:1::/48 via 10.77.1.9/99/MPLS"}},
		{name: "IPv6 prefix, driver without", setup: only4, in: []received{{route: remotePrefix(9, "2001:db8:1::/48"), attrs: mpls}, {route: net9, attrs: mpls}}, want: []string{to9}},
		{name: "two labels are not installed", in: []received{{route: two, attrs: mpls}}},
		{name: "no encapsulation", in: []received{{route: net9, attrs: withEncaps(mpls)}}, want: []string{to9}},
		{name: "no encapsulation, strict driver", setup: strict, in: []received{{route: net9, attrs: withEncaps(mpls)}}},
		{name: "other encapsulation", in: []received{{route: net9, attrs: withEncaps(mpls, encap.GRE)}}},
		{name: "the driver's best of two: VXLAN", setup: vxlan, in: []received{{route: net9, attrs: withEncaps(mpls, encap.MPLS, encap.VXLAN)}}, want: []string{"prefix 203.0.113.0/24 via 10.77.1.9/99/VXLAN"}},
		{name: "the driver's best of two: MPLS", setup: mplsFirst, in: []received{{route: net9, attrs: withEncaps(mpls, encap.MPLS, encap.VXLAN)}}, want: []string{to9}},
		{name: "MPLS when the route has only that", setup: vxlan, in: []received{{route: net9, attrs: mpls}}, want: []string{to9}},
		{name: "ECMP", in: []received{{route: net9, attrs: mpls}, {route: net8, attrs: second}}, want: []string{"prefix 203.0.113.0/24 via 10.77.1.8/99/MPLS via 10.77.1.9/99/MPLS"}},
		{name: "same next hop twice", in: []received{{route: net9, attrs: mpls}, {route: net8, attrs: mpls}}, want: []string{to9}},
		{name: "better LOCAL_PREF alone", in: []received{{route: net9, attrs: withPref(mpls, 200)}, {route: net8, attrs: second}}, want: []string{to9}},
		{name: "better withdrawn", in: []received{{route: net9, attrs: mpls}, {route: net8, attrs: withPref(second, 200)}, {route: net8, withdraw: true}}, want: []string{to9}},
		{name: "best ones only, driver without ECMP", setup: single, in: []received{{route: net9, attrs: withPref(mpls, 200)}, {route: net8, attrs: second}}, want: []string{to9}},
		{name: "EVPN route", in: []received{{route: remoteMAC(9, 7, "192.0.2.7"), attrs: mpls}}},
	} {
		t.Run(tt.name, tt.run(dataplane.IPVPN, vrf(1, "192.0.2.5")))
	}
}

// Without ECMP one of several equal routes is used, and it stays the same.
func TestOneOfEqualRoutes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.ECMP = false }})
		n.attach(vrf(1, "192.0.2.5"))
		p := n.peer("BGP-10.77.0.254")
		for node := 2; node < 9; node++ {
			p.announce(remotePrefix(node, "203.0.113.0/24"), withEncaps(remoteAttrs(node, "64512:1"), encap.MPLS))
		}
		before := n.plane.Entries(dataplane.IPVPN, "blue")
		n.plane.Log()
		p.announce(remotePrefix(9, "203.0.113.0/24"), withPref(withEncaps(remoteAttrs(9, "64512:1"), encap.MPLS), 50)) // worse
		wantLines(t, "operations", nil, n.plane.Log())
		wantLines(t, "entries", before, n.plane.Entries(dataplane.IPVPN, "blue"))
	})
}

// The hash order of a route is handed to the driver.
func TestHashOrderReachesTheDriver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(vrf(1, "192.0.2.5"))
		a := withEncaps(remoteAttrs(9, "64512:1"), encap.MPLS)
		a.Communities = append(a.Communities, wire.HashOrderCommunity(3))
		n.peer("BGP-10.77.0.9").announce(remotePrefix(9, "203.0.113.0/24"), a)
		var got []string
		for _, e := range n.Instance("blue").Forwarding().Entries() {
			for _, nh := range e.NextHops {
				got = append(got, fmt.Sprintf("%s order %d", nh, nh.Order))
			}
		}
		wantLines(t, "next hops", []string{"10.77.2.1/17/MPLS order 0", "10.77.1.9/99/MPLS order 3"}, got)
	})
}

// Instances of one node exchange routes, without a peer.
func TestLocalInstancesExchangeRoutes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(vrf(1, "192.0.2.5"), vrf(2, "192.0.2.6", named("green")), vrf(3, "192.0.2.7", named("apart"), imports("64512:9"), exports("64512:9")))
		wantLines(t, "blue", []string{
			"local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17", "port dev tap1",
			"prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS", "prefix 192.0.2.6/32 via 10.77.2.1/19/MPLS",
		}, n.plane.Entries(dataplane.IPVPN, "blue"))
		wantLines(t, "green", []string{
			"local-prefix dev tap1 02:00:00:00:00:02 ip 192.0.2.6 192.0.2.6/32 label 19", "port dev tap1",
			"prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS", "prefix 192.0.2.6/32 via 10.77.2.1/19/MPLS",
		}, n.plane.Entries(dataplane.IPVPN, "green"))
		n.detach(vrf(2, "192.0.2.6", named("green")))
		wantLines(t, "blue", []string{"local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17", "port dev tap1", "prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS"}, n.plane.Entries(dataplane.IPVPN, "blue"))
	})
}

// Remote entries come and go with local endpoints.
func TestLocalEndpointCoversRemoteRoute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5"))
		n.peer("BGP-10.77.0.9").announce(remoteMAC(9, 7, "192.0.2.7"), remoteAttrs(9, "64512:1"))
		remote := []string{"evpn red vni 16", "  local-mac dev tap1 02:00:00:00:00:01", "  mac 02:00:00:00:00:07 via 10.77.1.9/99/VXLAN", "  neigh 02:00:00:00:00:07 ip 192.0.2.7", "  port dev tap1"}
		n.wantPlane(remote...)
		n.attach(evpn(7, "192.0.2.7"))
		n.wantPlane("evpn red vni 16", "  local-mac dev tap1 02:00:00:00:00:01", "  local-mac dev tap1 02:00:00:00:00:07", "  port dev tap1")
		n.detach(evpn(7, "192.0.2.7"))
		n.wantPlane(remote...)
	})
}
