// SPDX-License-Identifier: Apache-2.0

package session

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Status is a snapshot of a peer for people and metrics.
type Status struct {
	Peer           netip.Addr
	State          State
	Previous       State
	Since          time.Time // of the last transition
	Negotiated     Negotiated
	LastError      string // why the last session or attempt ended
	LastLoss       Loss   // how the last session ended
	HeldDown       string // why the peer is kept down; "" when it is not
	Established    uint64 // sessions so far
	ReceivedByType map[wire.MsgType]uint64
	SentByType     map[wire.MsgType]uint64
	SentBytes      uint64
}

// counters count messages.
type counters struct {
	in, out  [8]atomic.Uint64
	outBytes atomic.Uint64
}

func (c *counters) received(t wire.MsgType) { c.in[t&7].Add(1) }

// sent counts the messages in b.
func (c *counters) sent(b []byte) {
	c.outBytes.Add(uint64(len(b)))
	for len(b) >= wire.HeaderLen {
		c.out[b[18]&7].Add(1)
		b = b[min(len(b), int(binary.BigEndian.Uint16(b[16:]))):]
	}
}

func byType(c *[8]atomic.Uint64) map[wire.MsgType]uint64 {
	m := map[wire.MsgType]uint64{}
	for t := wire.MsgOpen; t <= wire.MsgRouteRefresh; t++ {
		m[t] = c[t].Load()
	}
	return m
}

// Status returns a snapshot; it never waits for the session.
func (p *Peer) Status() Status {
	p.mu.Lock()
	s := p.status
	p.mu.Unlock()
	s.ReceivedByType, s.SentByType = byType(&p.counters.in), byType(&p.counters.out)
	s.SentBytes = p.counters.outBytes.Load()
	return s
}

// publish brings the status up to date with the more advanced track.
func (p *Peer) publish() {
	t := p.out
	if p.in.m.state > p.out.m.state && p.in.m.state > Active || p.Passive && p.in.m.state >= p.out.m.state {
		t = p.in
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.m.state == p.status.State {
		return
	}
	p.status.Previous, p.status.State, p.status.Since = p.status.State, t.m.state, time.Now()
	if t.m.state == Established {
		p.status.Established++
		p.status.Negotiated = t.deal
	}
}

// noteTransition logs session changes and keeps the reason of a loss.
func (p *Peer) noteTransition(t *track, before State, i incident) {
	switch {
	case t.m.state == Established:
		p.Log.Info("BGP session established", "as", t.deal.PeerAS, "families", t.deal.Families, "hold_time", t.deal.HoldTime, "connection", t.name)
		return
	case t.m.state > Active || i.ev == evStart || i.ev == evCollision || i.ev == evRetry:
		return
	case i.ev == evStop && !p.stopping: // the other connection became the session
		return
	}
	reason := i.ev.String()
	if i.err != nil {
		reason = i.err.Error()
	}
	switch {
	case p.stopping:
		p.Log.Info("BGP session closed")
		return
	case before == Established:
		p.Log.Warn("BGP session lost", "reason", reason)
	default:
		p.Log.Debug("BGP connection ended", "reason", reason, "state", before, "connection", t.name)
	}
	p.mu.Lock()
	p.status.LastError = reason
	p.mu.Unlock()
}

func (p *Peer) noteSent(n wire.Notification) {
	p.Log.Debug("NOTIFICATION sent", "notification", n.String())
}
