// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// put announces one route, drop withdraws one.
func (w *world) put(source int, r wire.Route, l wire.LocalAttrs) {
	var b Batch
	w.announce(&b, w.sources[source], r, l, false)
	w.rib.Apply(w.sources[source].id, &b)
}

func (w *world) drop(source int, n wire.NLRI) {
	var b Batch
	w.withdraw(&b, w.sources[source], n)
	w.rib.Apply(w.sources[source].id, &b)
}

// best drains a table and returns, per entry that changed, the next hops of its
// best paths.
func best(table *Table) map[string][]string {
	got := map[string][]string{}
	var s Selections
	for more := true; more; {
		more = table.Take(2, &s)
		for _, item := range s.Items {
			hops := []string{}
			for _, p := range item.Best {
				hops = append(hops, p.Attrs.NextHop.String())
			}
			got[keyText(item.Key)] = hops
		}
	}
	return got
}

var (
	macA     = ethernet.MAC{2, 0, 0, 0, 0, 1}
	pe1      = netip.MustParseAddr("192.0.2.1")
	pe2      = netip.MustParseAddr("192.0.2.2")
	pe3      = netip.MustParseAddr("192.0.2.3")
	hostIP   = netip.MustParseAddr("198.51.100.1")
	netA     = netip.MustParsePrefix("203.0.113.0/24")
	onlyRT1  = []wire.RT{rt(1)}
	vxlan    = wire.EncapCommunity(encap.VXLAN)
	greOnly  = wire.EncapCommunity(encap.GRE)
	stickyEC = wire.ExtCommunity{6, 0, 1}
)

// via are attributes with route target 1.
func via(nh netip.Addr, pref uint32, comms ...wire.ExtCommunity) wire.LocalAttrs {
	return wire.LocalAttrs{NextHop: nh, LocalPref: pref, RTs: onlyRT1, Communities: comms}
}

func TestSelectionRules(t *testing.T) {
	t.Parallel()
	mac := func(n byte) wire.Route {
		return wire.Route{NLRI: wire.MACIPRoute(rd(0, n), macA, netip.Addr{}), Label: 5000}
	}
	prefix := func(n byte) wire.Route {
		return wire.Route{NLRI: wire.VPNRoute(rd(0, n), netA), Label: wire.LabelField(17)}
	}
	type announcement struct {
		route wire.Route
		attrs wire.LocalAttrs
	}
	tests := []struct {
		name string
		view View
		ecmp bool
		in   []announcement
		want []string
	}{
		{name: "MAC: LOCAL_PREF before all", in: []announcement{{mac(1), via(pe1, 100, stickyEC, wire.MobilityCommunity(9))}, {mac(2), via(pe2, 101)}}, want: []string{"192.0.2.2"}},
		{name: "MAC: sticky before mobility", in: []announcement{{mac(1), via(pe1, 100, wire.MobilityCommunity(9))}, {mac(2), via(pe2, 100, stickyEC)}}, want: []string{"192.0.2.2"}},
		{name: "MAC: higher sequence number", in: []announcement{{mac(1), via(pe1, 100, wire.MobilityCommunity(1))}, {mac(2), via(pe2, 100, wire.MobilityCommunity(2))}}, want: []string{"192.0.2.2"}},
		{name: "MAC: none counts as sequence number 0", in: []announcement{{mac(1), via(pe1, 100, wire.MobilityCommunity(1))}, {mac(2), via(pe2, 100)}}, want: []string{"192.0.2.1"}},
		{name: "MAC: highest sequence number there is", in: []announcement{{mac(1), via(pe1, 100, wire.MobilityCommunity(1<<32-1))}, {mac(2), via(pe2, 100, wire.MobilityCommunity(1<<31))}}, want: []string{"192.0.2.1"}},
		{name: "MAC: lowest next hop", in: []announcement{{mac(1), via(pe3, 100)}, {mac(2), via(pe1, 100)}, {mac(3), via(pe2, 100)}}, want: []string{"192.0.2.1"}},
		{name: "MAC: ECMP does not apply", ecmp: true, in: []announcement{{mac(1), via(pe2, 100)}, {mac(2), via(pe1, 100)}}, want: []string{"192.0.2.1"}},
		{name: "MAC: unusable path", in: []announcement{{mac(1), via(pe1, 200, greOnly)}, {mac(2), via(pe2, 100, vxlan)}}, want: []string{"192.0.2.2"}},
		{name: "MAC: only unusable paths", in: []announcement{{mac(1), via(pe1, 200, greOnly)}}, want: []string{}},
		{name: "prefix: LOCAL_PREF", view: VRF, in: []announcement{{prefix(1), via(pe1, 99)}, {prefix(2), via(pe2, 100)}}, want: []string{"192.0.2.2"}},
		{name: "prefix: mobility does not count", view: VRF, ecmp: true, in: []announcement{{prefix(1), via(pe1, 100, wire.MobilityCommunity(1))}, {prefix(2), via(pe2, 100)}}, want: []string{"192.0.2.1", "192.0.2.2"}},
		{name: "prefix: ECMP in order of next hops", view: VRF, ecmp: true, in: []announcement{{prefix(1), via(pe3, 100)}, {prefix(2), via(pe1, 100)}, {prefix(3), via(pe2, 99)}}, want: []string{"192.0.2.1", "192.0.2.3"}},
		{name: "prefix: ECMP with one unusable", view: VRF, ecmp: true, in: []announcement{{prefix(1), via(pe1, 100, greOnly)}, {prefix(2), via(pe2, 100)}}, want: []string{"192.0.2.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, backwards := range []bool{false, true} {
				w := newWorld(t, Peer)
				table := w.rib.NewTable(TableConfig{View: tt.view, Source: 99, ECMP: tt.ecmp, Usable: usable})
				table.SetImports(onlyRT1)
				for i := range tt.in {
					if backwards {
						i = len(tt.in) - 1 - i
					}
					w.put(0, tt.in[i].route, tt.in[i].attrs)
				}
				for _, got := range best(table) {
					if diff := gocmp.Diff(tt.want, got); diff != "" {
						t.Errorf("announced backwards %v: next hops (-want +got):\n%s", backwards, diff)
					}
				}
			}
		})
	}
}

func TestSaltSpreadsTheChoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	chosen := map[string]int{}
	w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netA)}, via(pe1, 100))
	w.put(0, wire.Route{NLRI: wire.VPNRoute(rd(0, 2), netA)}, via(pe2, 100))
	for salt := range uint64(64) {
		table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, Salt: salt})
		table.SetImports(onlyRT1)
		for _, hops := range best(table) {
			if len(hops) != 1 {
				t.Fatalf("%d paths without ECMP", len(hops))
			}
			chosen[hops[0]]++
		}
	}
	if chosen["192.0.2.1"] < 8 || chosen["192.0.2.2"] < 8 {
		t.Errorf("64 tables choose %v, want both often", chosen)
	}
}

func TestIPEntryIsIndependentOfMACEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	table := w.rib.NewTable(TableConfig{View: EVI, Source: 99})
	table.SetImports(onlyRT1)
	bare := wire.Route{NLRI: wire.MACIPRoute(rd(0, 1), macA, netip.Addr{}), Label: 5000}
	withIP := wire.Route{NLRI: wire.MACIPRoute(rd(0, 2), macA, hostIP), Label: 5000}
	step := func(what string, want map[string][]string) {
		t.Helper()
		if diff := gocmp.Diff(want, best(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	w.put(0, bare, via(pe1, 200))
	step("MAC only", map[string][]string{"mac 02:00:00:00:00:01": {"192.0.2.1"}})
	w.put(0, withIP, via(pe2, 100))
	step("MAC and IP from a worse route", map[string][]string{"mac 02:00:00:00:00:01": {"192.0.2.1"}, "ip 198.51.100.1": {"192.0.2.2"}})
	w.drop(0, bare.NLRI)
	step("MAC only withdrawn", map[string][]string{"mac 02:00:00:00:00:01": {"192.0.2.2"}})
	w.drop(0, withIP.NLRI)
	step("all withdrawn", map[string][]string{"mac 02:00:00:00:00:01": {}, "ip 198.51.100.1": {}})
	step("nothing new", map[string][]string{})
}

func TestFloodEntriesAreKeyedByTunnelEndAndVNI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	table := w.rib.NewTable(TableConfig{View: EVI, Source: 99})
	table.SetImports(onlyRT1)
	imet := func(n byte) wire.Route { return wire.Route{NLRI: wire.IMETRoute(rd(0, n), pe1)} }
	pmsi := func(end netip.Addr, vni uint32) wire.LocalAttrs {
		l := via(pe3, 100)
		l.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: vni, Endpoint: end}
		return l
	}
	other := pmsi(netip.Addr{}, 16)
	other.PMSI.TunnelType = 3
	steps := []struct {
		name string
		do   func()
		want map[string][]string
	}{
		{name: "first", do: func() { w.put(0, imet(1), pmsi(pe1, 16)) }, want: map[string][]string{"flood 192.0.2.1 16": {"192.0.2.3"}}},
		{name: "same end, other RD", do: func() { w.put(0, imet(2), pmsi(pe1, 16)) }, want: map[string][]string{"flood 192.0.2.1 16": {"192.0.2.3"}}},
		{name: "first withdrawn, entry stays", do: func() { w.drop(0, imet(1).NLRI) }, want: map[string][]string{"flood 192.0.2.1 16": {"192.0.2.3"}}},
		{name: "other VNI replaces", do: func() { w.put(0, imet(2), pmsi(pe1, 17)) }, want: map[string][]string{"flood 192.0.2.1 16": {}, "flood 192.0.2.1 17": {"192.0.2.3"}}},
		{name: "other end replaces", do: func() { w.put(0, imet(2), pmsi(pe2, 17)) }, want: map[string][]string{"flood 192.0.2.1 17": {}, "flood 192.0.2.2 17": {"192.0.2.3"}}},
		{name: "other tunnel type has no entry", do: func() { w.put(0, imet(2), other) }, want: map[string][]string{"flood 192.0.2.2 17": {}}},
		{name: "no PMSI has no entry", do: func() { w.put(0, imet(3), via(pe1, 100)) }, want: map[string][]string{}},
	}
	for _, s := range steps {
		s.do()
		if diff := gocmp.Diff(s.want, best(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

func TestMobility(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	table := w.rib.NewTable(TableConfig{View: EVI, Source: w.sources[1].id, Usable: usable})
	table.SetImports(onlyRT1)
	mac := func(n byte) wire.Route { return wire.Route{NLRI: wire.MACIPRoute(rd(0, n), macA, netip.Addr{})} }
	steps := []struct {
		name  string
		do    func()
		seq   uint32
		known bool
	}{
		{name: "nobody", do: func() {}},
		{name: "only ourselves", do: func() { w.put(1, mac(9), via(pe1, 100, wire.MobilityCommunity(7))) }},
		{name: "unusable", do: func() { w.put(0, mac(1), via(pe1, 100, greOnly, wire.MobilityCommunity(6))) }},
		{name: "without community", do: func() { w.put(0, mac(2), via(pe2, 100)) }, known: true},
		{name: "highest of several", do: func() {
			w.put(0, mac(3), via(pe3, 50, wire.MobilityCommunity(5)))
			w.put(0, mac(4), via(pe3, 100, wire.MobilityCommunity(4)))
		}, seq: 5, known: true},
		{name: "after withdraw", do: func() { w.drop(0, mac(3).NLRI) }, seq: 4, known: true},
	}
	for _, s := range steps {
		s.do()
		if seq, known := table.Mobility(macA); seq != s.seq || known != s.known {
			t.Errorf("%s: %d %v, want %d %v", s.name, seq, known, s.seq, s.known)
		}
	}
}
