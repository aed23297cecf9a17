// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// segment is a part of an AS path.
type segment struct {
	typ  byte
	ases []uint32
}

// asPathValue makes the value of AS_PATH or AS4_PATH.
func asPathValue(size int, segments ...segment) []byte {
	var b []byte
	for _, s := range segments {
		b = append(b, s.typ, byte(len(s.ases)))
		for _, as := range s.ases {
			if size == 4 {
				b = append(b, byte(as>>24), byte(as>>16))
			}
			b = append(b, byte(as>>8), byte(as))
		}
	}
	return b
}

func seq(ases ...uint32) segment      { return segment{segSequence, ases} }
func set(ases ...uint32) segment      { return segment{segSet, ases} }
func confed(ases ...uint32) segment   { return segment{segConfedSequence, ases} }
func segments(s ...segment) []segment { return s }
func aggregatedBy(as uint16) []byte   { return attr(0xc0, 7, byte(as>>8), byte(as), 192, 0, 2, 1) }
func aggregatedBy4() []byte           { return attr(0xc0, 18, 0, 1, 0, 0, 192, 0, 2, 1) }

// RFC 6793 §4.2.3.
func TestAS4PathIsMerged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		path, path4 []segment
		more        []byte
		want        []uint32
		length      int
	}{
		{name: "neither"},
		{name: "no AS4_PATH", path: segments(seq(1, 2, asTrans)), want: []uint32{1, 2, asTrans}, length: 3},
		{name: "same length", path: segments(seq(asTrans, 2)), path4: segments(seq(70000, 2)), want: []uint32{70000, 2}, length: 2},
		{name: "two-octet speakers prepended", path: segments(seq(9, 8, asTrans, 2)), path4: segments(seq(70000, 2)), want: []uint32{9, 8, 70000, 2}, length: 4},
		{name: "AS4_PATH longer is ignored", path: segments(seq(1)), path4: segments(seq(70000, 2)), want: []uint32{1}, length: 1},
		{name: "set counts one", path: segments(seq(9), set(asTrans, 7)), path4: segments(set(70000, 7)), want: []uint32{9, 70000, 7}, length: 2},
		{name: "set prepended", path: segments(set(5, 6), seq(asTrans)), path4: segments(seq(70000)), want: []uint32{5, 6, 70000}, length: 2},
		{name: "sequence after prepended set", path: segments(set(5, 6), seq(4, asTrans)), path4: segments(seq(70000)), want: []uint32{5, 6, 4, 70000}, length: 3},
		{name: "leading confederation segment", path: segments(confed(3, 4), seq(asTrans)), path4: segments(seq(70000)), want: []uint32{3, 4, 70000}, length: 1},
		{name: "confederation segment behind what is prepended", path: segments(seq(9), confed(3), seq(asTrans)), path4: segments(seq(70000)), want: []uint32{9, 3, 70000}, length: 2},
		{name: "confederation segment behind what is replaced", path: segments(seq(asTrans), confed(3)), path4: segments(seq(70000)), want: []uint32{70000}, length: 1},
		{name: "confederation segment in AS4_PATH", path: segments(seq(asTrans)), path4: segments(confed(3), seq(70000)), want: []uint32{70000}, length: 1},
		{name: "aggregator with AS_TRANS", path: segments(seq(asTrans)), path4: segments(seq(70000)), more: append(aggregatedBy(asTrans), aggregatedBy4()...), want: []uint32{70000}, length: 1},
		{name: "aggregator of a two-octet speaker", path: segments(seq(asTrans)), path4: segments(seq(70000)), more: append(aggregatedBy(9), aggregatedBy4()...), want: []uint32{asTrans}, length: 1},
		{name: "aggregator without AS4_AGGREGATOR", path: segments(seq(asTrans)), path4: segments(seq(70000)), more: aggregatedBy(9), want: []uint32{70000}, length: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw := attr(0x40, attrASPath, asPathValue(2, tt.path...)...)
			if tt.path4 != nil {
				raw = append(raw, attr(0xc0, attrAS4Path, asPathValue(4, tt.path4...)...)...)
			}
			raw = append(raw, tt.more...)
			a, err := DecodeAttrs(raw, netip.Addr{}, Rules{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, a.ASPath); diff != "" || a.ASPathLen != tt.length {
				t.Errorf("length %d, want %d; path (-want +got):\n%s", a.ASPathLen, tt.length, diff)
			}
			if diff := cmp.Diff(raw, a.Raw); diff != "" {
				t.Errorf("attributes kept (-want +got):\n%s", diff)
			}
		})
	}
}

func TestASPathLengthAndLoops(t *testing.T) {
	t.Parallel()
	raw := attr(0x40, attrASPath, asPathValue(4, confed(64512, 3), seq(70000, 64512, 64512), set(64512, 9))...)
	a, err := DecodeAttrs(raw, netip.Addr{}, Rules{FourOctetAS: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint32{64512, 3, 70000, 64512, 64512, 64512, 9}, a.ASPath); diff != "" || a.ASPathLen != 4 {
		t.Errorf("length %d, want 4; path (-want +got):\n%s", a.ASPathLen, diff)
	}
	for as, want := range map[uint32]int{64512: 4, 70000: 1, 1: 0} {
		if got := a.HasAS(as); got != want {
			t.Errorf("AS %d is there %d times, want %d", as, got, want)
		}
	}
}

func TestWellKnownCommunities(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		in           []byte
		stale, never bool
	}{
		{name: "neither", in: attr(0xc0, 8, 0xff, 0xff, 0, 5)},
		{name: "LLGR_STALE", in: attr(0xc0, 8, 0, 1, 0, 1, 0xff, 0xff, 0, 6), stale: true},
		{name: "NO_LLGR", in: attr(0xc0, 8, 0xff, 0xff, 0, 7), never: true},
		{name: "both", in: attr(0xc0, 8, 0xff, 0xff, 0, 7, 0xff, 0xff, 0, 6), stale: true, never: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := DecodeAttrs(tt.in, netip.Addr{}, Rules{})
			if err != nil {
				t.Fatal(err)
			}
			if a.LLGRStale != tt.stale || a.NoLLGR != tt.never {
				t.Errorf("stale %v, no LLGR %v; want %v and %v", a.LLGRStale, a.NoLLGR, tt.stale, tt.never)
			}
		})
	}
}

func TestExternalAttrs(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	local := LocalAttrs{NextHop: nh, LocalPref: 50, Communities: []ExtCommunity{EncapCommunity(encap.VXLAN), {0x43, 1}}, RTs: []RT{{0, 2, 0xfc, 0, 0, 0, 0, 1}}, PMSI: &PMSI{TunnelType: 6, Label: 9, Endpoint: nh}}.Build()
	comms := attr(0xc0, 16, 3, 12, 0, 0, 0, 0, 0, 8, 0, 2, 0xfc, 0, 0, 0, 0, 1)
	pmsi := attr(0xc0, 22, 0, 6, 0, 0, 9, 192, 0, 2, 1)
	join := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	path := func(size int, s ...segment) []byte { return attr(0x40, 2, asPathValue(size, s...)...) }
	path4 := func(s ...segment) []byte { return attr(0xc0, 17, asPathValue(4, s...)...) }
	full := make([]uint32, 255)
	for i := range full {
		full[i] = uint32(i + 1)
	}
	raw := func(parts ...[]byte) *Attrs { return &Attrs{Raw: join(parts...)} }
	tests := []struct {
		name string
		in   *Attrs
		as   uint32
		as2  bool
		want []byte
	}{
		{name: "of ours", in: local, as: 64512, want: join(attrIGP, path(4, seq(64512)), comms, pmsi)},
		{name: "of ours, large AS", in: local, as: 4200000001, want: join(attrIGP, path(4, seq(4200000001)), comms, pmsi)},
		{name: "two octets", in: local, as: 64512, as2: true, want: join(attrIGP, path(2, seq(64512)), comms, pmsi)},
		{name: "two octets, large AS", in: local, as: 4200000001, as2: true, want: join(attrIGP, path(2, seq(asTrans)), comms, path4(seq(4200000001)), pmsi)},
		{name: "two octets, large AS, nothing behind", in: raw(attrIGP, path(4)), as: 70000, as2: true, want: join(attrIGP, path(2, seq(asTrans)), path4(seq(70000)))},
		{name: "path of others", in: raw(path(4, seq(70000, 2), set(3, 4))), as: 1, as2: true, want: join(path(2, seq(1, asTrans, 2), set(3, 4)), path4(seq(1, 70000, 2), set(3, 4)))},
		{name: "set first", in: raw(path(4, set(3, 4))), as: 1, want: path(4, seq(1), set(3, 4))},
		{name: "confederation segments", in: raw(path(4, confed(9), seq(3))), as: 1, want: path(4, seq(1, 3))},
		{name: "full segment", in: raw(path(4, seq(full...))), as: 1, want: path(4, seq(1), seq(full...))},
		{name: "not in four-octet form", in: raw(path(2, seq(7))), as: 1, want: path(4, seq(1))},
		{
			name: "what stays inside", as: 1, want: join(attrIGP, path(4, seq(1)), attr(0xc0, 8, 0, 0, 0, 1), attr(0xe0, 99, 1)),
			in: raw(attrIGP, path(4), attr(0x40, 3, 1, 2, 3, 4), attr(0x80, 4, 0, 0, 0, 1), attrPref, attr(0xc0, 7, 0, 0, 0, 1, 1, 2, 3, 4), attr(0xc0, 8, 0, 0, 0, 1), attr(0x80, 9, 1, 2, 3, 4), attr(0x80, 10, 1, 2, 3, 4), attr(0xc0, 16, 0x40, 2, 0, 0, 0, 0, 0, 0), path4(seq(1)), attr(0x80, 26, 1), attr(0xc0, 40, 1), attr(0x80, 98), attr(0xe0, 99, 1)),
		},
		{name: "cut off", in: raw(attrIGP, []byte{0x40}), as: 1, want: attrIGP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ExternalAttrs(tt.in, tt.as, !tt.as2)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoBGPReadsExternalAttrs(t *testing.T) {
	t.Parallel()
	in := LocalAttrs{NextHop: netip.MustParseAddr("192.0.2.1"), RTs: []RT{{0, 2, 0xfc, 0, 0, 0, 0, 1}}}.Build()
	for name, as4 := range map[string]bool{"four octets": true, "two octets": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := ExternalAttrs(in, 4200000001, as4)
			a, err := DecodeAttrs(raw, in.NextHop, Rules{FourOctetAS: as4, External: true})
			if err != nil || a.Discarded != nil {
				t.Fatal(err, a)
			}
			if diff := cmp.Diff([]uint32{4200000001}, a.ASPath); diff != "" {
				t.Errorf("path (-want +got):\n%s", diff)
			}
			body := updateBody(raw)
			msg := append(AppendHeader(nil, MsgUpdate, len(body)), body...)
			m := must(bgp.ParseBGPMessage(msg, &bgp.MarshallingOption{Use2ByteAS: !as4}))(t)
			var path []bgp.AsPathParamInterface
			for _, attr := range m.Body.(*bgp.BGPUpdate).PathAttributes {
				if p, ok := attr.(*bgp.PathAttributeAsPath); ok {
					path = p.Value
				}
			}
			want := uint32(4200000001)
			if !as4 {
				want = asTrans
			}
			if len(path) != 1 || len(path[0].GetAS()) != 1 || path[0].GetAS()[0] != want {
				t.Errorf("GoBGP reads the path %v, want %d", path, want)
			}
		})
	}
}
