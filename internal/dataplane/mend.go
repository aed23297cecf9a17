// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"slices"
)

// wholeEntry stands for the instance itself.
var wholeEntry = Entry{Kind: Whole}

// attempt carries out a change that is not kept when it fails. A failure that
// came of an instance that is not whole is mended first.
func (f *Forwarding) attempt(ctx context.Context, c Change) error {
	if f.whole != nil {
		if _, err := f.mend(ctx); err != nil {
			return err
		}
	}
	err := f.handle.Apply(ctx, []Change{c})[0]
	if err == nil {
		return nil
	}
	mended, mendErr := f.mend(ctx)
	switch {
	case mendErr != nil:
		return mendErr
	case !mended:
		return err
	}
	return f.handle.Apply(ctx, []Change{c})[0]
}

// mend repairs the instance if it is not whole, and then replays all that is
// desired. It tells whether there was anything to repair.
func (f *Forwarding) mend(ctx context.Context) (mended bool, err error) {
	mended, err = f.handle.Repair(ctx)
	f.stale = f.stale || mended
	if mended = f.stale; mended && err == nil {
		err = f.replay(ctx)
	}
	switch {
	case err != nil:
		if f.whole == nil {
			f.r.log.Warn("instance is not whole and cannot be repaired, will retry", "instance", f.inst.ID, "err", err)
		}
		f.bad(Change{Entry: wholeEntry}, err)
		return mended, err
	case mended:
		f.r.log.Warn("instance was not whole: repaired, and its entries installed again", "instance", f.inst.ID)
	}
	f.stale, f.whole = false, nil
	return mended, nil
}

// heal undoes what others took away.
func (f *Forwarding) heal(ctx context.Context, d Drift) {
	f.mu.Lock()
	defer f.unlock()
	switch {
	case f.closed:
		return
	case f.whole != nil:
		f.stale = true // with the next attempt
		return
	case d.Whole:
		_, _ = f.mend(ctx) // logged, and tried again
		return
	}
	again := slices.DeleteFunc(f.plugs(d.Ports), func(c Change) bool {
		return f.failed.list[failKeyOf(c.Entry)] != nil // retried anyway
	})
	f.carryOut(ctx, again)
}

// Remove takes the instance out of the forwarding plane. When the driver
// fails it is tried again until it succeeds.
func (f *Forwarding) Remove(ctx context.Context) {
	f.mu.Lock()
	defer f.unlock()
	if f.closed {
		return
	}
	f.closed, f.whole = true, nil
	clear(f.failed.list)
	_ = f.remove(ctx) // logged, and tried again
}

// finishRemoval tries at once what Remove could not do.
func (f *Forwarding) finishRemoval(ctx context.Context) error {
	f.mu.Lock()
	defer f.unlock()
	if f.whole == nil {
		return nil
	}
	return f.remove(ctx)
}

func (f *Forwarding) remove(ctx context.Context) error {
	err := f.handle.Remove(ctx)
	if err == nil {
		f.whole = nil
		f.r.forget(f)
		return nil
	}
	if f.whole == nil {
		f.r.log.Warn("forwarding of an instance not removed, will retry", "instance", f.inst.ID, "err", err)
	}
	f.bad(Change{Delete: true, Entry: wholeEntry}, err)
	f.r.leave(f)
	return err
}
