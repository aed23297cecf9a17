// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vpnv4 makes the octets of a VPNv4 NLRI of 192.0.2.10/32 with a label stack.
func vpnv4(t *testing.T, labels string) []byte {
	t.Helper()
	stack := unhex(t, labels)
	b := append([]byte{byte(8*len(stack) + 64 + 32)}, stack...)
	return append(append(b, testRD[:]...), 192, 0, 2, 10)
}

func TestLabelForms(t *testing.T) {
	t.Parallel()
	want := VPNRoute(testRD, netip.MustParsePrefix("192.0.2.10/32"))
	tests := []struct {
		name     string
		in       string
		withdraw bool
		label    uint32
		multi    bool
	}{
		{name: "announced, one", in: "000111", label: 0x111},
		{name: "announced, TTL and traffic class bits", in: "00011f", label: 0x11f},
		{name: "announced, two", in: "000110000121", label: 0x110, multi: true},
		{name: "announced, three", in: "000110000120000131", label: 0x110, multi: true},
		{name: "announced, 0 is a label above another", in: "000000000121", multi: true},
		{name: "withdrawn, 0x800000", in: "800000", withdraw: true, label: 0x800000},
		{name: "withdrawn, 0", in: "000000", withdraw: true},
		{name: "withdrawn, as announced", in: "000111", withdraw: true, label: 0x111},
		{name: "withdrawn, two", in: "000110000121", withdraw: true, label: 0x110, multi: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := readAll(VPNv4, vpnv4(t, tt.in), tt.withdraw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Route{{NLRI: want, Label: tt.label, MultiLabel: tt.multi}}, got); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostBitsAreCleared(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		family Family
		in     string
		want   string
	}{
		{name: "VPNv4", family: VPNv4, in: "6c" + "000111" + "0001c00002010005" + "c0ffff", want: "192.0.2.1:5 192.255.240.0/20"},
		{name: "VPNv6", family: VPNv6, in: "79" + "000111" + "0001c00002010005" + "20010db8ff", want: "192.0.2.1:5 2001:db8:8000::/33"},
		{name: "EVPN 5", family: EVPN, in: "0522" + "0001c00002010005" + "00000000000000000000" + "00000000" + "14" + "c0ff0fff" + "00000000" + "000010", want: "type 5 192.0.2.1:5 192.255.0.0/20"},
		{name: "RTC", family: RTC, in: "34" + "0000fc00" + "0002ff", want: "rtc 64512:target:61440:0/52"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := readAll(tt.family, unhex(t, tt.in), false)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d routes, %v", len(got), err)
			}
			if diff := cmp.Diff(tt.want, got[0].NLRI.String()); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConstructorsClearHostBits(t *testing.T) {
	t.Parallel()
	got := VPNRoute(testRD, netip.MustParsePrefix("203.0.113.77/24"))
	if diff := cmp.Diff("203.0.113.0/24", got.Prefix().String()); diff != "" {
		t.Errorf("prefix (-want +got):\n%s", diff)
	}
}

func TestAddressAndPrefixOfNLRIs(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr("2001:db8::10")
	tests := []struct {
		name string
		in   NLRI
		want string
	}{
		{name: "VPNv4", in: VPNRoute(testRD, netip.MustParsePrefix("192.0.2.0/24")), want: "192.0.2.0 192.0.2.0/24"},
		{name: "VPNv6", in: VPNRoute(testRD, netip.MustParsePrefix("2001:db8::/32")), want: "2001:db8:: 2001:db8::/32"},
		{name: "EVPN 2", in: MACIPRoute(testRD, testMAC, ip), want: "2001:db8::10 invalid Prefix"},
		{name: "EVPN 2 MAC only", in: MACIPRoute(testRD, testMAC, netip.Addr{}), want: "invalid IP invalid Prefix"},
		{name: "EVPN 5 IPv4", in: NLRI{Kind: KindPrefix, Bits: 8, Addr: [16]byte{10}}, want: "10.0.0.0 10.0.0.0/8"},
		{name: "RTC", in: RTCRoute(1, RT{}), want: "invalid IP invalid Prefix"},
		{name: "FlowSpec", in: NLRI{Kind: KindFlowVPNv4}, want: "invalid IP invalid Prefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.in.IP().String()+" "+tt.in.Prefix().String()); diff != "" {
				t.Errorf("address and prefix (-want +got):\n%s", diff)
			}
		})
	}
}

// evpn makes an EVPN NLRI with any type and value.
func evpn(typ byte, value []byte) []byte {
	return append([]byte{typ, byte(len(value))}, value...)
}

func TestUnusableEVPNRoutesAreSkipped(t *testing.T) {
	t.Parallel()
	before := Route{NLRI: MACIPRoute(testRD, testMAC, netip.Addr{}), Label: 16}
	after := Route{NLRI: IMETRoute(testRD, netip.MustParseAddr("192.0.2.1"))}
	rd := testRD[:]
	with := func(b ...[]byte) []byte { return bytes.Join(append([][]byte{rd}, b...), nil) }
	macip := func(macLen, ipLen byte, tail int) []byte {
		return with(make([]byte, 14), []byte{macLen}, testMAC[:], []byte{ipLen}, make([]byte, tail))
	}
	tests := []struct {
		name string
		in   []byte
	}{
		{name: "type 0", in: evpn(0, with())},
		{name: "type 6", in: evpn(6, make([]byte, 30))},
		{name: "type 7", in: evpn(7, make([]byte, 40))},
		{name: "type 8", in: evpn(8, make([]byte, 40))},
		{name: "type 9", in: evpn(9, make([]byte, 20))},
		{name: "type 10", in: evpn(10, make([]byte, 255))},
		{name: "type 11", in: evpn(11, nil)},
		{name: "type 255", in: evpn(255, []byte{1})},
		{name: "type 1 without RD", in: evpn(1, rd[:7])},
		{name: "type 1 too long", in: evpn(1, with(make([]byte, 18)))},
		{name: "type 2 empty", in: evpn(2, nil)},
		{name: "type 2 too short", in: evpn(2, macip(48, 0, 2))},
		{name: "type 2 MAC length 47", in: evpn(2, macip(47, 0, 3))},
		{name: "type 2 IP length 24", in: evpn(2, macip(48, 24, 6))},
		{name: "type 2 IP length beyond the value", in: evpn(2, macip(48, 128, 7))},
		{name: "type 2 three labels", in: evpn(2, macip(48, 0, 9))},
		{name: "type 3 without address", in: evpn(3, with(make([]byte, 4)))},
		{name: "type 3 address length 0", in: evpn(3, with(make([]byte, 4), []byte{0}))},
		{name: "type 3 address cut off", in: evpn(3, with(make([]byte, 4), []byte{32, 1, 2, 3}))},
		{name: "type 4 address length 33", in: evpn(4, with(make([]byte, 10), []byte{33, 1, 2, 3, 4}))},
		{name: "type 4 address cut off", in: evpn(4, with(make([]byte, 10), []byte{32, 1, 2, 3}))},
		{name: "type 5 length 33 octets", in: evpn(5, with(make([]byte, 25)))},
		{name: "type 5 prefix length 33", in: evpn(5, with(make([]byte, 14), []byte{33}, make([]byte, 11)))},
		{name: "type 5 prefix length 129", in: evpn(5, with(make([]byte, 14), []byte{129}, make([]byte, 35)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := AppendNLRI(nil, before, false)
			b = append(b, tt.in...)
			b = AppendNLRI(b, after, false)
			got, skipped, err := readAll(EVPN, b, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Route{before, after}, got); diff != "" || skipped != 1 {
				t.Errorf("%d skipped, want 1; routes (-want +got):\n%s", skipped, diff)
			}
		})
	}
}

func TestMalformedVPNRoutesAreIgnored(t *testing.T) {
	t.Parallel()
	rd := hex.EncodeToString(testRD[:])
	tests := []struct {
		name   string
		family Family
		in     string
	}{
		{name: "without label", family: VPNv4, in: "17000111"},
		{name: "length 0", family: VPNv4, in: "00"},
		{name: "endless label stack", family: VPNv4, in: "48" + "000110000110000110"},
		{name: "without RD", family: VPNv4, in: "57" + "000111" + rd},
		{name: "VPNv4 /33", family: VPNv4, in: "79000111" + rd + "c000020a00"},
		{name: "VPNv6 /129", family: VPNv6, in: "d9000111" + rd + "20010db800000000000000000000000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			prefix := netip.MustParsePrefix("192.0.2.10/32")
			if tt.family == VPNv6 {
				prefix = netip.MustParsePrefix("2001:db8::/64")
			}
			around := Route{NLRI: VPNRoute(testRD, prefix), Label: LabelField(17)}
			b := AppendNLRI(nil, around, false)
			b = append(b, unhex(t, tt.in)...)
			b = AppendNLRI(b, around, false)
			got, skipped, err := readAll(tt.family, b, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Route{around, around}, got); diff != "" || skipped != 1 {
				t.Errorf("%d skipped, want 1; routes (-want +got):\n%s", skipped, diff)
			}
		})
	}
}

func TestUnframeableNLRIs(t *testing.T) {
	t.Parallel()
	rd := hex.EncodeToString(testRD[:])
	tests := []struct {
		name   string
		family Family
		in     string
		err    string
	}{
		{name: "VPNv4 cut off", family: VPNv4, in: "78000111" + rd + "c00002", err: "AFI/SAFI disable 3/9 "},
		{name: "EVPN header cut off", family: EVPN, in: "02", err: "AFI/SAFI disable 3/9 "},
		{name: "EVPN value cut off", family: EVPN, in: "0221" + rd, err: "AFI/SAFI disable 3/9 "},
		{name: "EVPN unknown type cut off", family: EVPN, in: "0902" + "00", err: "AFI/SAFI disable 3/9 "},
		{name: "RTC cut off", family: RTC, in: "60" + "0000fc00" + "0002", err: "AFI/SAFI disable 3/9 "},
		{name: "FlowSpec cut off", family: FlowVPNv4, in: "0b" + rd + "0100", err: "AFI/SAFI disable 3/9 "},
		{name: "FlowSpec long length cut off", family: FlowVPNv4, in: "f1", err: "AFI/SAFI disable 3/9 "},
		{name: "RTC with a length of no sense cut off", family: RTC, in: "ff" + "0000fc00", err: "AFI/SAFI disable 3/9 "},
		{name: "family not spoken", family: Family{2, 1}, in: "00", err: "AFI/SAFI disable 3/9 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := NewNLRIReader(tt.family, unhex(t, tt.in), false)
			var route Route
			ok, err := r.Next(&route)
			if err != nil && err.Family != tt.family {
				t.Errorf("family to disable %v, want %v", err.Family, tt.family)
			}
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" || ok {
				t.Errorf("route %v, error (-want +got):\n%s", ok, diff)
			}
			if ok, err := r.Next(&route); ok || err != nil {
				t.Errorf("reader goes on after an error: %v %v", ok, err)
			}
		})
	}
}

func TestRoutesBeforeAFaultAreRead(t *testing.T) {
	t.Parallel()
	want := Route{NLRI: VPNRoute(testRD, netip.MustParsePrefix("192.0.2.10/32")), Label: LabelField(17)}
	b := append(AppendNLRI(nil, want, false), 0x78, 0, 1)
	got, _, err := readAll(VPNv4, b, false)
	if diff := cmp.Diff([]Route{want}, got); diff != "" || err == nil {
		t.Errorf("error %v, routes (-want +got):\n%s", err, diff)
	}
}

// flowComponents makes one component, a list of ports, of size octets, at least 3.
func flowComponents(size int) []byte {
	b := []byte{4}
	if size%2 == 0 {
		b = append(b, 0x11, 0, 80) // a value of two octets
	}
	for len(b) < size {
		b = append(b, 0x01, 80)
	}
	b[len(b)-2] |= flowEndOfList
	if size == 4 {
		b[1] |= flowEndOfList
	}
	return b
}

func TestFlowSpecLengthForms(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 0xf0 - 9, 0xf0 - 8, 0x300, 0xfff - 8} {
		raw := flowComponents(size)
		want := Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD, Addr: digest(raw)}, Raw: raw}
		b := AppendNLRI(nil, want, false)
		head := 1
		if 8+size >= 0xf0 {
			head = 2
		}
		if len(b) != head+8+size {
			t.Errorf("%d octets of components: %d octets, want a length of %d octets", size, len(b), head)
		}
		got, _, err := readAll(FlowVPNv4, b, false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Route{want}, got); diff != "" {
			t.Errorf("%d octets of components (-want +got):\n%s", size, diff)
		}
	}
}
