// SPDX-License-Identifier: Apache-2.0

package rib

import "github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"

// Staleness tells whether the peer that announced a path still stands by it.
type Staleness uint8

// Stages of staleness.
const (
	// Fresh paths were announced in the peer's present session.
	Fresh Staleness = iota
	// Stale paths wait for the peer to announce them again (RFC 4724 §4.2, RFC
	// 7313 §4). They are used like fresh ones.
	Stale
	// LongLivedStale paths are used only where there is nothing else (RFC 9494 §4.3).
	LongLivedStale
)

// String returns the word of the looking glass.
func (s Staleness) String() string {
	return [...]string{"fresh", "stale", "long-lived stale"}[s]
}

// MarkStale marks the fresh paths of a source in some families stale. The next
// announcement of a path makes it fresh.
func (r *RIB) MarkStale(src SourceID, families ...wire.Family) {
	r.eachOf(src, families, func(_ uint32, n wire.NLRI, p *path) {
		if p.stale == Fresh {
			r.setStale(src, n, p, Stale)
		}
	})
}

// setStale changes the stage of a path, and counts.
func (r *RIB) setStale(src SourceID, n wire.NLRI, p *path, s Staleness) {
	switch {
	case p.stale == Fresh && s != Fresh:
		r.sources[src].stale[n.Kind]++
	case p.stale != Fresh && s == Fresh:
		r.sources[src].stale[n.Kind]--
	}
	p.stale = s
}

// StaleCounts returns the number of paths of a source that are not fresh, by family.
func (r *RIB) StaleCounts(src SourceID) map[wire.Family]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sources[src].stale.byFamily()
}

// MarkLongLived makes the stale paths of a source in some families long-lived
// stale, and withdraws those that carry NO_LLGR (RFC 9494 §4.2).
func (r *RIB) MarkLongLived(src SourceID, families ...wire.Family) {
	r.eachOf(src, families, func(pos uint32, n wire.NLRI, p *path) {
		set := r.live[p.set]
		switch {
		case p.stale != Stale:
		case set.NoLLGR:
			r.withdrawAt(src, n, pos)
		default:
			r.setStale(src, n, p, LongLivedStale)
			for _, t := range set.tables {
				t.touch(n, set)
			}
		}
	})
}

// PurgeStale withdraws the paths of a source in some families that are not fresh.
func (r *RIB) PurgeStale(src SourceID, families ...wire.Family) {
	r.eachOf(src, families, func(pos uint32, n wire.NLRI, p *path) {
		if p.stale != Fresh {
			r.withdrawAt(src, n, pos)
		}
	})
}
