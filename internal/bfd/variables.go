// SPDX-License-Identifier: Apache-2.0

package bfd

import "time"

// slowest is the least interval that a side may announce while it is not Up
// (RFC 5880 §6.8.3).
const slowest = time.Second

// variables are the state variables of RFC 5880 §6.8.1, in the words of the
// RFC, and the rules that change them. No clock and no network.
type variables struct {
	configuredMinTx time.Duration // DesiredMinTxInterval while Up
	mult            uint8

	state         State
	diag          Diag
	discr         uint32
	desiredMinTx  time.Duration
	requiredMinRx time.Duration
	polling       bool // a Poll Sequence of ours is active
	pollAgain     bool // the times changed during it
	remoteState   State
	remoteDiag    Diag
	remoteDiscr   uint32
	remoteMinTx   time.Duration
	remoteMinRx   time.Duration
	remoteMult    uint8
	remoteDemand  bool
	remoteIndep   bool // last received C bit
	remoteIndepUp bool // last received C bit in state Up
	ups, flaps    uint64
	since         time.Time // set by the session
}

func newVariables(c Config, discr uint32) variables {
	v := variables{
		configuredMinTx: c.MinTx, mult: c.Multiplier, state: Down, discr: discr,
		desiredMinTx: max(c.MinTx, slowest), requiredMinRx: c.MinRx,
	}
	v.forget()
	return v
}

// forget resets what the other side told. Its reason stays, for the operator.
// The RFC asks for the discriminator only; but a silent remote that wanted no
// packets, or few, must not keep us from asking whether it is back.
func (v *variables) forget() {
	v.remoteState, v.remoteDiscr = Down, 0
	v.remoteMinTx, v.remoteMinRx, v.remoteMult = 0, time.Microsecond, 0
	v.remoteDemand, v.remoteIndep = false, false
}

// received takes in an accepted packet (RFC 5880 §6.8.6). The caller answers
// the Poll bit.
func (v *variables) received(p packet) {
	v.remoteDiscr, v.remoteState, v.remoteDiag, v.remoteMult = p.mine, p.state, p.diag, p.mult
	v.remoteMinTx, v.remoteMinRx = p.minTx, p.minRx
	v.remoteDemand, v.remoteIndep = p.demand, p.independent
	if p.state == Up {
		v.remoteIndepUp = p.independent
	}
	if p.final && v.polling {
		v.polling, v.pollAgain = v.pollAgain, false
	}
	v.enter(respond(v.state, v.diag, p.state))
}

// expired takes in that nothing was accepted for the detection time (RFC 5880
// §6.8.1 RemoteDiscr, §6.8.4).
func (v *variables) expired() {
	v.forget()
	if v.state == Init || v.state == Up {
		v.enter(Down, DetectionTimeExpired)
	}
}

// disable closes the session for administrative reasons (RFC 5880 §6.8.16).
// Nobody waits for an answer.
func (v *variables) disable() {
	v.enter(AdminDown, AdministrativelyDown)
	v.polling = false
}

// enter goes to a state, and to the times that belong to it.
func (v *variables) enter(s State, d Diag) {
	if s == v.state {
		return
	}
	if v.state == Up && s != AdminDown {
		v.flaps++
	}
	if s == Up {
		v.ups++
	}
	v.state, v.diag = s, d
	tx := v.configuredMinTx
	if s != Up {
		tx = max(tx, slowest)
	}
	if tx != v.desiredMinTx {
		v.desiredMinTx = tx
		// A change needs a Poll Sequence of its own (RFC 5880 §6.8.3). It may be used
		// at once: it is slower only when we are not Up.
		v.pollAgain = v.polling
		v.polling = true
	}
}

// interval returns the time between periodic packets before jitter, 0 when
// there must be none (RFC 5880 §6.8.7).
func (v *variables) interval() time.Duration {
	demanded := v.remoteDemand && v.state == Up && v.remoteState == Up
	if v.remoteMinRx == 0 || demanded && !v.polling {
		return 0
	}
	return max(v.desiredMinTx, v.remoteMinRx)
}

// detection returns for how long the other side may be silent (RFC 5880
// §6.8.4), 0 when it is not heard anyway.
func (v *variables) detection() time.Duration {
	if v.remoteDiscr == 0 {
		return 0
	}
	return time.Duration(v.remoteMult) * max(v.requiredMinRx, v.remoteMinTx)
}

// packet returns the packet to send now. The C bit is not set: our BFD ends
// with the daemon.
func (v *variables) packet(final bool) packet {
	return packet{
		diag: v.diag, state: v.state, poll: v.polling && !final, final: final, mult: v.mult,
		mine: v.discr, yours: v.remoteDiscr, minTx: v.desiredMinTx, minRx: v.requiredMinRx,
	}
}

// jitter shortens an interval by a random share, r of [0, 1): by 0 to 25 %, and
// where a single lost packet ends the session by 10 to 25 % (RFC 5880 §6.8.7).
func jitter(interval time.Duration, mult uint8, r float64) time.Duration {
	most := 1.0
	if mult == 1 {
		most = 0.9
	}
	return time.Duration(float64(interval) * (most - r*(most-0.75)))
}
