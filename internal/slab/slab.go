// SPDX-License-Identifier: Apache-2.0

// Package slab has a compact hash map for large tables of small values.
package slab

import "hash/maphash"

// Slab is a hash map whose items keep their position for life, so that other
// structures refer to them by a 32-bit position instead of a pointer or a
// second copy of the key. It has no pointers per item (if K and V have none),
// which keeps it out of the garbage collector's way, and about 11 bytes of
// overhead per item. It holds 2^31 items at most.
type Slab[K comparable, V any] struct {
	seed   maphash.Seed
	chunks [][]item[K, V]
	free   uint32 // position+1 of the first free item, chained through link
	end    uint32 // positions handed out so far
	count  int
	// slots is an open-addressing table: in its low bits a slot has a position+1,
	// above them those bits of the item's hash that do not choose the slot.
	slots []uint32
	bits  uint // log2 of len(slots)
}

type item[K comparable, V any] struct {
	key K
	val V
	// link is the hash of an item in use, with liveBit; else the free list:
	// position+1.
	link uint32
}

const (
	chunkBits = 6
	chunkSize = 1 << chunkBits
	liveBit   = 1 << 31
	firstBits = 3
	keepBits  = 6 // of an empty table
)

// New returns an empty Slab.
func New[K comparable, V any]() *Slab[K, V] {
	return &Slab[K, V]{seed: maphash.MakeSeed(), slots: make([]uint32, 1<<firstBits), bits: firstBits}
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
	return pos < s.end && s.itemAt(pos).link&liveBit != 0
}

// hash returns 31 bits, which an item keeps: a table of another size needs no keys.
func (s *Slab[K, V]) hash(key K) uint32 { return uint32(maphash.Comparable(s.seed, key) >> 33) }

// posOf returns the position that a slot in use has.
func (s *Slab[K, V]) posOf(slot uint32) uint32 { return slot&(1<<s.bits-1) - 1 }

// Find returns the position of key.
func (s *Slab[K, V]) Find(key K) (uint32, bool) {
	v := s.slots[s.lookup(key, s.hash(key))]
	return s.posOf(v), v != 0
}

// lookup returns the slot that holds key, or the empty slot where it belongs.
func (s *Slab[K, V]) lookup(key K, h uint32) uint32 {
	mask := uint32(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		v := s.slots[i]
		if v == 0 || v>>s.bits == h>>s.bits && s.itemAt(s.posOf(v)).key == key {
			return i
		}
	}
}

// Add returns the position of key and whether it was added now; a new value is zero.
func (s *Slab[K, V]) Add(key K) (pos uint32, added bool) {
	h := s.hash(key)
	slot := s.lookup(key, h)
	if v := s.slots[slot]; v != 0 {
		return s.posOf(v), false
	}
	if s.free != 0 {
		pos = s.free - 1
		s.free = s.itemAt(pos).link
	} else {
		pos = s.end
		s.end++
		if pos>>chunkBits == uint32(len(s.chunks)) {
			s.chunks = append(s.chunks, make([]item[K, V], chunkSize))
		}
	}
	*s.itemAt(pos) = item[K, V]{key: key, link: h | liveBit}
	s.count++
	if s.full(len(s.slots)) {
		s.resize(s.bits + 1)
	} else {
		s.slots[slot] = h>>s.bits<<s.bits | (pos + 1)
	}
	return pos, true
}

// full tells whether a table of some size has too many items, or positions that
// do not fit its slots.
func (s *Slab[K, V]) full(size int) bool {
	return s.count > size-size/4 || int(s.end) >= size
}

// resize makes a table of another size; positions do not change.
func (s *Slab[K, V]) resize(bits uint) {
	s.slots, s.bits = make([]uint32, 1<<bits), bits
	mask := uint32(len(s.slots) - 1)
	for pos := range s.end {
		h := s.itemAt(pos).link
		if h&liveBit == 0 {
			continue
		}
		h &^= liveBit
		i := h & mask
		for s.slots[i] != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = h>>bits<<bits | (pos + 1)
	}
}

// Remove frees the item at pos.
func (s *Slab[K, V]) Remove(pos uint32) {
	s.unslot(s.slotOf(pos))
	*s.itemAt(pos) = item[K, V]{link: s.free}
	s.free = pos + 1
	if s.count--; s.count == 0 {
		s.chunks, s.free, s.end = nil, 0, 0
		if s.bits > keepBits {
			s.resize(keepBits)
		}
	}
}

// slotOf returns the slot of the item in use at pos.
func (s *Slab[K, V]) slotOf(pos uint32) uint32 {
	mask := uint32(len(s.slots) - 1)
	i := s.itemAt(pos).link & mask
	for s.posOf(s.slots[i]) != pos {
		i = (i + 1) & mask
	}
	return i
}

// unslot empties a slot and moves later items of the same run back, so that no
// search ends early.
func (s *Slab[K, V]) unslot(hole uint32) {
	mask := uint32(len(s.slots) - 1)
	for i := (hole + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		home := s.itemAt(s.posOf(s.slots[i])).link & mask
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
