// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// ownVRF is a world of a peer, a VRF and another VRF, and the VRF's table.
func ownVRF(t *testing.T, ecmp bool) (*world, *Table) {
	t.Helper()
	w := newWorld(t, Peer, Local, Local)
	table := w.rib.NewTable(TableConfig{View: VRF, Source: w.sources[1].id, Own: true, ECMP: ecmp, Usable: usable})
	return w, table
}

// targets replaces the route targets.
func targets(l wire.LocalAttrs, rts ...wire.RT) wire.LocalAttrs {
	l.RTs = rts
	return l
}

// A VRF has its own routes whatever their route targets and its imports; others
// have them by route target.
func TestVRFHasItsOwnRoutes(t *testing.T) {
	t.Parallel()
	w, table := ownVRF(t, true)
	other := w.rib.NewTable(TableConfig{View: VRF, Source: w.sources[2].id, ECMP: true})
	evi := w.rib.NewTable(TableConfig{View: EVI, Source: 99})
	evi.SetImports(onlyRT1)
	const key = "prefix 203.0.113.0/24"
	own := wire.Route{NLRI: wire.VPNRoute(rd(1, 1), netA), Label: wire.LabelField(17)}
	theirs := wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA), Label: wire.LabelField(18)}
	steps := []struct {
		name        string
		do          func()
		want, other map[string][]string
		received    int // paths of others in Entries
	}{
		{name: "no route targets at all", do: func() { w.put(1, own, targets(via(pe1, 100))) }, want: map[string][]string{key: {"192.0.2.1"}}},
		{name: "imports change nothing", do: func() { table.SetImports(onlyRT1) }},
		{
			name: "with the route target that it imports", do: func() { w.put(1, own, via(pe1, 100)); other.SetImports(onlyRT1) },
			want: map[string][]string{key: {"192.0.2.1"}}, other: map[string][]string{key: {"192.0.2.1"}},
		},
		{name: "the same again", do: func() { w.put(1, own, via(pe1, 100)) }},
		{name: "imports gone", do: func() { table.SetImports(nil) }, want: map[string][]string{key: {"192.0.2.1"}}},
		{
			name: "equal route of a peer loses", do: func() { table.SetImports(onlyRT1); w.put(0, theirs, via(pe2, 100)) },
			want: map[string][]string{key: {"192.0.2.1"}}, other: map[string][]string{key: {"192.0.2.1", "192.0.2.2"}}, received: 1,
		},
		{
			name: "higher LOCAL_PREF of a peer wins", do: func() { w.put(0, theirs, via(pe2, 101)) },
			want: map[string][]string{key: {"192.0.2.2"}}, other: map[string][]string{key: {"192.0.2.2"}}, received: 1,
		},
		{
			name: "own one with the same again", do: func() { w.put(1, own, via(pe1, 101)) },
			want: map[string][]string{key: {"192.0.2.1"}}, other: map[string][]string{key: {"192.0.2.1", "192.0.2.2"}}, received: 1,
		},
		{
			name: "own one withdrawn", do: func() { w.drop(1, own.NLRI) },
			want: map[string][]string{key: {"192.0.2.2"}}, other: map[string][]string{key: {"192.0.2.2"}}, received: 1,
		},
		{
			name: "own one back with another label", do: func() { own.Label = wire.LabelField(19); w.put(1, own, targets(via(pe3, 200))) },
			want: map[string][]string{key: {"192.0.2.3"}}, received: 1,
		},
		{name: "own one is not usable", do: func() { w.put(1, own, via(pe3, 200, greOnly)) }, want: map[string][]string{key: {"192.0.2.2"}}, other: map[string][]string{key: {"192.0.2.3"}}, received: 1},
		{
			name: "all gone", do: func() { w.purge(w.sources[1]); w.purge(w.sources[0]) },
			want: map[string][]string{key: {}}, other: map[string][]string{key: {}},
		},
	}
	for _, s := range steps {
		s.do()
		for what, c := range map[string]struct {
			table *Table
			want  map[string][]string
		}{"the VRF": {table, s.want}, "another VRF": {other, s.other}, "an EVI": {evi, nil}} {
			if c.want == nil {
				c.want = map[string][]string{}
			}
			if diff := gocmp.Diff(c.want, best(c.table)); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", s.name, what, diff)
			}
		}
		received := 0
		for _, e := range table.Entries() {
			received += len(e.Received)
			if slices.ContainsFunc(e.Received, func(p Path) bool { return p.Own }) {
				t.Errorf("%s: own route among those received", s.name)
			}
		}
		if received != s.received {
			t.Errorf("%s: %d received, want %d", s.name, received, s.received)
		}
	}
	for _, closed := range []*Table{table, other, evi} {
		closed.Close()
	}
	w.checkEmpty(t, table, other, evi)
}

// A VRF's own route to a subnet gives way to another's unless the VRF imports it, and so it
// is also when imports change.
func TestOwnSubnetYields(t *testing.T) {
	t.Parallel()
	w, table := ownVRF(t, true)
	key := "prefix " + netA.String()
	own, theirs := wire.Route{NLRI: wire.VPNRoute(rd(1, 1), netA), Label: wire.LabelField(18)}, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA), Label: wire.LabelField(16)}
	host := netip.MustParsePrefix("203.0.113.1/32")
	other := func(n byte, l wire.LocalAttrs) wire.LocalAttrs { l.RTs = []wire.RT{rt(n)}; return l }
	table.SetImports(onlyRT1)
	w.put(1, own, other(2, via(pe1, 100)))
	want := func(step string, hops ...string) {
		t.Helper()
		if diff := gocmp.Diff(map[string][]string{key: hops}, best(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	want("alone", "192.0.2.1")
	w.put(0, theirs, via(pe2, 100))
	want("a peer's", "192.0.2.2")
	table.SetImports([]wire.RT{rt(1), rt(2)})
	want("imported itself", "192.0.2.1")
	table.SetImports(onlyRT1)
	want("no longer", "192.0.2.2")
	w.put(1, own, other(2, via(pe1, 101)))
	want("preferred", "192.0.2.1")
	w.put(1, own, other(2, via(pe1, 100)))
	best(table)
	key = "prefix " + host.String()
	w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), host), Label: wire.LabelField(16)}, via(pe2, 100))
	w.put(1, wire.Route{NLRI: wire.VPNRoute(rd(1, 1), host), Label: wire.LabelField(18)}, other(2, via(pe1, 100)))
	want("an endpoint itself never does", "192.0.2.1")
}

// The id of a source that ended is another's: its routes are not own ones of the
// VRF that was.
func TestOwnRoutesEndWithTheSource(t *testing.T) {
	t.Parallel()
	w, table := ownVRF(t, false)
	w.rib.RemoveSource(w.sources[1].id)
	id, err := w.rib.AddSource("next", Local)
	if err != nil || id != w.sources[1].id {
		t.Fatalf("AddSource() = %d, %v: want the id %d again", id, err, w.sources[1].id)
	}
	w.put(1, wire.Route{NLRI: wire.VPNRoute(rd(1, 1), netA)}, via(pe1, 100))
	if got := best(table); len(got) != 0 {
		t.Errorf("routes of another source: %v", got)
	}
}

// At equal LOCAL_PREF the VRF's own routes come first, then VPN, then EVPN type 5;
// several best ones are of one kind.
func TestOrderOfKinds(t *testing.T) {
	t.Parallel()
	vpn := func(source SourceID, n byte) wire.Route { return wire.Route{NLRI: wire.VPNRoute(rd(source, n), netA)} }
	five := func(source SourceID, n byte) wire.Route {
		return wire.Route{NLRI: wire.PrefixRoute(rd(source, n), netA), Label: 5000}
	}
	recursive := five(0, 9)
	recursive.Raw = []byte{1}
	type announcement struct {
		source int
		route  wire.Route
		attrs  wire.LocalAttrs
	}
	tests := []struct {
		name string
		one  bool // no ECMP
		in   []announcement
		want []string
	}{
		{name: "type 5 alone", in: []announcement{{0, five(0, 1), via(pe1, 100, vxlan)}}, want: []string{"192.0.2.1"}},
		{name: "ECMP of type 5", in: []announcement{{0, five(0, 1), via(pe2, 100)}, {0, five(0, 2), via(pe1, 100)}}, want: []string{"192.0.2.1", "192.0.2.2"}},
		{name: "one of type 5", one: true, in: []announcement{{0, five(0, 1), via(pe1, 100)}, {0, five(0, 2), via(pe1, 100)}}, want: []string{"192.0.2.1"}},
		{name: "VPN before type 5", in: []announcement{{0, five(0, 1), via(pe1, 100)}, {0, vpn(0, 1), via(pe3, 100)}, {0, vpn(0, 2), via(pe2, 100)}}, want: []string{"192.0.2.2", "192.0.2.3"}},
		{name: "LOCAL_PREF before kind", in: []announcement{{0, five(0, 1), via(pe1, 101)}, {0, vpn(0, 1), via(pe3, 100)}}, want: []string{"192.0.2.1"}},
		{name: "own type 5 before VPN", in: []announcement{{1, five(1, 1), via(pe1, 100)}, {0, vpn(0, 1), via(pe3, 100)}}, want: []string{"192.0.2.1"}},
		{name: "own VPN before own type 5", in: []announcement{{1, five(1, 1), via(pe2, 100)}, {1, vpn(1, 1), via(pe1, 100)}}, want: []string{"192.0.2.1"}},
		{name: "another VRF's is not own", in: []announcement{{2, five(2, 1), via(pe1, 100)}, {0, vpn(0, 1), via(pe3, 100)}}, want: []string{"192.0.2.3"}},
		{name: "to be resolved", in: []announcement{{0, recursive, via(pe1, 200)}, {0, five(0, 1), via(pe2, 100)}}, want: []string{"192.0.2.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, backwards := range []bool{false, true} {
				w, table := ownVRF(t, !tt.one)
				table.SetImports(onlyRT1)
				in := slices.Clone(tt.in)
				if backwards {
					slices.Reverse(in)
				}
				for _, a := range in {
					w.put(a.source, a.route, a.attrs)
				}
				want := map[string][]string{"prefix 203.0.113.0/24": tt.want}
				if diff := gocmp.Diff(want, best(table)); diff != "" {
					t.Errorf("backwards %v: next hops (-want +got):\n%s", backwards, diff)
				}
			}
		})
	}
}

// ESI and gateway are no part of a type 5 route's identity: an announcement with a
// gateway takes one without away, and back.
func TestGatewayReplacesRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	watcher := w.rib.NewWatcher(func() {})
	_, _ = watcher.Next(1, nil) // there is nothing to begin with
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, Usable: usable})
	table.SetImports(onlyRT1)
	route := wire.Route{NLRI: wire.PrefixRoute(rd(0, 1), netA), Label: 5000}
	for _, s := range []struct {
		name string
		raw  []byte
		want map[string][]string
	}{
		{"without", nil, map[string][]string{"prefix 203.0.113.0/24": {"192.0.2.1"}}},
		{"with", []byte{7}, map[string][]string{"prefix 203.0.113.0/24": {}}},
		{"with the same", []byte{7}, map[string][]string{}},
		{"with another", []byte{8}, map[string][]string{"prefix 203.0.113.0/24": {}}},
		{"without again", nil, map[string][]string{"prefix 203.0.113.0/24": {"192.0.2.1"}}},
	} {
		route.Raw = s.raw
		w.put(0, route, via(pe1, 100))
		if diff := gocmp.Diff(s.want, best(table)); diff != "" {
			t.Errorf("%s: next hops (-want +got):\n%s", s.name, diff)
		}
		changes, _ := watcher.Next(9, nil)
		if len(s.want) > 0 && (len(changes) != 1 || !slices.Equal(changes[0].Raw, s.raw)) {
			t.Errorf("%s: watched %+v, want one change with the octets", s.name, changes)
		}
	}
	w.drop(0, route.NLRI)
	best(table)
	table.Close()
	w.checkEmpty(t, table)
}

// Type 5 routes matter to VRFs, all other EVPN routes to EVIs.
func TestRelevantKinds(t *testing.T) {
	t.Parallel()
	routes := []wire.NLRI{
		wire.VPNRoute(rd(0, 1), netA), wire.VPNRoute(rd(0, 1), netip.MustParsePrefix("2001:db8::/32")),
		wire.PrefixRoute(rd(0, 1), netA), wire.MACIPRoute(rd(0, 1), macA, hostIP), wire.IMETRoute(rd(0, 1), pe1), wire.RTCRoute(64512, rt(1)),
		wire.FlowRoute(rd(0, 1), wire.Flow{Destination: netA}).NLRI, wire.FlowRoute(rd(0, 1), wire.Flow{IPv6: true, Destination: netip.MustParsePrefix("::/0")}).NLRI,
	}
	for _, tt := range []struct {
		view View
		want []wire.Kind
		ask  []string
	}{
		{EVI, []wire.Kind{wire.KindMACIP, wire.KindIMET, wire.KindRTC}, []string{"l2vpn/evpn"}},
		{
			VRF, []wire.Kind{wire.KindVPNv4, wire.KindVPNv6, wire.KindPrefix, wire.KindFlowVPNv4, wire.KindFlowVPNv6, wire.KindRTC},
			[]string{"ipv4/mpls-vpn", "ipv6/mpls-vpn", "l2vpn/evpn", "ipv4/flow-vpn", "ipv6/flow-vpn"},
		},
		{Redirect, []wire.Kind{wire.KindVPNv4, wire.KindVPNv6, wire.KindPrefix, wire.KindRTC}, []string{"ipv4/mpls-vpn", "ipv6/mpls-vpn", "l2vpn/evpn"}},
	} {
		w := newWorld(t, Peer)
		var asked []string
		w.rib.KeepRelevant(w.sources[0].id, func(f wire.Family) { asked = append(asked, f.String()) })
		other := w.rib.NewTable(TableConfig{View: map[View]View{EVI: VRF, VRF: EVI, Redirect: EVI}[tt.view], Source: 98})
		other.SetImports([]wire.RT{rt(2)})
		asked = nil
		table := w.rib.NewTable(TableConfig{View: tt.view, Source: 99})
		table.SetImports(onlyRT1)
		if diff := gocmp.Diff(tt.ask, asked); diff != "" {
			t.Errorf("view %d: asked for (-want +got):\n%s", tt.view, diff)
		}
		for _, n := range routes {
			w.put(0, wire.Route{NLRI: n}, via(pe1, 100, wire.EncapCommunity(encap.VXLAN)))
		}
		var got []wire.Kind
		for _, p := range w.rib.Paths(func(Path) bool { return true }) {
			got = append(got, p.NLRI.Kind)
		}
		slices.Sort(got)
		if diff := gocmp.Diff(tt.want, got); diff != "" {
			t.Errorf("view %d: kinds kept (-want +got):\n%s", tt.view, diff)
		}
		table.SetImports(nil)
		if n := w.rib.Stats().Paths; n != 1 { // that of RTC
			t.Errorf("view %d: %d paths when nothing is imported, want 1", tt.view, n)
		}
	}
}
