// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// sources drains a table and returns, per entry that changed, where its best paths came from.
func sources(table *Table) map[string][]string {
	got := map[string][]string{}
	var s Selections
	for more := true; more; {
		more = table.Take(2, &s)
		for _, item := range s.Items {
			key := keyText(item.Key)
			if item.Key.id[0] != 0 {
				key += " of IPv6"
			}
			list := []string{}
			for _, p := range item.Best {
				list = append(list, p.NLRI.RD.String())
			}
			got[key] = list
		}
	}
	return got
}

// The same octets are a flow of IPv4 and another of IPv6. All usable routes of a flow are
// taken, with or without ECMP: the preferred first, then by RD.
func TestFlowEntries(t *testing.T) {
	t.Parallel()
	for _, ecmp := range []bool{false, true} {
		w := newWorld(t, Peer, Peer, Local)
		table := w.rib.NewTable(TableConfig{View: VRF, Source: w.sources[2].id, ECMP: ecmp})
		redirect := w.rib.NewTable(TableConfig{View: Redirect, Source: 99, ECMP: ecmp})
		table.SetImports(onlyRT1)
		redirect.SetImports(onlyRT1)
		flow := func(n byte, ipv6 bool) wire.Route {
			return wire.FlowRoute(rd(0, n), wire.Flow{IPv6: ipv6, Protocols: []wire.Range{{First: 6, Last: 6}}})
		}
		key := keyText(EntryKey{Kind: EntryFlow, addr: flow(1, false).NLRI.Addr})
		for _, x := range []struct {
			n      byte
			ipv6   bool
			source int
			pref   uint32
		}{{3, false, 0, 100}, {2, false, 1, 100}, {4, false, 0, 200}, {1, false, 1, 99}, {5, true, 0, 100}} {
			route := flow(x.n, x.ipv6)
			w.put(x.source, route, via(netip.Addr{}, x.pref, wire.MobilityCommunity(uint32(x.n)))) // which means nothing here
			clear(route.Raw)                                                                       // the RIB has its own
		}
		text := func(n byte) string { return rd(0, n).String() }
		want := map[string][]string{key: {text(4), text(2), text(3), text(1)}, key + " of IPv6": {text(5)}}
		if diff := gocmp.Diff(want, sources(table)); diff != "" {
			t.Errorf("ECMP %v (-want +got):\n%s", ecmp, diff)
		}
		for _, p := range w.rib.Paths(func(Path) bool { return true }) {
			if !slices.Equal(p.Raw, flow(1, false).Raw) {
				t.Errorf("octets %x", p.Raw)
			}
		}
		if got := sources(redirect); len(got) > 0 {
			t.Errorf("redirected packets are in flows: %v", got)
		}
	}
}

// A VRF has its own route or not as it is announced, also when that changes and nothing else;
// others always have it.
func TestRouteBecomesApart(t *testing.T) {
	t.Parallel()
	w, table := ownVRF(t, true)
	other := w.rib.NewTable(TableConfig{View: VRF, Source: w.sources[2].id})
	other.SetImports(onlyRT1)
	route := wire.Route{NLRI: wire.VPNRoute(rd(1, 1), netA), Label: wire.LabelField(17)}
	key := "prefix " + netA.String()
	for _, s := range []struct {
		name        string
		apart, drop bool
		own         map[string][]string // nil: no change
	}{
		{name: "its own", own: map[string][]string{key: {"192.0.2.1"}}},
		{name: "apart", apart: true, own: map[string][]string{key: {}}},
		{name: "apart again", apart: true},
		{name: "its own again", own: map[string][]string{key: {"192.0.2.1"}}},
		{name: "apart once more", apart: true, own: map[string][]string{key: {}}},
		{name: "gone", drop: true},
	} {
		var b Batch
		want := map[string][]string{}
		if s.drop {
			w.withdraw(&b, w.sources[1], route.NLRI)
		} else {
			w.announce(&b, w.sources[1], route, via(pe1, 100), s.apart)
		}
		w.rib.Apply(w.sources[1].id, &b)
		if s.own != nil {
			want = s.own
		}
		if diff := gocmp.Diff(want, best(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
		for _, p := range w.rib.Paths(func(Path) bool { return true }) {
			if p.Apart != s.apart {
				t.Errorf("%s: path is apart %v", s.name, p.Apart)
			}
		}
		if got := best(other)[key]; s.drop != (len(got) == 0) && got != nil {
			t.Errorf("%s: another VRF has %v", s.name, got)
		}
	}
	table.Close()
	other.Close()
	w.checkEmpty(t, table, other)
}

// A route of last resort, by what we know or what the peer says, counts only where there is no
// other, whatever its LOCAL_PREF.
func TestLastResort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Peer)
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, ECMP: true})
	table.SetImports(onlyRT1)
	key := "prefix " + netA.String()
	route := func(n byte) wire.Route {
		return wire.Route{NLRI: wire.VPNRoute(rd(0, n), netA), Label: wire.LabelField(17)}
	}
	said := func() {
		raw := append(via(pe2, 200).Build().Raw, 0xc0, 8, 4)
		set, err := w.intern.Intern(binary.BigEndian.AppendUint32(raw, 0xffff0006), pe2, wire.Rules{FourOctetAS: true})
		if err != nil {
			t.Fatal(err)
		}
		var b Batch
		b.Hold(set)
		b.Announce(route(2), set)
		w.rib.Apply(w.sources[1].id, &b)
	}
	for _, s := range []struct {
		name string
		do   func()
		want []string // nil: no change
	}{
		{"preferred", func() { w.put(0, route(1), via(pe1, 100)); w.put(1, route(2), via(pe2, 200)) }, []string{"192.0.2.2"}},
		{"stale", func() { w.rib.MarkStale(w.sources[1].id) }, nil},
		{"stale, looked at again", table.RefreshAll, []string{"192.0.2.2"}},
		{"long-lived stale", func() { w.rib.MarkLongLived(w.sources[1].id) }, []string{"192.0.2.1"}},
		{"alone", func() { w.drop(0, route(1).NLRI) }, []string{"192.0.2.2"}},
		{"fresh again", func() { w.put(0, route(1), via(pe1, 100)); w.put(1, route(2), via(pe2, 200)) }, []string{"192.0.2.2"}},
		{"stale at the peer", said, []string{"192.0.2.1"}},
		{"alone again", func() { w.drop(0, route(1).NLRI) }, []string{"192.0.2.2"}},
	} {
		s.do()
		want := map[string][]string{}
		if s.want != nil {
			want[key] = s.want
		}
		if diff := gocmp.Diff(want, best(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}
