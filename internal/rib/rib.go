// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/slab"
)

// SourceID names where a path came from. An id is used again only after
// RemoveSource.
type SourceID uint16

// SourceKind tells what a source is.
type SourceKind uint8

// Kinds of sources.
const (
	// Peer is a BGP session: its paths go to instances only.
	Peer SourceKind = iota
	// Local is an instance or the daemon itself: its paths go to peers and to other instances.
	Local
)

// source is where paths come from.
type source struct {
	name     string
	kind     SourceKind
	counts   kindCounts
	stale    kindCounts // of them, those that are not fresh
	exporter *Exporter  // of a peer, for its RTC routes
	own      *Table     // of a VRF, which takes its own routes whatever their RTs
	used     bool
	// ask is set for a peer whose irrelevant routes are not kept.
	ask func(wire.Family)
}

// pathKey identifies a path.
type pathKey struct {
	source SourceID
	nlri   wire.NLRI
}

// path is what is stored for one route of one source.
type path struct {
	set        uint32
	label      uint32
	next, prev uint32 // paths with the same set: position+1, 0 at the ends
	multiLabel bool
	apart      bool // as in Batch.AnnounceApart
	stale      Staleness
}

// RIB is the table of all paths. Its methods may be called concurrently.
type RIB struct {
	sets setTable

	mu        sync.Mutex
	paths     *slab.Slab[pathKey, path]
	raw       map[uint32][]byte // Route.Raw, by path position
	live      []*Set            // by Set.id
	dying     []*Set            // may have lost their last path
	byRT      map[wire.RT]*target
	sources   []source
	local     map[wire.NLRI]uint32 // paths of local sources
	exporters []*Exporter
	watchers  []*Watcher
	counts    [2]kindCounts // by SourceKind
	imports   uint64        // counts changes of what tables import

	rtc   rtcOrigin
	stats Stats
}

// target is what is known about one route target.
type target struct {
	sets   map[*Set]struct{}
	tables []*Table
}

// Stats counts what went through the RIB.
type Stats struct {
	// Announced and Withdrawn count changes of paths applied; Irrelevant those
	// announcements that were not kept because no table imports them.
	Announced, Withdrawn, Irrelevant uint64
	// Paths and Sets count what is held now.
	Paths, Sets int
}

// New returns an empty RIB.
func New() *RIB {
	r := &RIB{
		paths: slab.New[pathKey, path](),
		raw:   map[uint32][]byte{},
		byRT:  map[wire.RT]*target{},
		local: map[wire.NLRI]uint32{},
	}
	r.sets.byKey = map[string]*Set{}
	return r
}

// AddSource registers a source under a name for the looking glass.
func (r *RIB) AddSource(name string, kind SourceKind) (SourceID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := source{name: name, kind: kind, used: true}
	for i := range r.sources {
		if !r.sources[i].used {
			r.sources[i] = s
			return SourceID(i), nil
		}
	}
	if len(r.sources) > 65535 {
		return 0, errors.New("more than 65536 sources of routes")
	}
	r.sources = append(r.sources, s)
	return SourceID(len(r.sources) - 1), nil
}

// Batch collects changes of one source for Apply.
type Batch struct {
	items []batchItem
	sets  []*Set
}

type batchItem struct {
	route wire.Route
	set   *Set // nil: withdraw
	apart bool
}

// Hold hands the caller's reference to a set over to the batch.
func (b *Batch) Hold(s *Set) { b.sets = append(b.sets, s) }

// Announce adds a route with a set that the batch or the caller holds.
// Route.Raw must stay valid until Apply returns.
func (b *Batch) Announce(route wire.Route, s *Set) {
	b.items = append(b.items, batchItem{route: route, set: s})
}

// AnnounceApart is Announce for a route that the VRF it comes from does not follow
// itself: one that brings traffic of others to its endpoints.
func (b *Batch) AnnounceApart(route wire.Route, s *Set) {
	b.items = append(b.items, batchItem{route: route, set: s, apart: true})
}

// Withdraw adds the withdrawal of a route.
func (b *Batch) Withdraw(n wire.NLRI) {
	b.items = append(b.items, batchItem{route: wire.Route{NLRI: n}})
}

// Len returns the number of changes in the batch.
func (b *Batch) Len() int { return len(b.items) }

// Apply carries out a batch for a source and empties it.
func (r *RIB) Apply(src SourceID, b *Batch) {
	r.mu.Lock()
	for i := range b.items {
		it := &b.items[i]
		if it.set != nil {
			r.announce(src, it.route, it.set, it.apart)
		} else {
			r.withdraw(src, it.route.NLRI)
		}
	}
	r.settle()
	r.mu.Unlock()
	for _, s := range b.sets {
		r.sets.release(s)
	}
	clear(b.items)
	clear(b.sets)
	b.items, b.sets = b.items[:0], b.sets[:0]
}

// announce adds or replaces one path; apart is as in AnnounceApart.
func (r *RIB) announce(src SourceID, route wire.Route, set *Set, apart bool) {
	if r.sources[src].ask != nil && !r.relevant(set, route.NLRI.Kind) {
		r.stats.Irrelevant++
		r.withdraw(src, route.NLRI)
		return
	}
	pos, added := r.paths.Add(pathKey{src, route.NLRI})
	p := r.paths.At(pos)
	if !added && p.stale != LongLivedStale && r.live[p.set] == set && p.label == route.Label && p.multiLabel == route.MultiLabel && p.apart == apart && r.sameRaw(pos, route) {
		r.setStale(src, route.NLRI, p, Fresh)
		return
	}
	r.stats.Announced++
	if added {
		r.count(src, route.NLRI, 1)
	} else {
		r.unlinkTables(src, pos, route.NLRI, r.live[p.set])
		r.leaveSet(pos, p)
	}
	r.setStale(src, route.NLRI, p, Fresh)
	p.label, p.multiLabel, p.apart = route.Label, route.MultiLabel, apart
	if route.Raw != nil {
		r.raw[pos] = slices.Clone(route.Raw)
	} else if route.NLRI.Kind == wire.KindPrefix {
		delete(r.raw, pos)
	}
	r.joinSet(pos, p, set)
	r.linkTables(src, pos, route.NLRI, set, apart)
	r.changed(src, route.NLRI, pos, added)
}

// sameRaw tells whether the path at a position has these octets. Those of an
// opaque NLRI are the same whenever the NLRI is.
func (r *RIB) sameRaw(pos uint32, route wire.Route) bool {
	return route.NLRI.Kind != wire.KindPrefix || bytes.Equal(r.raw[pos], route.Raw)
}

// withdraw removes one path; one that is not there is ignored.
func (r *RIB) withdraw(src SourceID, n wire.NLRI) {
	if pos, ok := r.paths.Find(pathKey{src, n}); ok {
		r.withdrawAt(src, n, pos)
	}
}

// withdrawAt removes the path at a position.
func (r *RIB) withdrawAt(src SourceID, n wire.NLRI, pos uint32) {
	r.stats.Withdrawn++
	p := r.paths.At(pos)
	r.setStale(src, n, p, Fresh)
	r.unlinkTables(src, pos, n, r.live[p.set])
	r.leaveSet(pos, p)
	delete(r.raw, pos)
	r.count(src, n, -1)
	r.paths.Remove(pos)
	r.removed(src, n)
}

func (r *RIB) count(src SourceID, n wire.NLRI, by int) {
	s := &r.sources[src]
	s.counts[n.Kind] += by
	r.counts[s.kind][n.Kind] += by
}

// changed tells exporters and watchers of a new or changed path; pos is its position.
func (r *RIB) changed(src SourceID, n wire.NLRI, pos uint32, added bool) {
	s := &r.sources[src]
	if s.kind == Local {
		r.local[n] = pos
		r.markExporters(n)
		return
	}
	r.markWatchers(src, n)
	if added && n.Kind == wire.KindRTC && s.exporter != nil {
		s.exporter.want(n, 1)
	}
}

// removed tells exporters and watchers of a path that is gone.
func (r *RIB) removed(src SourceID, n wire.NLRI) {
	s := &r.sources[src]
	if s.kind == Local {
		delete(r.local, n)
		r.markExporters(n)
		return
	}
	r.markWatchers(src, n)
	if n.Kind == wire.KindRTC && s.exporter != nil {
		s.exporter.want(n, -1)
	}
}

// joinSet puts a path in the list of its set; the first one brings the set
// into the RT index.
func (r *RIB) joinSet(pos uint32, p *path, set *Set) {
	if !set.used {
		r.sets.retain(set)
		set.used = true
		r.stats.Sets++
		for len(r.live) <= int(set.id) {
			r.live = append(r.live, nil)
		}
		r.live[set.id] = set
		r.indexSet(set)
	}
	p.set, p.prev, p.next = set.id, 0, set.paths
	if set.paths != 0 {
		r.paths.At(set.paths - 1).prev = pos + 1
	}
	set.paths = pos + 1
	set.count++
}

// leaveSet takes a path out of the list of its set.
func (r *RIB) leaveSet(_ uint32, p *path) {
	set := r.live[p.set]
	if p.prev != 0 {
		r.paths.At(p.prev - 1).next = p.next
	} else {
		set.paths = p.next
	}
	if p.next != 0 {
		r.paths.At(p.next - 1).prev = p.prev
	}
	if set.count--; set.count == 0 {
		r.dying = append(r.dying, set)
	}
}

// settle drops the sets that lost their last path.
func (r *RIB) settle() {
	for _, set := range r.dying {
		if set.count > 0 || !set.used {
			continue
		}
		r.unindexSet(set)
		set.used = false
		r.live[set.id] = nil
		r.stats.Sets--
		r.sets.release(set)
	}
	r.dying = r.dying[:0]
}

// indexSet enters a set under its RTs and finds the tables that import it.
func (r *RIB) indexSet(set *Set) {
	set.tables = nil
	for _, rt := range set.RTs {
		t := r.target(rt)
		t.sets[set] = struct{}{}
		for _, table := range t.tables {
			if !slices.Contains(set.tables, table) {
				set.tables = append(set.tables, table)
			}
		}
	}
}

func (r *RIB) unindexSet(set *Set) {
	for _, rt := range set.RTs {
		if t := r.byRT[rt]; t != nil {
			delete(t.sets, set)
			r.dropTarget(rt, t)
		}
	}
	set.tables = nil
}

func (r *RIB) target(rt wire.RT) *target {
	t := r.byRT[rt]
	if t == nil {
		t = &target{sets: map[*Set]struct{}{}}
		r.byRT[rt] = t
	}
	return t
}

func (r *RIB) dropTarget(rt wire.RT, t *target) {
	if len(t.sets) == 0 && len(t.tables) == 0 {
		delete(r.byRT, rt)
	}
}

// linkTables makes a path a candidate in the tables that import its set, and in
// that of the VRF it comes from unless it is apart.
func (r *RIB) linkTables(src SourceID, pos uint32, n wire.NLRI, set *Set, apart bool) {
	for _, t := range set.tables {
		if t.source != src {
			t.link(pos, n, set)
		}
	}
	if own := r.sources[src].own; own != nil && !apart {
		own.link(pos, n, set)
	}
}

func (r *RIB) unlinkTables(src SourceID, pos uint32, n wire.NLRI, set *Set) {
	for _, t := range set.tables {
		if t.source != src {
			t.unlink(pos, n, set)
		}
	}
	if own := r.sources[src].own; own != nil {
		own.unlink(pos, n, set)
	}
}

// removeChunk bounds how many positions one lock covers in RemoveSource and walks.
const removeChunk = 4096

// RemoveSource withdraws all paths of a source and forgets it.
func (r *RIB) RemoveSource(src SourceID) {
	if len(r.SourceCounts(src)) > 0 {
		r.Purge(src)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources[src] = source{}
}

// Purge withdraws all paths of a source, or those of some families.
func (r *RIB) Purge(src SourceID, families ...wire.Family) {
	r.eachOf(src, families, func(pos uint32, n wire.NLRI, _ *path) { r.withdrawAt(src, n, pos) })
}

// eachOf calls f with the lock held for the paths of a source, of some families
// or of all. The lock is given up after some thousands of positions.
func (r *RIB) eachOf(src SourceID, families []wire.Family, f func(pos uint32, n wire.NLRI, p *path)) {
	for from := uint32(0); ; from += removeChunk {
		r.mu.Lock()
		end := r.paths.End()
		for pos := from; pos < from+removeChunk && pos < end; pos++ {
			if !r.paths.Live(pos) {
				continue
			}
			k := r.paths.Key(pos)
			if k.source == src && (len(families) == 0 || slices.Contains(families, k.nlri.Kind.Family())) {
				f(pos, k.nlri, r.paths.At(pos))
			}
		}
		r.settle()
		r.mu.Unlock()
		if from+removeChunk >= end {
			return
		}
	}
}

// Stats returns counters and sizes.
func (r *RIB) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Paths = r.paths.Len()
	return s
}

// Counts returns the number of paths from peers and from local sources by family.
func (r *RIB) Counts() (received, local map[wire.Family]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[Peer].byFamily(), r.counts[Local].byFamily()
}

// SourceCounts returns the number of paths of a source by family.
func (r *RIB) SourceCounts(src SourceID) map[wire.Family]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sources[src].counts.byFamily()
}

// kindCounts counts paths by kind of NLRI.
type kindCounts [wire.KindRTC + 1]int

// byFamily returns the counts that are not zero.
func (c *kindCounts) byFamily() map[wire.Family]int {
	out := map[wire.Family]int{}
	for k, n := range c {
		if n != 0 {
			out[wire.Kind(k).Family()] += n
		}
	}
	return out
}
