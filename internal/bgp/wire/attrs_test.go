// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// gobgpAttrs encodes path attributes with GoBGP.
func gobgpAttrs(t testing.TB, attrs ...bgp.PathAttributeInterface) []byte {
	t.Helper()
	var b []byte
	for _, a := range attrs {
		b = append(b, must(a.Serialize())(t)...)
	}
	return b
}

func TestDecodeAttrsOfGoBGP(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	rt := must(ParseRT("64512:100"))(t)
	grt := must(bgp.ParseRouteTarget("64512:100"))(t)
	origin := bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)
	comms := func(c ...bgp.ExtendedCommunityInterface) bgp.PathAttributeInterface {
		return bgp.NewPathAttributeExtendedCommunities(c)
	}
	as2 := bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAsPathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint16{64512, 64513})})
	as4 := bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{
		bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{64512, 4200000001, 3}),
		bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SET, []uint32{7, 8}),
	})
	tests := []struct {
		name string
		in   []bgp.PathAttributeInterface
		as2  bool
		want Attrs // without Raw and NextHop
	}{
		{name: "none", want: Attrs{LocalPref: 100}},
		{name: "origin only", in: []bgp.PathAttributeInterface{origin}, want: Attrs{LocalPref: 100}},
		{name: "LOCAL_PREF", in: []bgp.PathAttributeInterface{origin, bgp.NewPathAttributeLocalPref(4294967295)}, want: Attrs{LocalPref: 4294967295}},
		{name: "LOCAL_PREF 0", in: []bgp.PathAttributeInterface{bgp.NewPathAttributeLocalPref(0)}},
		{name: "empty AS path", in: []bgp.PathAttributeInterface{bgp.NewPathAttributeAsPath(nil)}, want: Attrs{LocalPref: 100}},
		{name: "two-octet ASes", in: []bgp.PathAttributeInterface{as2}, as2: true, want: Attrs{LocalPref: 100, ASPathLen: 2, ASPath: []uint32{64512, 64513}}},
		{name: "four-octet ASes and a set", in: []bgp.PathAttributeInterface{as4}, want: Attrs{LocalPref: 100, ASPathLen: 4, ASPath: []uint32{64512, 4200000001, 3, 7, 8}}},
		{
			name: "communities", in: []bgp.PathAttributeInterface{comms(bgp.NewEncapExtended(bgp.TUNNEL_TYPE_VXLAN), grt)},
			want: Attrs{LocalPref: 100, EncapBits: encap.VXLAN.Bit(), RTs: []RT{rt}, Communities: []ExtCommunity{EncapCommunity(encap.VXLAN), ExtCommunity(rt)}},
		},
		{
			name: "MAC mobility", in: []bgp.PathAttributeInterface{comms(bgp.NewMacMobilityExtended(77, false))},
			want: Attrs{LocalPref: 100, MobilitySeq: 77, Communities: []ExtCommunity{MobilityCommunity(77)}},
		},
		{
			name: "sticky MAC", in: []bgp.PathAttributeInterface{comms(bgp.NewMacMobilityExtended(0, true))},
			want: Attrs{LocalPref: 100, Sticky: true, Communities: []ExtCommunity{{6, 0, 1}}},
		},
		{
			name: "PMSI with raw VNI", in: []bgp.PathAttributeInterface{bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, 5000, must(bgp.NewIngressReplTunnelID(nh))(t))},
			want: Attrs{LocalPref: 100, PMSI: &PMSI{TunnelType: 6, Label: 5000, Endpoint: nh}},
		},
		{
			name: "PMSI over IPv6", in: []bgp.PathAttributeInterface{bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL, true, 1, must(bgp.NewIngressReplTunnelID(netip.MustParseAddr("2001:db8::1")))(t))},
			want: Attrs{LocalPref: 100, PMSI: &PMSI{Flags: 1, TunnelType: 6, Label: 1, Endpoint: netip.MustParseAddr("2001:db8::1")}},
		},
		{
			name: "PMSI of another type", in: []bgp.PathAttributeInterface{bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_PIM_SSM_TREE, false, 0, bgp.NewDefaultPmsiTunnelID([]byte{1, 2, 3}))},
			want: Attrs{LocalPref: 100, PMSI: &PMSI{TunnelType: 3}},
		},
		{
			name: "reflected", in: []bgp.PathAttributeInterface{must(bgp.NewPathAttributeOriginatorId(nh))(t), must(bgp.NewPathAttributeClusterList([]netip.Addr{nh}))(t)},
			want: Attrs{LocalPref: 100, OriginatorID: nh},
		},
		{
			name: "others are kept", in: []bgp.PathAttributeInterface{
				bgp.NewPathAttributeMultiExitDisc(5), bgp.NewPathAttributeCommunities([]uint32{1}), bgp.NewPathAttributeLargeCommunities([]*bgp.LargeCommunity{bgp.NewLargeCommunity(1, 2, 3)}),
				bgp.NewPathAttributeAtomicAggregate(), bgp.NewPathAttributeAigp([]bgp.AigpTLVInterface{bgp.NewAigpTLVIgpMetric(9)}),
				bgp.NewPathAttributeUnknown(bgp.BGP_ATTR_FLAG_OPTIONAL|bgp.BGP_ATTR_FLAG_TRANSITIVE|bgp.BGP_ATTR_FLAG_PARTIAL, 222, make([]byte, 300)),
			}, want: Attrs{LocalPref: 100},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw := gobgpAttrs(t, tt.in...)
			got, err := DecodeAttrs(raw, nh, Rules{FourOctetAS: !tt.as2})
			if err != nil {
				t.Fatal(err)
			}
			tt.want.NextHop, tt.want.Raw = nh, append([]byte{}, raw...)
			if diff := cmp.Diff(&tt.want, got, byValue); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			clear(raw)
			if !bytes.Equal(tt.want.Raw, got.Raw) {
				t.Error("Raw points into the message")
			}
		})
	}
}

func TestDecodeMalformedAttrs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []byte
		want []byte // Raw, when there is no error
		err  string
	}{
		{name: "discard short AGGREGATOR", in: append(attr(0xc0, 7, 1, 2), attrIGP...), want: attrIGP},
		{name: "discard long ATOMIC_AGGREGATE", in: append(bytes.Clone(attrIGP), attr(0x40, 6, 1)...), want: attrIGP},
		{name: "discard short AS4_AGGREGATOR", in: attr(0xc0, 18, 1, 2), want: []byte{}},
		{name: "discard short AS4_PATH", in: attr(0xc0, 17, 2, 1, 0), want: []byte{}},
		{name: "discard malformed AIGP", in: attr(0x80, 26, 1, 0, 99), want: []byte{}},
		{name: "discard malformed Prefix-SID", in: attr(0xc0, 40, 5, 0, 20, 1), want: []byte{}},
		{name: "discard NEXT_HOP of another length", in: attr(0x40, 3, 1, 2, 3), want: []byte{}},
		{name: "withdraw: undefined ORIGIN", in: attr(0x40, 1, 3), err: "treat-as-withdraw 3/6 "},
		{name: "withdraw: long ORIGIN", in: attr(0x40, 1, 0, 0), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: flags of ORIGIN", in: attr(0xc0, 1, 0), err: "treat-as-withdraw 3/4 "},
		{name: "withdraw: short LOCAL_PREF", in: attr(0x40, 5, 0, 0, 100), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: long LOCAL_PREF", in: attr(0x40, 5, 0, 0, 0, 100, 0), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: AS path segment cut off", in: attr(0x40, 2, 2, 2, 0, 0, 0xfc, 0), err: "treat-as-withdraw 3/11 "},
		{name: "withdraw: AS path segment type", in: attr(0x40, 2, 9, 1, 0, 0, 0xfc, 0), err: "treat-as-withdraw 3/11 "},
		{name: "withdraw: short MED", in: attr(0x80, 4, 1), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: communities", in: attr(0xc0, 8, 1, 2, 3), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: ORIGINATOR_ID", in: attr(0x80, 9, 1, 2, 3), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: CLUSTER_LIST", in: attr(0x80, 10, 1, 2, 3), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: empty extended communities", in: attr(0xc0, 16), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: extended communities of 9 octets", in: attr(0xc0, 16, make([]byte, 9)...), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: flags of extended communities", in: attr(0x40, 16, make([]byte, 8)...), err: "treat-as-withdraw 3/4 "},
		{name: "withdraw: short PMSI", in: attr(0xc0, 22, 0, 6, 0, 0), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: PMSI without tunnel end", in: attr(0xc0, 22, 0, 6, 0, 0, 1), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: PMSI tunnel end of 5 octets", in: attr(0xc0, 22, 0, 6, 0, 0, 1, 1, 2, 3, 4, 5), err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: flags of PMSI", in: attr(0x80, 22, 0, 0, 0, 0, 1), err: "treat-as-withdraw 3/4 "},
		{name: "withdraw: cut off", in: []byte{0x40, 1, 2, 0}, err: "treat-as-withdraw 3/5 "},
		{name: "withdraw: cut off in the header", in: []byte{0x40, 1}, err: "treat-as-withdraw 3/5 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := DecodeAttrs(tt.in, netip.Addr{}, Rules{FourOctetAS: true})
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s\n%v", diff, err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.want, got.Raw); diff != "" {
				t.Errorf("attributes kept (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEncapsulationsAndHashOrder(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		in    []ExtCommunity
		want  uint64
		order uint32
	}{
		{name: "none"},
		{name: "several", in: []ExtCommunity{EncapCommunity(encap.GRE), HashOrderCommunity(7), EncapCommunity(encap.VXLAN)}, want: encap.GRE.Bit() | encap.VXLAN.Bit(), order: 7},
		{name: "first hash order", in: []ExtCommunity{HashOrderCommunity(1 << 30), HashOrderCommunity(2)}, order: 1 << 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := LocalAttrs{Communities: tt.in}.Build()
			if a.EncapBits != tt.want || a.HashOrder() != tt.order {
				t.Errorf("encapsulations %b hash order %d, want %b and %d", a.EncapBits, a.HashOrder(), tt.want, tt.order)
			}
		})
	}
}

func TestOtherAttributesForTheLookingGlass(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	raw := gobgpAttrs(t, bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeMultiExitDisc(5),
		bgp.NewPathAttributeCommunities([]uint32{64512<<16 | 1, 0xffffff01}), must(bgp.NewPathAttributeClusterList([]netip.Addr{nh}))(t))
	a, err := DecodeAttrs(raw, nh, Rules{FourOctetAS: true})
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{"med", "5"}, {"community", "[ 64512:1 65535:65281 ]"}, {"cluster-list", "192.0.2.1"}}
	if diff := cmp.Diff(want, a.Others()); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	cut := &Attrs{Raw: []byte{0x80, 4, 3, 1, 2, 3, 0x80}}
	if diff := cmp.Diff([][2]string{{"med", "0x010203"}}, cut.Others()); diff != "" {
		t.Errorf("malformed attributes (-want +got):\n%s", diff)
	}
}
