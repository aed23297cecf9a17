// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// prefixes drains a table and returns the keys that have paths and those that
// have none any more.
func prefixes(table *Table) (added, gone []string) {
	for key, hops := range best(table) {
		if len(hops) > 0 {
			added = append(added, key)
		} else {
			gone = append(gone, key)
		}
	}
	slices.Sort(added)
	slices.Sort(gone)
	return added, gone
}

func TestOwnRoutesOfAnEVIAreNotImported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Local, Local, Peer)
	route := func(n byte) wire.Route {
		return wire.Route{NLRI: wire.MACIPRoute(rd(0, n), ethernet.MAC{2, 0, 0, 0, 0, n}, netip.Addr{})}
	}
	for i := range 3 {
		w.put(i, route(byte(i)), via(pe1, 100))
	}
	table := w.rib.NewTable(TableConfig{View: EVI, Source: w.sources[0].id})
	table.SetImports(onlyRT1)
	added, _ := prefixes(table)
	if diff := gocmp.Diff([]string{"mac 02:00:00:00:00:01", "mac 02:00:00:00:00:02"}, added); diff != "" {
		t.Errorf("imported when there before (-want +got):\n%s", diff)
	}
	for i := range 3 {
		w.put(i, route(byte(10+i)), via(pe1, 100))
	}
	added, _ = prefixes(table)
	if diff := gocmp.Diff([]string{"mac 02:00:00:00:00:0b", "mac 02:00:00:00:00:0c"}, added); diff != "" {
		t.Errorf("imported when announced later (-want +got):\n%s", diff)
	}
}

func TestViewsTakeTheirKindsOnly(t *testing.T) {
	t.Parallel()
	flood := via(pe1, 100)
	flood.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: 16, Endpoint: pe1}
	w := newWorld(t, Peer)
	evi := w.rib.NewTable(TableConfig{View: EVI, Source: 99})
	vrf := w.rib.NewTable(TableConfig{View: VRF, Source: 99})
	evi.SetImports(onlyRT1)
	vrf.SetImports(onlyRT1)
	for _, n := range []wire.NLRI{
		wire.VPNRoute(rd(0, 1), netA), wire.VPNRoute(rd(0, 1), netip.MustParsePrefix("::/0")), wire.VPNRoute(rd(0, 1), netip.MustParsePrefix("0.0.0.0/0")),
		wire.MACIPRoute(rd(0, 1), macA, hostIP), wire.IMETRoute(rd(0, 1), pe1), wire.RTCRoute(64512, rt(1)),
		wire.PrefixRoute(rd(0, 1), netip.MustParsePrefix("198.51.100.0/24")), wire.PrefixRoute(rd(0, 1), netip.MustParsePrefix("2001:db8::/32")),
		{Kind: wire.KindAD}, {Kind: wire.KindES}, {Kind: wire.KindFlowVPNv4}, {Kind: wire.KindFlowVPNv6, Addr: [16]byte{15: 1}},
	} {
		w.put(0, wire.Route{NLRI: n}, flood)
	}
	got := slices.Sorted(maps.Keys(best(evi)))
	if diff := gocmp.Diff([]string{"flood 192.0.2.1 16", "ip 198.51.100.1", "mac 02:00:00:00:00:01"}, got); diff != "" {
		t.Errorf("EVI (-want +got):\n%s", diff)
	}
	got = slices.Sorted(maps.Keys(best(vrf)))
	flows := []string{"flow 00000000000000000000000000000000", "flow 00000000000000000000000000000001"}
	if diff := gocmp.Diff([]string{flows[0], flows[1], "prefix 0.0.0.0/0", "prefix 198.51.100.0/24", "prefix 2001:db8::/32", "prefix 203.0.113.0/24", "prefix ::/0"}, got); diff != "" {
		t.Errorf("VRF (-want +got):\n%s", diff)
	}
}

func TestRouteWithSeveralImportedRTsIsThereOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	l := via(pe1, 100)
	l.RTs = []wire.RT{rt(1), rt(2), rt(1)}
	w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA)}, l)
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, ECMP: true})
	table.SetImports([]wire.RT{rt(1), rt(2), rt(2)})
	l.LocalPref = 200
	w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA)}, l)
	if diff := gocmp.Diff(map[string][]string{"prefix 203.0.113.0/24": {"192.0.2.1"}}, best(table)); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	table.SetImports([]wire.RT{rt(2)})
	if diff := gocmp.Diff(map[string][]string{}, best(table)); diff != "" {
		t.Errorf("dropping one of two matching RTs changed (-want +got):\n%s", diff)
	}
	table.SetImports([]wire.RT{rt(1)})
	if diff := gocmp.Diff(map[string][]string{"prefix 203.0.113.0/24": {"192.0.2.1"}}, best(table)); diff != "" {
		t.Errorf("paths after an exchange of RTs (-want +got):\n%s", diff)
	}
	w.drop(0, wire.VPNRoute(rd(0, 1), netA))
	best(table)
	if n := len(table.Entries()); n != 0 {
		t.Errorf("%d entries after the withdraw, want none", n)
	}
}

func TestChangeOfImportsAddsAndRemovesExactly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	for i, rts := range [][]wire.RT{{rt(1)}, {rt(2)}, {rt(1), rt(2)}, {rt(3)}, nil} {
		l := via(pe1, 100)
		l.RTs = rts
		w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32))}, l)
	}
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99})
	const p0, p1, p2, p3 = "prefix 10.0.0.0/32", "prefix 10.0.0.1/32", "prefix 10.0.0.2/32", "prefix 10.0.0.3/32"
	tests := []struct {
		name        string
		in          []wire.RT
		added, gone []string
	}{
		{name: "nothing"},
		{name: "one", in: []wire.RT{rt(1)}, added: []string{p0, p2}},
		{name: "same again", in: []wire.RT{rt(1)}},
		{name: "one more", in: []wire.RT{rt(2), rt(1)}, added: []string{p1}},
		{name: "first dropped", in: []wire.RT{rt(2)}, gone: []string{p0}},
		{name: "another instead", in: []wire.RT{rt(3)}, added: []string{p3}, gone: []string{p1, p2}},
		{name: "unknown", in: []wire.RT{rt(9)}, gone: []string{p3}},
		{name: "all", in: []wire.RT{rt(1), rt(2), rt(3)}, added: []string{p0, p1, p2, p3}},
		{name: "none", gone: []string{p0, p1, p2, p3}},
	}
	for _, tt := range tests {
		table.SetImports(tt.in)
		added, gone := prefixes(table)
		if diff := gocmp.Diff([][]string{tt.added, tt.gone}, [][]string{added, gone}); diff != "" {
			t.Errorf("%s: added and gone (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestFlappingRouteIsOneChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	calls := 0
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, Dirty: func() { calls++ }})
	table.SetImports(onlyRT1)
	route := wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA)}
	for i := range 10 {
		w.put(0, route, via(pe1, uint32(100+i)))
		if i < 9 {
			w.drop(0, route.NLRI)
		}
	}
	if diff := gocmp.Diff(map[string][]string{"prefix 203.0.113.0/24": {"192.0.2.1"}}, best(table)); diff != "" || calls != 1 {
		t.Errorf("%d calls of Dirty, want 1; changes (-want +got):\n%s", calls, diff)
	}
	w.put(0, route, via(pe1, 109))
	if got := best(table); len(got) != 0 || calls != 1 {
		t.Errorf("an identical route changed %v, %d calls of Dirty", got, calls)
	}
}
