// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

func TestRDText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   RD
		want string
	}{
		{name: "made", in: MakeRD(netip.MustParseAddr("192.0.2.1"), 65535), want: "192.0.2.1:65535"},
		{name: "type 0", in: RD{0, 0, 0xfc, 0, 0, 1, 0, 0}, want: "64512:65536"},
		{name: "type 1", in: RD{0, 1, 10, 77, 0, 1, 0, 5}, want: "10.77.0.1:5"},
		{name: "type 2", in: RD{0, 2, 0, 1, 0, 0, 0, 7}, want: "65536:7"},
		{name: "type 3", in: RD{0, 3, 1, 2, 3, 4, 5, 6}, want: "0x0003:010203040506"},
		{name: "type 256", in: RD{1, 0, 1, 2, 3, 4, 5, 6}, want: "0x0100:010203040506"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.in.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRT(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want RT
		bad  bool
	}{
		{name: "OK two-octet AS", in: "64512:100", want: RT{0, 2, 0xfc, 0, 0, 0, 0, 100}},
		{name: "OK largest two-octet AS and number", in: "65535:4294967295", want: RT{0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{name: "OK zero", in: "0:0", want: RT{0, 2}},
		{name: "OK smallest four-octet AS", in: "65536:65535", want: RT{2, 2, 0, 1, 0, 0, 0xff, 0xff}},
		{name: "OK largest four-octet AS", in: "4294967295:1", want: RT{2, 2, 0xff, 0xff, 0xff, 0xff, 0, 1}},
		{name: "OK IPv4", in: "192.0.2.1:65535", want: RT{1, 2, 192, 0, 2, 1, 0xff, 0xff}},
		{name: "bad empty", in: "", bad: true},
		{name: "bad without number", in: "64512", bad: true},
		{name: "bad empty number", in: "64512:", bad: true},
		{name: "bad empty AS", in: ":100", bad: true},
		{name: "bad letters", in: "as:100", bad: true},
		{name: "bad sign", in: "+1:100", bad: true},
		{name: "bad negative number", in: "1:-1", bad: true},
		{name: "bad space", in: "64512: 100", bad: true},
		{name: "bad three parts", in: "64512:100:1", bad: true},
		{name: "bad number", in: "64512:4294967296", bad: true},
		{name: "bad AS", in: "4294967296:1", bad: true},
		{name: "bad number of a four-octet AS", in: "65536:65536", bad: true},
		{name: "bad number of an address", in: "192.0.2.1:65536", bad: true},
		{name: "bad address", in: "192.0.2:1", bad: true},
		{name: "bad address octet", in: "192.0.2.256:1", bad: true},
		{name: "bad IPv6", in: "2001:db8::1:1", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRT(tt.in)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if err != nil {
				if !strings.Contains(err.Error(), `"`+tt.in+`"`) {
					t.Errorf("error does not name the text: %v", err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("route target (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.in, got.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommunityText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   ExtCommunity
		want string
		rt   bool
	}{
		{name: "target of AS", in: ExtCommunity{0, 2, 0xfc, 0, 0, 0, 0, 100}, want: "target:64512:100", rt: true},
		{name: "target of address", in: ExtCommunity{1, 2, 192, 0, 2, 1, 0, 5}, want: "target:192.0.2.1:5", rt: true},
		{name: "target of four-octet AS", in: ExtCommunity{2, 2, 0, 1, 0, 0, 0, 7}, want: "target:65536:7", rt: true},
		{name: "not transitive", in: ExtCommunity{0x40, 2, 0xfc, 0, 0, 0, 0, 100}, want: "0x4002fc0000000064"},
		{name: "RT record", in: ExtCommunity{0, 0x13, 0xfc, 0, 0, 0, 0, 9}, want: "rtrecord:64512:9"},
		{name: "RT record of address", in: ExtCommunity{1, 0x13, 192, 0, 2, 1, 0, 9}, want: "rtrecord:192.0.2.1:9"},
		{name: "redirect", in: ExtCommunity{0x80, 8, 0xfc, 0, 0, 0, 2, 0x5a}, want: "redirect:64512:602"},
		{name: "encapsulation", in: EncapCommunity(encap.VXLAN), want: "encap:VXLAN"},
		{name: "unknown encapsulation", in: EncapCommunity(77), want: "encap:encap-77"},
		{name: "hash order", in: HashOrderCommunity(5), want: "consistentHashSortOrder:5"},
		{name: "MAC mobility", in: MobilityCommunity(1 << 31), want: "mac-mobility:2147483648"},
		{name: "router's MAC", in: RouterMACCommunity(testMAC), want: "router-mac:02:00:00:00:00:01"},
		{name: "site of origin", in: ExtCommunity{0, 3, 0xfc, 0, 0, 0, 0, 1}, want: "0x0003fc0000000001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.in.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			if tt.in.IsRT() != tt.rt {
				t.Errorf("is a route target: %v, want %v", tt.in.IsRT(), tt.rt)
			}
		})
	}
}

func TestRouteText(t *testing.T) {
	t.Parallel()
	rt := must(ParseRT("64512:100"))(t)
	nh := netip.MustParseAddr("192.0.2.9")
	ip4, ip6 := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	prefix6 := NLRI{Kind: KindPrefix, RD: testRD, Bits: 48, Tag: 3 | prefixIPv6, Addr: netip.MustParseAddr("2001:db8::").As16()}
	tests := []struct {
		name     string
		in       Route
		id, text string
	}{
		{name: "VPNv4", in: Route{NLRI: VPNRoute(testRD, netip.MustParsePrefix("192.0.2.0/24")), Label: LabelField(17)}, id: "192.0.2.1:5 192.0.2.0/24", text: "192.0.2.0/24 label 17 next-hop 192.0.2.9 rd 192.0.2.1:5"},
		{name: "VPNv6", in: Route{NLRI: VPNRoute(testRD, netip.MustParsePrefix("2001:db8::/64")), Label: LabelField(18)}, id: "192.0.2.1:5 2001:db8::/64", text: "2001:db8::/64 label 18 next-hop 192.0.2.9 rd 192.0.2.1:5"},
		{name: "EVPN 1", in: Route{NLRI: NLRI{Kind: KindAD, RD: testRD}}, id: "l2vpn/evpn 192.0.2.1:5 00000000000000000000000000000000", text: "evpn:ethad::192.0.2.1:5:0x00000000000000000000000000000000"},
		{name: "EVPN 2", in: Route{NLRI: MACIPRoute(testRD, testMAC, ip4), Label: 5000}, id: "type 2 192.0.2.1:5 02:00:00:00:00:01 198.51.100.10", text: "evpn:macadv::192.0.2.1:5:-:0:02:00:00:00:00:01/48:198.51.100.10: label 312 (5000)"},
		{name: "EVPN 2 MAC only", in: Route{NLRI: MACIPRoute(testRD, testMAC, netip.Addr{}), Label: 16}, id: "type 2 192.0.2.1:5 02:00:00:00:00:01", text: "evpn:macadv::192.0.2.1:5:-:0:02:00:00:00:00:01/48:: label 1 (16)"},
		{name: "EVPN 3", in: Route{NLRI: IMETRoute(testRD, ip6)}, id: "type 3 192.0.2.1:5 2001:db8::10", text: "evpn:multicast::192.0.2.1:5:0:2001:db8::10"},
		{name: "EVPN 5", in: Route{NLRI: prefix6, Label: 16}, id: "type 5 192.0.2.1:5 2001:db8::/48", text: "evpn:prefix::192.0.2.1:5:-:3:2001:db8::/48: label 1 (16)"},
		{
			name: "EVPN 5 with a gateway", in: Route{NLRI: PrefixRoute(testRD, netip.MustParsePrefix("203.0.113.0/24")), Label: 16, Raw: append(append(make([]byte, 19), 198, 51, 100, 1), 0, 0, 16)},
			id: "type 5 192.0.2.1:5 203.0.113.0/24", text: "evpn:prefix::192.0.2.1:5:-:0:203.0.113.0/24: label 1 (16) gateway 198.51.100.1",
		},
		{
			name: "EVPN 5 with an ESI", in: Route{NLRI: prefix6, Raw: append([]byte{9}, make([]byte, 49)...)},
			id: "type 5 192.0.2.1:5 2001:db8::/48", text: "evpn:prefix::192.0.2.1:5:-:3:2001:db8::/48: label 0 (0) esi 09000000000000000000",
		},
		{name: "EVPN 5 with octets of no sense", in: Route{NLRI: prefix6, Raw: []byte{1}}, id: "type 5 192.0.2.1:5 2001:db8::/48", text: "evpn:prefix::192.0.2.1:5:-:3:2001:db8::/48: label 0 (0)"},
		{name: "RTC", in: Route{NLRI: RTCRoute(64512, rt)}, id: "rtc 64512:target:64512:100", text: "rtc 64512:target:64512:100"},
		{name: "RTC default", in: Route{NLRI: NLRI{Kind: KindRTC}}, id: "rtc wildcard", text: "rtc wildcard"},
		{name: "RTC short", in: Route{NLRI: NLRI{Kind: KindRTC, Bits: 64, Tag: 1, RD: RD{0, 2, 0xfc}}}, id: "rtc 1:target:64512:0/64", text: "rtc 1:target:64512:0/64"},
		{name: "FlowSpec", in: Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD}, Raw: []byte{1, 0}}, id: "ipv4/flow-vpn 192.0.2.1:5 00000000000000000000000000000000", text: "flow destination-ipv4 0.0.0.0/0 rd 192.0.2.1:5"},
		{name: "unknown", in: Route{}, id: "0/0 0:0 00000000000000000000000000000000", text: "evpn:::0:0:0x00000000000000000000000000000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff([]string{tt.id, tt.text}, []string{tt.in.NLRI.String(), tt.in.Text(nh)}); diff != "" {
				t.Errorf("texts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFamilyOfKinds(t *testing.T) {
	t.Parallel()
	want := []Family{{}, VPNv4, VPNv6, EVPN, EVPN, EVPN, EVPN, EVPN, FlowVPNv4, FlowVPNv6, RTC, {}}
	var got []Family
	opaque := 0
	for k := Kind(0); k <= KindRTC+1; k++ {
		got = append(got, k.Family())
		if k.Opaque() {
			opaque++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || opaque != 3 {
		t.Errorf("%d opaque kinds, want 3; families (-want +got):\n%s", opaque, diff)
	}
}
