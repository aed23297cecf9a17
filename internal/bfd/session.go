// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueLen is how many packets wait for a session, which looks at each at once.
	queueLen = 16
	// changesLen is how many changes wait for the user.
	changesLen = 64
	// farewells is how many packets tell the other side that the session was
	// closed, farewellPause the time between them: one may get lost.
	farewells     = 3
	farewellPause = 10 * time.Millisecond
	// never is a deadline that does not come.
	never = time.Duration(1<<63 - 1)
)

// Session watches the path to one address. Node.Add makes it.
type Session struct {
	node     *Node
	config   Config // normal
	endpoint *endpoint
	out      sender
	changed  func(Change)

	in      chan packet
	changes chan Change
	stop    chan struct{} // closed when Close begins
	ended   chan struct{} // closed when Close has done its work
	stopped sync.Once
	wg      sync.WaitGroup

	// Of the session's goroutine.
	tx, detect *time.Timer
	share      float64   // of the interval until the next periodic packet, for jitter
	sent       time.Time // when the last periodic packet went
	heard      time.Time // when the last packet was accepted
	buf        [packetLen]byte

	mu       sync.Mutex // never held while sending or calling the user
	vars     variables
	sendFail string

	received, transmitted, sendErrors atomic.Uint64
	dropped                           drops
}

// start runs the session's goroutines.
func (s *Session) start() {
	s.tx, s.detect = time.NewTimer(never), time.NewTimer(never)
	s.wg.Go(s.run)
	s.wg.Go(s.notify)
}

// Close tells the other side that the session is closed by the operator (RFC
// 5880 §6.8.16), which takes some ten milliseconds, and ends it. When Close has
// returned, the function given to Add runs no more; changes that it was not told
// by then are lost. So that function must not call Close. Another Close waits
// for the first and does nothing.
func (s *Session) Close() {
	first := false
	s.stopped.Do(func() { first = true })
	if !first {
		<-s.ended
		return
	}
	defer close(s.ended)
	s.node.forget(s)
	close(s.stop)
	s.wg.Wait()
	_ = s.out.Close()
	s.node.release(s.endpoint)
}

// Status returns a snapshot; it never waits for the network or the user.
func (s *Session) Status() Status {
	s.mu.Lock()
	v, fail := s.vars, s.sendFail
	s.mu.Unlock()
	return Status{
		Local: s.config.Local, Remote: s.config.Remote, Device: s.config.Device, Multihop: s.config.Multihop,
		State: v.state, RemoteState: v.remoteState, Diag: v.diag, RemoteDiag: v.remoteDiag, Since: v.since,
		Up: v.ups, Flaps: v.flaps, Discriminator: v.discr, RemoteDiscriminator: v.remoteDiscr,
		Multiplier: v.mult, RemoteMultiplier: v.remoteMult, MinTx: v.desiredMinTx, MinRx: v.requiredMinRx,
		RemoteMinTx: v.remoteMinTx, RemoteMinRx: v.remoteMinRx, TxInterval: v.interval(), DetectionTime: v.detection(),
		RemoteIndependent: v.remoteIndep, RemoteDemand: v.remoteDemand, Polling: v.polling,
		In: s.received.Load(), Out: s.transmitted.Load(), Dropped: s.dropped.byReason(),
		SendErrors: s.sendErrors.Load(), LastSendError: fail,
	}
}

// offer puts a packet into the queue, from the reader of a socket.
func (s *Session) offer(p packet) {
	select {
	case s.in <- p:
	default:
		s.dropped.add(QueueFull)
	}
}

// run is the session's goroutine.
func (s *Session) run() {
	s.guard(s.periodic)
	for {
		select {
		case <-s.stop:
			s.guard(s.farewell)
			return
		case p := <-s.in:
			s.accept(p)
		case <-s.tx.C:
			s.guard(s.periodic)
		case <-s.detect.C:
			s.guard(s.silent)
		}
	}
}

// guard keeps a panic of f inside of the session.
func (s *Session) guard(f func()) {
	defer s.survive()
	f()
}

// survive ends a panic. The timers that were not set because of it are set when
// silent looks at them.
func (s *Session) survive() {
	if r := recover(); r != nil {
		s.dropped.add(Panicked)
		s.node.log.Error("panic in a BFD session", "remote", s.config.Remote, "panic", r, "stack", string(debug.Stack()))
		s.detect.Reset(slowest)
	}
}

// accept takes in a packet.
func (s *Session) accept(p packet) {
	defer s.survive()
	s.heard = time.Now()
	s.received.Add(1)
	before, after := s.update(func(v *variables) { v.received(p) })
	if p.poll {
		s.send(true)
	}
	s.settle(before, after)
}

// silent handles that the detection time is over. Packets that wait already,
// because the machine was busy, still count.
func (s *Session) silent() {
	select {
	case p := <-s.in:
		s.accept(p)
		return
	default:
	}
	before, after := s.update(func(v *variables) {
		if time.Since(s.heard) >= v.detection() {
			v.expired()
		}
	})
	s.settle(before, after)
}

// update changes the state variables.
func (s *Session) update(f func(*variables)) (before, after variables) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.vars
	f(&s.vars)
	if s.vars.state != before.state {
		s.vars.since = time.Now()
	}
	return before, s.vars
}

// settle does what follows from a change of the state variables: the user and
// the other side are told about a new state at once, and the timers are set.
func (s *Session) settle(before, after variables) {
	if after.state != before.state {
		s.send(false)
		s.restart()
		s.tell(Change{
			Previous: before.state, State: after.state, RemoteState: after.remoteState, Diag: after.diag,
			RemoteDiag: after.remoteDiag, ControlPlaneIndependent: after.remoteIndepUp, At: after.since,
		})
	}
	s.schedule(after)
}

// periodic sends a periodic packet.
func (s *Session) periodic() {
	s.send(false)
	s.restart()
	s.mu.Lock()
	v := s.vars
	s.mu.Unlock()
	s.schedule(v)
}

// restart begins the time to the next periodic packet, jittered on its own (RFC
// 5880 §6.8.7).
func (s *Session) restart() { s.sent, s.share = time.Now(), rand.Float64() }

// schedule sets the timers. The time to the next periodic packet counts from the
// last one, so that a shorter interval is honoured at once (RFC 5880 §6.8.3).
func (s *Session) schedule(v variables) {
	if i := v.interval(); i > 0 {
		s.tx.Reset(time.Until(s.sent.Add(jitter(i, v.mult, s.share))))
	} else {
		s.tx.Stop()
	}
	if d := v.detection(); d > 0 {
		s.detect.Reset(time.Until(s.heard.Add(d)))
	} else {
		s.detect.Stop()
	}
}

// send sends the packet that is due now; final answers a Poll.
func (s *Session) send(final bool) {
	s.mu.Lock()
	p := s.vars.packet(final)
	s.mu.Unlock()
	err := s.out.send(p.append(s.buf[:0]))
	fail := ""
	if err != nil {
		s.sendErrors.Add(1)
		fail = err.Error()
	} else {
		s.transmitted.Add(1)
	}
	s.mu.Lock()
	news := fail != s.sendFail
	s.sendFail = fail
	s.mu.Unlock()
	switch {
	case news && err != nil:
		s.node.log.Warn("BFD packets cannot be sent", "remote", s.config.Remote, "err", err)
	case news:
		s.node.log.Info("BFD packets can be sent again", "remote", s.config.Remote)
	}
}

// farewell tells the other side that the session was closed.
func (s *Session) farewell() {
	s.update((*variables).disable)
	for i := range farewells {
		if i > 0 {
			time.Sleep(farewellPause)
		}
		s.send(false)
	}
}

// tell queues a change for the user. A user who does not return stops the
// session in the end.
func (s *Session) tell(c Change) {
	select {
	case s.changes <- c:
	case <-s.stop:
	}
}

// notify calls the user, one change after the other.
func (s *Session) notify() {
	for {
		select {
		case <-s.stop:
			return
		case c := <-s.changes:
			select {
			case <-s.stop: // both were ready
				return
			default:
			}
			s.call(c)
		}
	}
}

func (s *Session) call(c Change) {
	defer func() {
		if r := recover(); r != nil {
			s.node.log.Error("panic in the user of a BFD session", "remote", s.config.Remote, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	if s.changed != nil {
		s.changed(c)
	}
}
