// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// checkEvery is the time between two looks for what others took away.
const checkEvery = 10 * time.Second

// errNoDriver is returned when an instance asks for a VPN type without driver.
var errNoDriver = errors.New("no dataplane driver for this VPN type")

// Reconciler opens instances on drivers and retries what failed. Make it with
// NewReconciler, then Run it.
type Reconciler struct {
	drivers map[VPNType]Driver
	log     *slog.Logger
	woken   chan struct{}
	alive   chan struct{} // Run sends when somebody asks

	mu      sync.Mutex
	open    map[*Forwarding]struct{}
	leaving map[string]*Forwarding // closed, still to be removed, by VPN type and id
	changes uint64
	blind   map[VPNType]Blind
}

// NewReconciler returns a Reconciler over one driver per VPN type.
func NewReconciler(drivers map[VPNType]Driver, log *slog.Logger) *Reconciler {
	return &Reconciler{
		drivers: drivers, log: log, woken: make(chan struct{}, 1), alive: make(chan struct{}),
		open: map[*Forwarding]struct{}{}, leaving: map[string]*Forwarding{}, blind: map[VPNType]Blind{},
	}
}

// Driver returns the driver of a VPN type, or nil.
func (r *Reconciler) Driver(t VPNType) Driver { return r.drivers[t] }

// Open makes or adopts the forwarding state of an instance. An instance of that
// id which is gone but could not be removed yet is removed first: a later retry
// would take the new one away.
func (r *Reconciler) Open(ctx context.Context, inst Instance) (*Forwarding, error) {
	d := r.drivers[inst.Type]
	if d == nil {
		return nil, errNoDriver
	}
	if err := r.finishRemoval(ctx, inst); err != nil {
		return nil, err
	}
	h, err := d.Open(ctx, inst)
	if err != nil {
		return nil, err
	}
	f := newForwarding(r, inst, h)
	r.mu.Lock()
	r.open[f] = struct{}{}
	r.mu.Unlock()
	if err := f.adopt(ctx); err != nil {
		f.Remove(ctx)
		return nil, err
	}
	return f, nil
}

func leavingKey(inst Instance) string { return string(inst.Type) + " " + inst.ID }

// finishRemoval removes what is left of an earlier instance of the same id.
func (r *Reconciler) finishRemoval(ctx context.Context, inst Instance) error {
	r.mu.Lock()
	f := r.leaving[leavingKey(inst)]
	r.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.finishRemoval(ctx)
}

// leave notes that an instance is still to be removed.
func (r *Reconciler) leave(f *Forwarding) {
	r.mu.Lock()
	r.leaving[leavingKey(f.inst)] = f
	r.mu.Unlock()
	r.wake()
}

func (r *Reconciler) forget(f *Forwarding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, f)
	if k := leavingKey(f.inst); r.leaving[k] == f {
		delete(r.leaving, k)
	}
}

func (r *Reconciler) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes += uint64(n)
}

// Changes returns how many changes were handed to drivers.
func (r *Reconciler) Changes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes
}

func (r *Reconciler) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *Reconciler) all() []*Forwarding {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Forwarding, 0, len(r.open))
	for f := range r.open {
		out = append(out, f)
	}
	return out
}

// Problems returns what could not be carried out yet: one problem at most for
// an instance, those that are still to be removed included.
func (r *Reconciler) Problems() []Problem {
	var out []Problem
	for _, f := range r.all() {
		out = append(out, f.Problems()...)
	}
	return out
}

// Run retries failed changes, and undoes what others changed in the forwarding
// plane, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) {
	timer, check := time.NewTimer(0), time.NewTicker(checkEvery)
	defer timer.Stop()
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			r.check(ctx)
			continue
		case r.alive <- struct{}{}:
			continue
		case <-r.woken:
		case <-timer.C:
		}
		now := time.Now()
		var next time.Time
		for _, f := range r.all() {
			select { // each may take as long as a driver waits
			case r.alive <- struct{}{}:
			default:
			}
			if at := f.retry(ctx, now); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// Answer waits until Run has time for it: it is not stuck in a driver. The error is
// that of ctx.
func (r *Reconciler) Answer(ctx context.Context) error {
	select {
	case <-r.alive:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// check finds and undoes what others changed.
func (r *Reconciler) check(ctx context.Context) {
	for t, d := range r.drivers {
		drifts, err := d.Drifted(ctx)
		if r.saw(ctx, t, err) {
			r.hurry(t)
		}
		for _, drift := range drifts {
			for _, f := range r.all() {
				if f.inst.Type == t && f.inst.ID == drift.Instance {
					f.heal(ctx, drift)
				}
			}
		}
	}
}

// Blind tells that a driver could not look at what is installed: nobody knows then whether
// packets are forwarded as they should be.
type Blind struct {
	Type   VPNType
	Driver string // its name
	Err    error  // the last
	Since  time.Time
}

// Blind returns the drivers that could not look at what is installed the last time they were
// asked, which is every 10 s.
func (r *Reconciler) Blind() (out []Blind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range []VPNType{EVPN, IPVPN} {
		if b, ok := r.blind[t]; ok {
			out = append(out, b)
		}
	}
	return out
}

// saw notes whether a driver could look at what is installed, and logs when that changes. It
// tells whether the driver can again.
func (r *Reconciler) saw(ctx context.Context, t VPNType, err error) (recovered bool) {
	if ctx.Err() != nil {
		return false
	}
	name := r.drivers[t].Name()
	r.mu.Lock()
	defer r.mu.Unlock()
	before, blind := r.blind[t]
	switch {
	case err == nil && blind:
		r.log.Info("dataplane driver can look at what is installed again", "driver", name, "vpn_type", t)
		delete(r.blind, t)
		return true
	case err != nil && !blind:
		r.log.Warn("dataplane driver cannot look at what is installed, will retry", "driver", name, "vpn_type", t, "err", err)
		r.blind[t] = Blind{Type: t, Driver: name, Err: err, Since: time.Now()}
	case err != nil:
		before.Err = err
		r.blind[t] = before
	}
	return false
}

// hurry has what failed for instances of a type tried again at once.
func (r *Reconciler) hurry(t VPNType) {
	for _, f := range r.all() {
		if f.inst.Type == t {
			f.hurry()
		}
	}
	r.wake()
}

// Sweep removes what an earlier run left: instances that were not opened again,
// and then stale entries of open ones. It returns what it removed, in words.
func (r *Reconciler) Sweep(ctx context.Context) (removed []string) {
	for t, d := range r.drivers {
		ids, err := d.Orphans(ctx)
		if err != nil {
			r.log.Warn("list orphan instances", "vpn_type", t, "err", err)
		}
		for _, id := range ids {
			err := d.RemoveOrphan(ctx, id)
			switch {
			case errors.Is(err, ErrOpen): // asked for just now
			case err != nil:
				r.log.Warn("remove orphan instance", "vpn_type", t, "instance", id, "err", err)
			default:
				removed = append(removed, fmt.Sprintf("instance %s", id))
			}
		}
	}
	for _, f := range r.all() {
		if n := f.Sweep(ctx); n > 0 {
			removed = append(removed, fmt.Sprintf("%d entries of instance %s", n, f.inst.ID))
		}
	}
	return removed
}
