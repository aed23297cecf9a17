// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// localAttrs are attributes of routes that we originate.
func localAttrs(t testing.TB) map[string]LocalAttrs {
	t.Helper()
	nh := netip.MustParseAddr("192.0.2.1")
	rt := must(ParseRT("64512:100"))(t)
	var many []RT
	for i := range 32 { // 256 octets, the first to need an extended length
		many = append(many, RT{0, 2, 0xfc, 0, 0, 0, 0, byte(i)})
	}
	return map[string]LocalAttrs{
		"bare":       {NextHop: nh},
		"LOCAL_PREF": {NextHop: nh, LocalPref: 4294967295},
		"endpoint":   {NextHop: nh, LocalPref: 50, Communities: []ExtCommunity{EncapCommunity(encap.MPLS), HashOrderCommunity(3)}, RTs: []RT{rt, {2, 2, 0, 1, 0, 0, 0, 7}}},
		"mobile MAC": {NextHop: nh, Communities: []ExtCommunity{EncapCommunity(encap.VXLAN), MobilityCommunity(9)}, RTs: []RT{rt}},
		"sticky MAC": {NextHop: nh, Communities: []ExtCommunity{{6, 0, 1}}},
		"flood":      {NextHop: nh, RTs: []RT{rt}, PMSI: &PMSI{TunnelType: PMSIIngressReplication, Label: 16, Endpoint: nh}},
		"flood IPv6": {NextHop: nh, PMSI: &PMSI{TunnelType: PMSIIngressReplication, Label: 0xffffff, Endpoint: netip.MustParseAddr("2001:db8::1")}},
		"type 5":     {NextHop: nh, Communities: []ExtCommunity{EncapCommunity(encap.VXLAN), RouterMACCommunity(testMAC), HashOrderCommunity(3)}, RTs: []RT{rt}},
		"flow":       {Communities: []ExtCommunity{{0x80, 8, 0xfc, 0, 0, 0, 2, 0x5a}}, RTs: []RT{rt}},
		"many RTs":   {NextHop: nh, RTs: many},
	}
}

func TestBuildIsReadBack(t *testing.T) {
	t.Parallel()
	for name, in := range localAttrs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := in.Build()
			got, err := DecodeAttrs(want.Raw, in.NextHop, Rules{FourOctetAS: true})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, byValue, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("attributes (-built +decoded):\n%s", diff)
			}
		})
	}
}

func TestGoBGPReadsBuiltAttrs(t *testing.T) {
	t.Parallel()
	for name, in := range localAttrs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := bgp.ParseBGPMessage(append(AppendHeader(nil, MsgUpdate, len(updateBody(in.Build().Raw))), updateBody(in.Build().Raw)...))
			if err != nil {
				t.Fatal(err)
			}
			attrs := m.Body.(*bgp.BGPUpdate).PathAttributes
			got := LocalAttrs{NextHop: in.NextHop}
			var types []bgp.BGPAttrType
			for _, a := range attrs {
				types = append(types, a.GetType())
				readLocal(t, &got, a)
			}
			want := in
			if want.LocalPref == 0 {
				want.LocalPref = DefaultLocalPref
			}
			if diff := cmp.Diff(want, got, byValue); diff != "" {
				t.Errorf("attributes (-want +gobgp):\n%s", diff)
			}
			order := []bgp.BGPAttrType{1, 2, 5}
			if len(in.RTs)+len(in.Communities) > 0 {
				order = append(order, 16)
			}
			if in.PMSI != nil {
				order = append(order, 22)
			}
			if diff := cmp.Diff(order, types); diff != "" {
				t.Errorf("order of attributes (-want +got):\n%s", diff)
			}
		})
	}
}

// readLocal enters into l what GoBGP decoded.
func readLocal(t *testing.T, l *LocalAttrs, a bgp.PathAttributeInterface) {
	t.Helper()
	switch v := a.(type) {
	case *bgp.PathAttributeOrigin:
		if v.Value != bgp.BGP_ORIGIN_ATTR_TYPE_IGP {
			t.Errorf("origin %d", v.Value)
		}
	case *bgp.PathAttributeAsPath:
		if len(v.Value) != 0 {
			t.Errorf("AS path %v", v.Value)
		}
	case *bgp.PathAttributeLocalPref:
		l.LocalPref = v.Value
	case *bgp.PathAttributeExtendedCommunities:
		for _, c := range v.Value {
			raw := ExtCommunity(must(c.Serialize())(t))
			if raw.IsRT() {
				l.RTs = append(l.RTs, RT(raw))
			} else {
				l.Communities = append(l.Communities, raw)
			}
		}
	case *bgp.PathAttributePmsiTunnel:
		l.PMSI = &PMSI{TunnelType: uint8(v.TunnelType), Label: v.Label, Endpoint: v.TunnelID.(*bgp.IngressReplTunnelID).Value}
	default:
		t.Errorf("attribute %v", a)
	}
}
