// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Set is an interned set of path attributes. An Interner returns it with one
// reference for the caller, who hands it over to a Batch with Hold.
type Set struct {
	*wire.Attrs
	key string
	id  uint32

	refs int // guarded by setTable.mu

	// The rest is guarded by RIB.mu.
	used   bool     // known to the RIB: in its live list and RT index
	paths  uint32   // position+1 of the first path with this set
	count  int      // paths with this set
	tables []*Table // tables that import one of the RTs

	views      uint8  // bits of the views of those tables, as of relevantAt
	relevantAt uint64 // RIB.imports+1 then; 0: never
}

// setTable interns attribute sets. It has a lock of its own, so that sessions
// look up and decode attributes without holding the RIB.
type setTable struct {
	mu    sync.Mutex
	byKey map[string]*Set
	free  []uint32
	next  uint32
}

// appendKey makes the identity of a set: next hop in one form for all
// families, the rules of the session, and the raw octets.
func appendKey(b, raw []byte, nh netip.Addr, rules wire.Rules) []byte {
	nh16 := nh.As16()
	b = append(append(b, raw...), nh16[:]...)
	flag := byte(0)
	if rules.FourOctetAS {
		flag |= 1
	}
	if nh.IsValid() {
		flag |= 2
	}
	if rules.External {
		flag |= 4
	}
	return append(b, flag)
}

// Interner looks attribute sets up for one user, with a scratch buffer of its
// own. It is not for concurrent use.
type Interner struct {
	sets    *setTable
	scratch []byte
}

// NewInterner returns an Interner for the sets of r.
func (r *RIB) NewInterner() *Interner { return &Interner{sets: &r.sets} }

// Intern returns the set for raw attributes and a next hop as received, with a
// reference for the caller. Attributes are decoded, by the rules of the session
// they came from, when the set is new; the error is that of wire.DecodeAttrs.
func (in *Interner) Intern(raw []byte, nh netip.Addr, rules wire.Rules) (*Set, *wire.Error) {
	in.scratch = appendKey(in.scratch[:0], raw, nh, rules)
	t := in.sets
	t.mu.Lock()
	if s := t.byKey[string(in.scratch)]; s != nil {
		s.refs++
		t.mu.Unlock()
		return s, nil
	}
	t.mu.Unlock()
	attrs, err := wire.DecodeAttrs(raw, nh, rules)
	if err != nil {
		return nil, err
	}
	return t.insert(string(in.scratch), attrs), nil
}

// InternLocal returns the set for attributes of a route that we originate.
func (in *Interner) InternLocal(attrs *wire.Attrs) *Set {
	in.scratch = appendKey(in.scratch[:0], attrs.Raw, attrs.NextHop, wire.Rules{FourOctetAS: true})
	return in.sets.insert(string(in.scratch), attrs)
}

// insert adds a set, or returns the one that came first.
func (t *setTable) insert(key string, attrs *wire.Attrs) *Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byKey[key]
	if s == nil {
		s = &Set{Attrs: attrs, key: key}
		if n := len(t.free); n > 0 {
			s.id, t.free = t.free[n-1], t.free[:n-1]
		} else {
			s.id = t.next
			t.next++
		}
		t.byKey[key] = s
	}
	s.refs++
	return s
}

// retain takes one more reference.
func (t *setTable) retain(s *Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.refs++
}

// release gives one reference back; the set is forgotten with the last one.
func (t *setTable) release(s *Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return
	}
	delete(t.byKey, s.key)
	t.free = append(t.free, s.id)
}
