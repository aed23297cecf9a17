// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

const (
	// batchLimit is the number of routes from which on a batch is applied even
	// though more messages are at hand.
	batchLimit = 2048
	// exportLimit bounds the routes of one Fill.
	exportLimit = 2048
	// rtcWait bounds how long the End-of-RIB of VPN families waits for that of
	// the peer's RTC routes, before which we do not know what it wants.
	rtcWait = 5 * time.Second
)

// flow is one established session: it implements session.Flow.
type flow struct {
	n        *Neighbour
	deal     session.Negotiated
	exporter *rib.Exporter
	wake     chan struct{}

	// Used by the reader only.
	interner *rib.Interner
	rules    wire.Rules
	batch    rib.Batch
	attrs    []byte
	warned   time.Time
	quiet    int // warnings left out since then

	// Used by the writer only.
	exports []rib.Export
	pending []wire.Family // End-of-RIB not sent yet
	ending  []wire.Family // refreshes that were begun and not ended
	timer   *time.Timer

	refresh refresh
	limits  limits // used by the reader only

	mu       sync.Mutex
	endOfRIB map[wire.Family]bool // received
	disabled []wire.Family        // for the rest of the session (RFC 7606 §2)
	up       time.Time
	news     time.Time // when the last routes came, before that up
}

func newFlow(n *Neighbour, deal session.Negotiated) *flow {
	f := &flow{
		n: n, deal: deal, wake: make(chan struct{}, 1), interner: n.speaker.rib.NewInterner(),
		pending: slices.Clone(deal.Families), endOfRIB: map[wire.Family]bool{}, up: time.Now(), news: time.Now(),
	}
	f.timer = time.AfterFunc(rtcWait, f.signal)
	f.rules = wire.Rules{FourOctetAS: deal.FourOctetAS, External: deal.External()}
	f.refresh.init()
	n.speaker.rib.KeepRelevant(n.source, nil)
	if f.dropsIrrelevant() {
		n.speaker.rib.KeepRelevant(n.source, f.ask)
	}
	f.exporter = n.speaker.rib.NewExporter(rib.ExporterConfig{
		Source: n.source, Families: deal.Families, Accept: f.accepts, Wake: f.signal,
	})
	return f
}

// accepts tells whether the peer takes a route of ours: an IPv4 route with an
// IPv6 next hop needs a capability (RFC 8950 §4).
func (f *flow) accepts(n wire.NLRI, a *wire.Attrs) bool {
	return n.Kind != wire.KindVPNv4 || !a.NextHop.Is6() || f.deal.TakesNextHop(wire.VPNv4, wire.VPNv6.AFI)
}

// dropsIrrelevant tells whether routes that no instance imports are not kept.
func (f *flow) dropsIrrelevant() bool {
	switch f.n.settings().Irrelevant {
	case Keep:
		return false
	case Drop:
		return f.deal.RouteRefresh
	}
	return f.deal.RouteRefresh && !slices.Contains(f.deal.Families, wire.RTC)
}

func (f *flow) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Wake implements session.Flow.
func (f *flow) Wake() <-chan struct{} { return f.wake }

// Down implements session.Flow.
func (f *flow) Down(loss session.Loss) {
	f.timer.Stop()
	f.refresh.stop()
	f.exporter.Close()
	f.n.down(f, loss)
}

// Flush implements session.Flow.
func (f *flow) Flush() *wire.Error {
	if f.batch.Len() > 0 {
		f.n.speaker.rib.Apply(f.n.source, &f.batch)
		return f.checkLimits()
	}
	return nil
}

// Update implements session.Flow.
func (f *flow) Update(body []byte) *wire.Error {
	if f.batch.Len() >= batchLimit {
		if err := f.Flush(); err != nil {
			return err
		}
	}
	u, err := wire.ParseUpdate(body, f.attrs)
	if err != nil {
		if err = f.fault(err); err != nil {
			return err
		}
	}
	f.attrs = u.Attrs
	if fam, ok := u.EndOfRIB(); ok {
		return f.receivedEndOfRIB(fam)
	}
	f.mu.Lock()
	f.news = time.Now()
	f.mu.Unlock()
	if u.Unreach.Present {
		if err := f.withdraw(u.Unreach, true); err != nil {
			return err
		}
	}
	if u.Reach.Present {
		return f.announce(u)
	}
	return nil
}

// announce adds the routes of an UPDATE to the batch, or their withdrawals
// when they cannot be used.
func (f *flow) announce(u wire.Update) *wire.Error {
	if u.Withdraw != nil {
		return f.unusable(u.Reach, u.Withdraw)
	}
	set, err := f.interner.Intern(u.Attrs, u.NextHop, f.rules)
	if err != nil {
		return f.unusable(u.Reach, err)
	}
	f.batch.Hold(set)
	if set.Discarded != nil {
		_ = f.fault(set.Discarded)
	}
	if f.ours(set.Attrs) {
		return f.withdraw(u.Reach, false)
	}
	return f.add(u.Reach, set)
}

// unusable withdraws routes whose attributes are at fault.
func (f *flow) unusable(part wire.MPNLRI, why *wire.Error) *wire.Error {
	if err := f.fault(why); err != nil {
		return err
	}
	return f.withdraw(part, false)
}

// fault counts a fault in an UPDATE and does what its class asks for, but the
// withdrawal of the routes; it returns those that end the session.
func (f *flow) fault(err *wire.Error) *wire.Error {
	f.n.faults[err.Class].Add(1)
	switch err.Class {
	case wire.SessionReset:
		return err
	case wire.DisableFamily:
		return f.disable(err.Family, err)
	}
	f.warn(err)
	return nil
}

// ours tells whether routes came back to us: a reflector returned them (RFC
// 4456 §8), they passed through our AS (RFC 4271 §9.1.2), or they point to
// ourselves (RFC 4271 §6.3).
func (f *flow) ours(a *wire.Attrs) bool {
	s := f.n.speaker
	return a.OriginatorID == s.RouterID || a.NextHop == f.deal.Local || a.HasAS(s.AS) > f.n.settings().AllowOwnAS
}

func (f *flow) add(part wire.MPNLRI, set *rib.Set) *wire.Error {
	return f.each(part, false, func(r wire.Route) { f.batch.Announce(r, set) })
}

// withdraw adds the withdrawal of the routes to the batch. Explicit ones come
// from MP_UNREACH_NLRI; others were announced with attributes that are no use.
func (f *flow) withdraw(part wire.MPNLRI, explicit bool) *wire.Error {
	return f.each(part, explicit, func(r wire.Route) { f.batch.Withdraw(r.NLRI) })
}

// each calls do for each route of a multiprotocol attribute, unless its family
// was not negotiated, or is disabled.
func (f *flow) each(part wire.MPNLRI, withdrawn bool, do func(wire.Route)) *wire.Error {
	if !slices.Contains(f.deal.Families, part.Family) || slices.Contains(f.disabled, part.Family) {
		return nil
	}
	r := wire.NewNLRIReader(part.Family, part.NLRI, withdrawn)
	var route wire.Route
	for {
		ok, err := r.Next(&route)
		if err != nil {
			return f.fault(err)
		}
		if !ok {
			f.n.ignored.Add(uint64(r.Skipped()))
			return nil
		}
		do(route)
	}
}

// disable withdraws the routes of a family and ignores it from now on (RFC 4760
// §7, RFC 7606 §2).
func (f *flow) disable(fam wire.Family, why *wire.Error) *wire.Error {
	f.n.speaker.Log.Error("address family disabled for this session", "peer", f.deal.Peer, "family", fam, "err", why)
	f.mu.Lock()
	f.disabled = append(f.disabled, fam)
	f.mu.Unlock()
	err := f.Flush()
	f.n.recovery.endOfRIB(fam)
	f.n.speaker.rib.Purge(f.n.source, fam)
	return err
}

// warn logs a fault in an UPDATE, at most one a second.
func (f *flow) warn(err *wire.Error) {
	if now := time.Now(); now.Sub(f.warned) > time.Second {
		f.n.speaker.Log.Warn("fault in UPDATE", "peer", f.deal.Peer, "err", err, "more_not_logged", f.quiet)
		f.warned, f.quiet = now, 0
		return
	}
	f.quiet++
}

func (f *flow) receivedEndOfRIB(fam wire.Family) *wire.Error {
	err := f.Flush()
	f.n.recovery.endOfRIB(fam)
	f.mu.Lock()
	f.endOfRIB[fam] = true
	f.mu.Unlock()
	f.signal()
	return err
}

// complete tells whether the peer has sent all its routes. One without graceful restart need
// not say so: it has when it has been quiet for a while (RFC 4724 §4.1 does not wait for it).
func (f *flow) complete() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.deal.GracefulRestart() && time.Since(f.news) >= quietTime {
		return true
	}
	for _, fam := range f.deal.Families {
		if !f.endOfRIB[fam] && !slices.Contains(f.disabled, fam) {
			return false
		}
	}
	return true
}

// Fill implements session.Flow.
func (f *flow) Fill(p *wire.Packer) bool {
	f.beginRefreshes(p)
	var more bool
	f.exports, more = f.exporter.Next(exportLimit, f.exports[:0])
	f.pack(p)
	if !more {
		f.sendEndOfRIB(p)
		f.endRefreshes(p)
	}
	return more
}

// pack groups routes by family and attributes, withdrawals first, so that each
// group needs as few messages as possible.
func (f *flow) pack(p *wire.Packer) {
	order := map[*wire.Attrs]int{nil: -1}
	for i := range f.exports {
		if _, seen := order[f.exports[i].Attrs]; !seen {
			order[f.exports[i].Attrs] = i
		}
	}
	family := func(x rib.Export) int { return -slices.Index(wire.Families, x.NLRI.Kind.Family()) } // RTC first
	slices.SortStableFunc(f.exports, func(a, b rib.Export) int {
		return cmp.Or(cmp.Compare(family(a), family(b)), cmp.Compare(order[a.Attrs], order[b.Attrs]))
	})
	for i, x := range f.exports {
		if i == 0 || f.exports[i-1].Attrs != x.Attrs || family(f.exports[i-1]) != family(x) {
			if x.Attrs == nil {
				p.Withdraw(x.NLRI.Kind.Family())
			} else {
				p.Announce(x.NLRI.Kind.Family(), f.rawAttrs(x.Attrs), x.Attrs.NextHop)
			}
		}
		if !p.Add(x.Route) {
			f.n.speaker.Log.Warn("route does not fit a message and is not sent", "peer", f.deal.Peer, "route", x.NLRI)
		}
	}
}

// rawAttrs returns attributes as the peer gets them.
func (f *flow) rawAttrs(a *wire.Attrs) []byte {
	if f.deal.External() {
		return wire.ExternalAttrs(a, f.n.speaker.AS, f.deal.FourOctetAS)
	}
	return a.Raw
}

// sendEndOfRIB sends the markers that are due: RTC at once, the others when we
// know what the peer wants, and our routes are complete after a restart.
func (f *flow) sendEndOfRIB(p *wire.Packer) {
	if len(f.pending) == 0 {
		return
	}
	f.mu.Lock()
	known := f.n.speaker.complete() && (!slices.Contains(f.deal.Families, wire.RTC) || f.endOfRIB[wire.RTC] || time.Since(f.up) >= rtcWait)
	f.mu.Unlock()
	f.pending = slices.DeleteFunc(f.pending, func(fam wire.Family) bool {
		if fam != wire.RTC && !known {
			return false
		}
		p.EndOfRIB(fam)
		return true
	})
}
