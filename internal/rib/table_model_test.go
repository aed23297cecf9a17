// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// worldTable is a table and what was taken from it so far.
type worldTable struct {
	*Table
	imports []wire.RT
	taken   map[string][]string // by entry, the best paths as texts
	signals int                 // Dirty calls
	waiting bool                // Dirty was called and Take not yet told that all is taken
}

func (w *world) newTable(c TableConfig) *worldTable {
	wt := &worldTable{taken: map[string][]string{}}
	c.Usable = usable
	c.Dirty = func() { wt.signals++; wt.waiting = true }
	wt.Table = w.rib.NewTable(c)
	return wt
}

// keyText renders the key of an entry through its accessors.
func keyText(k EntryKey) string {
	switch k.Kind {
	case EntryMAC:
		return "mac " + k.MAC().String()
	case EntryIP:
		return "ip " + k.IP().String()
	case EntryFlood:
		return fmt.Sprintf("flood %s %d", k.IP(), k.Label())
	case EntryPrefix:
		return "prefix " + k.Prefix().String()
	case EntryFlow:
		return fmt.Sprintf("flow %x", k.addr)
	}
	return "?"
}

// pathText renders all of a path that a table user sees.
func pathText(p Path) string {
	return fmt.Sprintf("%s %v label %d %v pref %d seq %d %v via %s %x", p.Source, p.NLRI, p.Label, p.MultiLabel,
		p.Attrs.LocalPref, p.Attrs.MobilitySeq, p.Attrs.Sticky, p.Attrs.NextHop, p.Attrs.Raw)
}

// pathTexts renders paths in the order of their texts.
func pathTexts(paths []Path) []string {
	out := []string{}
	for _, p := range paths {
		out = append(out, fmt.Sprintf("%s raw %x own %v", pathText(p), p.Raw, p.Own))
	}
	slices.Sort(out)
	return out
}

// take drains the table, or takes once.
func (wt *worldTable) take(limit int, drain bool) {
	var s Selections
	for more := true; more; more = more && drain {
		more = wt.Take(limit, &s)
		for _, item := range s.Items {
			key := keyText(item.Key)
			delete(wt.taken, key)
			for _, p := range item.Best {
				wt.taken[key] = append(wt.taken[key], pathText(p))
			}
		}
		if !more {
			wt.waiting = false
		}
	}
}

// modelKeys are the entries that a route belongs to, by the rules alone.
func modelKeys(v View, n wire.NLRI, a *wire.Attrs) []string {
	switch {
	case v == VRF && (n.Kind == wire.KindFlowVPNv4 || n.Kind == wire.KindFlowVPNv6):
		return []string{fmt.Sprintf("flow %x", n.Addr)}
	case v != EVI && (n.Kind == wire.KindVPNv4 || n.Kind == wire.KindVPNv6 || n.Kind == wire.KindPrefix):
		return []string{"prefix " + n.Prefix().String()}
	case v == EVI && n.Kind == wire.KindMACIP:
		keys := []string{"mac " + n.MAC.String()}
		if n.IP().IsValid() {
			keys = append(keys, "ip "+n.IP().String())
		}
		return keys
	case v == EVI && n.Kind == wire.KindIMET && a.PMSI != nil && a.PMSI.TunnelType == 6:
		return []string{fmt.Sprintf("flood %s %d", a.PMSI.Endpoint, a.PMSI.Label)}
	}
	return nil
}

// candidates are the usable paths of each entry of a table, and what others
// announce for it, usable or not. A table with Own has its own paths whatever their
// route targets unless they are apart, others never.
func (w *world) candidates(wt *worldTable) (usables, received map[string][]Path) {
	usables, received = map[string][]Path{}, map[string][]Path{}
	for k, p := range w.paths {
		own := k.source == wt.source
		wanted := own && wt.Own && !p.apart || !own && slices.ContainsFunc(p.attrs.RTs, func(rt wire.RT) bool { return slices.Contains(wt.imports, rt) })
		if !wanted {
			continue
		}
		path := Path{Route: p.route, Attrs: p.attrs, Source: w.name(k.source), Own: own}
		if prefix := k.nlri.Prefix(); own && prefix.IsValid() && prefix.Bits() < prefix.Addr().BitLen() {
			path.Yields = !slices.ContainsFunc(p.attrs.RTs, func(rt wire.RT) bool { return slices.Contains(wt.imports, rt) })
		}
		for _, key := range modelKeys(wt.View, k.nlri, p.attrs) {
			if !own {
				received[key] = append(received[key], path)
			}
			if usable(p.route, p.attrs) {
				usables[key] = append(usables[key], path)
			}
		}
	}
	return usables, received
}

// modelBest sorts the best candidates of an entry of a table, the first being the one
// that is chosen where only one may be and the choice is not spread.
func modelBest(wt *worldTable, key string, paths []Path) []Path {
	host := strings.HasPrefix(key, "mac ") || strings.HasPrefix(key, "ip ")
	rank := func(p Path) [3]uint64 {
		r := [3]uint64{uint64(p.Attrs.LocalPref)}
		r[1] = 1
		if p.Own {
			r[1] = 2
		}
		if p.Yields {
			r[1] = 0
		}
		if p.NLRI.Kind == wire.KindVPNv4 || p.NLRI.Kind == wire.KindVPNv6 {
			r[2] = 1
		}
		if host {
			r[1], r[2] = 0, uint64(p.Attrs.MobilitySeq)
			if p.Attrs.Sticky {
				r[1] = 1
			}
		}
		return r
	}
	better := func(a, b Path) int { x, y := rank(a), rank(b); return -slices.Compare(x[:], y[:]) }
	top := slices.MinFunc(paths, better)
	paths = slices.DeleteFunc(slices.Clone(paths), func(p Path) bool { return !wt.All && !strings.HasPrefix(key, "flow ") && rank(p) != rank(top) })
	slices.SortFunc(paths, func(a, b Path) int {
		if d := better(a, b); d != 0 && strings.HasPrefix(key, "flow ") {
			return d
		}
		order := func(x, y netip.Addr) int { return x.Compare(y) }
		return cmp.Or(order(a.Attrs.NextHop, b.Attrs.NextHop), slices.Compare(a.NLRI.RD[:], b.NLRI.RD[:]),
			cmp.Compare(a.Label, b.Label), order(a.NLRI.IP(), b.NLRI.IP()),
			slices.Compare(a.NLRI.MAC[:], b.NLRI.MAC[:]), cmp.Compare(a.NLRI.Tag, b.NLRI.Tag), cmp.Compare(a.Source, b.Source))
	})
	return paths
}

// checkTable compares what was taken from a drained table with the model.
func (w *world) checkTable(t rapid.TB, wt *worldTable) {
	t.Helper()
	want := map[string][]string{}
	usables, received := w.candidates(wt)
	for key, paths := range usables {
		best := modelBest(wt, key, paths)
		host := strings.HasPrefix(key, "mac ") || strings.HasPrefix(key, "ip ")
		for _, p := range best {
			want[key] = append(want[key], pathText(p))
		}
		switch {
		case wt.All || strings.HasPrefix(key, "flow ") || wt.ECMP && strings.HasPrefix(key, "prefix "):
		case host:
			want[key] = want[key][:1]
		case len(wt.taken[key]) == 1 && slices.Contains(want[key], wt.taken[key][0]):
			want[key] = wt.taken[key] // any of the best, spread by the salt
		}
	}
	if diff := gocmp.Diff(want, wt.taken); diff != "" {
		t.Errorf("selections (-want +got):\n%s", diff)
	}
	known := map[string]int{}
	for _, e := range wt.Entries() {
		known[keyText(e.Key)]++
		if diff := gocmp.Diff(pathTexts(received[keyText(e.Key)]), pathTexts(e.Received)); diff != "" {
			t.Errorf("received for %s (-want +got):\n%s", keyText(e.Key), diff)
		}
		var best []string
		for _, p := range e.Best {
			best = append(best, pathText(p))
		}
		if diff := gocmp.Diff(wt.taken[keyText(e.Key)], best); diff != "" {
			t.Errorf("Entries and Take differ about %s:\n%s", keyText(e.Key), diff)
		}
	}
	for key := range received {
		if known[key] != 1 {
			t.Errorf("entry %s listed %d times", key, known[key])
		}
	}
	if len(known) != len(received) {
		t.Errorf("%d entries listed, others announce %d", len(known), len(received))
	}
	if wt.waiting {
		t.Errorf("table drained, but Dirty calls for more")
	}
}

// checkPaths compares the list of all paths with the model.
func (w *world) checkPaths(t rapid.TB) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	for k, p := range w.paths {
		want[fmt.Sprintf("%s %x", pathText(Path{Route: p.route, Attrs: p.attrs, Source: w.name(k.source)}), p.route.Raw)]++
	}
	for _, p := range w.rib.Paths(func(Path) bool { return true }) {
		got[fmt.Sprintf("%s %x", pathText(p), p.Raw)]++
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	sum := 0
	for _, s := range w.sources {
		for _, n := range w.rib.SourceCounts(s.id) {
			sum += n
		}
	}
	if s := w.rib.Stats(); sum != len(w.paths) || s.Paths != len(w.paths) {
		t.Errorf("counts add up to %d, stats have %d, want %d", sum, s.Paths, len(w.paths))
	}
}

func TestTablesSelectLikeTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Peer, Peer, Local, Local)
		tables := []*worldTable{
			w.newTable(TableConfig{View: EVI, Source: w.sources[2].id, Salt: 1}),
			w.newTable(TableConfig{View: VRF, Source: w.sources[2].id, Own: true, ECMP: true}),
			w.newTable(TableConfig{View: VRF, Source: w.sources[3].id, Own: true, Salt: 77}),
			w.newTable(TableConfig{View: VRF, Source: w.sources[2].id, All: true}),
			w.newTable(TableConfig{View: Redirect, Source: w.sources[3].id, ECMP: true}),
		}
		source := rapid.SampledFrom(w.sources)
		table := rapid.SampledFrom(tables)
		apply := func(t *rapid.T) { w.drawBatch(t, source.Draw(t, "source")) }
		imports := func(t *rapid.T) {
			wt := table.Draw(t, "table")
			wt.imports = rapid.SliceOfN(rapid.SampledFrom(someRTs), 0, 4).Draw(t, "imports")
			wt.SetImports(wt.imports)
		}
		check := func(t *rapid.T) {
			for _, wt := range tables {
				wt.take(rapid.IntRange(1, 5).Draw(t, "limit"), true)
				w.checkTable(t, wt)
			}
			w.checkPaths(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"apply":      apply,
			"apply more": apply,
			"imports":    imports,
			"purge":      func(t *rapid.T) { w.purge(source.Draw(t, "source")) },
			"take some":  func(t *rapid.T) { table.Draw(t, "table").take(rapid.IntRange(1, 3).Draw(t, "limit"), false) },
			"refresh": func(t *rapid.T) {
				wt := table.Draw(t, "table")
				for _, e := range wt.Entries() {
					delete(wt.taken, keyText(e.Key))
					wt.Refresh(e.Key, IPKey(netip.MustParseAddr("192.0.2.99")))
				}
			},
			"check": check,
		})
		check(t)
		if rapid.Bool().Draw(t, "tables first") {
			for _, wt := range tables {
				wt.imports = nil
				wt.Close()
			}
			check(t)
		}
		for _, s := range w.sources {
			w.purge(s)
		}
		check(t)
		for _, wt := range tables {
			wt.Close()
		}
		w.checkEmpty(t, tables[0].Table, tables[1].Table, tables[2].Table, tables[3].Table, tables[4].Table)
	})
}
