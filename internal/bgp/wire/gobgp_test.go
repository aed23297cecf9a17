// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// gobgpRoute is a route as GoBGP builds it and as we have it.
type gobgpRoute struct {
	name string
	in   bgp.NLRI
	want Route
	// lossy is set when the NLRI has members that we do not keep.
	lossy bool
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var (
	testRD  = RD{0, 1, 192, 0, 2, 1, 0, 5}
	testMAC = ethernet.MAC{2, 0, 0, 0, 0, 1}
	testESI = bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}}
	zeroESI = bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: make([]byte, 9)}
)

func gobgpRD(rd RD) bgp.RouteDistinguisherInterface { return bgp.GetRouteDistinguisher(rd[:]) }

func gobgpFamily(f Family) bgp.Family { return bgp.NewFamily(f.AFI, f.SAFI) }

// gobgpRoutes lists routes of all families, built with GoBGP.
func gobgpRoutes(t testing.TB) []gobgpRoute {
	routes := append(gobgpVPNRoutes(t), gobgpEVPNRoutes(t)...)
	routes = append(routes, gobgpRTCRoutes(t)...)
	return append(routes, gobgpFlowRoutes(t)...)
}

func gobgpVPNRoutes(t testing.TB) []gobgpRoute {
	as2, as4 := RD{0, 0, 0xfc, 0, 0, 0, 0, 9}, RD{0, 2, 0, 1, 0x86, 0xa0, 0, 7}
	var routes []gobgpRoute
	for _, r := range []struct {
		prefix string
		rd     RD
		labels []uint32
	}{
		{"192.0.2.10/32", testRD, []uint32{17}},
		{"203.0.113.0/24", as2, []uint32{1048575}},
		{"10.8.0.0/13", as4, []uint32{16}},
		{"0.0.0.0/0", testRD, []uint32{3}},
		{"198.51.100.0/25", testRD, []uint32{17, 18, 19}},
		{"2001:db8::10/128", testRD, []uint32{17}},
		{"2001:db8:8000::/33", as2, []uint32{18}},
		{"::/0", as4, []uint32{0xfffff}},
		{"2001:db8::/64", testRD, []uint32{17, 18}},
	} {
		p := netip.MustParsePrefix(r.prefix)
		nlri := must(bgp.NewLabeledVPNIPAddrPrefix(p, *bgp.NewMPLSLabelStack(r.labels...), gobgpRD(r.rd)))(t)
		want := Route{NLRI: VPNRoute(r.rd, p), Label: r.labels[0] << 4, MultiLabel: len(r.labels) > 1}
		if !want.MultiLabel {
			want.Label |= 1
		}
		routes = append(routes, gobgpRoute{"VPN " + r.prefix, nlri, want, want.MultiLabel})
	}
	return routes
}

func gobgpEVPNRoutes(t testing.TB) []gobgpRoute {
	v4, v6 := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	rd := gobgpRD(testRD)
	macip := func(ip netip.Addr, tag uint32, labels ...uint32) bgp.NLRI {
		return must(bgp.NewEVPNMacIPAdvertisementRoute(rd, zeroESI, tag, testMAC.String(), ip, labels))(t)
	}
	tagged := MACIPRoute(testRD, testMAC, v4)
	tagged.Tag = 0xfffffffe
	taggedIMET := IMETRoute(testRD, v4)
	taggedIMET.Tag = 7
	prefix := func(p string, tag uint32) NLRI {
		pp := netip.MustParsePrefix(p)
		n := NLRI{Kind: KindPrefix, RD: testRD, Bits: uint8(pp.Bits()), Tag: tag}
		setAddr(&n, pp.Addr())
		if pp.Addr().Is6() {
			n.Tag |= prefixIPv6
		}
		return n
	}
	ad := NLRI{Kind: KindAD, RD: testRD, Tag: 0xffffffff, Addr: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}
	segment := func(ip netip.Addr) []byte {
		raw := append([]byte{0}, testESI.Value...)
		return append(append(raw, byte(ip.BitLen())), ip.AsSlice()...)
	}
	es := func(ip netip.Addr) Route {
		raw := segment(ip)
		return Route{NLRI: NLRI{Kind: KindES, RD: testRD, Addr: digest(raw)}, Raw: raw}
	}
	overlay := unhex(t, "00010203040506070809"+"00000000"+"18cb007100"+"c633640a"+"001388")
	overlay6 := unhex(t, "00010203040506070809"+"00000000"+"3020010db8000100000000000000000000"+"00000000000000000000000000000000"+"000000")
	return []gobgpRoute{
		{"EVPN 1", bgp.NewEVPNEthernetAutoDiscoveryRoute(rd, testESI, 0xffffffff, 16), Route{NLRI: ad, Label: 16}, false},
		{"EVPN 2 MAC only", macip(netip.Addr{}, 0, 16), Route{NLRI: MACIPRoute(testRD, testMAC, netip.Addr{}), Label: 16}, false},
		{"EVPN 2 IPv4", macip(v4, 0, 0xffffff), Route{NLRI: MACIPRoute(testRD, testMAC, v4), Label: 0xffffff}, false},
		{"EVPN 2 IPv6", macip(v6, 0, 5000), Route{NLRI: MACIPRoute(testRD, testMAC, v6), Label: 5000}, false},
		{"EVPN 2 tag", macip(v4, 0xfffffffe, 16), Route{NLRI: tagged, Label: 16}, false},
		{"EVPN 2 two labels", macip(v4, 0, 16, 99), Route{NLRI: MACIPRoute(testRD, testMAC, v4), Label: 16}, true},
		{"EVPN 2 ESI", must(bgp.NewEVPNMacIPAdvertisementRoute(rd, testESI, 0, testMAC.String(), v4, []uint32{16}))(t), Route{NLRI: MACIPRoute(testRD, testMAC, v4), Label: 16}, true},
		{"EVPN 3 IPv4", must(bgp.NewEVPNMulticastEthernetTagRoute(rd, 0, v4))(t), Route{NLRI: IMETRoute(testRD, v4)}, false},
		{"EVPN 3 IPv6", must(bgp.NewEVPNMulticastEthernetTagRoute(rd, 0, v6))(t), Route{NLRI: IMETRoute(testRD, v6)}, false},
		{"EVPN 3 tag", must(bgp.NewEVPNMulticastEthernetTagRoute(rd, 7, v4))(t), Route{NLRI: taggedIMET}, false},
		{"EVPN 4 IPv4", must(bgp.NewEVPNEthernetSegmentRoute(rd, testESI, v4))(t), es(v4), false},
		{"EVPN 4 IPv6", must(bgp.NewEVPNEthernetSegmentRoute(rd, testESI, v6))(t), es(v6), false},
		{"EVPN 5 IPv4", must(bgp.NewEVPNIPPrefixRoute(rd, zeroESI, 5, 24, netip.MustParseAddr("203.0.113.0"), netip.IPv4Unspecified(), 5000))(t), Route{NLRI: prefix("203.0.113.0/24", 5), Label: 5000}, false},
		{"EVPN 5 IPv6", must(bgp.NewEVPNIPPrefixRoute(rd, zeroESI, 0, 48, netip.MustParseAddr("2001:db8:1::"), netip.IPv6Unspecified(), 5000))(t), Route{NLRI: prefix("2001:db8:1::/48", 0), Label: 5000}, false},
		{"EVPN 5 default", must(bgp.NewEVPNIPPrefixRoute(rd, zeroESI, 0, 0, netip.IPv6Unspecified(), netip.IPv6Unspecified(), 1))(t), Route{NLRI: prefix("::/0", 0), Label: 1}, false},
		{"EVPN 5 gateway", must(bgp.NewEVPNIPPrefixRoute(rd, testESI, 0, 24, netip.MustParseAddr("203.0.113.0"), v4, 5000))(t), Route{NLRI: prefix("203.0.113.0/24", 0), Label: 5000, Raw: overlay}, false},
		{"EVPN 5 ESI", must(bgp.NewEVPNIPPrefixRoute(rd, testESI, 0, 48, netip.MustParseAddr("2001:db8:1::"), netip.IPv6Unspecified(), 0))(t), Route{NLRI: prefix("2001:db8:1::/48", 0), Raw: overlay6}, false},
	}
}

func gobgpRTCRoutes(t testing.TB) []gobgpRoute {
	var routes []gobgpRoute
	for s, target := range map[string]bgp.ExtendedCommunityInterface{
		"64512:100":    must(bgp.ParseRouteTarget("64512:100"))(t),
		"192.0.2.1:5":  must(bgp.ParseRouteTarget("192.0.2.1:5"))(t),
		"4200000001:7": bgp.NewFourOctetAsSpecificExtended(bgp.EC_SUBTYPE_ROUTE_TARGET, 4200000001, 7, true),
	} {
		rt := must(ParseRT(s))(t)
		in := bgp.NewRouteTargetMembershipNLRI(64512, target)
		routes = append(routes, gobgpRoute{"RTC " + s, in, Route{NLRI: RTCRoute(64512, rt)}, false})
	}
	rt := must(ParseRT("64512:0"))(t)
	short := func(length uint8, rd RD) gobgpRoute {
		n := bgp.NewRouteTargetMembershipNLRI(64512, must(bgp.ParseRouteTarget("64512:0"))(t))
		n.Length = length
		return gobgpRoute{fmt.Sprintf("RTC /%d", length), n, Route{NLRI: NLRI{Kind: KindRTC, Bits: length, Tag: 64512, RD: rd}}, false}
	}
	all := bgp.NewRouteTargetMembershipNLRI(0, nil)
	all.Length = 0
	return append(routes,
		gobgpRoute{"RTC default", all, Route{NLRI: NLRI{Kind: KindRTC}}, false},
		short(64, RD(rt)), short(48, RD{0, 2}), short(32, RD{}))
}

func gobgpFlowRoutes(t testing.TB) []gobgpRoute {
	rd := gobgpRD(testRD)
	dst4 := must(bgp.NewIPAddrPrefix(netip.MustParsePrefix("203.0.113.0/24")))(t)
	dst6 := must(bgp.NewIPAddrPrefix(netip.MustParsePrefix("2001:db8::/32")))(t)
	port := bgp.NewFlowSpecComponent(bgp.FLOW_SPEC_TYPE_DST_PORT, []*bgp.FlowSpecComponentItem{bgp.NewFlowSpecComponentItem(bgp.DEC_NUM_OP_EQ, 80)})
	in4 := must(bgp.NewFlowSpecVPN(bgp.RF_FS_IPv4_VPN, rd, []bgp.FlowSpecComponentInterface{bgp.NewFlowSpecDestinationPrefix(dst4), port}))(t)
	in6 := must(bgp.NewFlowSpecVPN(bgp.RF_FS_IPv6_VPN, rd, []bgp.FlowSpecComponentInterface{bgp.NewFlowSpecDestinationPrefix6(dst6, 0), port}))(t)
	raw4 := unhex(t, "0118cb0071"+"058150")
	raw6 := unhex(t, "01200020010db8"+"058150")
	return []gobgpRoute{
		{"FlowSpec IPv4", in4, Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD, Addr: digest(raw4)}, Raw: raw4}, false},
		{"FlowSpec IPv6", in6, Route{NLRI: NLRI{Kind: KindFlowVPNv6, RD: testRD, Addr: digest(raw6)}, Raw: raw6}, false},
	}
}

// readAll reads NLRI octets to the end.
func readAll(f Family, b []byte, withdraw bool) (routes []Route, skipped int, err *Error) {
	r := NewNLRIReader(f, b, withdraw)
	for {
		var route Route
		ok, err := r.Next(&route)
		if !ok {
			return routes, r.Skipped(), err
		}
		routes = append(routes, route)
	}
}

func TestReadsNLRIsOfGoBGP(t *testing.T) {
	t.Parallel()
	for _, tt := range gobgpRoutes(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := must(tt.in.Serialize())(t)
			got, skipped, err := readAll(tt.want.NLRI.Kind.Family(), b, false)
			if err != nil || skipped != 0 {
				t.Fatalf("%d skipped, %v", skipped, err)
			}
			if diff := cmp.Diff([]Route{tt.want}, got); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWritesNLRIsAsGoBGPDoes(t *testing.T) {
	t.Parallel()
	for _, tt := range gobgpRoutes(t) {
		if tt.lossy {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := AppendNLRI(nil, tt.want, false)
			if diff := cmp.Diff(must(tt.in.Serialize())(t), got); diff != "" {
				t.Errorf("octets (-gobgp +ours):\n%s", diff)
			}
			back := must(bgp.NLRIFromSlice(gobgpFamily(tt.want.NLRI.Kind.Family()), got))(t)
			if diff := cmp.Diff(got, must(back.Serialize())(t)); diff != "" {
				t.Errorf("GoBGP reads another route (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNLRIsSurviveWithdrawEncoding(t *testing.T) {
	t.Parallel()
	for _, tt := range gobgpRoutes(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := tt.want.NLRI.Kind.Family()
			b := AppendNLRI([]byte("before"), tt.want, true)[len("before"):]
			got, _, err := readAll(f, b, true)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d routes, %v", len(got), err)
			}
			if diff := cmp.Diff(tt.want.NLRI, got[0].NLRI); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
			if _, gerr := bgp.NLRIFromSlice(gobgpFamily(f), b); gerr != nil {
				t.Errorf("GoBGP refuses the withdraw: %v", gerr)
			}
		})
	}
}
