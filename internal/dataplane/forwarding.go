// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/slab"
)

// Retry pauses of failed changes.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Problem is a desired change that could not be carried out yet.
type Problem struct {
	Instance string
	Change   Change
	Err      error
	Since    time.Time
	Attempts int
}

// localKey identifies an entry of local origin.
type localKey struct {
	kind Kind
	name string
}

func keyOfLocal(e Entry) localKey {
	switch e.Kind {
	case LocalPort:
		return localKey{e.Kind, e.Port}
	case LocalMAC:
		return localKey{e.Kind, e.MAC.String()}
	}
	return localKey{e.Kind, fmt.Sprintf("%d %s", e.Label, e.IP)}
}

// failure is a change that waits to be tried again.
type failure struct {
	Problem
	next time.Time
}

// failKey names what a failure is about.
type failKey struct {
	remote key
	local  localKey
}

func failKeyOf(e Entry) failKey {
	if e.Kind.isRemote() {
		k, _, _ := compact(&e)
		return failKey{remote: k}
	}
	return failKey{local: keyOfLocal(e)}
}

// Forwarding is the forwarding state of one instance: what is desired, what of
// it is not installed yet, and what an earlier run left. Make it with
// Reconciler.Open. Its methods may be called concurrently.
type Forwarding struct {
	inst   Instance
	handle Handle
	r      *Reconciler

	mu     sync.Mutex
	remote *slab.Slab[key, value]
	more   map[key][]NextHop // all next hops, where a value holds not all of it
	local  map[localKey]Entry
	// found holds what an earlier run left and nobody has asked for yet.
	foundRemote map[key]value
	foundMore   map[key][]NextHop
	foundLocal  map[localKey]Entry
	failed      map[failKey]*failure
	closed      bool
	removing    bool // closed, but the driver could not remove it yet
	removeAt    time.Time
}

func newForwarding(r *Reconciler, inst Instance, h Handle) *Forwarding {
	return &Forwarding{
		inst: inst, handle: h, r: r,
		remote: slab.New[key, value](), more: map[key][]NextHop{}, local: map[localKey]Entry{},
		foundRemote: map[key]value{}, foundMore: map[key][]NextHop{}, foundLocal: map[localKey]Entry{},
		failed: map[failKey]*failure{},
	}
}

// adopt notes what an earlier run left.
func (f *Forwarding) adopt(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.handle.Installed(ctx)
	if err != nil {
		return fmt.Errorf("read what is installed for instance %q: %w", f.inst.ID, err)
	}
	for _, e := range found {
		if e.Kind.isRemote() {
			k, v, more := compact(&e)
			f.foundRemote[k] = v
			setMore(f.foundMore, k, more)
		} else {
			f.foundLocal[keyOfLocal(e)] = e
		}
	}
	return nil
}

func setMore(m map[key][]NextHop, k key, hops []NextHop) {
	if hops != nil {
		m[k] = slices.Clone(hops)
	} else {
		delete(m, k)
	}
}

// Do carries out changes of local origin, all or none: when one fails, those
// before it are undone and its error is returned. Entries that are there
// already are handed to the driver all the same: a device of that name may be
// another one than last time.
func (f *Forwarding) Do(ctx context.Context, changes []Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var undo []Change
	var found []Entry
	for _, c := range changes {
		if err := f.handle.Apply(ctx, []Change{c})[0]; err != nil {
			slices.Reverse(undo)
			f.release(ctx, undo)
			f.giveBack(found)
			return err
		}
		if back, changed := f.undoOf(c); changed {
			undo = append(undo, back)
		}
		if e, ok := f.foundLocal[keyOfLocal(c.Entry)]; ok {
			found = append(found, e)
		}
		f.noteLocal(c)
	}
	return nil
}

// giveBack returns entries to those that an earlier run left: nobody asks for
// them after all.
func (f *Forwarding) giveBack(found []Entry) {
	for _, e := range found {
		k := keyOfLocal(e)
		delete(f.local, k)
		f.foundLocal[k] = e
	}
}

// Release carries out changes of local origin that must not fail, such as
// those of a detach; what the driver refuses is retried.
func (f *Forwarding) Release(ctx context.Context, changes []Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(ctx, changes)
}

func (f *Forwarding) release(ctx context.Context, changes []Change) {
	if len(changes) == 0 {
		return
	}
	for i, err := range f.handle.Apply(ctx, changes) {
		f.noteLocal(changes[i])
		if err != nil {
			f.fail(changes[i], err)
		}
	}
}

// undoOf returns the change that reverts c, and whether c changes anything.
func (f *Forwarding) undoOf(c Change) (Change, bool) {
	k := keyOfLocal(c.Entry)
	now, have := f.local[k]
	if !have {
		now, have = f.foundLocal[k]
	}
	switch {
	case !have:
		return Change{Delete: true, Entry: c.Entry}, !c.Delete
	case !c.Delete && now.Equal(c.Entry):
		return Change{}, false
	}
	return Change{Entry: now}, true
}

func (f *Forwarding) noteLocal(c Change) {
	k := keyOfLocal(c.Entry)
	delete(f.foundLocal, k)
	delete(f.failed, failKey{local: k})
	if c.Delete {
		delete(f.local, k)
	} else {
		f.local[k] = c.Entry
	}
}

// Sync takes changes of remote origin into the desired state and carries out
// those that make a difference. What fails is retried until it succeeds or is
// no longer desired. The slice is used as scratch space.
func (f *Forwarding) Sync(ctx context.Context, changes []Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	todo := changes[:0]
	for i := range changes {
		if f.desire(&changes[i]) {
			todo = append(todo, changes[i])
		}
	}
	f.carryOut(ctx, todo)
}

// desire notes a change as desired and tells whether the driver has to do something.
func (f *Forwarding) desire(c *Change) bool {
	k, v, more := compact(&c.Entry)
	var have, same bool
	if c.Delete {
		var at uint32
		if at, have = f.remote.Find(k); have {
			f.remote.Remove(at)
			delete(f.more, k)
		}
	} else {
		at, added := f.remote.Add(k)
		now := f.remote.At(at)
		have = !added
		same = have && *now == v && slices.Equal(f.more[k], more)
		*now = v
		setMore(f.more, k, more)
	}
	if len(f.foundRemote) > 0 {
		if old, found := f.foundRemote[k]; found {
			if !have && !c.Delete {
				same = old == v && slices.Equal(f.foundMore[k], more)
			}
			have = true
			delete(f.foundRemote, k)
			delete(f.foundMore, k)
		}
	}
	if len(f.failed) > 0 {
		if _, failing := f.failed[failKey{remote: k}]; failing {
			return true
		}
	}
	return !same && (have || !c.Delete)
}

// carryOut hands changes to the driver and keeps those that fail.
func (f *Forwarding) carryOut(ctx context.Context, changes []Change) {
	if len(changes) == 0 {
		return
	}
	for i, err := range f.handle.Apply(ctx, changes) {
		if err != nil {
			f.fail(changes[i], err)
		} else if len(f.failed) > 0 {
			delete(f.failed, failKeyOf(changes[i].Entry))
		}
	}
	f.r.count(len(changes))
}

// fail notes a failed change for Retry.
func (f *Forwarding) fail(c Change, err error) {
	c.Entry.NextHops = slices.Clone(c.Entry.NextHops) // the caller's buffer is used again
	k := failKeyOf(c.Entry)
	x := f.failed[k]
	if x == nil {
		x = &failure{Problem: Problem{Instance: f.inst.ID, Since: time.Now()}}
		f.failed[k] = x
		f.r.log.Warn("forwarding entry not installed, will retry", "instance", f.inst.ID, "change", c.String(), "err", err)
	}
	x.Change, x.Err = c, err
	x.Attempts++
	x.next = time.Now().Add(min(firstRetry<<min(x.Attempts-1, 10), lastRetry))
	f.r.wake()
}

// retry tries the failed changes whose time has come and returns when the next
// one is due; the zero time means none.
func (f *Forwarding) retry(ctx context.Context, now time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		if f.removing && !f.removeAt.After(now) {
			_ = f.remove(ctx) // logged, and tried again
		}
		return f.removeAt
	}
	var due []Change
	for _, x := range f.failed {
		if !x.next.After(now) {
			due = append(due, x.Change)
		}
	}
	f.carryOut(ctx, due)
	var next time.Time
	for _, x := range f.failed {
		if next.IsZero() || x.next.Before(next) {
			next = x.next
		}
	}
	return next
}

// Sweep removes what an earlier run left and nobody has asked for since.
func (f *Forwarding) Sweep(ctx context.Context) (removed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0
	}
	var gone []Change
	for k, v := range f.foundRemote {
		gone = append(gone, Change{Delete: true, Entry: expand(k, v, f.foundMore[k])})
	}
	for _, e := range f.foundLocal {
		gone = append(gone, Change{Delete: true, Entry: e})
	}
	clear(f.foundRemote)
	clear(f.foundMore)
	clear(f.foundLocal)
	f.carryOut(ctx, gone)
	return len(gone)
}

// Entries returns what is desired.
func (f *Forwarding) Entries() []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Entry, 0, len(f.local)+f.remote.Len())
	for _, e := range f.local {
		out = append(out, e)
	}
	for at := range f.remote.End() {
		if f.remote.Live(at) {
			k := f.remote.Key(at)
			out = append(out, expand(k, *f.remote.At(at), f.more[k]))
		}
	}
	return out
}

// Desired returns the number of desired entries by kind.
func (f *Forwarding) Desired() map[Kind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := map[Kind]int{}
	for k := range f.local {
		m[k.kind]++
	}
	for at := range f.remote.End() {
		if f.remote.Live(at) {
			m[f.remote.Key(at).kind]++
		}
	}
	return m
}

// Problems returns the changes that could not be carried out yet.
func (f *Forwarding) Problems() []Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Problem
	for _, x := range f.failed {
		out = append(out, x.Problem)
	}
	return out
}

// Describe returns the driver's members of the instance for the looking glass.
func (f *Forwarding) Describe() []Member { return f.handle.Describe() }

// Remove takes the instance out of the forwarding plane. When the driver
// fails it is tried again until it succeeds.
func (f *Forwarding) Remove(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		_ = f.remove(ctx) // logged, and tried again
	}
}

// finishRemoval tries at once what Remove could not do.
func (f *Forwarding) finishRemoval(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.removing {
		return nil
	}
	return f.remove(ctx)
}

func (f *Forwarding) remove(ctx context.Context) error {
	err := f.handle.Remove(ctx)
	if f.removing = err != nil; !f.removing {
		f.removeAt = time.Time{}
		f.r.forget(f)
		return nil
	}
	f.r.log.Warn("forwarding of an instance not removed, will retry", "instance", f.inst.ID, "err", err)
	f.removeAt = time.Now().Add(lastRetry)
	f.r.leave(f)
	return err
}
