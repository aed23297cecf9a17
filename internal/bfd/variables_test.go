// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func TestJitter(t *testing.T) {
	t.Parallel()
	const i = 100 * ms
	for _, tt := range []struct {
		mult uint8
		r    float64
		want time.Duration
	}{{3, 0, i}, {3, 0.5, 87500 * time.Microsecond}, {3, 1, 75 * ms}, {1, 0, 90 * ms}, {1, 1, 75 * ms}, {255, 0, i}} {
		if got := jitter(i, tt.mult, tt.r); got.Round(time.Microsecond) != tt.want {
			t.Errorf("multiplier %d, r %v: %v: want %v", tt.mult, tt.r, got, tt.want)
		}
	}
}

// TestIntervals covers RFC 5880 §6.8.2 to §6.8.4 and §6.8.7.
func TestIntervals(t *testing.T) {
	t.Parallel()
	up := packet{state: Up, mine: 5, yours: 1, mult: 4, minTx: 200 * ms, minRx: 30 * ms}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	for _, tt := range []struct {
		name      string
		minTx     time.Duration
		state     State
		hears     packet
		want      State
		interval  time.Duration
		detection time.Duration
		polls     bool
	}{
		{"down", 50 * ms, Down, with(up, func(p *packet) { p.state = Down }), Init, time.Second, 800 * ms, false},
		{"slow and down", 3 * time.Second, Down, with(up, func(p *packet) { p.state = Down }), Init, 3 * time.Second, 800 * ms, false},
		{"comes up", 50 * ms, Init, up, Up, 50 * ms, 800 * ms, true},
		{"slow comes up", 3 * time.Second, Init, up, Up, 3 * time.Second, 800 * ms, false},
		{"slow receiver", 50 * ms, Up, with(up, func(p *packet) { p.minRx = time.Second }), Up, time.Second, 800 * ms, true},
		{"fast sender", 50 * ms, Up, with(up, func(p *packet) { p.minTx = ms }), Up, 50 * ms, 160 * ms, true},
		{"sender of the slowest", 50 * ms, Up, with(up, func(p *packet) { p.mult, p.minTx = 255, (1<<32-1)*time.Microsecond }), Up, 50 * ms,
			255 * (1<<32 - 1) * time.Microsecond, true},
		{"wants no packets", 50 * ms, Up, with(up, func(p *packet) { p.minRx = 0 }), Up, 0, 800 * ms, true},
		{"demand while we poll", 50 * ms, Up, with(up, func(p *packet) { p.demand = true }), Up, 50 * ms, 800 * ms, true},
		{"demand", 50 * ms, Up, with(up, func(p *packet) { p.demand, p.final = true, true }), Up, 0, 800 * ms, false},
		{"demand while not up", 50 * ms, Up, with(up, func(p *packet) { p.demand, p.state = true, Down }), Down, time.Second, 800 * ms, true},
		{"final", 50 * ms, Up, with(up, func(p *packet) { p.final = true }), Up, 50 * ms, 800 * ms, false},
	} {
		v := newVariables(Config{MinTx: tt.minTx, MinRx: 40 * ms, Multiplier: 3}, 1)
		v.enter(tt.state, NoDiagnostic)
		v.received(tt.hears)
		if v.state != tt.want || v.interval() != tt.interval || v.detection() != tt.detection || v.polling != tt.polls {
			t.Errorf("%s: %s, interval %v, detection time %v, polls %t\nwant %s, %v, %v, %t", tt.name,
				v.state, v.interval(), v.detection(), v.polling, tt.want, tt.interval, tt.detection, tt.polls)
		}
	}
}

// A change during a Poll Sequence has one of its own.
func TestPollAgain(t *testing.T) {
	t.Parallel()
	v := newVariables(config(ourAddr, theirAddr), 1)
	v.enter(Up, NoDiagnostic)
	v.enter(Down, PathDown)
	for i, want := range []bool{true, false, false} {
		v.received(packet{state: AdminDown, mine: 5, mult: 1, final: true})
		if v.polling != want || v.packet(false).poll != want {
			t.Errorf("after Final %d: polls %t: want %t", i+1, v.polling, want)
		}
	}
}

// What the other side said is forgotten when it is silent, but for its reason.
func TestForgets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state, want State
		diag        Diag
		flaps       uint64
	}{{Down, Down, PathDown, 0}, {Init, Down, DetectionTimeExpired, 0}, {Up, Down, DetectionTimeExpired, 1}} {
		c := config(ourAddr, theirAddr)
		c.MinTx = 2 * time.Second // no polls
		v := newVariables(c, 1)
		want := v
		v.state, v.diag, v.remoteState, v.remoteDiscr, v.remoteDiag, v.remoteMult = tt.state, PathDown, Up, 5, EchoFailed, 9
		v.remoteDemand, v.remoteIndep, v.remoteMinRx, v.remoteMinTx = true, true, 0, time.Hour
		v.expired()
		want.state, want.diag, want.remoteDiag, want.flaps = tt.want, tt.diag, EchoFailed, tt.flaps
		if v != want {
			t.Errorf("%s: %+v\nwant %+v", tt.state, v, want)
		}
		if v.detection() != 0 || v.interval() != 2*time.Second {
			t.Errorf("%s: detection time %v, interval %v", tt.state, v.detection(), v.interval())
		}
	}
}
