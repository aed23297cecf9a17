// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"fmt"
	"slices"
)

// found are entries that the forwarding plane has, kept as desired ones are.
type found struct {
	remote map[key]value
	more   map[key][]NextHop
	local  map[localKey]Entry
}

func newFound() found {
	return found{remote: map[key]value{}, more: map[key][]NextHop{}, local: map[localKey]Entry{}}
}

// read returns what is installed.
func (f *Forwarding) read(ctx context.Context) (found, error) {
	out := newFound()
	list, err := f.handle.Installed(ctx)
	if err != nil {
		return out, fmt.Errorf("read what is installed for instance %q: %w", f.inst.ID, err)
	}
	for _, e := range list {
		if e.Kind.isRemote() {
			k, v, more := compact(&e)
			out.remote[k] = v
			setMore(out.more, k, more)
		} else {
			out.local[keyOfLocal(e)] = e
		}
	}
	return out, nil
}

// adopt notes what an earlier run left.
func (f *Forwarding) adopt(ctx context.Context) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found, err = f.read(ctx)
	return err
}

// Sweep removes what an earlier run left and nobody has asked for since.
func (f *Forwarding) Sweep(ctx context.Context) (removed int) {
	f.mu.Lock()
	defer f.unlock()
	if f.closed {
		return 0
	}
	gone := f.found.deletions()
	f.found = newFound()
	f.carryOut(ctx, gone)
	return len(gone)
}

// deletions returns the changes that delete all.
func (x found) deletions() (out []Change) {
	for k, v := range x.remote {
		out = append(out, Change{Delete: true, Entry: expand(k, v, x.more[k])})
	}
	for _, e := range x.local {
		out = append(out, Change{Delete: true, Entry: e})
	}
	return out
}

// replay makes the forwarding plane have what is desired, whatever it has. What
// an earlier run left stays until the sweep, all else that nobody wants goes.
func (f *Forwarding) replay(ctx context.Context) error {
	have, err := f.read(ctx)
	if err != nil {
		return err
	}
	gone, left := newFound(), newFound()
	wanted := map[key]struct{}{}
	f.remote.each(func(p *placed) { wanted[p.key] = struct{}{} })
	for k, v := range have.remote {
		to := gone
		if _, old := f.found.remote[k]; old {
			to = left
		}
		if _, ok := wanted[k]; !ok {
			to.remote[k] = v
			setMore(to.more, k, have.more[k])
		}
	}
	for k, e := range have.local {
		if _, old := f.found.local[k]; old {
			left.local[k] = e
		} else if _, wanted := f.local[k]; !wanted {
			gone.local[k] = e
		}
	}
	f.found, f.failed.list = left, map[failKey]*failure{}
	todo := append(gone.deletions(), f.plugs(nil)...)
	f.remote.each(func(p *placed) {
		if now, there := have.remote[p.key]; !there || now != p.value || !slices.Equal(have.more[p.key], f.more[p.key]) {
			todo = append(todo, Change{Entry: expand(p.key, p.value, f.more[p.key])})
		}
	})
	f.apply(ctx, todo)
	return nil
}

// plugs returns the changes that install the desired entries of local origin, ports
// first; only those of some ports, unless nil.
func (f *Forwarding) plugs(ports []string) (out []Change) {
	for _, isPort := range []bool{true, false} {
		for k, e := range f.local {
			if (k.kind == LocalPort) == isPort && (ports == nil || slices.Contains(ports, e.Port)) {
				out = append(out, Change{Entry: e})
			}
		}
	}
	return out
}
