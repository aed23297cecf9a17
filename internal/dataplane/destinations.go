// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// ByDestination keeps lists by the destination of the classes in them. Of two classes with
// packets in common the destination of one holds that of the other. The zero value is empty.
type ByDestination[T any] struct {
	lists map[netip.Prefix][]T
	// order has each destination before those within it.
	order []netip.Prefix
	// lengths are how many destinations have each length.
	lengths [129]int
}

// Len returns how many lists there are.
func (b *ByDestination[T]) Len() int { return len(b.order) }

// List returns the list of a destination, nil when it has none.
func (b *ByDestination[T]) List(p netip.Prefix) []T { return b.lists[p] }

// Set replaces the list of a destination, which is without host bits. One without members goes.
func (b *ByDestination[T]) Set(p netip.Prefix, list []T) {
	at, have := slices.BinarySearchFunc(b.order, p, netip.Prefix.Compare)
	switch {
	case len(list) > 0 && !have:
		b.order = slices.Insert(b.order, at, p)
		b.lengths[p.Bits()]++
	case len(list) == 0 && have:
		b.order = slices.Delete(b.order, at, at+1)
		b.lengths[p.Bits()]--
	}
	if len(list) == 0 {
		delete(b.lists, p)
		return
	}
	if b.lists == nil {
		b.lists = map[netip.Prefix][]T{}
	}
	b.lists[p] = list
}

// All returns every destination with its list, in no order.
func (b *ByDestination[T]) All() iter.Seq2[netip.Prefix, []T] { return maps.All(b.lists) }

// Around returns the lists of a destination and of those that hold it, the longest first.
func (b *ByDestination[T]) Around(p netip.Prefix) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for bits := p.Bits(); bits >= 0; bits-- {
			if b.lengths[bits] == 0 {
				continue
			}
			if list := b.lists[netip.PrefixFrom(p.Addr(), bits).Masked()]; list != nil && !yield(list) {
				return
			}
		}
	}
}

// Within returns a destination and those within it with their lists, each before those within it.
func (b *ByDestination[T]) Within(p netip.Prefix) iter.Seq2[netip.Prefix, []T] {
	return func(yield func(netip.Prefix, []T) bool) {
		at, _ := slices.BinarySearchFunc(b.order, p, netip.Prefix.Compare)
		for _, o := range b.order[at:] {
			if !p.Contains(o.Addr()) || !yield(o, b.lists[o]) {
				return
			}
		}
	}
}
