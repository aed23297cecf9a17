// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

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
	case Redirect:
		return localKey{e.Kind, e.Class.String()}
	}
	return localKey{e.Kind, fmt.Sprintf("%d %s", e.Label, e.IP)}
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

	known   atomic.Pointer[[]Problem]    // those of the last time that mu was free
	counted atomic.Pointer[map[Kind]int] // what Desired returned last

	mu     sync.Mutex
	remote places
	more   map[key][]NextHop // all next hops, where a value holds not all of it
	local  map[localKey]Entry
	// found holds what an earlier run left and nobody has asked for yet.
	found  found
	failed failures
	// whole is what is wrong with the instance as a whole: it cannot be repaired,
	// or once closed not be removed. No entry is handed to the driver meanwhile.
	whole  *trouble
	stale  bool // entries are gone, or were not handed on: to be replayed
	closed bool
}

func newForwarding(r *Reconciler, inst Instance, h Handle) *Forwarding {
	return &Forwarding{
		inst: inst, handle: h, r: r,
		more: map[key][]NextHop{}, local: map[localKey]Entry{},
		found: newFound(), failed: failures{list: map[failKey]*failure{}},
	}
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
	defer f.unlock()
	var undo []Change
	var found []Entry
	for _, c := range changes {
		if err := f.attempt(ctx, c); err != nil {
			slices.Reverse(undo)
			f.release(ctx, undo)
			f.giveBack(found)
			return err
		}
		if back, changed := f.undoOf(c); changed {
			undo = append(undo, back)
		}
		if e, ok := f.found.local[keyOfLocal(c.Entry)]; ok {
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
		f.found.local[k] = e
	}
}

// Release carries out changes of local origin that must not fail, such as
// those of a detach; what the driver refuses is retried.
func (f *Forwarding) Release(ctx context.Context, changes []Change) {
	f.mu.Lock()
	defer f.unlock()
	f.release(ctx, changes)
}

func (f *Forwarding) release(ctx context.Context, changes []Change) {
	if len(changes) == 0 {
		return
	}
	for _, c := range changes {
		f.noteLocal(c)
	}
	f.carryOut(ctx, changes)
}

// undoOf returns the change that reverts c, and whether c changes anything.
func (f *Forwarding) undoOf(c Change) (Change, bool) {
	k := keyOfLocal(c.Entry)
	now, have := f.local[k]
	if !have {
		now, have = f.found.local[k]
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
	delete(f.found.local, k)
	delete(f.failed.list, failKey{local: k})
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
	defer f.unlock()
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
	now := f.remote.at(c.At)
	have := now.key.kind != 0
	same := false
	if c.Delete {
		if have {
			f.remote.remove(c.At)
			delete(f.more, k)
		}
	} else {
		same = have && now.value == v && slices.Equal(f.more[k], more)
		if !have {
			now.key = k
			f.remote.count++
		}
		now.value = v
		setMore(f.more, k, more)
	}
	if len(f.found.remote) > 0 {
		if old, found := f.found.remote[k]; found {
			if !have && !c.Delete {
				same = old == v && slices.Equal(f.found.more[k], more)
			}
			have = true
			delete(f.found.remote, k)
			delete(f.found.more, k)
		}
	}
	if len(f.failed.list) > 0 {
		if _, failing := f.failed.list[failKey{remote: k}]; failing {
			return true
		}
	}
	return !same && (have || !c.Delete)
}

// Entries returns what is desired.
func (f *Forwarding) Entries() []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Entry, 0, len(f.local)+f.remote.count)
	for _, e := range f.local {
		out = append(out, e)
	}
	f.remote.each(func(p *placed) { out = append(out, expand(p.key, p.value, f.more[p.key])) })
	return out
}

// Desired returns the number of desired entries by kind. It does not wait for the driver: while
// that has the instance, it returns what it did the last time. The caller must not change it.
func (f *Forwarding) Desired() map[Kind]int {
	if !f.mu.TryLock() {
		if m := f.counted.Load(); m != nil {
			return *m
		}
		return nil
	}
	defer f.mu.Unlock()
	m := map[Kind]int{}
	for k := range f.local {
		m[k.kind]++
	}
	f.remote.each(func(p *placed) { m[p.key.kind]++ })
	f.counted.Store(&m)
	return m
}

// Bridge returns the bridge of an E-VPN instance that a VRF can meet, if there is one.
func (f *Forwarding) Bridge() (name string, mtu int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.handle.(Bridging)
	if ok {
		name, mtu = b.Bridge()
	}
	return name, mtu, ok
}

// Describe returns the driver's members of the instance for the looking glass.
func (f *Forwarding) Describe() []Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handle.Describe()
}
