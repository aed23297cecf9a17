// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Retry pauses of failed changes.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Problem tells which desired changes of an instance could not be carried out
// yet. An instance has one at most: for itself, or else for its entries.
type Problem struct {
	Instance string
	// Count is the number of changes.
	Count int
	// Change is one of them. Its entry is of kind Whole when the instance itself
	// cannot be repaired, or with Delete not be removed.
	Change Change
	// Err is the last error, of any of them.
	Err   error
	Since time.Time
	// Attempts is the highest number of attempts of one change.
	Attempts int
}

// failure is a change that waits to be tried again. There may be as many as
// there are entries, so it holds nothing that one per instance can hold.
type failure struct {
	change   Change
	attempts int
	next     time.Time
}

// failures are the entries of an instance that could not be carried out.
type failures struct {
	list  map[failKey]*failure
	first failKey // the example
	err   error   // the last
	since time.Time
}

// trouble is what is wrong with an instance as a whole.
type trouble struct {
	Problem
	next time.Time
}

// pause returns the time before the next attempt.
func pause(attempts int) time.Duration {
	return min(firstRetry<<min(attempts-1, 10), lastRetry)
}

// carryOut hands changes to the driver and keeps those that fail. When the
// reason is that the instance is not whole, it is repaired, and all is replayed.
func (f *Forwarding) carryOut(ctx context.Context, changes []Change) {
	switch {
	case f.whole != nil:
		f.stale = f.stale || len(changes) > 0
	case !f.apply(ctx, changes) && ctx.Err() == nil:
		_, _ = f.mend(ctx) // logged, and tried again
	}
}

// apply hands changes to the driver, keeps those that fail and tells whether all are done.
func (f *Forwarding) apply(ctx context.Context, changes []Change) bool {
	if len(changes) == 0 {
		return true
	}
	done, failed := true, len(f.failed.list)
	for i, err := range f.handle.Apply(ctx, changes) {
		c := changes[i]
		switch {
		case err != nil && !waits(c, err):
			f.fail(c, err)
			done = false
		case len(f.failed.list) > 0:
			delete(f.failed.list, failKeyOf(c.Entry))
		}
	}
	if now := len(f.failed.list); failed == 0 && now > 0 && ctx.Err() == nil {
		f.r.log.Warn("forwarding entries not installed, will retry", "instance", f.inst.ID,
			"entries", now, "change", f.failed.example().String(), "err", f.failed.err)
	}
	f.r.count(len(changes))
	return done
}

// waits tells whether a change can wait until Drifted finds the port it is for:
// its device is gone, and is made again by whoever made it or never.
func waits(c Change, err error) bool {
	var in *InputError
	return !c.Delete && !c.Entry.Kind.isRemote() && errors.As(err, &in) && in.Missing
}

// fail notes a failed change for retry.
func (f *Forwarding) fail(c Change, err error) {
	c.Entry.NextHops = slices.Clone(c.Entry.NextHops) // the caller's buffer is used again
	k := failKeyOf(c.Entry)
	if len(f.failed.list) == 0 {
		f.failed.first, f.failed.since = k, time.Now()
	}
	x := f.failed.list[k]
	if x == nil {
		x = &failure{}
		f.failed.list[k] = x
	}
	x.change, f.failed.err = c, err
	x.attempts++
	x.next = time.Now().Add(pause(x.attempts))
	f.r.wake()
}

// example returns the change that failed first, or when that is done, any.
func (l *failures) example() Change {
	if x := l.list[l.first]; x != nil {
		return x.change
	}
	for k, x := range l.list {
		l.first = k
		return x.change
	}
	return Change{}
}

// bad notes that the instance as a whole is in trouble.
func (f *Forwarding) bad(c Change, err error) {
	if f.whole == nil {
		f.whole = &trouble{Problem: Problem{Instance: f.inst.ID, Count: 1, Change: c, Since: time.Now()}}
	}
	f.whole.Err = err
	f.whole.Attempts++
	f.whole.next = time.Now().Add(pause(f.whole.Attempts))
	f.r.wake()
}

// retry tries what failed and whose time has come, and returns when the next
// one is due; the zero time means none.
func (f *Forwarding) retry(ctx context.Context, now time.Time) (next time.Time) {
	f.mu.Lock()
	defer f.unlock()
	if f.whole != nil && !f.whole.next.After(now) {
		if f.closed {
			_ = f.remove(ctx) // logged, and tried again
		} else {
			_, _ = f.mend(ctx)
		}
	}
	if f.whole != nil {
		return f.whole.next
	}
	var due []Change
	for _, x := range f.failed.list {
		if !x.next.After(now) {
			due = append(due, x.change)
		}
	}
	f.carryOut(ctx, due)
	if f.whole != nil {
		return f.whole.next
	}
	for _, x := range f.failed.list {
		if next.IsZero() || x.next.Before(next) {
			next = x.next
		}
	}
	return next
}

// hurry makes all that failed due.
func (f *Forwarding) hurry() {
	f.mu.Lock()
	defer f.unlock()
	if f.whole != nil {
		f.whole.next = time.Time{}
	}
	for _, x := range f.failed.list {
		x.next = time.Time{}
	}
}

// Problems returns what could not be carried out yet, in one problem at most. It does not wait for
// the driver: while that has the instance, it returns what was so before.
func (f *Forwarding) Problems() []Problem {
	if f.mu.TryLock() {
		defer f.mu.Unlock()
		return f.problems()
	}
	if p := f.known.Load(); p != nil {
		return *p
	}
	return nil
}

// unlock ends what may have changed the problems.
func (f *Forwarding) unlock() {
	if p := f.problems(); len(p) > 0 {
		f.known.Store(&p)
	} else {
		f.known.Store(nil)
	}
	f.mu.Unlock()
}

// problems is Problems with f.mu held.
func (f *Forwarding) problems() []Problem {
	n := len(f.failed.list)
	switch {
	case f.whole != nil:
		return []Problem{f.whole.Problem}
	case n == 0:
		return nil
	}
	p := Problem{Instance: f.inst.ID, Count: n, Change: f.failed.example(), Err: f.failed.err, Since: f.failed.since}
	for _, x := range f.failed.list {
		p.Attempts = max(p.Attempts, x.attempts)
	}
	return []Problem{p}
}
