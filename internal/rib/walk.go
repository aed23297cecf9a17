// SPDX-License-Identifier: Apache-2.0

package rib

import "github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"

// Paths returns all paths that keep accepts, in no order. The lock is taken for
// a few thousand paths at a time; a path that changes meanwhile may appear as it
// was or as it is. Keep runs with the lock held.
func (r *RIB) Paths(keep func(Path) bool) []Path {
	var out []Path
	for from := uint32(0); ; from += removeChunk {
		r.mu.Lock()
		end := r.paths.End()
		for pos := from; pos < from+removeChunk && pos < end; pos++ {
			if r.paths.Live(pos) {
				if p := r.path(pos); keep(p) {
					out = append(out, p)
				}
			}
		}
		r.mu.Unlock()
		if from+removeChunk >= end {
			return out
		}
	}
}

// FromSource returns a filter for Paths that accepts the paths of one source
// (by name) in one of the families; no family means all.
func FromSource(name string, families ...wire.Family) func(Path) bool {
	return func(p Path) bool {
		if p.Source != name {
			return false
		}
		for _, f := range families {
			if p.NLRI.Kind.Family() == f {
				return true
			}
		}
		return len(families) == 0
	}
}

// TablePaths is what a table knows about one entry.
type TablePaths struct {
	Key      EntryKey
	Received []Path
	Best     []Path
}

// Entries returns all entries of the table that others have paths for, in no order, taking
// the lock for a few thousand entries at a time.
func (t *Table) Entries() []TablePaths {
	var out []TablePaths
	for from := uint32(0); ; from += removeChunk {
		t.rib.mu.Lock()
		end := t.entries.End()
		for at := from; at < from+removeChunk && at < end; at++ {
			if t.entries.Live(at) {
				if tp := t.describe(at, t.entries.At(at)); len(tp.Received) > 0 {
					out = append(out, tp)
				}
			}
		}
		t.rib.mu.Unlock()
		if from+removeChunk >= end {
			return out
		}
	}
}

func (t *Table) describe(at uint32, e *entry) TablePaths {
	tp := TablePaths{Key: t.entries.Key(at)}
	t.links.each(e.head, func(pos uint32) {
		if !t.owns(pos) {
			tp.Received = append(tp.Received, t.rib.path(pos))
		}
	})
	tp.Best = t.best(tp.Key, e, nil)
	return tp
}
