// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// checkGaps compares the pauses between dials with the back-off's steps.
func checkGaps(t *testing.T, dials []time.Duration, want ...time.Duration) {
	t.Helper()
	if len(dials) != len(want)+1 {
		t.Fatalf("%d dials: want %d (%s)", len(dials), len(want)+1, dials)
	}
	for i, w := range want {
		if gap := dials[i+1] - dials[i]; gap < w*3/4 || gap > w {
			t.Errorf("pause %d is %s: want 75 to 100%% of %s", i, gap, w)
		}
	}
}

func TestRetryBacksOff(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tt := range []struct {
		name string
		in   time.Duration // RetryMax
		want []time.Duration
	}{
		{"up to the maximum", 8 * s, []time.Duration{s / 2, s, 2 * s, 4 * s, 8 * s, 8 * s, 8 * s}},
		{"up to a maximum between two steps", 3 * s, []time.Duration{s / 2, s, 2 * s, 3 * s, 3 * s}},
		{"a maximum of zero does not spin", 0, []time.Duration{s / 2, s / 2, s / 2, s / 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				enough := make(chan struct{})
				start, dials := time.Now(), []time.Duration{}
				p := New(Config{
					PeerAS: testAS, LocalAS: testAS, RouterID: localID, RetryMax: tt.in, Consumer: &consumer{t: t},
					Dial: func(context.Context) (net.Conn, error) {
						if dials = append(dials, time.Since(start)); len(dials) == len(tt.want)+1 {
							close(enough)
						}
						return nil, errRefused
					},
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); p.Run(ctx) }()
				<-enough
				cancel()
				<-done
				if dials[0] != 0 {
					t.Errorf("first dial after %s: want at once", dials[0])
				}
				checkGaps(t, dials, tt.want...)
			})
		})
	}
}

// A dial that hangs is given up after dialTimeout.
func TestDialHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Duration
		start := time.Now()
		p := New(Config{
			RouterID: localID, RetryMax: time.Second, Consumer: &consumer{t: t},
			Dial: func(ctx context.Context) (net.Conn, error) {
				dials = append(dials, time.Since(start))
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx) }()
		time.Sleep(40 * time.Second)
		if got := p.Status().State; got != Connect {
			t.Errorf("state %s while dialling: want Connect", got)
		}
		cancel() // in the middle of a dial
		stop := time.Now()
		<-done
		if took := time.Since(stop); took != 0 {
			t.Errorf("the end took %s while dialling", took)
		}
		if len(dials) != 3 || dials[1] < 15*time.Second || dials[1] > 16*time.Second {
			t.Errorf("dials at %s: want 3, 15 to 16 s apart", dials)
		}
	})
}

// After each kind of failure the peer pauses, longer each time, and comes back.
func TestRetryAfterFailedSessions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   func(*rig, *remote)
	}{
		{"closed before OPEN", func(_ *rig, c *remote) { c.expect(wire.MsgOpen); _ = c.Close() }},
		{"closed after OPEN", func(_ *rig, c *remote) { c.sendOpen(remoteOpen()); c.expect(wire.MsgOpen); _ = c.Close() }},
		{"closed when established", func(r *rig, c *remote) { r.establish(c, remoteOpen()); _ = c.Close() }},
		{"NOTIFICATION", func(_ *rig, c *remote) { c.write(wire.Notification{Code: 6, Subcode: 5}.Message()) }},
		{"bad message", func(_ *rig, c *remote) { c.write(make([]byte, wire.HeaderLen)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				for range 4 {
					tt.in(r, r.outgoing())
				}
				r.outgoing()
				const s = time.Second
				checkGaps(t, r.dialTimes(), s/2, s, 2*s, 4*s)
			})
		})
	}
}

// A session that lived for more than a minute resets the back-off, a shorter
// one does not.
func TestBackOffAfterStableSession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   time.Duration
		want time.Duration
	}{
		{"stable", 61 * time.Second, 500 * time.Millisecond},
		{"not stable", 30 * time.Second, 8 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				for range 5 {
					_ = r.outgoing().Close()
				}
				c := r.outgoing()
				r.establish(c, remoteOpen())
				time.Sleep(tt.in)
				lost := time.Now()
				_ = c.Close()
				r.outgoing()
				if gap := time.Since(lost); gap < tt.want*3/4 || gap > tt.want {
					t.Errorf("pause of %s: want 75 to 100%% of %s", gap, tt.want)
				}
			})
		})
	}
}

// Sessions that are lost soon after they came up, again and again, are damped
// beyond RetryMax.
func TestFlappingSessionIsDamped(t *testing.T) {
	t.Parallel()
	run(t, func(c *Config) { c.RetryMax = 2 * time.Second }, func(r *rig) {
		const s = time.Second
		want := []time.Duration{s / 2, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}
		for range want {
			c := r.outgoing()
			r.establish(c, remoteOpen())
			_ = c.Close()
		}
		r.outgoing()
		checkGaps(t, r.dialTimes(), want...)
	})
}

// A flapping peer that is away is dialled as often as any other: it is found soon when it is back.
func TestFlappingPeerThatIsAway(t *testing.T) {
	t.Parallel()
	run(t, func(c *Config) { c.RetryMax = 2 * time.Second }, func(r *rig) {
		const s = time.Second
		flap := func() {
			c := r.outgoing()
			r.establish(c, remoteOpen())
			_ = c.Close()
		}
		for range 5 {
			flap()
		}
		r.failDials(true)
		time.Sleep(17 * s) // a pause of up to 8 s, then dials
		r.failDials(false)
		flap()
		r.outgoing()
		dials := r.dialTimes()
		checkGaps(t, dials[:6], s/2, s, 2*s, 4*s, 8*s)
		away := dials[5:]
		for n := 1; n < len(away)-1; n++ {
			checkGaps(t, away[n-1:n+1], 2*s)
		}
		checkGaps(t, away[len(away)-2:], 16*s)
	})
}

// A reset does not wait for the end of a pause, be it for a peer that is away or one whose
// sessions are damped.
func TestResetEndsThePause(t *testing.T) {
	t.Parallel()
	run(t, func(c *Config) { c.RetryMax = time.Hour }, func(r *rig) {
		atOnce := func(when string) {
			t.Helper()
			n := len(r.dialTimes())
			r.peer.Reset("")
			synctest.Wait()
			if got := len(r.dialTimes()) - n; got != 1 {
				t.Errorf("%d dials at once after a reset %s, want 1", got, when)
			}
		}
		for range 7 {
			c := r.outgoing()
			r.establish(c, remoteOpen())
			_ = c.Close()
		}
		synctest.Wait()
		r.failDials(true)
		atOnce("of a damped peer")
		time.Sleep(20 * time.Minute) // pauses have become long
		atOnce("of a peer that is away")
	})
}

func TestPassivePeerIsNeverDialled(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		time.Sleep(time.Hour)
		r.state(Active)
		for range 3 {
			c := r.incoming()
			r.establish(c, remoteOpen())
			_ = c.Close()
			time.Sleep(time.Minute)
			r.state(Active)
		}
		if n := len(r.dialTimes()); n != 0 {
			t.Errorf("dialled %d times", n)
		}
	})
}

// While there is an incoming session the peer is not dialled; afterwards it is.
func TestNoDialBesideASession(t *testing.T) {
	t.Parallel()
	run(t, nil, func(r *rig) {
		r.failDials(true)
		time.Sleep(10 * time.Second)
		c := r.incoming()
		r.establish(c, remoteOpen())
		before := len(r.dialTimes())
		c.repeat(20*time.Second, wire.Keepalive())
		c.absorb()
		time.Sleep(time.Hour)
		r.state(Established)
		if n := len(r.dialTimes()) - before; n != 0 {
			t.Errorf("dialled %d times during the session", n)
		}
		r.failDials(false)
		_ = c.Close()
		r.establish(r.outgoing(), remoteOpen())
	})
}

// An incoming connection is taken at once also during the back-off.
func TestIncomingDuringBackOff(t *testing.T) {
	t.Parallel()
	run(t, func(c *Config) { c.RetryMax = time.Hour }, func(r *rig) {
		r.failDials(true)
		time.Sleep(30 * time.Minute)
		start := time.Now()
		r.establish(r.incoming(), remoteOpen())
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}
