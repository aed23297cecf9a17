// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// ExporterConfig describes what a peer can get.
type ExporterConfig struct {
	// Source is the peer's own source; its RTC routes select what it gets.
	Source SourceID
	// Families negotiated. With RTC among them the peer gets only routes with
	// the route targets it asks for (RFC 4684 §6).
	Families []wire.Family
	// Accept tells whether the peer can take a route at all; nil: all. It runs with
	// the RIB's lock held.
	Accept func(wire.NLRI, *wire.Attrs) bool
	// Wake is called when there is something for Next, with the RIB's lock held.
	Wake func()
}

// Exporter is the Adj-RIB-Out of one session: it knows what was announced and
// what has to be announced or withdrawn now. Routes of peers are never
// exported: a node is not a route reflector.
type Exporter struct {
	ExporterConfig
	rib *RIB
	rtc bool

	// Guarded by RIB.mu.
	interest  interest
	announced map[wire.NLRI]sent
	counts    kindCounts // of announced
	dirty     map[wire.NLRI]struct{}
	queue     fifo[wire.NLRI]
	rescan    bool
	closed    bool
}

// sent is what the peer was told about a route.
type sent struct {
	attrs *wire.Attrs
	label uint32
	raw   []byte // as in wire.Route: a withdraw of an opaque NLRI needs it too
}

// Export is one route to announce, or to withdraw when Attrs is nil.
type Export struct {
	wire.Route
	Attrs *wire.Attrs
}

// NewExporter makes the Adj-RIB-Out of a new session; all local routes that
// the peer may have are waiting in Next.
func (r *RIB) NewExporter(c ExporterConfig) *Exporter {
	e := &Exporter{
		ExporterConfig: c, rib: r, rtc: slices.Contains(c.Families, wire.RTC), rescan: true,
		announced: map[wire.NLRI]sent{}, dirty: map[wire.NLRI]struct{}{}, interest: newInterest(),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exporters = append(r.exporters, e)
	r.sources[c.Source].exporter = e
	e.countStale()
	e.Wake()
	return e
}

// countStale takes the RTC routes in that the peer's source has from before.
func (e *Exporter) countStale() {
	paths := e.rib.paths
	if e.rib.sources[e.Source].counts[wire.KindRTC] == 0 {
		return
	}
	for pos := range paths.End() {
		if paths.Live(pos) {
			if k := paths.Key(pos); k.source == e.Source && k.nlri.Kind == wire.KindRTC {
				e.interest.add(k.nlri, 1)
			}
		}
	}
}

// Close ends the exporter.
func (e *Exporter) Close() {
	r := e.rib
	r.mu.Lock()
	defer r.mu.Unlock()
	e.closed = true
	r.exporters = slices.DeleteFunc(r.exporters, func(o *Exporter) bool { return o == e })
	if r.sources[e.Source].exporter == e {
		r.sources[e.Source].exporter = nil
	}
}

// markExporters queues a local route for all peers.
func (r *RIB) markExporters(n wire.NLRI) {
	for _, e := range r.exporters {
		e.mark(n)
	}
}

func (e *Exporter) mark(n wire.NLRI) {
	if e.enqueue(n) {
		e.Wake()
	}
}

// enqueue queues a route unless it is queued, and tells whether it is the first.
func (e *Exporter) enqueue(n wire.NLRI) (first bool) {
	if _, queued := e.dirty[n]; queued {
		return false
	}
	e.dirty[n] = struct{}{}
	return e.queue.add(n)
}

// want notes that the peer announced (+1) or withdrew (-1) an RTC route.
func (e *Exporter) want(n wire.NLRI, by int) {
	e.interest.add(n, by)
	if !e.rescan {
		e.rescan = true
		e.Wake()
	}
}

// Resend makes Next announce all routes of a family again (RFC 2918).
func (e *Exporter) Resend(f wire.Family) {
	e.rib.mu.Lock()
	defer e.rib.mu.Unlock()
	for n, told := range e.announced {
		if n.Kind.Family() == f {
			e.announced[n] = sent{raw: told.raw}
			e.mark(n)
		}
	}
}

// Next appends to out at most limit routes to announce or withdraw, and tells
// whether more are waiting. What it returns counts as sent. On a new session
// RTC routes come first, so that the peer can begin to send.
func (e *Exporter) Next(limit int, out []Export) ([]Export, bool) {
	r := e.rib
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.closed {
		return out, false
	}
	if e.rescan {
		e.rescan = false
		e.queueAll()
	}
	for _, nlri := range e.queue.take(limit) {
		delete(e.dirty, nlri)
		if x, send := e.decide(nlri); send {
			out = append(out, x)
		}
	}
	return out, e.queue.len() > 0
}

// queueAll queues every local route and every route announced.
func (e *Exporter) queueAll() {
	for n := range e.rib.local {
		e.enqueue(n)
	}
	for n := range e.announced {
		e.enqueue(n)
	}
	slices.SortStableFunc(e.queue.waiting(), func(a, b wire.NLRI) int { return rank(a) - rank(b) })
}

func rank(n wire.NLRI) int {
	if n.Kind == wire.KindRTC {
		return 0
	}
	return 1
}

// decide compares what the peer should have with what it was told.
func (e *Exporter) decide(n wire.NLRI) (Export, bool) {
	r := e.rib
	told, was := e.announced[n]
	pos, here := r.local[n]
	if here {
		p := r.paths.At(pos)
		attrs := r.live[p.set].Attrs
		if e.eligible(n, attrs) {
			if was && told.attrs == attrs && told.label == p.label {
				return Export{}, false
			}
			if !was {
				e.counts[n.Kind]++
			}
			e.announced[n] = sent{attrs, p.label, r.raw[pos]}
			return Export{wire.Route{NLRI: n, Label: p.label, Raw: r.raw[pos]}, attrs}, true
		}
	}
	if !was {
		return Export{}, false
	}
	delete(e.announced, n)
	e.counts[n.Kind]--
	return Export{Route: wire.Route{NLRI: n, Raw: told.raw}}, true
}

// eligible tells whether the peer may have a route.
func (e *Exporter) eligible(n wire.NLRI, a *wire.Attrs) bool {
	if !slices.Contains(e.Families, n.Kind.Family()) || e.Accept != nil && !e.Accept(n, a) {
		return false
	}
	if !e.rtc || n.Kind == wire.KindRTC || e.interest.all() {
		return true
	}
	return slices.ContainsFunc(a.RTs, e.interest.matches)
}

// Announced returns the number of routes that the peer has from us, by family.
func (e *Exporter) Announced() map[wire.Family]int {
	e.rib.mu.Lock()
	defer e.rib.mu.Unlock()
	return e.counts.byFamily()
}

// Subscriptions lists what the peer gets, for the looking glass: a family with
// "*", or with each route target that the peer asks for.
func (e *Exporter) Subscriptions() []string {
	e.rib.mu.Lock()
	defer e.rib.mu.Unlock()
	out := []string{}
	for _, f := range e.Families {
		if !e.rtc || f == wire.RTC || e.interest.all() {
			out = append(out, "match:"+f.String()+",*")
			continue
		}
		for p := range e.interest.wants {
			out = append(out, "match:"+f.String()+","+p.String())
		}
	}
	slices.Sort(out)
	return out
}
