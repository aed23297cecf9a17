// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// untimed leaves the time out of changes.
var untimed = cmpopts.IgnoreFields(Change{}, "At")

func wantChanges(t *testing.T, s *side, want ...Change) {
	t.Helper()
	if diff := cmp.Diff(want, s.take(), untimed, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestComesUp(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, a, b *side) {
		wantChanges(t, a, Change{Previous: Down, State: Init, RemoteState: Down}, Change{Previous: Init, State: Up, RemoteState: Up})
		wantChanges(t, b, Change{Previous: Down, State: Up, RemoteState: Init})
		time.Sleep(time.Minute)
		wantChanges(t, a)
		wantChanges(t, b)
		got := a.Status()
		want := Status{
			Local: ourAddr, Remote: theirAddr, State: Up, RemoteState: Up, Since: got.Since, Up: 1,
			Discriminator: b.Status().RemoteDiscriminator, RemoteDiscriminator: b.Status().Discriminator,
			Multiplier: 3, RemoteMultiplier: 3, MinTx: 50 * ms, MinRx: 50 * ms, RemoteMinTx: 50 * ms, RemoteMinRx: 50 * ms,
			TxInterval: 50 * ms, DetectionTime: 150 * ms, In: b.Status().Out, Out: got.Out, Dropped: (&drops{}).byReason(),
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(ourAddr)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if age := time.Since(got.Since); age != time.Minute {
			t.Errorf("up since %v: want 1m", age)
		}
		if got.Out < 60*20 || got.Out > 60*27+10 {
			t.Errorf("%d packets in a minute", got.Out)
		}
	})
}

// gaps checks the times between packets and returns how many there were.
func gaps(t *testing.T, sent []record, least, most time.Duration) {
	t.Helper()
	var all []time.Duration
	for i := 1; i < len(sent); i++ {
		all = append(all, sent[i].at.Sub(sent[i-1].at))
	}
	if len(all) < 20 {
		t.Fatalf("%d packets", len(sent))
	}
	low, high := slices.Min(all), slices.Max(all)
	if low < least || high > most {
		t.Errorf("%v to %v between packets: want %v to %v", low, high, least, most)
	}
	if spread := high - low; spread < (most-least)/2 {
		t.Errorf("%v to %v between packets: that is no jitter", low, high)
	}
}

// Before the session is up no side sends more than once a second (RFC 5880 §6.8.3).
func TestSlowWhileDown(t *testing.T) {
	t.Parallel()
	alone(t, nil, func(t *testing.T, s *side) {
		time.Sleep(100 * time.Second)
		sent := s.takeSent()
		gaps(t, sent, 750*ms, time.Second)
		want := packet{state: Down, mult: 3, mine: s.Status().Discriminator, minTx: time.Second, minRx: 50 * ms}
		for _, r := range sent {
			if r.packet != want {
				t.Fatalf("%+v\nwant %+v", r.packet, want)
			}
		}
	})
}

func TestIntervalsWhileUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		mult        uint8
		minTx       time.Duration
		remoteMinRx time.Duration
		least, most time.Duration
	}{
		{"ours", 3, 100 * ms, 10 * ms, 75 * ms, 100 * ms},
		{"theirs", 3, 100 * ms, 2 * time.Second, 1500 * ms, 2 * time.Second},
		{"multiplier 1", 1, 100 * ms, 10 * ms, 75 * ms, 90 * ms},
		{"slow", 3, 10 * time.Second, 10 * ms, 7500 * ms, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			alone(t, func(c *Config) { c.Multiplier, c.MinTx = tt.mult, tt.minTx }, func(t *testing.T, s *side) {
				s.raise()
				s.hear(packet{state: Up, final: true, minTx: time.Hour, minRx: tt.remoteMinRx}) // detection takes hours
				time.Sleep(tt.most)
				s.takeSent()
				time.Sleep(60 * tt.most)
				gaps(t, s.takeSent(), tt.least, tt.most)
			})
		})
	}
}

// A session is down when the detection time has passed, not before (§6.8.4).
func TestDetection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		last packet
		want time.Duration
	}{
		{"their interval", packet{state: Up, mult: 4, minTx: 200 * ms, minRx: ms, independent: true}, 800 * ms},
		{"what we can receive", packet{state: Up, mult: 5, minTx: 10 * ms, minRx: ms}, 250 * ms},
		{"one packet", packet{state: Up, mult: 1, minTx: 300 * ms, minRx: 0}, 300 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			alone(t, nil, func(t *testing.T, s *side) {
				s.raise()
				s.hear(tt.last)
				s.take()
				heard := time.Now()
				time.Sleep(tt.want - 1)
				wantChanges(t, s)
				time.Sleep(time.Nanosecond)
				got := s.take()
				want := []Change{{Previous: Up, State: Down, RemoteState: Down, Diag: DetectionTimeExpired,
					ControlPlaneIndependent: tt.last.independent, At: heard.Add(tt.want)}}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
				sent := s.takeSent()
				p := sent[len(sent)-1].packet
				if p.state != Down || p.diag != DetectionTimeExpired || p.yours != 0 || p.minTx != time.Second {
					t.Errorf("last packet %+v", p)
				}
				if st := s.Status(); st.DetectionTime != 0 || st.RemoteDiscriminator != 0 || st.Flaps != 1 {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// A session whose packets are cut in one direction goes down on both sides, and
// comes back.
func TestCutAndBack(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, a, b *side) {
		time.Sleep(time.Second)
		a.take()
		b.take()
		a.f.mu.Lock()
		a.f.cut[ourAddr] = true
		a.f.mu.Unlock()
		time.Sleep(150 * ms)
		wantChanges(t, b, Change{Previous: Up, State: Down, RemoteState: Down, Diag: DetectionTimeExpired})
		wantChanges(t, a, Change{Previous: Up, State: Down, RemoteState: Down, Diag: NeighborSignaledDown, RemoteDiag: DetectionTimeExpired})
		time.Sleep(5 * time.Second)
		a.take()
		a.f.mu.Lock()
		a.f.cut[ourAddr] = false
		a.f.mu.Unlock()
		time.Sleep(time.Second)
		for _, s := range []*side{a, b} {
			synctest.Wait()
			if st := s.Status(); st.State != Up || st.Up != 2 || st.Flaps != 1 || st.Diag != NoDiagnostic || st.Polling {
				t.Errorf("status %+v", st)
			}
		}
	})
}

// The end of a session is told, and is no fault of the path.
func TestClose(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, a, b *side) {
		b.take()
		a.takeSent()
		start := time.Now()
		a.Close()
		if took := time.Since(start); took > 50*ms {
			t.Errorf("Close took %v", took)
		}
		wantChanges(t, b, Change{Previous: Up, State: Down, RemoteState: AdminDown, Diag: NeighborSignaledDown, RemoteDiag: AdministrativelyDown})
		sent := a.takeSent()
		if len(sent) != farewells {
			t.Fatalf("%d packets: want %d", len(sent), farewells)
		}
		for _, r := range sent {
			if r.state != AdminDown || r.diag != AdministrativelyDown || r.yours != b.Status().Discriminator || r.poll {
				t.Errorf("packet %+v", r.packet)
			}
		}
		a.Close()
		if st := a.Status(); st.State != AdminDown || st.Flaps != 0 {
			t.Errorf("status %+v", st)
		}
		if st := b.Status(); st.RemoteState != AdminDown || st.Flaps != 1 {
			t.Errorf("status of the other side %+v", st)
		}
		time.Sleep(10 * time.Second) // b stays down
		wantChanges(t, b)

		a.add(a.config) // the place is free again
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if st := b.Status(); st.State != Up || st.Up != 2 {
			t.Errorf("status after the return %+v", st)
		}
	})
}

// Transitions that a peer alone decides (RFC 5880 §6.8.6).
func TestPeerDecides(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    packet
		want Change
	}{
		{"down", packet{state: Down, diag: PathDown}, Change{RemoteState: Down, RemoteDiag: PathDown}},
		{"closed", packet{state: AdminDown, diag: AdministrativelyDown}, Change{RemoteState: AdminDown, RemoteDiag: AdministrativelyDown}},
		{"restarted", packet{state: Down, mine: 78}, Change{RemoteState: Down}},
	} {
		for _, independent := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				alone(t, nil, func(t *testing.T, s *side) {
					s.raise()
					s.hear(packet{state: Up, independent: independent, minRx: ms})
					s.take()
					p := tt.p
					p.independent = !independent // is of the time after
					s.hear(p)
					want := tt.want
					want.Previous, want.State, want.Diag, want.ControlPlaneIndependent = Up, Down, NeighborSignaledDown, independent
					wantChanges(t, s, want)
				})
			})
		}
	}
}
