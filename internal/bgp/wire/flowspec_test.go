// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestFlowCodec(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	one := func(n uint16) []wire.Range { return []wire.Range{{n, n}} }
	for _, tt := range []struct {
		name, hex, text string
		flow            wire.Flow
	}{
		{
			"the original's", "0118cb007102100a01038106058150061303e8d507d0",
			"destination-ipv4 203.0.113.0/24 source-ipv4 10.1.0.0/16 protocol =tcp destination-port =80 source-port [ >=1000&<=2000 ]",
			wire.Flow{Destination: p("203.0.113.0/24"), Source: p("10.1.0.0/16"), Protocols: one(6), DestinationPorts: one(80), SourcePorts: []wire.Range{{1000, 2000}}},
		},
		{"from zero", "0120cb00710105d507d0", "", wire.Flow{}},
		{"up to a port", "059507d0", "destination-port <=2000", wire.Flow{DestinationPorts: []wire.Range{{0, 2000}}}},
		{"from a port", "069303e8", "source-port >=1000", wire.Flow{SourcePorts: []wire.Range{{1000, 65535}}}},
		{"every port", "0595ffff", "destination-port <=65535", wire.Flow{DestinationPorts: []wire.Range{{0, 65535}}}},
		{"either port", "0411007b91ffff", "port [ =123 =65535 ]", wire.Flow{}},
		{"port 0", "058100", "destination-port =0", wire.Flow{DestinationPorts: one(0)}},
		{"several protocols", "0301068111", "protocol [ =tcp =udp ]", wire.Flow{Protocols: []wire.Range{{6, 6}, {17, 17}}}},
		{"a default", "0100", "destination-ipv4 0.0.0.0/0", wire.Flow{Destination: p("0.0.0.0/0")}},
		{
			"IPv6", "01400020010db80000000002800020010db80000000000000000000000010381060691ea60",
			"destination-ipv6 2001:db8::/64 source-ipv6 2001:db8::1/128 protocol =tcp source-port =60000",
			wire.Flow{IPv6: true, Destination: p("2001:db8::/64"), Source: p("2001:db8::1/128"), Protocols: one(6), SourcePorts: one(60000)},
		},
		{"IPv6 default", "010000", "destination-ipv6 ::/0", wire.Flow{IPv6: true, Destination: p("::/0")}},
	} {
		if tt.flow.Destination.IsValid() || tt.flow.DestinationPorts != nil || tt.flow.SourcePorts != nil || tt.flow.Protocols != nil {
			r := wire.FlowRoute(wire.RD{}, tt.flow)
			if got := hex.EncodeToString(r.Raw); got != tt.hex {
				t.Errorf("%s: encoded as %s, want %s", tt.name, got, tt.hex)
			}
			got, err := wire.ParseFlow(r.Raw, tt.flow.IPv6)
			if diff := cmp.Diff(tt.flow, got, samePrefix); diff != "" || err != nil {
				t.Errorf("%s: decoded %v (-want +got):\n%s", tt.name, err, diff)
			}
		}
		raw, _ := hex.DecodeString(tt.hex)
		if got := wire.FlowText(raw, tt.flow.IPv6); tt.text != "" && got != tt.text {
			t.Errorf("%s: text %q, want %q", tt.name, got, tt.text)
		}
	}
}

// TestFlowOperators has every meaning of operator lists (RFC 8955 §4.2.1.1).
func TestFlowOperators(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, hex string
		want      []wire.Range
	}{
		{"less", "84 50", []wire.Range{{0, 79}}},
		{"greater", "82 50", []wire.Range{{81, 65535}}},
		{"not equal", "86 50", []wire.Range{{0, 79}, {81, 65535}}},
		{"true", "87 50", []wire.Range{{0, 65535}}},
		{"equal, four octets", "a1 00000050", []wire.Range{{80, 80}}},
		{"less, eight octets", "b4 0000000100000000", []wire.Range{{0, 65535}}},
		{"and", "03 0a c5 14", []wire.Range{{10, 20}}},
		{"and before or", "03 0a 45 14 81 50", []wire.Range{{10, 20}, {80, 80}}},
		{"or before and", "01 50 03 0a c5 14", []wire.Range{{10, 20}, {80, 80}}},
		{"three and", "06 0f 43 0a c5 14", []wire.Range{{10, 14}, {16, 20}}},
		{"first and is none", "c1 50", []wire.Range{{80, 80}}},
		{"joined", "03 0a 45 14 03 15 c5 1e", []wire.Range{{10, 30}}},
		{"overlapping", "03 0a 45 14 03 05 c5 0c", []wire.Range{{5, 20}}},
	} {
		raw, err := hex.DecodeString("05" + strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseFlow(raw, false)
		if diff := cmp.Diff(tt.want, got.DestinationPorts); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

func TestFlowsThatCannotBeMatched(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hex, want string }{
		{"058050", "FlowSpec component destination-port (type 5) matches nothing"},
		{"058400", "FlowSpec component destination-port (type 5) matches nothing"},
		{"05a100010000", "FlowSpec component destination-port (type 5) matches nothing"},
		{"0303 50 c5 14", "FlowSpec component protocol (type 3) matches nothing"},
		{"078108", "FlowSpec component icmp-type (type 7) is not supported: want destination, source, protocol, port, destination-port and source-port only"},
		{"0c8001", "FlowSpec component fragment (type 12) is not supported: want destination, source, protocol, port, destination-port and source-port only"},
		{"0e", "FlowSpec components are malformed"},
		{"0121", "FlowSpec components are malformed"},
	} {
		raw, _ := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if _, err := wire.ParseFlow(raw, false); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.hex, err, tt.want)
		}
	}
	raw, _ := hex.DecodeString("01202000000000")
	if _, err := wire.ParseFlow(raw, true); err == nil {
		t.Error("a prefix with an offset is matched")
	}
}

func TestCommunitiesOfChains(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"64512:100", "192.0.2.1:7", "70000:9"} {
		rt, err := wire.ParseRT(text)
		if err != nil {
			t.Fatal(err)
		}
		redirect := wire.RedirectCommunity(rt)
		if got, ok := redirect.RedirectTarget(); !ok || got != rt || !redirect.IsFlowAction() {
			t.Errorf("redirect to %s: %x is read as %s", text, redirect, got)
		}
		if kind, value := redirect.Known(); kind != "redirect" || value != text {
			t.Errorf("redirect to %s has the text %s:%s", text, kind, value)
		}
		record := wire.RTRecord(rt)
		if kind, value := record.Known(); kind != "rtrecord" || value != text || !record.IsRTRecord() || record.IsRT() {
			t.Errorf("RT-record of %s has the text %s:%s", text, kind, value)
		}
		if _, ok := wire.ExtCommunity(rt).RedirectTarget(); ok {
			t.Errorf("route target %s redirects", text)
		}
	}
	if _, ok := (wire.ExtCommunity{0x83, 0x08}).RedirectTarget(); ok {
		t.Error("type 0x83 redirects")
	}
}
