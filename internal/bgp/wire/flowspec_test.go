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
		{
			"ranges of every kind", "0503014509017e03ff55010091ffff", "destination-port [ >=1&<=9 =126 >=255&<=256 =65535 ]",
			wire.Flow{DestinationPorts: []wire.Range{{1, 9}, {126, 126}, {255, 256}, {65535, 65535}}},
		},
		{"all but the ends", "060301d5fffe", "source-port [ >=1&<=65534 ]", wire.Flow{SourcePorts: []wire.Range{{1, 65534}}}},
		{"ports and not protocols have no names", "048106", "port =6", wire.Flow{Ports: one(6)}},
		{"last protocol", "03010681ff", "protocol [ =tcp =255 ]", wire.Flow{Protocols: []wire.Range{{6, 6}, {255, 255}}}},
		{"bit masks", "0980020c8301", "tcp-flags 0x2 fragment !=0x1", wire.Flow{}},
		{"malformed", "0381060e01", "protocol =tcp 0x0e01", wire.Flow{}},
		{"several protocols", "0301068111", "protocol [ =tcp =udp ]", wire.Flow{Protocols: []wire.Range{{6, 6}, {17, 17}}}},
		{"a default", "0100", "destination-ipv4 0.0.0.0/0", wire.Flow{Destination: p("0.0.0.0/0")}},
		{
			"IPv6", "01400020010db80000000002800020010db80000000000000000000000010381060691ea60",
			"destination-ipv6 2001:db8::/64 source-ipv6 2001:db8::1/128 protocol =tcp source-port =60000",
			wire.Flow{IPv6: true, Destination: p("2001:db8::/64"), Source: p("2001:db8::1/128"), Protocols: one(6), SourcePorts: one(60000)},
		},
		{"IPv6 default", "010000", "destination-ipv6 ::/0", wire.Flow{IPv6: true, Destination: p("::/0")}},
	} {
		if tt.flow.Destination.IsValid() || tt.flow.DestinationPorts != nil || tt.flow.SourcePorts != nil || tt.flow.Protocols != nil || tt.flow.Ports != nil {
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
		{"one in another", "03 05 45 1e 03 0a c5 14", []wire.Range{{5, 30}}},
		{"joined at the end", "02 50 91 ffff", []wire.Range{{81, 65535}}},
		{"greater than the last but one", "92 fffe", []wire.Range{{65535, 65535}}},
		{"not the last", "96 ffff", []wire.Range{{0, 65534}}},
		{"not the first", "86 00", []wire.Range{{1, 65535}}},
		{"at most, eight octets", "b5 0000000100000000", []wire.Range{{0, 65535}}},
		{"less than all and one", "a4 00010000", []wire.Range{{0, 65535}}},
		{"less than more", "a4 00010011", []wire.Range{{0, 65535}}},
		{"protocol: all", "85 ff", []wire.Range{{0, 255}}},
		{"protocol: less than 256", "94 0100", []wire.Range{{0, 255}}},
		{"protocol: less than 4096", "94 1000", []wire.Range{{0, 255}}},
		{"protocol: less than 255", "84 ff", []wire.Range{{0, 254}}},
		{"protocol: the last", "82 fe", []wire.Range{{255, 255}}},
		{"protocol: not TCP", "86 06", []wire.Range{{0, 5}, {7, 255}}},
	} {
		protocol, typ := strings.HasPrefix(tt.name, "protocol"), "05"
		if protocol {
			typ = "03"
		}
		raw, err := hex.DecodeString(typ + strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.ParseFlow(raw, false)
		got := f.DestinationPorts
		if protocol {
			got = f.Protocols
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

// Host bits and what is behind a prefix do not count; an offset cannot be matched.
func TestFlowPrefixes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		hex  string
		ipv6 bool
		want string
	}{
		{"0119cb0071ff", false, "203.0.113.128/25"},
		{"0219cb0071ff", false, "203.0.113.128/25"},
		{"01310020010db80000ff", true, "2001:db8:0:8000::/49"},
		{"0220010db8000000", true, "FlowSpec component source (type 2) has an offset of 1: want 0"},
		{"01201f80", true, "FlowSpec component destination (type 1) has an offset of 31: want 0"},
	} {
		raw, _ := hex.DecodeString(tt.hex)
		f, err := wire.ParseFlow(raw, tt.ipv6)
		got := f.Destination.String()
		switch {
		case err != nil:
			got = err.Error()
		case f.Source.IsValid():
			got = f.Source.String()
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.hex, got, tt.want)
		}
	}
	r := wire.FlowRoute(wire.RD{}, wire.Flow{Destination: netip.MustParsePrefix("203.0.113.255/25")})
	if got := hex.EncodeToString(r.Raw); got != "0119cb007180" {
		t.Errorf("host bits are encoded: %s", got)
	}
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]uint8{"tcp": 6, "UDP": 17, "Sctp": 132, "ICMPv6": 58, "icmp": 1} {
		if got, ok := wire.ProtocolNumber(name); got != want || !ok {
			t.Errorf("%s is %d, %v: want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "6", "tcp ", "tpc"} {
		if got, ok := wire.ProtocolNumber(name); ok {
			t.Errorf("%q is %d", name, got)
		}
	}
	var ports []uint16
	for n := range uint16(256) {
		if wire.HasPorts(n) {
			ports = append(ports, n)
		}
	}
	if diff := cmp.Diff([]uint16{6, 17, 132}, ports); diff != "" {
		t.Errorf("protocols with ports (-want +got):\n%s", diff)
	}
}

func TestFlowsThatCannotBeMatched(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hex, want string }{
		{"058050", "FlowSpec component destination-port (type 5) matches nothing"},
		{"058400", "FlowSpec component destination-port (type 5) matches nothing"},
		{"05a100010000", "FlowSpec component destination-port (type 5) matches nothing"},
		{"0592ffff", "FlowSpec component destination-port (type 5) matches nothing"},
		{"05a200010000", "FlowSpec component destination-port (type 5) matches nothing"},
		{"0382ff", "FlowSpec component protocol (type 3) matches nothing"},
		{"03910100", "FlowSpec component protocol (type 3) matches nothing"},
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
	for _, tt := range []struct {
		c                         wire.ExtCommunity
		redirects, record, action bool
	}{
		{wire.ExtCommunity{0x7f, 0x08}, false, false, false},
		{wire.ExtCommunity{0x80, 0x08}, true, false, true},
		{wire.ExtCommunity{0x82, 0x08}, true, false, true},
		{wire.ExtCommunity{0x83, 0x08}, false, false, false},
		{wire.ExtCommunity{0x80, 0x06}, false, false, true},
		{wire.ExtCommunity{0x82, 0x13}, false, false, true},
		{wire.ExtCommunity{0x00, 0x13}, false, true, false},
		{wire.ExtCommunity{0x02, 0x13}, false, true, false},
		{wire.ExtCommunity{0x03, 0x13}, false, false, false},
		{wire.ExtCommunity{0x02, 0x02}, false, false, false},
	} {
		_, redirects := tt.c.RedirectTarget()
		if redirects != tt.redirects || tt.c.IsRTRecord() != tt.record || tt.c.IsFlowAction() != tt.action {
			t.Errorf("%x: redirects %v, RT-record %v, action %v: want %v, %v, %v", tt.c, redirects, tt.c.IsRTRecord(), tt.c.IsFlowAction(), tt.redirects, tt.record, tt.action)
		}
	}
}
