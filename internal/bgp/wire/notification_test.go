// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func TestShutdownCommunication(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		in      string
		subcode uint8
		want    string
	}{
		{name: "none", in: "", subcode: CeaseAdminShutdown, want: ""},
		{name: "ASCII", in: "maintenance until 04:00", subcode: CeaseAdminShutdown, want: "maintenance until 04:00"},
		{name: "UTF-8", in: "Wartung bis März", subcode: CeaseAdminReset, want: "Wartung bis März"},
		{name: "longest", in: strings.Repeat("a", 255), subcode: CeaseAdminReset, want: strings.Repeat("a", 255)},
		{name: "too long", in: strings.Repeat("a", 256), subcode: CeaseAdminReset, want: strings.Repeat("a", 255)},
		{name: "too long, cut between characters", in: strings.Repeat("a", 254) + "é", subcode: CeaseAdminReset, want: strings.Repeat("a", 254)},
		{name: "only long characters", in: strings.Repeat("日", 100), subcode: CeaseAdminReset, want: strings.Repeat("日", 85)},
		{name: "other subcode has no text", in: "text", subcode: CeaseCollision, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := Shutdown(tt.subcode, tt.in).Message()
			n, err := ParseNotification(msg[HeaderLen:])
			if err != nil {
				t.Fatal(err)
			}
			if n.Code != CodeCease || n.Subcode != tt.subcode {
				t.Errorf("got %d/%d, want %d/%d", n.Code, n.Subcode, CodeCease, tt.subcode)
			}
			if diff := cmp.Diff(tt.want, n.Communication()); diff != "" {
				t.Errorf("communication (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommunicationOfMalformedData(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{name: "no data", in: nil},
		{name: "length 0", in: []byte{0}},
		{name: "length beyond the data", in: []byte{3, 'a', 'b'}},
		{name: "length short of the data", in: []byte{1, 'a', 'b'}, want: "a"},
		{name: "not UTF-8", in: []byte{2, 0xc3, 0x28}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := Notification{CodeCease, CeaseAdminShutdown, tt.in}
			if diff := cmp.Diff(tt.want, n.Communication()); diff != "" {
				t.Errorf("communication (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNotificationMessages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Notification
		text string
		want int // octets of data on the wire
	}{
		{name: "hold timer", in: Notification{Code: CodeHold}, text: "4/0 (hold timer expired)"},
		{name: "header", in: Notification{CodeHeader, 2, []byte{0, 20}}, text: "1/2 (message header error)", want: 2},
		{name: "shutdown with text", in: Shutdown(CeaseAdminShutdown, "bye"), text: `6/2 (cease, administrative shutdown): "bye"`, want: 4},
		{name: "text with control characters is quoted", in: Shutdown(CeaseAdminReset, "a\nb"), text: `6/4 (cease, administrative reset): "a\nb"`, want: 4},
		{name: "hard reset", in: HardReset(Shutdown(CeaseAdminShutdown, "bye")), text: `6/9 (cease, hard reset): 6/2 (cease, administrative shutdown): "bye"`, want: 6},
		{name: "hard reset without content", in: Notification{CodeCease, CeaseHardReset, []byte{6}}, text: "6/9 (cease, hard reset): 6/0 (cease)", want: 1},
		{name: "hard reset in a hard reset", in: HardReset(HardReset(Notification{Code: CodeHold})), text: "6/9 (cease, hard reset): 6/9 (cease, hard reset)", want: 4},
		{name: "BFD down", in: Notification{Code: CodeCease, Subcode: CeaseBFDDown}, text: "6/10 (cease, BFD down)"},
		{name: "too many routes", in: MaxPrefixes(EVPN, 50000), text: "6/1 (cease, maximum number of prefixes reached)", want: 7},
		{name: "unknown cease", in: Notification{CodeCease, 99, nil}, text: "6/99 (cease)"},
		{name: "too much data", in: Notification{CodeUpdate, 1, make([]byte, 5000)}, text: "3/1 (UPDATE message error)", want: 4096 - 21},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := tt.in.Message()
			if diff := cmp.Diff(tt.text, tt.in.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			if _, _, err := ParseHeader(msg, MaxMessage); err != nil {
				t.Fatal(err)
			}
			got, err := ParseNotification(msg[HeaderLen:])
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Data) != tt.want {
				t.Errorf("%d octets of data, want %d", len(got.Data), tt.want)
			}
			m, gerr := bgp.ParseBGPMessage(msg)
			if gerr != nil {
				t.Fatal(gerr)
			}
			peer := m.Body.(*bgp.BGPNotification)
			if diff := cmp.Diff(Notification{peer.ErrorCode, peer.ErrorSubcode, append([]byte{}, peer.Data...)}, Notification{got.Code, got.Subcode, append([]byte{}, got.Data...)}); diff != "" {
				t.Errorf("GoBGP reads another message (-gobgp +got):\n%s", diff)
			}
		})
	}
}

func TestParseNotificationRefusesShortBody(t *testing.T) {
	t.Parallel()
	if _, err := ParseNotification([]byte{6}); fault(err) != "session reset 1/2 " {
		t.Errorf("got %q, want a session reset", fault(err))
	}
}

func TestHardReset(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		in    Notification
		inner Notification
		ok    bool
		text  string // communication
	}{
		{name: "of a shutdown", in: HardReset(Shutdown(CeaseAdminReset, "bye")), inner: Shutdown(CeaseAdminReset, "bye"), ok: true, text: "bye"},
		{name: "of a hold timer", in: HardReset(Notification{Code: CodeHold}), inner: Notification{Code: CodeHold}, ok: true},
		{name: "without content", in: Notification{Code: CodeCease, Subcode: CeaseHardReset}, inner: Notification{Code: CodeCease}, ok: true},
		{name: "not one", in: Shutdown(CeaseAdminReset, "bye"), text: "bye"},
		{name: "subcode 9 of another code", in: Notification{CodeUpdate, CeaseHardReset, []byte{6, 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, err := ParseNotification(tt.in.Message()[HeaderLen:])
			if err != nil {
				t.Fatal(err)
			}
			inner, ok := n.Hard()
			if diff := cmp.Diff(tt.inner, inner, cmpopts.EquateEmpty()); diff != "" || ok != tt.ok {
				t.Errorf("hard %v, want %v; inside (-want +got):\n%s", ok, tt.ok, diff)
			}
			if diff := cmp.Diff(tt.text, n.Communication()); diff != "" {
				t.Errorf("communication (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMaxPrefixesOctets(t *testing.T) {
	t.Parallel()
	want := Notification{CodeCease, CeaseMaxPrefixes, []byte{0, 25, 70, 0, 1, 0, 2}}
	if diff := cmp.Diff(want, MaxPrefixes(EVPN, 65538)); diff != "" {
		t.Errorf("notification (-want +got):\n%s", diff)
	}
}
