// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// drive feeds an event to the FSM of a track and carries out the actions.
func (p *Peer) drive(t *track, i incident) {
	before := t.m.state
	if i.ev == evNotification {
		notification(&p.counters.heard, i.bad.Code)
	}
	st := t.m.on(i.ev, i.bad)
	if before == Established && t.m.state != Established {
		t.loss = t.lossOf(i, st)
		p.mu.Lock()
		p.status.LastLoss = t.loss
		p.mu.Unlock()
	}
	if t.m.state != before {
		p.noteTransition(t, before, i)
	}
	for _, a := range st.actions {
		p.act(t, a, st.notification)
	}
}

func (p *Peer) act(t *track, a action, n wire.Notification) {
	switch a {
	case actDial:
		p.dial(t)
	case actClose:
		p.closeTrack(t)
	case actSendOpen:
		p.sendOpen(t)
	case actSendKeepalive:
		t.conn.send(wire.Keepalive())
		t.restartKeep()
	case actNotify:
		if n.Code != 0 { // else we are restarting and leave without a word
			t.conn.sendLast(n)
			p.noteSent(n)
		}
	case actStartRetry:
		p.pause(t, false)
	case actStopRetry:
		if t == p.out {
			p.retry.Stop()
		}
	case actLargeHold:
		t.hold.Reset(largeHoldSeconds * time.Second)
	case actNegotiate:
		t.hold.Stop()
		t.restartHold()
		t.restartKeep()
	case actRestartHold:
		t.restartHold()
	case actUp:
		p.up(t)
	case actDown:
		p.down()
	case actBackOff:
		p.pause(t, true)
	}
}

// sendOpen sends our OPEN; it is built of checked configuration, so that an
// encoding error cannot come from the peer.
func (p *Peer) sendOpen(t *track) {
	t.sent = p.localOpen()
	msg, err := t.sent.Message()
	if err != nil {
		p.Log.Error("encode OPEN", "err", err)
		return
	}
	t.sentOpen = msg
	t.conn.send(msg)
}

// dial begins a TCP connection; its outcome comes as an event.
func (p *Peer) dial(t *track) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	t.dialling = cancel
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer cancel()
		nc, err := p.connect(ctx)
		if ctx.Err() == context.Canceled { // the peer no longer wants it
			if nc != nil {
				_ = nc.Close()
			}
			return
		}
		if err != nil {
			p.events <- incident{ev: evConnectFailed, err: err}
			return
		}
		p.events <- incident{ev: evConnected, dial: nc}
	}()
}

func (p *Peer) connect(ctx context.Context) (net.Conn, error) {
	if p.Dial != nil {
		return p.Dial(ctx)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: p.Local.AsSlice(), Zone: p.Local.Zone()}}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(p.Peer.String(), strconv.Itoa(int(p.Port))))
}

// pause starts the ConnectRetryTimer, or with idle the pause in Idle, with
// exponential back-off. While the other track is busy it does not count.
func (p *Peer) pause(t *track, idle bool) {
	if p.stopping || p.disabled {
		return
	}
	if t == p.in {
		// The peer dials again when it likes; listen at once.
		if t.m.state == Idle {
			t.m.on(evStart, wire.Notification{})
		}
		if p.out.m.state != Idle || p.starting {
			return
		}
		idle = true
	}
	if p.in.m.state == Established && t == p.out {
		t.m.state = Idle
		return
	}
	p.starting = idle
	longest := max(time.Duration(p.retryMax.Load()), firstRetry)
	wait, least := p.backOff, time.Duration(0)
	switch {
	case !idle: // a dial that fails costs the peer nothing, and does not end what flaps have earned
		wait, least = min(wait, longest), p.backOff
	case p.flaps >= flapsAllowed:
		longest = max(longest, flapRetry)
	}
	p.retry.Reset(jitter(wait))
	p.backOff = max(least, min(2*p.backOff, longest))
}

func (t *track) restartHold() {
	if t.deal.HoldTime > 0 {
		t.hold.Reset(t.deal.HoldTime)
	}
}

// restartKeep starts the KeepaliveTimer at a third of the hold time (RFC 4271 §4.4).
func (t *track) restartKeep() {
	if k := t.deal.HoldTime / 3; k > 0 {
		t.keep.Reset(jitter(k))
	}
}

// holdExpired checks first whether the reader saw something meanwhile: reading
// UPDATEs does not disturb the peer's goroutine.
func (p *Peer) holdExpired(t *track) {
	if t.conn != nil && t.m.state >= OpenConfirm {
		if rest := t.deal.HoldTime - time.Since(t.conn.lastHeard()); rest > 0 {
			t.hold.Reset(rest)
			return
		}
	}
	p.drive(t, incident{ev: evHold, conn: t.conn})
}

// up makes the flow of an established session and starts its writer. The other
// track stops: it may be dialling.
func (p *Peer) up(t *track) {
	p.upSince = time.Now()
	if t == p.in && p.out.m.state != Idle {
		p.drive(p.out, incident{ev: evStop, conn: p.out.conn, bad: wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision}})
	}
	p.retry.Stop()
	p.starting = false
	if f := p.newFlow(t.deal); f != nil {
		t.conn.establish(f)
		return
	}
	p.drive(t, incident{ev: evBadMessage, bad: wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseOutOfResources}, err: errPanic})
}

var errPanic = errors.New("panic while the session came up")

// newFlow asks the consumer for a flow; nil when that panics.
func (p *Peer) newFlow(deal Negotiated) (f Flow) {
	defer p.confine("the session came up")
	return p.Consumer.Up(deal)
}

// confine logs a panic: a fault in one session must not end the others.
func (p *Peer) confine(when string) {
	if r := recover(); r != nil {
		p.Log.Error("panic when "+when, "panic", r, "stack", string(debug.Stack()))
	}
}

// down notes the loss of a session; its flow ended in closeTrack.
func (p *Peer) down() {
	if time.Since(p.upSince) > stableAfter {
		p.backOff, p.flaps = firstRetry, 0
		return
	}
	p.flaps++
}

// closeTrack closes the connection of a track, waits for its goroutines, and
// ends its flow.
func (p *Peer) closeTrack(t *track) {
	t.hold.Stop()
	t.keep.Stop()
	if t.dialling != nil {
		t.dialling()
		t.dialling = nil
	}
	c := t.conn
	if c == nil {
		return
	}
	t.conn = nil
	p.lingerOn()
	c.close()
	if c.flow != nil {
		c.ended.Wait()
		func() {
			defer p.confine("the session ended")
			c.flow.Down(t.loss)
		}()
	}
}
