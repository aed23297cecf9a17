// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Whoever takes what changed holds no more than one entry per route, also when
// it never catches up: each time it leaves something. The RIB alone, without TCP.
func TestReaderThatNeverCatchesUp(t *testing.T) {
	const count, rounds, left = 999, 500, 1
	for _, tt := range []struct {
		name  string
		open  func(*rib.RIB) (take func(limit int) (more bool))
		kind  rib.SourceKind // of the source that flaps
		items int            // that a round makes
	}{
		{"watcher of the Adj-RIB-In", watcherOf, rib.Peer, count},
		{"Adj-RIB-Out", exporterOf, rib.Local, count},
		{"table of a VRF", tableOf, rib.Peer, count / 3 * 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rib.New()
			src, err := r.AddSource("flapping", tt.kind)
			if err != nil {
				t.Fatal(err)
			}
			take := tt.open(r)
			apply(r, src, load{count: count, admin: 1})
			for take(count) {
			}
			base := heap()
			for round := range rounds {
				apply(r, src, load{count: count, gen: uint32(1 + round%2), admin: 1})
				for rest := tt.items - left; rest > 0; rest -= 100 {
					if !take(min(100, rest)) {
						t.Fatal("it has caught up: the test is wrong")
					}
				}
			}
			// A route, its place in two queues and a few maps take less than 1,000 octets.
			if grown := heap() - base; grown > count*1000 {
				t.Errorf("%d octets more after %d rounds of %d routes, of which %d were left each time", grown, rounds, count, left)
			}
			for take(count) {
			}
			if grown := heap() - base; grown > count*1000 {
				t.Errorf("%d octets more when it has caught up", grown)
			}
		})
	}
}

// apply announces a load, all of it with other attributes than before.
func apply(r *rib.RIB, src rib.SourceID, l load) {
	in := r.NewInterner()
	var b rib.Batch
	for i := range l.count {
		set := in.InternLocal(l.attrs(i%3, tenantOf(i)).Build())
		b.Hold(set)
		b.Announce(l.route(i), set)
	}
	r.Apply(src, &b)
}

func watcherOf(r *rib.RIB) func(int) bool {
	w := r.NewWatcher(func() {})
	var out []rib.Change
	return func(limit int) (more bool) {
		out, more = w.Next(limit, out[:0])
		return more
	}
}

func exporterOf(r *rib.RIB) func(int) bool {
	src, err := r.AddSource("peer", rib.Peer)
	if err != nil {
		panic(err)
	}
	e := r.NewExporter(rib.ExporterConfig{Source: src, Families: vpnFamilies, Wake: func() {}})
	var out []rib.Export
	return func(limit int) (more bool) {
		out, more = e.Next(limit, out[:0])
		return more
	}
}

func tableOf(r *rib.RIB) func(int) bool {
	src, err := r.AddSource("instance", rib.Local)
	if err != nil {
		panic(err)
	}
	table := r.NewTable(rib.TableConfig{View: rib.VRF, Source: src})
	var imports []wire.RT
	for tenant := range tenants + 1 {
		imports = append(imports, tenantRT(tenant))
	}
	table.SetImports(imports)
	var out rib.Selections
	return func(limit int) bool { return table.Take(limit, &out) }
}
