// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"testing"
	"time"
)

// New intervals are polled until the other side has answered (RFC 5880 §6.5).
func TestPollSequence(t *testing.T) {
	t.Parallel()
	alone(t, nil, func(t *testing.T, s *side) {
		time.Sleep(3 * time.Second)
		for _, r := range s.takeSent() {
			if r.poll || r.final {
				t.Fatalf("packet before there was anything to poll: %+v", r.packet)
			}
		}
		s.raise()
		s.hear(packet{state: Up, minTx: time.Hour, minRx: ms})
		s.takeSent()
		time.Sleep(time.Second)
		sent := s.takeSent()
		for _, r := range sent {
			if !r.poll || r.final || r.minTx != 50*ms {
				t.Fatalf("packet of the Poll Sequence: %+v", r.packet)
			}
		}
		if len(sent) < 18 {
			t.Errorf("%d packets in a second", len(sent))
		}
		s.hear(packet{state: Up, minTx: time.Hour, minRx: ms, final: true})
		s.takeSent()
		time.Sleep(time.Second)
		for _, r := range s.takeSent() {
			if r.poll || r.final {
				t.Fatalf("packet after Final: %+v", r.packet)
			}
		}
	})
}

// A Poll is answered at once, whatever else says that nothing may be sent (§6.8.7).
func TestFinal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		p     packet
		state State
	}{
		{"down", packet{state: AdminDown}, Down},
		{"init", packet{state: Down}, Init},
		{"up", packet{state: Up, minRx: ms}, Up},
		{"demand", packet{state: Up, minRx: ms, demand: true, final: true}, Up},
		{"no packets wanted", packet{state: Up, minRx: 0, final: true}, Up},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			alone(t, nil, func(t *testing.T, s *side) {
				if tt.state == Up {
					s.raise()
				}
				p := tt.p
				p.minTx = time.Hour
				s.hear(p)
				time.Sleep(200 * ms)
				s.takeSent()
				for range 3 {
					p.poll = true
					s.hear(p)
					sent := s.takeSent()
					if len(sent) == 0 || !sent[0].final || sent[0].poll || sent[0].state != tt.state || time.Since(sent[0].at) != 0 {
						t.Fatalf("answer %+v: want a Final in state %s", sent, tt.state)
					}
				}
			})
		})
	}
}

// Nothing periodic goes to a side in demand mode, or one that wants nothing,
// until that changes.
func TestQuiet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    packet
	}{
		{"demand", packet{demand: true, minRx: ms}},
		{"no packets wanted", packet{minRx: 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			alone(t, nil, func(t *testing.T, s *side) {
				s.raise()
				p := tt.p
				p.state, p.final, p.minTx = Up, true, time.Hour
				s.hear(p)
				s.takeSent()
				time.Sleep(time.Minute)
				if sent := s.takeSent(); len(sent) > 0 {
					t.Errorf("%d packets, the first %+v", len(sent), sent[0].packet)
				}
				s.hear(packet{state: Up, minTx: time.Hour, minRx: ms})
				if sent := s.takeSent(); len(sent) != 1 || time.Since(sent[0].at) != 0 {
					t.Errorf("%d packets at once: want 1", len(sent))
				}
				s.hear(p)
				s.takeSent()
				time.Sleep(time.Minute)
				s.hear(packet{state: Down, demand: p.demand, minRx: p.minRx})
				if sent := s.takeSent(); len(sent) == 0 || sent[0].state != Down {
					t.Error("a new state is not told")
				}
			})
		})
	}
}

// A side that comes back after it wanted no packets gets some.
func TestQuietIsForgotten(t *testing.T) {
	t.Parallel()
	alone(t, nil, func(t *testing.T, s *side) {
		s.raise()
		s.hear(packet{state: Up, minRx: 0})
		time.Sleep(time.Second)
		s.takeSent()
		time.Sleep(10 * time.Second)
		if n := len(s.takeSent()); n < 10 {
			t.Errorf("%d packets in ten seconds", n)
		}
	})
}

// A shorter interval counts from the last packet (§6.8.3).
func TestShorterIntervalAtOnce(t *testing.T) {
	t.Parallel()
	alone(t, nil, func(t *testing.T, s *side) {
		s.raise()
		s.hear(packet{state: Up, final: true, minTx: time.Hour, minRx: 10 * time.Second})
		s.takeSent()
		var sent []record
		for len(sent) == 0 {
			time.Sleep(ms)
			sent = s.takeSent()
		}
		last := sent[0].at
		time.Sleep(time.Second)
		s.hear(packet{state: Up, minTx: time.Hour, minRx: 3 * time.Second})
		time.Sleep(2 * time.Second)
		sent = s.takeSent()
		if len(sent) == 0 || sent[0].at.Sub(last) > 3*time.Second || sent[0].at.Sub(last) < 2250*ms {
			t.Fatalf("%d packets; want one 2.25 to 3 s after the last", len(sent))
		}
	})
}
