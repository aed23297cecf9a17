// SPDX-License-Identifier: Apache-2.0

// Package allocator hands out numbers of a range: route distinguisher numbers,
// MPLS labels and VNIs. A number that was freed is used again only when all
// others have been used, so that a peer never mistakes a new thing for an old
// one.
package allocator

import (
	"fmt"
	"sync"
)

// Allocator hands out the numbers of one range. Its methods may be called
// concurrently.
type Allocator struct {
	name        string
	first, last uint32

	mu    sync.Mutex
	next  uint64 // never handed out from here on, unless in used
	used  map[uint32]string
	freed []uint32 // oldest first
}

// New returns an allocator for first..last; name is for errors.
func New(name string, first, last uint32) *Allocator {
	return &Allocator{name: name, first: first, last: last, next: uint64(first), used: map[uint32]string{}}
}

// Allocate returns a number that is not in use; owner says for what, for the
// looking glass. The error says that the range is used up.
func (a *Allocator) Allocate(owner string) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ; a.next <= uint64(a.last); a.next++ {
		if n := uint32(a.next); a.used[n] == "" {
			a.next++
			a.used[n] = owner
			return n, nil
		}
	}
	for len(a.freed) > 0 {
		n := a.freed[0]
		a.freed = a.freed[1:]
		if a.used[n] == "" {
			a.used[n] = owner
			return n, nil
		}
	}
	return 0, fmt.Errorf("no %s left: all of %d..%d are in use", a.name, a.first, a.last)
}

// Reserve takes a number that somebody else chose and tells whether it was
// free. Numbers outside of the range are always free and never handed out.
func (a *Allocator) Reserve(n uint32, owner string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used[n] != "" {
		return false
	}
	a.used[n] = owner
	return true
}

// Restore takes a number that was handed out in an earlier run, and tells whether it was free. It counts
// as the last one handed out so far: those below it come when all others have been used.
func (a *Allocator) Restore(n uint32, owner string) bool {
	if !a.Reserve(n, owner) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for ; n <= a.last && a.next <= uint64(n); a.next++ {
		if a.used[uint32(a.next)] == "" {
			a.freed = append(a.freed, uint32(a.next))
		}
	}
	return true
}

// Free gives a number back. Freeing what is not in use is a programming error
// and has no effect.
func (a *Allocator) Free(n uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used[n] == "" {
		return
	}
	delete(a.used, n)
	if uint64(n) < a.next && n >= a.first {
		a.freed = append(a.freed, n)
	}
}

// InUse returns the numbers in use with their owners.
func (a *Allocator) InUse() map[uint32]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[uint32]string, len(a.used))
	for n, owner := range a.used {
		out[n] = owner
	}
	return out
}
