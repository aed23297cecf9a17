// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// follower is one who follows a watcher, and what it was told.
type follower struct {
	*Watcher
	held    map[pathKey]string
	waiting bool // woken, and not yet told that there is nothing more
}

func (w *world) follow() *follower {
	f := &follower{held: map[pathKey]string{}}
	f.Watcher = w.rib.NewWatcher(func() { f.waiting = true })
	return f
}

// again is what a follower holds of a path that it must be told of again.
const again = "to be told again"

func (f *follower) rescan(src SourceID) {
	for k := range f.held {
		if k.source == src {
			f.held[k] = again
		}
	}
	f.Rescan(src)
}

// take takes once, or all.
func (f *follower) take(t rapid.TB, limit int, drain bool) {
	t.Helper()
	for more := true; more; more = more && drain {
		var out []Change
		out, more = f.Next(limit, nil)
		if len(out) > limit {
			t.Errorf("%d changes, limit is %d", len(out), limit)
		}
		if !f.waiting && (len(out) > 0 || more) {
			t.Errorf("%d changes, more %v, but nobody was woken", len(out), more)
		}
		for _, c := range out {
			k := pathKey{c.Source, c.NLRI}
			if c.Attrs == nil {
				delete(f.held, k)
				continue
			}
			f.held[k] = exportText(c.Route, c.Attrs)
		}
		if !more {
			f.waiting = false
		}
	}
}

// check drains a follower and compares what it holds with the paths of peers.
func (w *world) check(t rapid.TB, f *follower, limit int) {
	t.Helper()
	f.take(t, limit, true)
	want := map[pathKey]string{}
	for k, p := range w.paths {
		if w.sources[k.source].kind == Peer {
			want[k] = exportText(p.route, p.attrs)
		}
	}
	if diff := gocmp.Diff(want, f.held, gocmp.AllowUnexported(pathKey{})); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	if out, more := f.Next(limit, nil); len(out) > 0 || more || len(f.dirty)+f.queue.len() > 0 || f.scanning() {
		t.Errorf("drained, but: %d changes, more %v, %d dirty, %d queued", len(out), more, len(f.dirty), f.queue.len())
	}
}

func TestWatchersFollowTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Peer, Local, Peer, Peer)
		followers := []*follower{w.follow(), w.follow()}
		source, one := rapid.SampledFrom(w.sources), rapid.SampledFrom(followers)
		apply := func(t *rapid.T) { w.drawBatch(t, source.Draw(t, "source")) }
		limit := rapid.IntRange(1, 5)
		check := func(t *rapid.T) {
			for _, f := range followers {
				w.check(t, f, limit.Draw(t, "limit"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"apply":       apply,
			"apply more":  apply,
			"apply again": apply,
			"purge":       func(t *rapid.T) { w.purge(source.Draw(t, "source")) },
			"take some":   func(t *rapid.T) { one.Draw(t, "follower").take(t, limit.Draw(t, "limit"), false) },
			"rescan": func(t *rapid.T) {
				one.Draw(t, "follower").rescan(source.Draw(t, "source").id)
			},
			"remove": func(t *rapid.T) { // and use the id again
				s := source.Draw(t, "source")
				w.purge(s)
				w.rib.RemoveSource(s.id)
				if id, err := w.rib.AddSource(s.name, s.kind); id != s.id || err != nil {
					t.Fatalf("source %d, %v: want %d again", id, err, s.id)
				}
			},
			"come anew": func(t *rapid.T) {
				f := one.Draw(t, "follower")
				f.Close()
				*f = *w.follow()
				f.wake = func() { f.waiting = true }
			},
			"check": check,
		})
		check(t)
		for _, s := range w.sources {
			w.purge(s)
		}
		check(t)
		for _, f := range followers {
			f.Close()
		}
		w.checkEmpty(t)
		if len(w.rib.watchers) != 0 {
			t.Errorf("left: %d watchers", len(w.rib.watchers))
		}
	})
}

// apply announces 10.0.0.n/32 for some n of a source.
func (w *world) apply(s worldSource, ns ...byte) {
	var b Batch
	for _, n := range ns {
		w.announce(&b, s, route10(n), withRTs(rt(1)), false)
	}
	w.rib.Apply(s.id, &b)
}

// told drains a watcher and returns what it tells, as "<source><sign><last octet>".
func told(w *Watcher, limit int) []string {
	all := []string{}
	for more := true; more; {
		var out []Change
		out, more = w.Next(limit, nil)
		all = append(all, tell(out)...)
	}
	return all
}

func tell(out []Change) (all []string) {
	for _, c := range out {
		sign := "+"
		if c.Attrs == nil {
			sign = "-"
		}
		all = append(all, string(rune('a'+c.Source))+sign+string(rune('0'+c.NLRI.Addr[3])))
	}
	return all
}

// A rescan tells a source again, in the middle of another scan too.
func TestRescan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(w *Watcher)
		want []string
	}{
		{"of one source", func(w *Watcher) { told(w, 9); w.Rescan(1) }, []string{"b+1", "b+2", "b+3"}},
		{"twice", func(w *Watcher) { told(w, 9); w.Rescan(1); w.Rescan(1) }, []string{"b+1", "b+2", "b+3"}},
		{"of one that is unknown", func(w *Watcher) { told(w, 9); w.Rescan(77) }, []string{}},
		{"in the first scan", func(w *Watcher) { _, _ = w.Next(4, nil); w.Rescan(0) }, []string{"a+1", "a+2", "a+3", "b+1", "b+2", "b+3"}},
		{"in its own rescan", func(w *Watcher) { told(w, 9); w.Rescan(0); _, _ = w.Next(2, nil); w.Rescan(0) }, []string{"a+1", "a+2", "a+3"}},
		{"in another rescan", func(w *Watcher) { told(w, 9); w.Rescan(1); _, _ = w.Next(2, nil); w.Rescan(0) }, []string{"a+1", "a+2", "a+3", "b+1", "b+2", "b+3"}},
		{"after the end", func(w *Watcher) { w.Close(); w.Rescan(0) }, []string{}},
		{"of one that went", func(w *Watcher) { told(w, 9); w.Rescan(1); w.rib.RemoveSource(1) }, []string{"b-1", "b-2", "b-3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			world := newWorld(t, Peer, Peer, Local)
			for _, s := range world.sources {
				world.apply(s, 1, 2, 3)
			}
			w := world.rib.NewWatcher(func() {})
			tt.do(w)
			if diff := gocmp.Diff(tt.want, told(w, 2)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

// A path that changes often is told once, as it is at last; a path that came and
// went is told as gone.
func TestWatcherCompresses(t *testing.T) {
	t.Parallel()
	world := newWorld(t, Peer)
	wakes := 0
	w := world.rib.NewWatcher(func() { wakes++ })
	told(w, 9)
	for range 100 {
		world.apply(world.sources[0], 1, 2, 3)
		world.rib.Purge(0)
	}
	world.apply(world.sources[0], 1)
	if diff := gocmp.Diff([]string{"a+1", "a-2", "a-3"}, told(w, 9)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if wakes != 2 {
		t.Errorf("%d wakes: want one for all that is waiting, and the first", wakes)
	}
}

// One call of Next looks at a bounded part of a large table, and the scan ends.
func TestScanIsBounded(t *testing.T) {
	t.Parallel()
	world := newWorld(t, Peer, Peer)
	const others = 3 * watchScan
	var b Batch
	for n := range others {
		r := wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32))}
		world.announce(&b, world.sources[0], r, withRTs(), false)
	}
	world.rib.Apply(0, &b)
	world.apply(world.sources[1], 1)
	w := world.rib.NewWatcher(func() {})
	if out, more := w.Next(others, nil); len(out) != watchScan || !more {
		t.Errorf("%d changes, more %v: want %d, and more", len(out), more, watchScan)
	}
	if n := len(told(w, others)); n != others+1-watchScan {
		t.Errorf("%d changes: want %d", n, others+1-watchScan)
	}
	w.Rescan(1)
	for calls := 1; ; calls++ {
		out, more := w.Next(1, nil)
		if more {
			continue
		}
		if diff := gocmp.Diff([]string{"b+1"}, tell(out)); diff != "" || calls != 4 {
			t.Errorf("call %d told (-want +got):\n%s", calls, diff)
		}
		return
	}
}

// TestWatchersConcurrently has sessions, and followers that come and go, at work at
// once; the race detector and the end are the test.
func TestWatchersConcurrently(t *testing.T) {
	t.Parallel()
	world := newWorld(t, Peer, Peer)
	last := world.follow()
	last.wake = func() {} // waiting is not for concurrent use
	last.waiting = true
	var work sync.WaitGroup
	for _, s := range world.sources {
		work.Go(func() { churn(world.rib, s, 40) })
		work.Go(func() {
			for i := range 40 {
				w := world.rib.NewWatcher(func() {})
				_, _ = w.Next(5, nil)
				w.Rescan(s.id)
				_, _ = w.Next(i, nil)
				w.Close()
				last.Rescan(s.id)
			}
		})
	}
	work.Go(func() {
		for range 100 {
			last.take(t, 50, false)
			last.waiting = true
		}
	})
	work.Wait()
	for _, p := range world.rib.Paths(func(Path) bool { return true }) {
		src := SourceID(slices.IndexFunc(world.sources, func(s worldSource) bool { return s.name == p.Source }))
		world.paths[pathKey{src, p.NLRI}] = worldPath{p.Route, p.Attrs, false}
	}
	world.check(t, last, 50)
}
