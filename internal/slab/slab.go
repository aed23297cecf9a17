// SPDX-License-Identifier: Apache-2.0

// Package slab has a compact hash map for large tables of small values.
package slab

import "hash/maphash"

// Slab is a hash map whose items keep their position for life, so that other
// structures refer to them by a 32-bit position instead of a pointer or a
// second copy of the key. It has no pointers per item (if K and V have none),
// which keeps it out of the garbage collector's way, and about 14 bytes of
// overhead per item.
type Slab[K comparable, V any] struct {
	seed   maphash.Seed
	chunks [][]item[K, V]
	free   uint32 // position+1 of the first free item, chained through next
	end    uint32 // positions handed out so far
	count  int
	// slots is an open-addressing table of 32 bits of hash and position+1.
	slots []uint64
}

type item[K comparable, V any] struct {
	key  K
	val  V
	next uint32 // free list: position+1; liveMark for items in use
}

const (
	chunkBits = 6
	chunkSize = 1 << chunkBits
	liveMark  = ^uint32(0)
)

// New returns an empty Slab.
func New[K comparable, V any]() *Slab[K, V] {
	return &Slab[K, V]{seed: maphash.MakeSeed(), slots: make([]uint64, 8)}
}

func (s *Slab[K, V]) itemAt(pos uint32) *item[K, V] {
	return &s.chunks[pos>>chunkBits][pos&(chunkSize-1)]
}

// At returns the value at a position that is in use.
func (s *Slab[K, V]) At(pos uint32) *V { return &s.itemAt(pos).val }

// Key returns the key at a position that is in use.
func (s *Slab[K, V]) Key(pos uint32) K { return s.itemAt(pos).key }

// Live tells whether the position is in use.
func (s *Slab[K, V]) Live(pos uint32) bool {
	return pos < s.end && s.itemAt(pos).next == liveMark
}

// hash returns 32 bits, which a slot holds in full: growing needs no keys.
func (s *Slab[K, V]) hash(key K) uint64 { return maphash.Comparable(s.seed, key) >> 32 }

// Find returns the position of key.
func (s *Slab[K, V]) Find(key K) (uint32, bool) {
	h := s.hash(key)
	slot := s.lookup(key, h)
	v := s.slots[slot]
	return uint32(v) - 1, v != 0
}

// lookup returns the slot that holds key, or the empty slot where it belongs.
func (s *Slab[K, V]) lookup(key K, h uint64) uint64 {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		v := s.slots[i]
		if v == 0 || v>>32 == h && s.itemAt(uint32(v)-1).key == key {
			return i
		}
	}
}

// Add returns the position of key and whether it was added now; a new value is zero.
func (s *Slab[K, V]) Add(key K) (pos uint32, added bool) {
	h := s.hash(key)
	slot := s.lookup(key, h)
	if v := s.slots[slot]; v != 0 {
		return uint32(v) - 1, false
	}
	if s.free != 0 {
		pos = s.free - 1
		s.free = s.itemAt(pos).next
	} else {
		pos = s.end
		s.end++
		if pos>>chunkBits == uint32(len(s.chunks)) {
			s.chunks = append(s.chunks, make([]item[K, V], chunkSize))
		}
	}
	*s.itemAt(pos) = item[K, V]{key: key, next: liveMark}
	s.slots[slot] = h<<32 | uint64(pos+1)
	if s.count++; s.count*4 > len(s.slots)*3 {
		s.resize(2 * len(s.slots))
	}
	return pos, true
}

// resize moves the slots to a table of another size; positions do not change.
func (s *Slab[K, V]) resize(size int) {
	old := s.slots
	s.slots = make([]uint64, size)
	mask := uint64(size - 1)
	for _, v := range old {
		if v == 0 {
			continue
		}
		i := v >> 32 & mask
		for s.slots[i] != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = v
	}
}

// Remove frees the item at pos.
func (s *Slab[K, V]) Remove(pos uint32) {
	it := s.itemAt(pos)
	slot := s.lookup(it.key, s.hash(it.key))
	s.unslot(slot)
	*it = item[K, V]{next: s.free}
	s.free = pos + 1
	s.count--
	if len(s.slots) > 64 && s.count*8 < len(s.slots) {
		s.resize(len(s.slots) / 2)
	}
	if s.count == 0 {
		s.chunks, s.free, s.end = nil, 0, 0
	}
}

// unslot empties a slot and moves later items of the same run back, so that no
// search ends early.
func (s *Slab[K, V]) unslot(hole uint64) {
	mask := uint64(len(s.slots) - 1)
	for i := (hole + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		home := s.slots[i] >> 32 & mask
		if (i-home)&mask >= (i-hole)&mask {
			s.slots[hole] = s.slots[i]
			hole = i
		}
	}
	s.slots[hole] = 0
}

// Len returns the number of items.
func (s *Slab[K, V]) Len() int { return s.count }

// End returns the position behind the last one in use: a walk looks at those
// before it that are Live.
func (s *Slab[K, V]) End() uint32 { return s.end }
