// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fault renders an error for tables: "" without one, else class and codes.
func fault(err *Error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%s %d/%d %x", err.Class, err.Code, err.Subcode, err.Data)
}

// header makes a header with any length and type.
func header(length uint16, typ byte) []byte {
	b := append([]byte(nil), marker...)
	return append(binary.BigEndian.AppendUint16(b, length), typ)
}

func TestParseHeader(t *testing.T) {
	t.Parallel()
	broken := header(19, 4)
	broken[15] = 0xfe
	tests := []struct {
		name string
		in   []byte
		max  int
		want MsgType
		err  string
	}{
		{name: "OK shortest OPEN", in: header(29, 1), max: MaxMessage, want: MsgOpen},
		{name: "OK shortest UPDATE", in: header(23, 2), max: MaxMessage, want: MsgUpdate},
		{name: "OK shortest NOTIFICATION", in: header(21, 3), max: MaxMessage, want: MsgNotification},
		{name: "OK KEEPALIVE", in: header(19, 4), max: MaxMessage, want: MsgKeepalive},
		{name: "OK ROUTE-REFRESH", in: header(23, 5), max: MaxMessage, want: MsgRouteRefresh},
		{name: "OK longest UPDATE", in: header(4096, 2), max: MaxMessage, want: MsgUpdate},
		{name: "OK longest extended UPDATE", in: header(65535, 2), max: MaxExtMessage, want: MsgUpdate},
		{name: "OK extended NOTIFICATION", in: header(4097, 3), max: MaxExtMessage, want: MsgNotification},
		{name: "bad marker", in: broken, max: MaxMessage, err: "session reset 1/1 "},
		{name: "bad type 0", in: header(19, 0), max: MaxMessage, err: "session reset 1/3 00"},
		{name: "bad type 6", in: header(19, 6), max: MaxMessage, err: "session reset 1/3 06"},
		{name: "bad length 0", in: header(0, 4), max: MaxMessage, err: "session reset 1/2 0000"},
		{name: "bad length below a header", in: header(18, 4), max: MaxMessage, err: "session reset 1/2 0012"},
		{name: "bad short OPEN", in: header(28, 1), max: MaxMessage, err: "session reset 1/2 001c"},
		{name: "bad short UPDATE", in: header(22, 2), max: MaxMessage, err: "session reset 1/2 0016"},
		{name: "bad short NOTIFICATION", in: header(20, 3), max: MaxMessage, err: "session reset 1/2 0014"},
		{name: "bad long KEEPALIVE", in: header(20, 4), max: MaxExtMessage, err: "session reset 1/2 0014"},
		{name: "bad short ROUTE-REFRESH", in: header(22, 5), max: MaxMessage, err: "session reset 1/2 0016"},
		{name: "bad long UPDATE", in: header(4097, 2), max: MaxMessage, err: "session reset 1/2 1001"},
		{name: "bad OPEN on extended session", in: header(4097, 1), max: MaxExtMessage, err: "session reset 1/2 1001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			typ, length, err := ParseHeader(tt.in, tt.max)
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			if err != nil {
				return
			}
			if typ != tt.want || length != int(binary.BigEndian.Uint16(tt.in[16:])) {
				t.Errorf("got %v of length %d, want %v", typ, length, tt.want)
			}
		})
	}
}

func TestKeepaliveAndEndOfRIBOctets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{name: "KEEPALIVE", in: Keepalive(), want: "ffffffffffffffffffffffffffffffff001304"},
		{name: "ROUTE-REFRESH of VPNv4", in: RouteRefresh(VPNv4, RefreshRequest), want: "ffffffffffffffffffffffffffffffff00170500010080"},
		{name: "BoRR of EVPN", in: RouteRefresh(EVPN, RefreshBegin), want: "ffffffffffffffffffffffffffffffff00170500190146"},
		{name: "EoRR of EVPN", in: RouteRefresh(EVPN, RefreshEnd), want: "ffffffffffffffffffffffffffffffff00170500190246"},
		{name: "End-of-RIB of EVPN", in: EndOfRIBMessage(EVPN), want: "ffffffffffffffffffffffffffffffff001d0200000006800f03001946"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, fmt.Sprintf("%x", tt.in)); diff != "" {
				t.Errorf("octets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRouteRefresh(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		in      []byte
		want    Family
		subtype uint8
		err     string
	}{
		{name: "OK plain", in: []byte{0, 25, 0, 70}, want: EVPN},
		{name: "OK begin of RR", in: []byte{0, 1, 1, 128}, want: VPNv4, subtype: 1},
		{name: "OK what we send", in: RouteRefresh(VPNv6, RefreshRequest)[HeaderLen:], want: VPNv6},
		{name: "bad short", in: []byte{0, 25, 0}, err: "session reset 7/1 " + "ffffffffffffffffffffffffffffffff001605" + "001900"},
		{name: "bad long", in: []byte{0, 25, 0, 70, 1}, err: "session reset 7/1 " + "ffffffffffffffffffffffffffffffff001805" + "0019004601"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, subtype, err := ParseRouteRefresh(tt.in)
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s", diff)
			}
			if f != tt.want || subtype != tt.subtype {
				t.Errorf("got %v subtype %d, want %v subtype %d", f, subtype, tt.want, tt.subtype)
			}
		})
	}
}

func TestNamesOfTypesAndClasses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   fmt.Stringer
		want string
	}{
		{name: "OPEN", in: MsgOpen, want: "OPEN"},
		{name: "UPDATE", in: MsgUpdate, want: "UPDATE"},
		{name: "NOTIFICATION", in: MsgNotification, want: "NOTIFICATION"},
		{name: "KEEPALIVE", in: MsgKeepalive, want: "KEEPALIVE"},
		{name: "ROUTE-REFRESH", in: MsgRouteRefresh, want: "ROUTE-REFRESH"},
		{name: "unknown type", in: MsgType(9), want: "type 9"},
		{name: "discard", in: AttributeDiscard, want: "attribute discard"},
		{name: "withdraw", in: TreatAsWithdraw, want: "treat-as-withdraw"},
		{name: "disable", in: DisableFamily, want: "AFI/SAFI disable"},
		{name: "reset", in: SessionReset, want: "session reset"},
		{name: "unknown class", in: Class(0), want: "class 0"},
		{name: "VPNv4", in: VPNv4, want: "ipv4/mpls-vpn"},
		{name: "VPNv6", in: VPNv6, want: "ipv6/mpls-vpn"},
		{name: "EVPN", in: EVPN, want: "l2vpn/evpn"},
		{name: "FlowSpec", in: FlowVPNv6, want: "ipv6/flow-vpn"},
		{name: "RTC", in: RTC, want: "ipv4/rtc"},
		{name: "unicast", in: Family{2, 1}, want: "ipv6/unicast"},
		{name: "unknown family", in: Family{16388, 71}, want: "16388/71"},
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

func TestErrorTurnsIntoNotification(t *testing.T) {
	t.Parallel()
	_, _, err := ParseHeader(header(20, 4), MaxMessage)
	if diff := cmp.Diff(Notification{Code: 1, Subcode: 2, Data: []byte{0, 20}}, err.Notification()); diff != "" {
		t.Errorf("notification (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("KEEPALIVE of length 20: want 19 to 19 (1/2, session reset)", err.Error()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}
