// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// manyMACs returns n EVPN type 2 routes.
func manyMACs(n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		mac := testMAC
		binary.BigEndian.PutUint32(mac[2:], uint32(i))
		routes[i] = Route{NLRI: MACIPRoute(testRD, mac, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), Label: 5000}
	}
	return routes
}

// manyPrefixes returns n VPNv4 routes.
func manyPrefixes(n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		routes[i] = Route{NLRI: VPNRoute(testRD, p), Label: LabelField(uint32(i%1000) + 16)}
	}
	return routes
}

// splitMessages cuts a byte stream into UPDATE messages and has GoBGP check each.
func splitMessages(t testing.TB, b []byte, maxLen int) [][]byte {
	t.Helper()
	var msgs [][]byte
	for len(b) > 0 {
		typ, length, err := ParseHeader(b, maxLen)
		if err != nil || typ != MsgUpdate || length > len(b) {
			t.Fatalf("message %d: %v of length %d, %d octets left, %v", len(msgs), typ, length, len(b), err)
		}
		if _, err := bgp.ParseBGPMessage(b[:length]); err != nil {
			t.Fatalf("GoBGP refuses message %d: %v", len(msgs), err)
		}
		msgs, b = append(msgs, b[:length]), b[length:]
	}
	return msgs
}

// readMessage returns the update and its routes.
func readMessage(t testing.TB, msg []byte) (Update, []Route) {
	t.Helper()
	u, err := ParseUpdate(msg[HeaderLen:], nil)
	if err != nil || u.Withdraw != nil {
		t.Fatal(err, u.Withdraw)
	}
	part := u.Reach
	if u.Unreach.Present {
		part = u.Unreach
	}
	routes, skipped, err := readAll(part.Family, part.NLRI, u.Unreach.Present)
	if err != nil || skipped != 0 {
		t.Fatalf("%d skipped, %v", skipped, err)
	}
	return u, routes
}

func TestPackerFillsMessages(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	attrs := LocalAttrs{NextHop: nh, RTs: []RT{{0, 2, 0xfc, 0, 0, 0, 0, 1}}}.Build()
	tests := []struct {
		name     string
		in       []Route
		max      int
		withdraw bool
		want     int // messages
	}{
		{name: "one", in: manyMACs(1), max: MaxMessage, want: 1},
		{name: "EVPN 2", in: manyMACs(1000), max: MaxMessage, want: 10},
		{name: "EVPN 2, extended", in: manyMACs(10000), max: MaxExtMessage, want: 6},
		{name: "EVPN 2 withdrawn", in: manyMACs(1000), max: MaxMessage, withdraw: true, want: 10},
		{name: "VPNv4", in: manyPrefixes(10000), max: MaxMessage, want: 40},
		{name: "VPNv4, extended", in: manyPrefixes(10000), max: MaxExtMessage, want: 3},
		{name: "VPNv4 withdrawn, extended", in: manyPrefixes(10000), max: MaxExtMessage, withdraw: true, want: 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := NewPacker(tt.max)
			f := tt.in[0].NLRI.Kind.Family()
			if tt.withdraw {
				p.Withdraw(f)
			} else {
				p.Announce(f, attrs.Raw, nh)
			}
			for _, r := range tt.in {
				if !p.Add(r) {
					t.Fatalf("%v refused", r.NLRI)
				}
			}
			var got []NLRI
			msgs := splitMessages(t, p.Flush(), tt.max)
			for _, msg := range msgs {
				u, routes := readMessage(t, msg)
				for _, r := range routes {
					got = append(got, r.NLRI)
				}
				if tt.withdraw {
					if len(u.Attrs) > 0 || u.Reach.Present {
						t.Errorf("withdraw carries %x", u.Attrs)
					}
				} else if diff := cmp.Diff(attrs.Raw, u.Attrs); diff != "" || u.NextHop != nh || u.Reach.Family != f {
					t.Errorf("next hop %v, attributes (-want +got):\n%s", u.NextHop, diff)
				}
			}
			var want []NLRI
			for _, r := range tt.in {
				want = append(want, r.NLRI)
			}
			if !slices.Equal(want, got) {
				t.Errorf("routes (-want +got):\n%s", cmp.Diff(want, got))
			}
			if len(msgs) != tt.want {
				t.Errorf("%d messages, want %d", len(msgs), tt.want)
			}
		})
	}
}

func TestPackerMixesRuns(t *testing.T) {
	t.Parallel()
	nh, nh6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	one, two := LocalAttrs{NextHop: nh}.Build(), LocalAttrs{NextHop: nh6, LocalPref: 7}.Build()
	macs, prefixes := manyMACs(3), manyPrefixes(2)
	p := NewPacker(MaxMessage)
	p.Announce(EVPN, one.Raw, nh)
	p.Add(macs[0])
	p.Withdraw(EVPN)
	p.Add(macs[1])
	p.Announce(VPNv4, two.Raw, nh6) // stays empty
	p.Withdraw(VPNv6)               // stays empty
	p.Announce(VPNv4, two.Raw, nh6)
	p.Add(prefixes[0])
	p.Add(prefixes[1])
	if p.Len() == 0 {
		t.Error("nothing waits for Flush")
	}
	type run struct {
		Down    bool
		Attrs   string
		NextHop netip.Addr
		Routes  []string
	}
	var got []run
	read := func() {
		for _, msg := range splitMessages(t, p.Flush(), MaxMessage) {
			u, routes := readMessage(t, msg)
			r := run{u.Unreach.Present, string(u.Attrs), u.NextHop, nil}
			for _, route := range routes {
				r.Routes = append(r.Routes, route.NLRI.String())
			}
			got = append(got, r)
		}
	}
	read()
	p.Add(prefixes[0]) // the run goes on after Flush
	read()
	read()
	want := []run{
		{false, string(one.Raw), nh, []string{macs[0].NLRI.String()}},
		{true, "", netip.Addr{}, []string{macs[1].NLRI.String()}},
		{false, string(two.Raw), nh6, []string{prefixes[0].NLRI.String(), prefixes[1].NLRI.String()}},
		{false, string(two.Raw), nh6, []string{prefixes[0].NLRI.String()}},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if p.Len() != 0 {
		t.Errorf("%d octets wait after Flush", p.Len())
	}
}

func TestPackerWritesNothingForEmptyRuns(t *testing.T) {
	t.Parallel()
	p := NewPacker(MaxMessage)
	p.Announce(EVPN, attrIGP, netip.MustParseAddr("192.0.2.1"))
	p.Withdraw(EVPN)
	p.Announce(FlowVPNv4, attrIGP, netip.Addr{})
	if b := p.Flush(); len(b) != 0 {
		t.Errorf("%x, want nothing", b)
	}
}

func TestPackerEndOfRIBStandsBetweenRuns(t *testing.T) {
	t.Parallel()
	p := NewPacker(MaxMessage)
	p.Withdraw(EVPN)
	p.Add(manyMACs(1)[0])
	p.EndOfRIB(EVPN)
	p.Add(manyMACs(1)[0])
	var got []string
	for _, msg := range splitMessages(t, p.Flush(), MaxMessage) {
		u, routes := readMessage(t, msg)
		f, ok := u.EndOfRIB()
		got = append(got, fmt.Sprint(f, ok, len(routes)))
	}
	if diff := cmp.Diff([]string{"0/0 false 1", "l2vpn/evpn true 0", "0/0 false 1"}, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestPackerRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	raw := flowComponents(4000)
	smallRaw := flowComponents(4)
	flow := Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD, Addr: digest(raw)}, Raw: raw}
	small := Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD, Addr: digest(smallRaw)}, Raw: smallRaw}
	big := append(bytes.Clone(attrMandatory), attr(0xc0, attrExtComms, make([]byte, 800)...)...)
	p := NewPacker(MaxMessage)
	p.Announce(FlowVPNv4, big, netip.Addr{})
	got := []bool{p.Add(small), p.Add(flow), p.Add(small)}
	if diff := cmp.Diff([]bool{true, false, true}, got); diff != "" {
		t.Errorf("added (-want +got):\n%s", diff)
	}
	count := 0
	for _, msg := range splitMessages(t, p.Flush(), MaxMessage) {
		_, routes := readMessage(t, msg)
		if count += len(routes); len(routes) == 0 {
			t.Errorf("message without routes: %x", msg)
		}
	}
	if count != 2 {
		t.Errorf("%d routes sent, want 2", count)
	}
	ext := NewPacker(MaxExtMessage)
	ext.Announce(FlowVPNv4, big, netip.Addr{})
	if !ext.Add(flow) {
		t.Error("an extended message does not take the route")
	}
}

func TestGoBGPReadsPackedRoutes(t *testing.T) {
	t.Parallel()
	for _, tt := range gobgpRoutes(t) {
		if tt.lossy {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nh := netip.MustParseAddr("192.0.2.1")
			f := tt.want.NLRI.Kind.Family()
			p := NewPacker(MaxMessage)
			p.Announce(f, LocalAttrs{NextHop: nh}.Build().Raw, nh)
			p.Add(tt.want)
			m := must(bgp.ParseBGPMessage(p.Flush()))(t)
			reach := m.Body.(*bgp.BGPUpdate).PathAttributes[0].(*bgp.PathAttributeMpReachNLRI)
			got := must(reach.Value[0].NLRI.Serialize())(t)
			if diff := cmp.Diff(must(tt.in.Serialize())(t), got); diff != "" || bgp.NewFamily(reach.AFI, reach.SAFI) != gobgpFamily(f) {
				t.Errorf("route (-want +got):\n%s", diff)
			}
			if noNextHop := f.SAFI == 134; !noNextHop && reach.Nexthop.Unmap() != nh || noNextHop && reach.Nexthop.IsValid() {
				t.Errorf("next hop %v, want %v", reach.Nexthop, nh)
			}
		})
	}
}

// Decoding of a whole message allocates nothing once the buffers are there.
func TestReadingDoesNotAllocate(t *testing.T) {
	nh := netip.MustParseAddr("192.0.2.1")
	p := NewPacker(MaxMessage)
	p.Announce(EVPN, LocalAttrs{NextHop: nh}.Build().Raw, nh)
	for _, r := range manyMACs(50) {
		p.Add(r)
	}
	msg := p.Flush()
	scratch := make([]byte, 0, 4096)
	count := 0
	allocs := testing.AllocsPerRun(10, func() {
		u, err := ParseUpdate(msg[HeaderLen:], scratch)
		if err != nil {
			t.Fatal(err)
		}
		var route Route
		for r := NewNLRIReader(u.Reach.Family, u.Reach.NLRI, false); ; count++ {
			if ok, _ := r.Next(&route); !ok {
				return
			}
		}
	})
	if allocs != 0 || count == 0 {
		t.Errorf("%v allocations for %d routes, want none", allocs, count)
	}
}

func TestPackerKeepsRefreshInOrder(t *testing.T) {
	t.Parallel()
	nh := netip.MustParseAddr("192.0.2.1")
	p := NewPacker(MaxMessage)
	p.RouteRefresh(EVPN, RefreshBegin)
	p.Announce(EVPN, LocalAttrs{NextHop: nh}.Build().Raw, nh)
	p.Add(manyMACs(1)[0])
	p.RouteRefresh(EVPN, RefreshEnd)
	var got []string
	for b := p.Flush(); len(b) > 0; {
		typ, length, err := ParseHeader(b, MaxMessage)
		if err != nil {
			t.Fatal(err)
		}
		text := typ.String()
		if typ == MsgRouteRefresh {
			f, subtype, err := ParseRouteRefresh(b[HeaderLen:length])
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprint(" ", f, " ", subtype)
		}
		got, b = append(got, text), b[length:]
	}
	if diff := cmp.Diff([]string{"ROUTE-REFRESH l2vpn/evpn 1", "UPDATE", "ROUTE-REFRESH l2vpn/evpn 2"}, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
