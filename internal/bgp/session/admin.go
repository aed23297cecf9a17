// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"fmt"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Disable closes the session and keeps it down until Enable; text goes to the
// peer's operator (RFC 9003).
func (p *Peer) Disable(text string) { p.DisableFor("shut down by the operator", text) }

// DisableFor is Disable with what Status says about the peer then.
func (p *Peer) DisableFor(why, text string) {
	p.command(func() {
		p.disable(ByOperator, why)
		p.close(wire.Shutdown(wire.CeaseAdminShutdown, text), evStop)
	})
}

// Enable lets a peer connect that was disabled or held down.
func (p *Peer) Enable() { p.command(p.enable) }

// Reset closes the session, or ends the pause before the next attempt, and connects
// again at once; text goes to the peer's operator (RFC 9003).
func (p *Peer) Reset(text string) {
	p.command(func() {
		p.backOff, p.flaps = firstRetry, 0
		if p.unconnected() && !p.disabled && (p.starting || !p.Passive) {
			p.retry.Reset(0)
			return
		}
		p.close(wire.Shutdown(wire.CeaseAdminReset, text), evBadMessage)
	})
}

// Unreachable closes the session because BFD says that the path is gone (RFC
// 5882 §4.3, RFC 9384). Keep tells whether the peer's routes may be kept, for it
// may be restarting.
func (p *Peer) Unreachable(keep bool) {
	p.command(func() {
		n := wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseBFDDown}
		for _, t := range []*track{p.out, p.in} {
			if t.m.state == Established {
				if !keep {
					n = t.final(n)
				}
				p.drive(t, incident{ev: evBadMessage, bad: n, keep: keep, err: fmt.Errorf("BFD session is down")})
			}
		}
	})
}

// SetPauses changes what Config has as RetryMax and PrefixPause, from the next
// pause on.
func (p *Peer) SetPauses(retryMax, prefixPause time.Duration) {
	p.retryMax.Store(int64(retryMax))
	p.prefixPause.Store(int64(prefixPause))
}

// Answer waits until Run has time for it; it returns at once when Run has ended. The
// error is that of ctx.
func (p *Peer) Answer(ctx context.Context) error {
	select {
	case p.commands <- func() {}:
	case <-p.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// command runs f on the peer's goroutine, unless Run has ended.
func (p *Peer) command(f func()) {
	select {
	case p.commands <- f:
	case <-p.ended:
	}
}

// close ends all connections with a NOTIFICATION after which no routes are kept.
func (p *Peer) close(n wire.Notification, ev event) {
	for _, t := range []*track{p.out, p.in} {
		p.drive(t, incident{ev: ev, bad: t.final(n), err: fmt.Errorf("NOTIFICATION %s sent", n)})
	}
}

// disable keeps the peer down and says why.
func (p *Peer) disable(hold Hold, why string) {
	p.disabled, p.starting = true, false
	p.retry.Stop()
	p.resume.Stop()
	p.mu.Lock()
	p.status.Hold, p.status.HeldDown = hold, why
	p.mu.Unlock()
}

func (p *Peer) enable() {
	if !p.disabled {
		return
	}
	p.resume.Stop()
	p.disabled = false
	p.mu.Lock()
	p.status.Hold, p.status.HeldDown = NotHeld, ""
	p.mu.Unlock()
	p.start()
}

// holdDown keeps a peer down that sent more routes than it may.
func (p *Peer) holdDown() {
	pause := time.Duration(p.prefixPause.Load())
	if pause == 0 {
		p.disable(TooManyRoutes, "more routes than max_prefixes, until enabled")
		return
	}
	p.disable(TooManyRoutes, "more routes than max_prefixes, until "+time.Now().Add(pause).Format(time.RFC3339))
	p.resume.Reset(pause)
}

func tooManyPrefixes(i incident) bool {
	return i.ev == evBadMessage && i.bad.Code == wire.CodeCease && i.bad.Subcode == wire.CeaseMaxPrefixes
}
