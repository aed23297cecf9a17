// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"sync"
	"time"
)

// RetryAt tries again what is due at a time.
func (r *Reconciler) RetryAt(ctx context.Context, now time.Time) {
	for _, f := range r.all() {
		f.retry(ctx, now)
	}
}

// Check looks for what others changed.
func (r *Reconciler) Check(ctx context.Context) { r.check(ctx) }

// RoundTrip compacts an entry and expands it again.
func RoundTrip(e Entry) Entry { return expand(compact(&e)) }

// SameKey tells whether two entries of remote origin replace each other.
func SameKey(a, b Entry) bool {
	ka, _, _ := compact(&a)
	kb, _, _ := compact(&b)
	return ka == kb
}

var (
	placesMu sync.Mutex
	placeOf  = map[key]uint32{}
)

// Place returns a number for Change.At: the same for entries that replace each other.
func Place(e Entry) uint32 {
	placesMu.Lock()
	defer placesMu.Unlock()
	k, _, _ := compact(&e)
	if _, known := placeOf[k]; !known {
		placeOf[k] = uint32(len(placeOf))
	}
	return placeOf[k]
}

// NumbersOf exports numbersOf.
var NumbersOf = numbersOf
