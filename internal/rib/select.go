// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Path is a route as it came from a source.
type Path struct {
	wire.Route
	Attrs *wire.Attrs
	// Source is the name of the peer or instance.
	Source string
	Kind   SourceKind
	Stale  Staleness
	// Apart is as in Batch.AnnounceApart.
	Apart bool
	// Own is set for the VRF's own route, in its table. Yields is set with it when the route is to a
	// subnet behind an endpoint and the VRF does not import it: others are told of it, and here it is used
	// only where nobody else has the prefix. A hop of a service chain that says where one side is has it
	// on the other side.
	Own, Yields bool
}

// LastResort tells whether a path is to be used only where there is no other
// (RFC 9494 §4.3): we or the peer keep it for a neighbour that is long gone.
func (p *Path) LastResort() bool { return p.Stale == LongLivedStale || p.Attrs.LLGRStale }

// Selection is the outcome for one entry: its best paths now, none when there
// is nothing to use.
type Selection struct {
	Key EntryKey
	// At is the entry's place in the table: small, and another's only after a
	// selection without best paths.
	At   uint32
	Best []Path
}

// candidate is a usable path during selection.
type candidate struct {
	pos  uint32
	path Path
}

// Selections is what Take returns; its buffers are used again by the next Take.
type Selections struct {
	Items []Selection
	paths []Path
}

// Take fills out with the selections of at most limit dirty entries, which are
// clean then, and tells whether more are waiting. The paths are those at the
// time of the call.
func (t *Table) Take(limit int, out *Selections) bool {
	r := t.rib
	r.mu.Lock()
	defer r.mu.Unlock()
	out.Items, out.paths = out.Items[:0], out.paths[:0]
	for _, at := range t.dirty.take(limit) {
		e := t.entries.At(at)
		t.queued.clear(at)
		key, first := t.entries.Key(at), len(out.paths)
		out.paths = t.best(key, e, out.paths)
		out.Items = append(out.Items, Selection{key, at, out.paths[first:len(out.paths):len(out.paths)]})
		if e.head == 0 {
			t.entries.Remove(at)
		}
	}
	return t.dirty.len() > 0
}

// Refresh marks entries so that Take selects for them again.
func (t *Table) Refresh(keys ...EntryKey) {
	t.rib.mu.Lock()
	defer t.rib.mu.Unlock()
	for _, k := range keys {
		if at, ok := t.entries.Find(k); ok {
			t.mark(at)
		}
	}
}

// RefreshAll marks all entries so that Take selects for them again.
func (t *Table) RefreshAll() {
	t.rib.mu.Lock()
	defer t.rib.mu.Unlock()
	for at := range t.entries.End() {
		if t.entries.Live(at) {
			t.mark(at)
		}
	}
}

// best appends the best paths of an entry: those that prefer puts first, all of
// them with ECMP, else one. Of a flow it is all of them, the best first: some may not be of
// use to the instance.
func (t *Table) best(key EntryKey, e *entry, out []Path) []Path {
	t.chosen = t.chosen[:0]
	t.links.each(e.head, func(pos uint32) {
		c := candidate{pos: pos, path: t.rib.path(pos)}
		if t.owns(pos) {
			c.path.Own, c.path.Yields = true, t.yields(&c.path)
		}
		if t.Usable == nil || t.Usable(c.path.Route, c.path.Attrs) {
			t.keep(key, c)
		}
	})
	switch {
	case len(t.chosen) == 0:
		return out
	case len(t.chosen) == 1:
		return append(out, t.chosen[0].path)
	case t.takesAll(key) || t.ECMP && key.Kind == EntryPrefix:
		slices.SortFunc(t.chosen, func(a, b candidate) int {
			if key.Kind == EntryFlow {
				if d := prefer(key, &b.path, &a.path); d != 0 {
					return d
				}
			}
			return compareStable(a, b)
		})
		for _, c := range t.chosen {
			out = append(out, c.path)
		}
		return out
	}
	return append(out, t.one(key).path)
}

// takesAll tells whether all usable paths of an entry are taken, whatever their preference.
func (t *Table) takesAll(key EntryKey) bool { return t.All || key.Kind == EntryFlow }

// keep adds a candidate unless it is worse than those kept, and drops those
// that are worse than it.
func (t *Table) keep(key EntryKey, c candidate) {
	if len(t.chosen) > 0 && !t.takesAll(key) {
		switch d := prefer(key, &c.path, &t.chosen[0].path); {
		case d < 0:
			return
		case d > 0:
			t.chosen = t.chosen[:0]
		}
	}
	t.chosen = append(t.chosen, c)
}

// prefer returns a positive number when a is better than b, 0 when equal. After
// long-lived stale paths, LOCAL_PREF comes first, as in the original; then what is
// local, unless it yields; for prefixes then VPN before EVPN type 5 routes, which are not mixed; for MACs
// the sticky flag and the mobility sequence number (RFC 7432 §15).
func prefer(key EntryKey, pa, pb *Path) int {
	if last := pa.LastResort(); last != pb.LastResort() {
		if last {
			return -1
		}
		return 1
	}
	a, b := pa.Attrs, pb.Attrs
	if d := cmp.Compare(a.LocalPref, b.LocalPref); d != 0 {
		return d
	}
	if d := cmp.Compare(ownRank(pa), ownRank(pb)); d != 0 {
		return d
	}
	if key.Kind == EntryPrefix {
		return cmp.Compare(kindRank(pa.NLRI.Kind), kindRank(pb.NLRI.Kind))
	}
	if key.Kind == EntryFlood || key.Kind == EntryFlow {
		return 0
	}
	if a.Sticky != b.Sticky {
		if a.Sticky {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.MobilitySeq, b.MobilitySeq)
}

func ownRank(p *Path) int {
	switch {
	case p.Yields:
		return 0
	case p.Own:
		return 2
	}
	return 1
}

func kindRank(k wire.Kind) int {
	if k == wire.KindPrefix {
		return 0
	}
	return 1
}

// one breaks the tie among equal paths. For MACs the lowest next hop wins, on
// every node alike (RFC 7432 §15); elsewhere a salted hash spreads tables over the
// candidates.
func (t *Table) one(key EntryKey) candidate {
	if key.Kind == EntryMAC || key.Kind == EntryIP {
		return slices.MinFunc(t.chosen, compareStable)
	}
	return slices.MinFunc(t.chosen, func(a, b candidate) int {
		if d := cmp.Compare(t.saltedHash(a), t.saltedHash(b)); d != 0 {
			return d
		}
		return compareStable(a, b)
	})
}

func (t *Table) saltedHash(c candidate) uint64 {
	h := fnv.New64a()
	n := c.path.NLRI
	_, _ = h.Write([]byte{byte(t.Salt), byte(t.Salt >> 8), byte(t.Salt >> 16), byte(t.Salt >> 24)})
	_, _ = h.Write(n.RD[:])
	_, _ = h.Write(n.Addr[:])
	nh := c.path.Attrs.NextHop.As16()
	_, _ = h.Write(nh[:])
	return h.Sum64()
}

// compareStable orders paths by next hop, RD, label, the rest of the NLRI and
// source, so that the outcome depends on the routes and not on the order of
// their arrival.
func compareStable(a, b candidate) int {
	return cmp.Or(
		a.path.Attrs.NextHop.Compare(b.path.Attrs.NextHop),
		slices.Compare(a.path.NLRI.RD[:], b.path.NLRI.RD[:]),
		cmp.Compare(a.path.Label, b.path.Label),
		a.path.NLRI.IP().Compare(b.path.NLRI.IP()),
		slices.Compare(a.path.NLRI.MAC[:], b.path.NLRI.MAC[:]),
		cmp.Compare(a.path.NLRI.Tag, b.path.NLRI.Tag),
		cmp.Compare(a.path.Source, b.path.Source),
	)
}

// owns tells whether the route at a position is the VRF's own.
func (t *Table) owns(pos uint32) bool {
	return t.Own && t.rib.paths.Key(pos).source == t.source
}

// yields tells whether an own route gives way to those of others (Path.Yields).
func (t *Table) yields(p *Path) bool {
	prefix := p.NLRI.Prefix()
	return prefix.IsValid() && !prefix.IsSingleIP() && !slices.ContainsFunc(p.Attrs.RTs, t.importsRT)
}

// path returns the route at a position.
func (r *RIB) path(pos uint32) Path {
	k, p := r.paths.Key(pos), r.paths.At(pos)
	s := &r.sources[k.source]
	return Path{
		Route:  wire.Route{NLRI: k.nlri, Label: p.label, MultiLabel: p.multiLabel, Raw: r.raw[pos]},
		Attrs:  r.live[p.set].Attrs,
		Source: s.name,
		Kind:   s.kind,
		Stale:  p.stale,
		Apart:  p.apart,
	}
}

// Mobility returns the highest MAC mobility sequence number that others
// announce for a MAC, and whether anybody does.
func (t *Table) Mobility(mac ethernet.MAC) (seq uint32, known bool) {
	t.rib.mu.Lock()
	defer t.rib.mu.Unlock()
	at, ok := t.entries.Find(MACKey(mac))
	if !ok {
		return 0, false
	}
	t.links.each(t.entries.At(at).head, func(pos uint32) {
		if p := t.rib.path(pos); t.Usable == nil || t.Usable(p.Route, p.Attrs) {
			known = true
			seq = max(seq, p.Attrs.MobilitySeq)
		}
	})
	return seq, known
}
