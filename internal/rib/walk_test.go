// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// many announces n host routes from a source.
func (w *world) many(source, n int, l wire.LocalAttrs) {
	var b Batch
	for i := range n {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		w.announce(&b, w.sources[source], wire.Route{NLRI: wire.VPNRoute(rd(w.sources[source].id, 1), p)}, l, false)
	}
	w.rib.Apply(w.sources[source].id, &b)
}

func TestWalksGoBeyondOneChunk(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, removeChunk - 1, removeChunk, removeChunk + 1, 2*removeChunk + 1} {
		w := newWorld(t, Peer, Peer)
		w.many(0, n, via(pe1, 100))
		w.many(1, 3, via(pe1, 100))
		table := w.rib.NewTable(TableConfig{View: VRF, Source: 99})
		table.SetImports(onlyRT1)
		if got := len(w.rib.Paths(FromSource("source-0"))); got != n {
			t.Errorf("%d paths, want %d", got, n)
		}
		if got := len(table.Entries()); got != max(n, 3) {
			t.Errorf("%d entries, want %d", got, max(n, 3))
		}
		var taken Selections
		if more := table.Take(5000, &taken); len(taken.Items) != min(max(n, 3), 5000) || more != (n > 5000) {
			t.Errorf("%d entries taken, more %v", len(taken.Items), more)
		}
		w.purge(w.sources[0])
		if s := w.rib.Stats(); s.Paths != 3 {
			t.Errorf("%d paths after Purge of %d, want 3", s.Paths, n)
		}
		if got := len(table.Entries()); got != 3 {
			t.Errorf("%d entries after Purge of %d, want 3", got, n)
		}
	}
}

func TestFromSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	w.put(0, route10(1), via(pe1, 100))
	w.put(0, wire.Route{NLRI: wire.IMETRoute(rd(0, 1), pe1)}, via(pe1, 100))
	w.put(1, route10(2), via(pe1, 100))
	tests := []struct {
		name     string
		source   string
		families []wire.Family
		want     int
	}{
		{name: "all families", source: "source-0", want: 2},
		{name: "one family", source: "source-0", families: []wire.Family{wire.EVPN}, want: 1},
		{name: "two families", source: "source-0", families: []wire.Family{wire.RTC, wire.VPNv4}, want: 1},
		{name: "other source", source: "source-1", want: 1},
		{name: "unknown source", source: "source-9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := len(w.rib.Paths(FromSource(tt.source, tt.families...))); got != tt.want {
				t.Errorf("%d paths, want %d", got, tt.want)
			}
		})
	}
}

func TestEntriesShowReceivedAndBest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	table := w.rib.NewTable(TableConfig{View: VRF, Source: 99, Usable: usable})
	table.SetImports(onlyRT1)
	one, two := route10(1), route10(1)
	two.NLRI.RD = rd(0, 2)
	w.put(0, one, via(pe1, 100))
	w.put(1, two, via(pe2, 200, greOnly))
	got := table.Entries()
	if len(got) != 1 || len(got[0].Received) != 2 || len(got[0].Best) != 1 {
		t.Fatalf("entries %+v", got)
	}
	best := got[0].Best[0]
	if diff := gocmp.Diff([]any{"source-0", Peer, "192.0.2.1"}, []any{best.Source, best.Kind, best.Attrs.NextHop.String()}); diff != "" {
		t.Errorf("best (-want +got):\n%s", diff)
	}
}
