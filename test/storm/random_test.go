// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// After random events in random order a node is what a plain model says, and
// what a new node is that hears only of the outcome, in another order.
func TestRandomEvents(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			list := draw(seed, size().events)
			if failure := happen(t, list, seed, 20*time.Second); failure != "" {
				t.Errorf("BAGPIPE_STORM_SEED=%d: %s\n%s", seed, failure, shortest(t, list, seed, failure))
			}
		})
	}
}

// happen carries out events and what belongs to every list of them, and returns
// what was wrong.
func happen(t *testing.T, list []event, seed uint64, patience time.Duration) string {
	return try(t, patience, func(tb testing.TB) {
		w := newWorld(tb)
		tb.Cleanup(w.stop)
		for _, e := range list {
			w.do(e)
		}
		w.finish()
		w.sameInAnotherOrder(seed)
		w.end()
	})
}

// kind is what failures have in common that are likely the same.
func kind(failure string) string {
	line, _, _ := strings.Cut(failure, "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, line)
}

// shortest returns the shortest list found that fails in the same way, as text.
func shortest(t *testing.T, list []event, seed uint64, first string) string {
	last := first
	less := shorten(list, time.Now().Add(time.Minute), func(list []event) bool {
		failure := happen(t, list, seed, 3*time.Second)
		if kind(failure) != kind(first) {
			return false
		}
		last = failure
		return true
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d events are enough:\n", len(less), len(list))
	for i, e := range less {
		fmt.Fprintf(&b, "\t%d. %s\n", i+1, e)
	}
	return b.String() + last
}

// finish brings every peer up and to its End-of-RIB, so that nothing is left of
// what was before.
func (w *world) finish() {
	w.tb.Helper()
	for i, p := range roles {
		w.do(event{op: "up", peer: i, open: opening{graceful: true, preserved: true, marks: true}})
		for _, f := range p.families {
			if !w.m.peers[i].ended[f] {
				w.do(event{op: "End-of-RIB", peer: i, family: f})
			}
		}
	}
	w.settle()
}

// sameInAnotherOrder gives a new node the outcome alone, in random order.
func (w *world) sameInAnotherOrder(seed uint64) {
	w.tb.Helper()
	other := newWorld(w.tb)
	defer other.stop()
	for _, e := range w.m.outcome(rand.New(rand.NewPCG(seed, 2))) {
		other.do(e)
	}
	other.settle()
	if diff := cmp.Diff(w.state(), other.state()); diff != "" {
		w.tb.Fatalf("the same in another order (-first +other):\n%s", diff)
	}
}

// outcome returns events that lead to where the model is, in random order.
func (m *model) outcome(r *rand.Rand) (list []event) {
	for i, p := range m.peers {
		list = append(list, event{op: "up", peer: i, open: p.open})
		for _, n := range slices.Collect(maps.Keys(p.out)) {
			list = append(list, event{op: "announce", peer: i, routes: []announced{p.out[n]}})
		}
		for _, f := range p.families {
			list = append(list, event{op: "End-of-RIB", peer: i, family: f})
		}
	}
	for at, i := range m.instances {
		for spot, a := range i.endpoints {
			list = append(list, event{op: "attach", place: at, spot: spot, rts: [2][]wire.RT{i.imports, i.exports}, pref: a.LocalPref})
		}
	}
	slices.SortFunc(list, func(a, b event) int { return strings.Compare(a.String(), b.String()) }) // maps have no order
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for i, e := range list { // a peer must be up before it says something
		if up := slices.IndexFunc(list, func(o event) bool { return o.op == "up" && o.peer == e.peer }); e.onSession() && up > i {
			list[i], list[up] = list[up], list[i]
		}
	}
	return list
}
