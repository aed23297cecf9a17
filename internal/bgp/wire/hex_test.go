// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// originalMessages are UPDATE messages as nodes of the Python original send
// them, with what they mean.
var originalMessages = []struct {
	name, hex string
	route     string
	withdraw  bool
	nextHop   string
	comms     []string
	label     uint32
}{
	{
		name: "RTC announce", hex: "ffffffffffffffffffffffffffffffff003e02000000274001010040020040050400000064800e16000184040a4d000100600000fc000002fc0000000064",
		route: "rtc 64512:target:64512:100", nextHop: "10.77.0.1",
	},
	{
		name: "RTC withdraw", hex: "ffffffffffffffffffffffffffffffff003802000000214001010040020040050400000064800f10000184600000fc000002fc0000000064",
		route: "rtc 64512:target:64512:100", withdraw: true,
	},
	{
		name: "VPNv4 host", hex: "ffffffffffffffffffffffffffffffff0064020000004d4001010040020040050400000064c01018030c00000000000a0002fc00000000640002fc0000000065800e210001800c00000000000000000a4d0001007800011100010a4d00010000c000020a",
		route: "10.77.0.1:0 192.0.2.10/32", nextHop: "10.77.0.1", comms: []string{"encap:MPLS", "target:64512:100", "target:64512:101"}, label: 17<<4 | 1,
	},
	{
		name: "VPNv4 withdraw", hex: "ffffffffffffffffffffffffffffffff004e02000000374001010040020040050400000064c01010030c00000000000a0002fc0000000064800f130001807800011100010a4d00010000c000020a",
		route: "10.77.0.1:0 192.0.2.10/32", withdraw: true, comms: []string{"encap:MPLS", "target:64512:100"}, label: 17<<4 | 1,
	},
	{
		name: "IMET", hex: "ffffffffffffffffffffffffffffffff0063020000004c4001010040020040050400000064c01010030c0000000000080002fc000000012cc0160900060000100a4d0001800e1c001946040a4d000100031100010a4d0001000000000000200a4d0001",
		route: "type 3 10.77.0.1:0 10.77.0.1", nextHop: "10.77.0.1", comms: []string{"encap:VXLAN", "target:64512:300"},
	},
	{
		name: "MAC/IPv4", hex: "ffffffffffffffffffffffffffffffff006b02000000544001010040020040050400000064c01010030c0000000000080002fc000000012c800e30001946040a4d000100022500010a4d0001000000000000000000000000000000003002000000000120c633640a000010",
		route: "type 2 10.77.0.1:0 02:00:00:00:00:01 198.51.100.10", nextHop: "10.77.0.1", comms: []string{"encap:VXLAN", "target:64512:300"}, label: 16,
	},
	{
		name: "MAC only", hex: "ffffffffffffffffffffffffffffffff006702000000504001010040020040050400000064c01010030c0000000000080002fc000000012c800e2c001946040a4d000100022100010a4d0001000400000000000000000000000000003002000000000200000010",
		route: "type 2 10.77.0.1:4 02:00:00:00:00:02", nextHop: "10.77.0.1", comms: []string{"encap:VXLAN", "target:64512:300"}, label: 16,
	},
	{
		name: "MAC/IPv6", hex: "ffffffffffffffffffffffffffffffff007702000000604001010040020040050400000064c01010030c0000000000080002fc000000012c800e3c001946040a4d000100023100010a4d000100000000000000000000000000000000300200000000018020010db8000000000000000000000010000010",
		route: "type 2 10.77.0.1:0 02:00:00:00:00:01 2001:db8::10", nextHop: "10.77.0.1", comms: []string{"encap:VXLAN", "target:64512:300"}, label: 16,
	},
}

func TestOriginalMessages(t *testing.T) {
	t.Parallel()
	for _, tt := range originalMessages {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, route := parseOne(t, unhex(t, tt.hex))
			if diff := cmp.Diff(tt.route, route.NLRI.String()); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
			if u.Unreach.Present != tt.withdraw {
				t.Errorf("withdraw %v, want %v", u.Unreach.Present, tt.withdraw)
			}
			if tt.label != route.Label {
				t.Errorf("label field %#x, want %#x", route.Label, tt.label)
			}
			a, err := DecodeAttrs(u.Attrs, u.NextHop, Rules{})
			if err != nil {
				t.Fatal(err)
			}
			var comms []string
			for _, c := range a.Communities {
				comms = append(comms, c.String())
			}
			if diff := cmp.Diff(tt.comms, comms); diff != "" {
				t.Errorf("communities (-want +got):\n%s", diff)
			}
			if !tt.withdraw && a.NextHop.String() != tt.nextHop {
				t.Errorf("next hop %s, want %s", a.NextHop, tt.nextHop)
			}
			checkRepack(t, u, route)
		})
	}
}

// checkRepack sends what was read through the Packer and reads it again.
func checkRepack(t *testing.T, u Update, route Route) {
	t.Helper()
	p := NewPacker(MaxMessage)
	f := route.NLRI.Kind.Family()
	if u.Unreach.Present {
		p.Withdraw(f)
	} else {
		p.Announce(f, u.Attrs, u.NextHop)
	}
	if !p.Add(route) {
		t.Fatal("route does not fit a message")
	}
	again, got := parseOne(t, p.Flush())
	if diff := cmp.Diff(route.NLRI, got.NLRI); diff != "" {
		t.Errorf("route after repacking (-want +got):\n%s", diff)
	}
	if u.Unreach.Present {
		return
	}
	if diff := cmp.Diff(u.Attrs, again.Attrs); diff != "" || again.NextHop != u.NextHop || got.Label != route.Label {
		t.Errorf("attributes, next hop or label differ after repacking: %s %s %d\n%s", again.NextHop, u.NextHop, got.Label, diff)
	}
}

func TestIMETCarriesRawVNI(t *testing.T) {
	t.Parallel()
	u, _ := parseOne(t, unhex(t, originalMessages[4].hex))
	a, err := DecodeAttrs(u.Attrs, u.NextHop, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	want := &PMSI{TunnelType: PMSIIngressReplication, Label: 16, Endpoint: u.NextHop}
	if diff := cmp.Diff(want, a.PMSI, cmp.Comparer(func(x, y PMSI) bool { return x == y })); diff != "" {
		t.Errorf("PMSI tunnel (-want +got):\n%s", diff)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parseOne reads an UPDATE message with one route.
func parseOne(t testing.TB, msg []byte) (Update, Route) {
	t.Helper()
	typ, length, err := ParseHeader(msg, MaxMessage)
	if err != nil || typ != MsgUpdate || length != len(msg) {
		t.Fatalf("header: type %v, length %d of %d, %v", typ, length, len(msg), err)
	}
	u, err := ParseUpdate(msg[HeaderLen:], nil)
	if err != nil {
		t.Fatal(err)
	}
	part := u.Reach
	if u.Unreach.Present {
		part = u.Unreach
	}
	r := NewNLRIReader(part.Family, part.NLRI, u.Unreach.Present)
	var route, extra Route
	if ok, err := r.Next(&route); !ok || err != nil {
		t.Fatalf("no route: %v", err)
	}
	if ok, _ := r.Next(&extra); ok {
		t.Fatalf("more than one route: %v", extra.NLRI)
	}
	return u, route
}
