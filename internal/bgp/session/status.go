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
	Peer        netip.Addr
	State       State
	Previous    State
	Since       time.Time // of the last transition
	Negotiated  Negotiated
	LastError   string // why the last session or attempt ended
	LastLoss    Loss   // how the last session ended
	Hold        Hold   // whether the peer is kept down
	HeldDown    string // why, for people; "" when it is not
	Established uint64 // sessions so far
	// NOTIFICATIONs by error code; 0 has those with a code that is not known.
	NotificationsSent, NotificationsReceived map[uint8]uint64

	ReceivedByType map[wire.MsgType]uint64
	SentByType     map[wire.MsgType]uint64
	SentBytes      uint64
}

// Hold tells what keeps a peer down.
type Hold uint8

// What keeps a peer down.
const (
	NotHeld       Hold = iota
	ByOperator         // Config.Disabled, Peer.Disable
	TooManyRoutes      // more than the consumer allows
)

// counters count messages.
type counters struct {
	in, out [8]atomic.Uint64
	// NOTIFICATIONs by error code
	told, heard [wire.CodeRefresh + 1]atomic.Uint64
	outBytes    atomic.Uint64
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

// notification counts a NOTIFICATION.
func notification(c *[wire.CodeRefresh + 1]atomic.Uint64, code uint8) {
	if code > wire.CodeRefresh {
		code = 0
	}
	c[code].Add(1)
}

func byCode(c *[wire.CodeRefresh + 1]atomic.Uint64) map[uint8]uint64 {
	var m map[uint8]uint64
	for code := range c {
		if n := c[code].Load(); n > 0 {
			if m == nil {
				m = map[uint8]uint64{}
			}
			m[uint8(code)] = n
		}
	}
	return m
}

// Status returns a snapshot; it never waits for the session.
func (p *Peer) Status() Status {
	p.mu.Lock()
	s := p.status
	p.mu.Unlock()
	s.ReceivedByType, s.SentByType = byType(&p.counters.in), byType(&p.counters.out)
	s.NotificationsSent, s.NotificationsReceived = byCode(&p.counters.told), byCode(&p.counters.heard)
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
		if before == Established {
			p.Log.Info("BGP session closed")
		}
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
	notification(&p.counters.told, n.Code)
	p.Log.Debug("NOTIFICATION sent", "notification", n.String())
}
