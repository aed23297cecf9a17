// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// restartCapability is what an OPEN says about us: which families' routes the
// peer should keep, and whether we kept forwarding since it last heard of us
// (RFC 4724 §3).
func (n *Neighbour) restartCapability() *wire.GracefulRestart {
	r := n.settings().Restart
	if r == nil {
		return nil
	}
	n.mu.Lock()
	preserved := n.last.Epoch > 0 || n.speaker.Restarting
	n.mu.Unlock()
	c := &wire.GracefulRestart{Notification: r.Notification, Time: r.Time}
	if r.Time == 0 {
		return c // a helper only (RFC 4724 §3)
	}
	c.Restarting = n.speaker.Restarting && !n.speaker.complete()
	for _, f := range n.settings().Families {
		c.Families = append(c.Families, wire.ForwardingState{Family: f, Preserved: preserved})
	}
	return c
}

// complete tells whether our own routes are complete after a restart.
func (s *Speaker) complete() bool {
	select {
	case <-s.restarted:
		return true
	default:
		return false
	}
}

// StaleFamily tells how routes of a family are kept for a neighbour.
type StaleFamily struct {
	Family wire.Family
	Stage  rib.Staleness // Stale or LongLivedStale
	// Until is when they go, or become long-lived stale, unless the neighbour is
	// back before.
	Until time.Time
}

// recovery keeps the routes of a neighbour between two sessions: graceful
// restart and long-lived graceful restart, as a helper (RFC 4724 §4.2, RFC 9494
// §4.2). Its methods may be called concurrently; they wait for each other, also
// for the marking and the withdrawal of many routes.
type recovery struct {
	n *Neighbour

	mu     sync.Mutex
	ended  bool
	theirs []wire.LongLived // of the last session
	waits  map[wire.Family]*wait
}

// wait is the time that routes of a family have.
type wait struct {
	stage rib.Staleness
	until time.Time
	// last is when long-lived stale routes of before go, if there were some when the
	// session was lost again.
	last  time.Time
	timer *time.Timer
}

// active tells whether routes are kept.
func (r *recovery) active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waits) > 0
}

// waitsFor tells whether routes of a family are kept.
func (r *recovery) waitsFor(f wire.Family) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waits[f] != nil
}

// list describes what is kept, by family.
func (r *recovery) list() []StaleFamily {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []StaleFamily
	for _, f := range wire.Families {
		if w := r.waits[f]; w != nil {
			out = append(out, StaleFamily{f, w.stage, w.until})
		}
	}
	return out
}

// down deals with the routes of a session that ended.
func (r *recovery) down(deal session.Negotiated, loss session.Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	routes, source := r.n.speaker.rib, r.n.source
	var keep, gone []wire.Family
	if loss.Graceful && !r.ended {
		keep = deal.Restartable()
	}
	for _, f := range wire.Families {
		if !slices.Contains(keep, f) {
			gone = append(gone, f)
			r.forget(f)
		} else if w := r.waits[f]; w != nil && w.stage == rib.Stale {
			// Another restart before the end of the last one (RFC 4724 §4.2).
			routes.PurgeStale(source, f)
		}
	}
	if len(keep) == 0 {
		routes.Purge(source)
		return
	}
	if len(gone) > 0 { // without families all would go
		routes.Purge(source, gone...)
	}
	routes.MarkStale(source, keep...)
	r.theirs = deal.Theirs.LongLived
	period := time.Duration(deal.Theirs.GracefulRestart.Time) * time.Second
	for _, f := range keep {
		var last time.Time
		if w := r.waits[f]; w != nil && w.stage == rib.LongLivedStale {
			last = w.until // which another short session must not put off
		}
		r.wait(f, rib.Stale, period)
		r.waits[f].last = last
	}
	r.n.speaker.Log.Info("keeping routes of a neighbour that may be restarting", "peer", r.n.addr, "families", keep, "for", period)
}

// wait gives the stale routes of a family more time.
func (r *recovery) wait(f wire.Family, stage rib.Staleness, d time.Duration) {
	r.forget(f)
	w := &wait{stage: stage, until: time.Now().Add(d)}
	w.timer = time.AfterFunc(d, func() { r.expired(f, w) })
	if r.waits == nil {
		r.waits = map[wire.Family]*wait{}
	}
	r.waits[f] = w
}

// forget stops the clock of a family.
func (r *recovery) forget(f wire.Family) {
	if w := r.waits[f]; w != nil {
		w.timer.Stop()
		delete(r.waits, f)
	}
}

// expired makes routes long-lived stale, or withdraws them.
func (r *recovery) expired(f wire.Family, w *wait) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits[f] != w {
		return
	}
	routes, source := r.n.speaker.rib, r.n.source
	d := r.longLived(f)
	if !w.last.IsZero() {
		d = min(d, time.Until(w.last))
	}
	if w.stage == rib.Stale && d > 0 && r.n.current() == nil {
		routes.MarkLongLived(source, f)
		r.wait(f, rib.LongLivedStale, d)
		return
	}
	r.n.speaker.Log.Warn("stale routes withdrawn: the neighbour did not announce them in time", "peer", r.n.addr, "family", f)
	r.forget(f)
	routes.PurgeStale(source, f)
}

// longLived returns how long routes of a family are kept beyond the restart time.
func (r *recovery) longLived(f wire.Family) time.Duration {
	own := r.n.settings().Restart
	if own == nil {
		return 0
	}
	for _, l := range r.theirs {
		if l.Family == f {
			return min(time.Duration(l.Time)*time.Second, own.LongLived)
		}
	}
	return 0
}

// up deals with stale routes when the neighbour is back: those of families for
// which it did not keep forwarding go at once; the others wait for End-of-RIB.
func (r *recovery) up(deal session.Negotiated) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f, w := range r.waits {
		switch {
		case !deal.Preserved(f) || !slices.Contains(deal.Families, f):
			r.forget(f)
			r.n.speaker.rib.PurgeStale(r.n.source, f)
		case w.stage == rib.Stale:
			r.wait(f, rib.Stale, r.n.settings().Restart.StaleTime)
		}
	}
}

// endOfRIB withdraws what is still stale in a family.
func (r *recovery) endOfRIB(f wire.Family) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits[f] != nil {
		r.forget(f)
		r.n.speaker.rib.PurgeStale(r.n.source, f)
	}
}

// stop ends all clocks for good; the caller takes the routes away.
func (r *recovery) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for f := range r.waits {
		r.forget(f)
	}
}
