// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// A type 5 route of ours, octet by octet, as GoBGP reads it too (RFC 9136 §3.1,
// RFC 9135 §8.1).
func TestPrefixRouteOnTheWire(t *testing.T) {
	t.Parallel()
	rt := must(ParseRT("64512:100"))(t)
	tests := []struct {
		name, prefix, nh string
		want             string // MP_REACH_NLRI from its AFI on
	}{
		{
			name: "IPv4", prefix: "203.0.113.77/24", nh: "192.0.2.1",
			want: "001946" + "04c0000201" + "00" + "0522" + "0001c00002010005" + "00000000000000000000" + "00000000" + "18cb007100" + "00000000" + "001388",
		},
		{
			name: "IPv6", prefix: "2001:db8:1::/48", nh: "192.0.2.1",
			want: "001946" + "04c0000201" + "00" + "053a" + "0001c00002010005" + "00000000000000000000" + "00000000" + "3020010db8000100000000000000000000" +
				"00000000000000000000000000000000" + "001388",
		},
		{
			name: "default over IPv6", prefix: "0.0.0.0/0", nh: "2001:db8::1",
			want: "001946" + "1020010db8000000000000000000000001" + "00" + "0522" + "0001c00002010005" + "00000000000000000000" + "00000000" + "0000000000" + "00000000" + "001388",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			route := Route{NLRI: PrefixRoute(testRD, netip.MustParsePrefix(tt.prefix)), Label: 5000}
			nh := netip.MustParseAddr(tt.nh)
			attrs := LocalAttrs{NextHop: nh, Communities: []ExtCommunity{EncapCommunity(encap.VXLAN), RouterMACCommunity(testMAC)}, RTs: []RT{rt}}.Build()
			p := NewPacker(MaxMessage)
			p.Announce(EVPN, attrs.Raw, nh)
			p.Add(route)
			msg := p.Flush()
			reach := unhex(t, tt.want)
			want := append([]byte{0x90, 14, 0, byte(len(reach))}, reach...)
			want = append(want, unhex(t, "40010100"+"400200"+"40050400000064"+"c01018"+"030c000000000008"+"0603020000000001"+"0002fc0000000064")...)
			if diff := cmp.Diff(want, msg[HeaderLen+4:]); diff != "" {
				t.Errorf("path attributes (-want +got):\n%s", diff)
			}
			u, routes := readMessage(t, msg)
			a, err := DecodeAttrs(u.Attrs, u.NextHop, Rules{FourOctetAS: true})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Route{route}, routes); diff != "" || a.RouterMAC != testMAC || routes[0].Recursive() {
				t.Errorf("router's MAC %s; routes (-want +got):\n%s", a.RouterMAC, diff)
			}
			checkGoBGPPrefix(t, msg, netip.MustParsePrefix(tt.prefix).Masked(), nh)
		})
	}
}

// checkGoBGPPrefix has GoBGP read a message with one type 5 route.
func checkGoBGPPrefix(t *testing.T, msg []byte, prefix netip.Prefix, nh netip.Addr) {
	t.Helper()
	attrs := must(bgp.ParseBGPMessage(msg))(t).Body.(*bgp.BGPUpdate).PathAttributes
	reach := attrs[0].(*bgp.PathAttributeMpReachNLRI)
	r := reach.Value[0].NLRI.(*bgp.EVPNNLRI).RouteTypeData.(*bgp.EVPNIPPrefixRoute)
	if got := netip.PrefixFrom(r.IPPrefix, int(r.IPPrefixLength)); got != prefix || !r.GWIPAddress.IsUnspecified() || r.Label != 5000 || reach.Nexthop != nh {
		t.Errorf("GoBGP reads %v via %v", r, reach.Nexthop)
	}
	for _, a := range attrs {
		if comms, ok := a.(*bgp.PathAttributeExtendedCommunities); ok {
			if mac, ok := comms.Value[1].(*bgp.RouterMacExtended); ok && mac.Mac.String() == testMAC.String() {
				return
			}
		}
	}
	t.Errorf("GoBGP finds no router's MAC in %v", attrs)
}

func TestRouterMAC(t *testing.T) {
	t.Parallel()
	other := ethernet.MAC{2, 0, 0, 0, 0, 9}
	tests := []struct {
		name string
		in   []ExtCommunity
		want ethernet.MAC
	}{
		{name: "none", in: []ExtCommunity{MobilityCommunity(3)}},
		{name: "one", in: []ExtCommunity{EncapCommunity(encap.VXLAN), RouterMACCommunity(testMAC)}, want: testMAC},
		{name: "first of two", in: []ExtCommunity{RouterMACCommunity(testMAC), RouterMACCommunity(other)}, want: testMAC},
		{name: "multicast is none", in: []ExtCommunity{RouterMACCommunity(ethernet.MAC{1, 0, 0x5e})}},
		{name: "broadcast is none", in: []ExtCommunity{RouterMACCommunity(ethernet.MAC{255, 255, 255, 255, 255, 255})}},
		{name: "zero is none, the next counts", in: []ExtCommunity{RouterMACCommunity(ethernet.MAC{}), RouterMACCommunity(other)}, want: other},
		{name: "not transitive", in: []ExtCommunity{{0x46, 3, 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (LocalAttrs{Communities: tt.in}).Build().RouterMAC; got != tt.want {
				t.Errorf("router's MAC %s, want %s", got, tt.want)
			}
		})
	}
}

// An ESI or a gateway is not part of a route's identity (RFC 9136 §3.1).
func TestRecursivePrefixRoutes(t *testing.T) {
	t.Parallel()
	const head, tag = "0522" + "0001c00002010005", "00000000"
	tests := []struct {
		name, in  string
		recursive bool
	}{
		{name: "interface-less", in: "00000000000000000000" + tag + "18cb007100" + "00000000" + "001388"},
		{name: "gateway", in: "00000000000000000000" + tag + "18cb007100" + "00000001" + "001388", recursive: true},
		{name: "ESI", in: "00000000000000000001" + tag + "18cb007100" + "00000000" + "001388", recursive: true},
	}
	want := PrefixRoute(testRD, netip.MustParsePrefix("203.0.113.0/24"))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := unhex(t, head+tt.in)
			got, skipped, err := readAll(EVPN, in, false)
			if err != nil || skipped != 0 || len(got) != 1 {
				t.Fatalf("%d routes, %d skipped, %v", len(got), skipped, err)
			}
			if got[0].NLRI != want || got[0].Label != 5000 || got[0].Recursive() != tt.recursive {
				t.Errorf("route %v label %d recursive %v, want %v 5000 %v", got[0].NLRI, got[0].Label, got[0].Recursive(), want, tt.recursive)
			}
			if diff := cmp.Diff(in, AppendNLRI(nil, got[0], false)); diff != "" {
				t.Errorf("written again (-want +got):\n%s", diff)
			}
		})
	}
}

// The next hop of VPNv6 routes over IPv4 is IPv4-mapped (RFC 4659 §3.2.1.2); that
// of VPNv4 routes over IPv6 is an IPv6 address with an RD (RFC 8950 §4).
func TestNextHopsOfVPNRoutes(t *testing.T) {
	t.Parallel()
	const rd = "0000000000000000"
	tests := []struct {
		name   string
		family Family
		nh     string
		want   string
	}{
		{name: "VPNv4 over IPv4", family: VPNv4, nh: "192.0.2.1", want: "0c" + rd + "c0000201"},
		{name: "VPNv6 over IPv4", family: VPNv6, nh: "192.0.2.1", want: "18" + rd + "00000000000000000000ffffc0000201"},
		{name: "VPNv6 over IPv6", family: VPNv6, nh: "2001:db8::1", want: "18" + rd + "20010db8000000000000000000000001"},
		{name: "VPNv4 over IPv6", family: VPNv4, nh: "2001:db8::1", want: "18" + rd + "20010db8000000000000000000000001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nh := netip.MustParseAddr(tt.nh)
			got := appendNextHop(nil, tt.family, nh)
			if diff := cmp.Diff(unhex(t, tt.want), got); diff != "" {
				t.Errorf("octets (-want +got):\n%s", diff)
			}
			if back, ok := parseNextHop(tt.family, got[1:]); !ok || back != nh {
				t.Errorf("read again: %v %v, want %v", back, ok, nh)
			}
		})
	}
}
