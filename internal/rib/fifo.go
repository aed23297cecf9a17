// SPDX-License-Identifier: Apache-2.0

package rib

// fifo is a queue whose items are taken many at a time.
type fifo[T any] struct {
	items []T
	head  int
}

// keepCapacity is the number of items up to which an empty queue keeps its memory.
const keepCapacity = 1024

// add adds an item and tells whether the queue was empty.
func (q *fifo[T]) add(v T) bool {
	if q.head > keepCapacity && q.head > len(q.items)/2 { // a queue that is never empty must not grow
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
	return q.len() == 1
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

// waiting returns the items in the queue.
func (q *fifo[T]) waiting() []T { return q.items[q.head:] }

// take removes at most limit items and returns them; they are valid until the
// next add.
func (q *fifo[T]) take(limit int) []T {
	n := min(limit, q.len())
	out := q.items[q.head : q.head+n]
	if q.head += n; q.len() == 0 {
		q.head, q.items = 0, q.items[:0]
		if cap(q.items) > keepCapacity {
			q.items = nil
		}
	}
	return out
}
