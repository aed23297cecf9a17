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
	batch    rib.Batch
	attrs    []byte
	warned   time.Time
	quiet    int // warnings left out since then

	// Used by the writer only.
	exports []rib.Export
	pending []wire.Family // End-of-RIB not sent yet
	timer   *time.Timer

	mu       sync.Mutex
	endOfRIB map[wire.Family]bool // received
	up       time.Time
}

func newFlow(n *Neighbour, deal session.Negotiated) *flow {
	f := &flow{
		n: n, deal: deal, wake: make(chan struct{}, 1), interner: n.speaker.rib.NewInterner(),
		pending: slices.Clone(deal.Families), endOfRIB: map[wire.Family]bool{}, up: time.Now(),
	}
	f.timer = time.AfterFunc(rtcWait, f.signal)
	f.exporter = n.speaker.rib.NewExporter(rib.ExporterConfig{Source: n.source, Families: deal.Families, Wake: f.signal})
	return f
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
func (f *flow) Down() {
	f.timer.Stop()
	f.exporter.Close()
	f.n.drop(f)
}

// Flush implements session.Flow.
func (f *flow) Flush() {
	if f.batch.Len() > 0 {
		f.n.speaker.rib.Apply(f.n.source, &f.batch)
	}
}

// Refresh implements session.Flow.
func (f *flow) Refresh(fam wire.Family, subtype uint8) {
	if subtype == 0 {
		f.exporter.Resend(fam)
	}
}

// Update implements session.Flow.
func (f *flow) Update(body []byte) *wire.Error {
	if f.batch.Len() >= batchLimit {
		f.Flush()
	}
	u, err := wire.ParseUpdate(body, f.attrs)
	if err != nil {
		return err
	}
	f.attrs = u.Attrs
	if fam, ok := u.EndOfRIB(); ok {
		f.receivedEndOfRIB(fam)
		return nil
	}
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
	bad := u.Withdraw
	if bad == nil {
		var set *rib.Set
		if set, bad = f.interner.Intern(u.Attrs, u.NextHop, f.deal.FourOctetAS); bad == nil {
			f.batch.Hold(set)
			if !f.ours(set.Attrs) {
				return f.add(u.Reach, set)
			}
		}
	}
	if bad != nil {
		if bad.Class == wire.SessionReset {
			return bad
		}
		f.warn(bad)
	}
	return f.withdraw(u.Reach, false)
}

// ours tells whether routes came back to us: a reflector returned them (RFC
// 4456 §8), or they point to ourselves (RFC 4271 §6.3).
func (f *flow) ours(a *wire.Attrs) bool {
	return a.OriginatorID == f.n.speaker.RouterID || a.NextHop == f.deal.Local
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
// was not negotiated.
func (f *flow) each(part wire.MPNLRI, withdrawn bool, do func(wire.Route)) *wire.Error {
	if !slices.Contains(f.deal.Families, part.Family) {
		return nil
	}
	r := wire.NewNLRIReader(part.Family, part.NLRI, withdrawn)
	var route wire.Route
	for {
		ok, err := r.Next(&route)
		if err != nil || !ok {
			return err
		}
		do(route)
	}
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

func (f *flow) receivedEndOfRIB(fam wire.Family) {
	f.Flush()
	f.mu.Lock()
	f.endOfRIB[fam] = true
	f.mu.Unlock()
	f.signal()
}

func (f *flow) allEndOfRIB() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fam := range f.deal.Families {
		if !f.endOfRIB[fam] {
			return false
		}
	}
	return true
}

// Fill implements session.Flow.
func (f *flow) Fill(p *wire.Packer) bool {
	var more bool
	f.exports, more = f.exporter.Next(exportLimit, f.exports[:0])
	f.pack(p)
	if !more && len(f.pending) > 0 {
		f.sendEndOfRIB(p)
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
				p.Announce(x.NLRI.Kind.Family(), x.Attrs.Raw, x.Attrs.NextHop)
			}
		}
		if !p.Add(x.Route) {
			f.n.speaker.Log.Warn("route does not fit a message and is not sent", "peer", f.deal.Peer, "route", x.NLRI)
		}
	}
}

// sendEndOfRIB sends the markers that are due: RTC at once, the others when we
// know what the peer wants.
func (f *flow) sendEndOfRIB(p *wire.Packer) {
	f.mu.Lock()
	known := !slices.Contains(f.deal.Families, wire.RTC) || f.endOfRIB[wire.RTC] || time.Since(f.up) >= rtcWait
	f.mu.Unlock()
	f.pending = slices.DeleteFunc(f.pending, func(fam wire.Family) bool {
		if fam != wire.RTC && !known {
			return false
		}
		p.EndOfRIB(fam)
		return true
	})
}
