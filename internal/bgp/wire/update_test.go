// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// attr makes a path attribute.
func attr(flags, typ byte, value ...byte) []byte { return appendAttr(nil, flags, typ, value) }

// updateBody makes the body of an UPDATE message without IPv4 unicast routes.
func updateBody(attrs ...[]byte) []byte {
	all := bytes.Join(attrs, nil)
	return append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(all))), all...)
}

// mpReach makes the value of an MP_REACH_NLRI attribute.
func mpReach(f Family, nh, nlri []byte) []byte {
	b := append(binary.BigEndian.AppendUint16(nil, f.AFI), f.SAFI, byte(len(nh)))
	return append(append(append(b, nh...), 0), nlri...)
}

// attrMandatory has what announced routes cannot be without.
var attrMandatory = append(bytes.Clone(attrIGP), attrPath...)

var (
	attrIGP   = attr(flagTransitive, attrOrigin, 0)
	attrPath  = attr(flagTransitive, attrASPath)
	attrPref  = attr(flagTransitive, attrLocalPref, 0, 0, 0, 100)
	attrPref2 = attr(flagTransitive, attrLocalPref, 0, 0, 0, 200)
	attrReach = attr(flagOptional, attrMPReach, mpReach(EVPN, []byte{192, 0, 2, 1}, []byte{11, 0})...)
	attrDown  = attr(flagOptional, attrMPUnreach, 0, 25, 70, 11, 0)
)

func TestParseUpdate(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	reach := MPNLRI{Present: true, Family: EVPN, NLRI: []byte{11, 0}}
	long := attr(flagOptional|flagTransitive, 99, make([]byte, 300)...)
	tests := []struct {
		name string
		in   []byte
		want Update
		cut  string // fault in Update.Withdraw
		err  string
	}{
		{name: "OK empty", in: updateBody()},
		{name: "OK announce", in: updateBody(attrIGP, attrReach, attrPref, attrPath), want: Update{Attrs: bytes.Join([][]byte{attrIGP, attrPref, attrPath}, nil), Reach: reach, NextHop: nh}},
		{name: "OK withdraw with attributes", in: updateBody(attrIGP, attrDown), want: Update{Attrs: attrIGP, Unreach: reach}},
		{name: "OK both", in: updateBody(attrDown, attrMandatory, attrReach), want: Update{Attrs: attrMandatory, Reach: reach, Unreach: reach, NextHop: nh}},
		{name: "OK extended length", in: updateBody(attrMandatory, long, attrReach), want: Update{Attrs: append(bytes.Clone(attrMandatory), long...), Reach: reach, NextHop: nh}},
		{
			name: "OK extended length of a short attribute", in: updateBody([]byte{flagTransitive | flagExtLen, attrOrigin, 0, 1, 0}),
			want: Update{Attrs: []byte{flagTransitive | flagExtLen, attrOrigin, 0, 1, 0}},
		},
		{name: "OK duplicate keeps the first", in: updateBody(attrPref, attrIGP, attrPref2), want: Update{Attrs: append(bytes.Clone(attrPref), attrIGP...)}},
		{name: "OK duplicate of type 255", in: updateBody(attr(0xc0, 255, 1), attr(0xc0, 255, 2), attr(0xc0, 191, 3)), want: Update{Attrs: append(attr(0xc0, 255, 1), attr(0xc0, 191, 3)...)}},
		{name: "OK IPv4 unicast routes around are ignored", in: append(append([]byte{0, 4, 24, 192, 0, 2}, updateBody(attrReach, attrMandatory)[2:]...), 24, 203, 0, 113), want: Update{Attrs: attrMandatory, Reach: reach, NextHop: nh}},
		{name: "withdraw: cut off after reach", in: updateBody(attrReach, []byte{0x40, 5, 4, 0}), want: Update{Reach: reach, NextHop: nh}, cut: "treat-as-withdraw 3/5 "},
		{name: "bad cut off in a header after unreach", in: updateBody(attrDown, []byte{0x40}), err: "session reset 3/1 "},
		{name: "withdraw: cut off in an extended length", in: updateBody(attrReach, []byte{0x50, 1, 0}), want: Update{Reach: reach, NextHop: nh}, cut: "treat-as-withdraw 3/5 "},
		{name: "bad short body", in: []byte{0, 0, 0}, err: "session reset 3/1 "},
		{name: "bad withdrawn length", in: []byte{0, 1, 0, 0}, err: "session reset 3/1 "},
		{name: "bad attribute length", in: []byte{0, 0, 0, 1}, err: "session reset 3/1 "},
		{name: "bad cut off before reach", in: updateBody(attrIGP, []byte{0x80, 14, 40, 0}), err: "session reset 3/1 "},
		{name: "bad two reach", in: updateBody(attrReach, attrReach), err: "session reset 3/1 "},
		{name: "bad two unreach", in: updateBody(attrDown, attrIGP, attrDown), err: "session reset 3/1 "},
		{name: "bad empty reach", in: updateBody(attr(0x80, 14)), err: "session reset 3/9 "},
		{name: "bad reach without reserved octet", in: updateBody(attr(0x80, 14, 0, 25, 70, 4, 192, 0, 2, 1)), err: "AFI/SAFI disable 3/9 "},
		{name: "bad reach next hop cut off", in: updateBody(attr(0x80, 14, 0, 25, 70, 5, 192, 0, 2, 1)), err: "AFI/SAFI disable 3/9 "},
		{name: "bad short unreach", in: updateBody(attr(0x80, 15, 0, 25)), err: "session reset 3/9 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseUpdate(tt.in, make([]byte, 3, 100))
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.cut, fault(got.Withdraw)); diff != "" {
				t.Errorf("withdraw (-want +got):\n%s", diff)
			}
			got.Withdraw = nil
			if len(got.Attrs) == 0 {
				got.Attrs = nil
			}
			if diff := cmp.Diff(tt.want, got, byValue); diff != "" {
				t.Errorf("update (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndOfRIB(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []byte
		want Family
		ok   bool
	}{
		{name: "ours", in: EndOfRIBMessage(VPNv6)[HeaderLen:], want: VPNv6, ok: true},
		{name: "RTC", in: updateBody(attr(flagOptional, attrMPUnreach, 0, 1, 132)), want: RTC, ok: true},
		{name: "IPv4 unicast", in: updateBody()},
		{name: "withdraw", in: updateBody(attrDown)},
		{name: "announce", in: updateBody(attrReach)},
		{name: "announce and empty withdraw", in: updateBody(attrReach, attr(flagOptional, attrMPUnreach, 0, 1, 132))},
		{name: "empty withdraw with attributes", in: updateBody(attrIGP, attr(flagOptional, attrMPUnreach, 0, 1, 132))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, err := ParseUpdate(tt.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := u.EndOfRIB(); f != tt.want || ok != tt.ok {
				t.Errorf("got %v %v, want %v %v", f, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestNextHops(t *testing.T) {
	t.Parallel()
	v4 := []byte{192, 0, 2, 1}
	v6 := netip.MustParseAddr("2001:db8::1").AsSlice()
	mapped := netip.MustParseAddr("::ffff:192.0.2.1").AsSlice()
	local := netip.MustParseAddr("fe80::1").AsSlice()
	rd := make([]byte, 8)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name   string
		family Family
		in     []byte
		want   string // "" when there is none
		err    string
	}{
		{name: "OK EVPN 4", family: EVPN, in: v4, want: "192.0.2.1"},
		{name: "OK EVPN 16", family: EVPN, in: v6, want: "2001:db8::1"},
		{name: "OK EVPN 32 with link-local", family: EVPN, in: join(v6, local), want: "2001:db8::1"},
		{name: "OK EVPN mapped", family: EVPN, in: mapped, want: "192.0.2.1"},
		{name: "OK RTC 4", family: RTC, in: v4, want: "192.0.2.1"},
		{name: "OK VPNv4 12", family: VPNv4, in: join(rd, v4), want: "192.0.2.1"},
		{name: "OK VPNv4 4 without RD", family: VPNv4, in: v4, want: "192.0.2.1"},
		{name: "OK VPNv4 24 (RFC 8950)", family: VPNv4, in: join(rd, v6), want: "2001:db8::1"},
		{name: "OK VPNv6 24", family: VPNv6, in: join(rd, v6), want: "2001:db8::1"},
		{name: "OK VPNv6 24 mapped", family: VPNv6, in: join(rd, mapped), want: "192.0.2.1"},
		{name: "OK VPNv6 48 with link-local", family: VPNv6, in: join(rd, v6, rd, local), want: "2001:db8::1"},
		{name: "OK VPNv6 12", family: VPNv6, in: join(rd, v4), want: "192.0.2.1"},
		{name: "OK FlowSpec 0", family: FlowVPNv4},
		{name: "OK FlowSpec 4", family: FlowVPNv4, in: v4, want: "192.0.2.1"},
		{name: "bad EVPN 0", family: EVPN, err: "AFI/SAFI disable 3/9 "},
		{name: "bad VPNv4 0", family: VPNv4, err: "AFI/SAFI disable 3/9 "},
		{name: "bad EVPN 5", family: EVPN, in: make([]byte, 5), err: "AFI/SAFI disable 3/9 "},
		{name: "bad EVPN 12", family: EVPN, in: join(rd, v4), err: "AFI/SAFI disable 3/9 "},
		{name: "bad EVPN 40", family: EVPN, in: make([]byte, 40), err: "AFI/SAFI disable 3/9 "},
		{name: "bad VPNv6 40", family: VPNv6, in: join(rd, v6, local), err: "AFI/SAFI disable 3/9 "},
		{name: "bad VPNv4 8", family: VPNv4, in: rd, err: "AFI/SAFI disable 3/9 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, err := ParseUpdate(updateBody(attr(flagOptional, attrMPReach, mpReach(tt.family, tt.in, nil)...)), nil)
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			got := ""
			if u.NextHop.IsValid() {
				got = u.NextHop.String()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("next hop (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendNextHop(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name string
		in   netip.Addr
		f    Family
		want int // octets
	}{
		{name: "VPNv4 over IPv4", in: v4, f: VPNv4, want: 12},
		{name: "VPNv4 over IPv6", in: v6, f: VPNv4, want: 24},
		{name: "VPNv6 over IPv4 is mapped", in: v4, f: VPNv6, want: 24},
		{name: "VPNv6 over IPv6", in: v6, f: VPNv6, want: 24},
		{name: "EVPN over IPv4", in: v4, f: EVPN, want: 4},
		{name: "EVPN over IPv6", in: v6, f: EVPN, want: 16},
		{name: "RTC", in: v4, f: RTC, want: 4},
		{name: "FlowSpec", in: v4, f: FlowVPNv4, want: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := appendNextHop(nil, tt.f, tt.in)
			if int(b[0]) != tt.want || len(b) != 1+tt.want {
				t.Fatalf("length octet %d of %d octets, want %d", b[0], len(b), tt.want)
			}
			got, ok := parseNextHop(tt.f, b[1:])
			if want := tt.in; tt.want != 0 && got != want || !ok {
				t.Errorf("read back %v %v, want %v", got, ok, want)
			}
		})
	}
}
