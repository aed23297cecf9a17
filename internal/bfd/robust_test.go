// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A panic while decoding costs the packet, not the daemon.
func TestPanicWhileDecoding(t *testing.T) {
	t.Parallel()
	logged(t, func(t *testing.T, s *side, log *syncBuffer) {
		s.raise()
		s.parse = func([]byte) (packet, Reason) { panic("index out of range, say") }
		s.hear(packet{state: Up})
		s.parse = parse
		s.hear(packet{state: Up, minRx: ms})
		if st := s.Status(); st.Dropped[Panicked] != 1 || st.In != 2 || st.State != Up {
			t.Errorf("status %+v", st)
		}
		if got := log.String(); !strings.Contains(got, "index out of range, say") || !strings.Contains(got, "remote=192.0.2.2") {
			t.Errorf("log: %s", got)
		}
	})
}

// A panic of a session's own does not stop it: not its packets, nor detection.
func TestPanicInSession(t *testing.T) {
	t.Parallel()
	logged(t, func(t *testing.T, s *side, log *syncBuffer) {
		s.raise()
		s.hear(packet{state: Up, minTx: 700 * ms, minRx: ms})
		broken := true
		s.f.mu.Lock()
		s.f.onOut = func() error {
			if broken {
				broken = false
				panic("nil map, say")
			}
			return nil
		}
		s.f.mu.Unlock()
		time.Sleep(100 * ms)
		s.takeSent()
		time.Sleep(1500 * ms)
		if n := len(s.takeSent()); n < 8 {
			t.Errorf("%d packets after the panic", n)
		}
		if st := s.Status(); st.State != Up || st.Dropped[Panicked] != 1 {
			t.Errorf("status %+v", st)
		}
		time.Sleep(600 * ms)
		synctest.Wait()
		if st := s.Status(); st.State != Down {
			t.Errorf("status after the detection time %+v", st)
		}
		if got := log.String(); !strings.Contains(got, "nil map, say") {
			t.Errorf("log: %s", got)
		}
	})
}

// What cannot be sent is tried again, and said once.
func TestSendErrors(t *testing.T) {
	t.Parallel()
	logged(t, func(t *testing.T, s *side, log *syncBuffer) {
		down := true
		s.f.mu.Lock()
		s.f.onOut = func() error {
			if down {
				return errors.New("network is unreachable")
			}
			return nil
		}
		s.f.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := s.Status(); st.SendErrors < 9 || st.LastSendError != "network is unreachable" || st.Out != 0 {
			t.Errorf("status %+v", st)
		}
		s.f.mu.Lock()
		down = false
		s.f.mu.Unlock()
		s.raise()
		if st := s.Status(); st.LastSendError != "" || st.Out == 0 {
			t.Errorf("status %+v", st)
		}
		if got := log.String(); strings.Count(got, "cannot be sent") != 1 || strings.Count(got, "can be sent again") != 1 {
			t.Errorf("log: %s", got)
		}
	})
}

// A reader survives errors of its socket, and does not spin.
func TestReceiveErrors(t *testing.T) {
	t.Parallel()
	logged(t, func(t *testing.T, s *side, log *syncBuffer) {
		start, in := time.Now(), s.endpoint.conn.(*ear).in
		for range 5 {
			in <- heard{err: errors.New("network is down")}
		}
		in <- heard{b: packet{state: Down, mult: 3, mine: 77}.append(nil), from: theirAddr, ttl: fullTTL}
		for s.Status().In == 0 {
			time.Sleep(ms)
		}
		if d := time.Since(start); d < 5*readPause || d > 6*readPause {
			t.Errorf("the reader took %v", d)
		}
		if got := log.String(); strings.Count(got, "cannot be received") != 1 {
			t.Errorf("log: %s", got)
		}
		in <- heard{err: errors.New("network is down")} // Close does not wait for it
		synctest.Wait()
	})
}

// A user that takes its time, or panics, delays no packets; nor does the status
// wait for it.
func TestSlowUser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, release := newFabric(), make(chan struct{})
		s := &side{t: t, f: f, Node: newNode(nil, f)}
		var err error
		s.Session, err = s.Add(config(ourAddr, theirAddr), func(c Change) {
			s.told(c)
			<-release
			panic("mistake of the user")
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.hear(packet{state: Down, minRx: ms})
		s.raise()
		s.hear(packet{state: Down, minRx: ms})
		s.takeSent()
		time.Sleep(10 * time.Second)
		if n := len(s.takeSent()); n < 9 {
			t.Errorf("%d packets", n)
		}
		if n := len(s.take()); n != 1 {
			t.Errorf("%d changes told at a time", n)
		}
		close(release)
		var got []string
		for _, c := range s.take() {
			got = append(got, c.Previous.String()+" "+c.State.String())
		}
		if want := "Init Up, Up Down"; strings.Join(got, ", ") != want {
			t.Errorf("then %q: want %q", got, want)
		}
	})
}

// After Close the user is not called, although changes wait, and a user that
// let far too many wait does not hold it up.
func TestCloseWithChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, calls, release := newFabric(), 0, make(chan struct{})
		s := &side{t: t, f: f, Node: newNode(nil, f)}
		var err error
		if s.Session, err = s.Add(config(ourAddr, theirAddr), func(Change) { calls++; <-release }); err != nil {
			t.Fatal(err)
		}
		for range changesLen {
			s.hear(packet{state: Init})
			s.hear(packet{state: Down})
		}
		if got := s.Status(); got.In > changesLen+2 || got.Dropped[QueueFull] == 0 {
			t.Errorf("status %+v", got)
		}
		done := make(chan struct{})
		go func() { s.Close(); close(done) }()
		synctest.Wait()
		time.Sleep(time.Minute)
		select {
		case <-done:
			t.Error("Close does not wait for the user")
		default:
		}
		close(release)
		<-done
		if calls != 1 {
			t.Errorf("%d calls: want 1", calls)
		}
	})
}

// Packets that wait when the detection time is over still count.
func TestLatePacketsCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(nil, newFabric())
		s := &Session{node: n, config: config(ourAddr, theirAddr).normal(), in: make(chan packet, 1), changes: make(chan Change, 1)}
		s.out = &mouth{f: newFabric()}
		if err := n.register(s); err != nil {
			t.Fatal(err)
		}
		s.tx, s.detect = time.NewTimer(never), time.NewTimer(never)
		up := packet{state: Up, mine: 5, mult: 3, minTx: 50 * ms, minRx: ms}
		s.vars.state = Up
		s.accept(up)
		time.Sleep(200 * ms)
		s.offer(up)
		s.silent()
		if got := s.Status(); got.State != Up || got.In != 2 {
			t.Errorf("status %+v", got)
		}
		s.silent() // a timer that fires early means nothing
		if got := s.Status(); got.State != Up {
			t.Errorf("status %+v", got)
		}
		time.Sleep(150 * ms)
		s.silent()
		if got := s.Status(); got.State != Down {
			t.Errorf("status %+v", got)
		}
	})
}

func TestAcceptAllocatesNothing(t *testing.T) {
	n := newNode(nil, newFabric())
	s := &Session{node: n, config: config(ourAddr, theirAddr).normal(), in: make(chan packet, 1)}
	if err := n.register(s); err != nil {
		t.Fatal(err)
	}
	b := packet{state: Up, mine: 5, mult: 3, yours: s.vars.discr}.append(nil)
	at := s.place()
	if got := testing.AllocsPerRun(100, func() { n.accept(at, b, theirAddr, fullTTL); <-s.in }); got != 0 {
		t.Errorf("%v allocations per packet", got)
	}
}
