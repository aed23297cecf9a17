// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"maps"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// talk is a session of a player.
type talk struct {
	*follower
	// Guarded by link.mu.
	out    map[wire.NLRI]announced
	sent   uint64 // UPDATEs
	before uint64 // UPDATEs of earlier sessions that the node has read
}

// say writes what f makes as one piece: nothing else comes in between. A session
// that just ended is no error.
func (p *talk) say(f func() []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	msgs := f()
	for b := msgs; len(b) > 0; {
		typ, length, err := wire.ParseHeader(b, wire.MaxExtMessage)
		if err != nil {
			panic(err)
		}
		if typ == wire.MsgUpdate {
			p.sent++
		}
		b = b[length:]
	}
	_ = p.put(msgs)
}

// messages returns what an event makes a peer say.
func (p *talk) messages(e event) (all []byte) {
	switch e.op {
	case "withdraw":
		pack := wire.NewPacker(wire.MaxMessage)
		for _, r := range e.routes {
			delete(p.out, r.NLRI)
			pack.Withdraw(r.NLRI.Kind.Family())
			pack.Add(r.Route)
		}
		return slices.Clone(pack.Flush())
	case "End-of-RIB":
		return endOfRIB(e.family)
	case "resync", "half resync":
		maps.DeleteFunc(p.out, func(n wire.NLRI, _ announced) bool { return n.Kind.Family() == e.family })
		all = wire.RouteRefresh(e.family, wire.RefreshBegin)
	}
	for _, r := range e.routes {
		p.out[r.NLRI] = r
	}
	all = append(all, pack(e.routes)...)
	if e.op == "resync" {
		all = append(all, wire.RouteRefresh(e.family, wire.RefreshEnd)...)
	}
	return all
}

// pack makes an UPDATE of each route.
func pack(routes []announced) []byte {
	p := wire.NewPacker(wire.MaxMessage)
	for _, r := range routes {
		p.Announce(r.NLRI.Kind.Family(), r.attrs.Build().Raw, r.attrs.NextHop)
		p.Add(r.Route)
	}
	return slices.Clone(p.Flush())
}

// answer sends all routes of a family again, because the node asks for them.
func (p *talk) answer(fam wire.Family, enhanced bool) []byte {
	var routes []announced
	for n, r := range p.out {
		if n.Kind.Family() == fam {
			routes = append(routes, r)
		}
	}
	if !enhanced {
		return pack(routes)
	}
	return slices.Concat(wire.RouteRefresh(fam, wire.RefreshBegin), pack(routes), wire.RouteRefresh(fam, wire.RefreshEnd))
}

// message is the OPEN of a peer.
func (p *player) message(o opening) wire.Open {
	open := peerOpen(p.addr, p.families...)
	open.EnhancedRefresh, open.ExtendedMessage = p.enhanced, p.enhanced
	if !o.graceful || len(p.restarts) == 0 {
		return open
	}
	open.GracefulRestart = &wire.GracefulRestart{Time: 3600}
	if o.immediate {
		open.GracefulRestart.Time = 0
	}
	for _, f := range p.restarts {
		open.GracefulRestart.Families = append(open.GracefulRestart.Families, wire.ForwardingState{Family: f, Preserved: o.preserved})
		if o.longLived {
			open.LongLived = append(open.LongLived, wire.LongLived{Family: f, Preserved: o.preserved, Time: 3600})
		}
	}
	return open
}

// open brings a session up. For "reopen" the node must have read all that came
// over the old connection: it is not closed, and what is in flight gets lost.
func (w *world) open(p *player, e event) {
	w.tb.Helper()
	old, known, sessions := p.f, w.n.neighbour(p.addr), uint64(0)
	if known != nil {
		sessions = known.Status().Established
	}
	if old != nil {
		old.mu.Lock()
		until := old.before + old.sent
		old.mu.Unlock()
		eventually(w.tb, "all of "+p.name+" is read", func() bool { return w.updates(p) >= until })
	}
	next := &talk{follower: w.connect(p, e.open), out: map[wire.NLRI]announced{}}
	next.refresh = func(f wire.Family) { next.say(func() []byte { return next.answer(f, p.enhanced) }) }
	if old != nil {
		<-old.ended
		p.close()
	}
	// The node gets our KEEPALIVE only now, perhaps.
	eventually(w.tb, "session of "+p.name, func() bool {
		x := w.n.neighbour(p.addr)
		return x != nil && x.Status().State == session.Established && (x != known || x.Status().Established > sessions)
	})
	next.before = w.updates(p)
	p.f = next
	go next.loop()
	w.tb.Cleanup(func() {
		next.abort()
		<-next.ended
		if next.fault != nil {
			w.tb.Errorf("peer %s: %v", p.name, next.fault)
		}
	})
	if e.open.marks {
		next.say(func() []byte { return endOfRIB(p.families...) })
	}
}

// connect gets through the handshake. A dynamic neighbour may come while the node
// is about to forget it; it comes again then.
func (w *world) connect(p *player, o opening) *follower {
	w.tb.Helper()
	f := &follower{view: newView(), ended: make(chan struct{})}
	eventually(w.tb, "session of "+p.name, func() bool {
		f.link = dial(w.tb, p.addr, w.n.at)
		err := f.open(p.message(o))
		if err != nil {
			f.abort()
		}
		if err != nil && !p.dynamic {
			w.tb.Fatal(err)
		}
		return err == nil
	})
	return f
}

// updates returns how many UPDATEs the node has read from a peer.
func (w *world) updates(p *player) uint64 {
	if x := w.n.neighbour(p.addr); x != nil {
		return x.Status().ReceivedByType[wire.MsgUpdate]
	}
	return 0
}

// down ends a session in the way of the event.
func (w *world) down(p *player, e event) {
	w.tb.Helper()
	switch e.op {
	case "half resync":
		p.f.say(func() []byte { return p.f.messages(e) })
	case "notify":
		p.f.say(func() []byte {
			return wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseAdminReset}.Message()
		})
	case "cut":
		p.f.abort()
	case "reset":
		w.n.neighbour(p.addr).Reset("maintenance")
	}
	_ = p.f.nc.CloseWrite()
	<-p.f.ended
	p.close()
}

// close forgets a session that has ended.
func (p *player) close() {
	_ = p.f.nc.Close()
	p.f = nil
}

// ended waits until the node has seen the end of a session, and all clocks of no
// time or a moment have run off.
func (w *world) ended(p *player) {
	w.tb.Helper()
	waits := w.m.peers[p.number].waits
	eventually(w.tb, "end of the session of "+p.name, func() bool {
		x := w.n.neighbour(p.addr)
		if x == nil {
			return len(waits) == 0
		}
		if x.Status().State == session.Established {
			return false
		}
		kept := x.Stale()
		for _, k := range kept {
			if stage, ok := waits[k.Family]; !ok || stage != k.Stage {
				return false
			}
		}
		return len(kept) == len(waits)
	})
}
