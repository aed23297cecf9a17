// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Watcher follows the paths of all peers (Adj-RIB-In), compressed: it tells the
// present state of what changed, not each change, so that one that is read
// slowly holds no more than one entry per path.
type Watcher struct {
	rib  *RIB
	wake func()

	// Guarded by RIB.mu.
	dirty  map[pathKey]struct{}
	queue  fifo[pathKey]
	cursor uint32 // of the scan, which ends at the end of the table
	every  bool   // the scan is for all sources, else for those in sources
	rescan []SourceID
	closed bool
}

// Change is the state of one path of a peer.
type Change struct {
	Source SourceID
	wire.Route
	Attrs *wire.Attrs // nil: withdrawn
}

// watchScan bounds the positions that one Next looks at.
const watchScan = 4096

// NewWatcher returns a watcher that begins with all paths of peers. Wake is
// called when there is something for Next, with the RIB's lock held.
func (r *RIB) NewWatcher(wake func()) *Watcher {
	w := &Watcher{rib: r, wake: wake, dirty: map[pathKey]struct{}{}, every: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers, w)
	wake()
	return w
}

// Close ends the watcher: Next gives nothing any more.
func (w *Watcher) Close() {
	w.rib.mu.Lock()
	defer w.rib.mu.Unlock()
	w.closed = true
	w.rib.watchers = slices.DeleteFunc(w.rib.watchers, func(o *Watcher) bool { return o == w })
}

// Rescan makes Next tell all paths of a source again.
func (w *Watcher) Rescan(src SourceID) {
	w.rib.mu.Lock()
	defer w.rib.mu.Unlock()
	if w.scanning() {
		// What the scan has passed must come again, for its sources too.
		w.every = w.every || !slices.Equal(w.rescan, []SourceID{src})
	} else {
		w.every = false
	}
	w.rescan, w.cursor = []SourceID{src}, 0
	w.wake()
}

func (w *Watcher) scanning() bool {
	return w.cursor < w.rib.paths.End() && (w.every || len(w.rescan) > 0)
}

// Next appends at most limit changes to out and tells whether more are waiting.
func (w *Watcher) Next(limit int, out []Change) ([]Change, bool) {
	r := w.rib
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.closed {
		return out, false
	}
	for _, k := range w.queue.take(limit) {
		delete(w.dirty, k)
		out = append(out, r.change(k))
	}
	if w.queue.len() == 0 {
		w.dirty = map[pathKey]struct{}{} // one that was large would stay so
	}
	for n := 0; n < watchScan && len(out) < limit && w.scanning(); n++ {
		if pos := w.cursor; r.paths.Live(pos) {
			if k := r.paths.Key(pos); r.sources[k.source].kind == Peer && (w.every || slices.Contains(w.rescan, k.source)) {
				out = append(out, r.change(k))
			}
		}
		w.cursor++
	}
	more := w.scanning()
	if !more {
		w.every, w.rescan = false, nil
	}
	return out, more || w.queue.len() > 0
}

// change returns the present state of a path.
func (r *RIB) change(k pathKey) Change {
	c := Change{Source: k.source, Route: wire.Route{NLRI: k.nlri}}
	// The source may have ended meanwhile, and its id be a local one's now.
	if pos, ok := r.paths.Find(k); ok && r.sources[k.source].kind == Peer {
		p := r.path(pos)
		c.Route, c.Attrs = p.Route, p.Attrs
	}
	return c
}

// markWatchers notes that a path of a peer changed.
func (r *RIB) markWatchers(src SourceID, n wire.NLRI) {
	for _, w := range r.watchers {
		k := pathKey{src, n}
		if _, queued := w.dirty[k]; queued {
			continue
		}
		w.dirty[k] = struct{}{}
		if w.queue.add(k) {
			w.wake()
		}
	}
}
