// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ourAddr   = netip.MustParseAddr("192.0.2.1")
	theirAddr = netip.MustParseAddr("192.0.2.2")
)

// config is that of a session from one address to another, 50 ms times 3.
func config(local, remote netip.Addr) Config {
	return Config{Local: local, Remote: remote, MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 3}
}

// record is a packet that was sent.
type record struct {
	at time.Time
	packet
}

// fabric is a network in memory.
type fabric struct {
	mu    sync.Mutex
	ears  map[place]*ear
	sent  map[netip.Addr][]record // by sender
	cut   map[netip.Addr]bool     // senders of which nothing arrives
	onOut func() error            // called for each packet sent
}

func newFabric() *fabric {
	return &fabric{ears: map[place]*ear{}, sent: map[netip.Addr][]record{}, cut: map[netip.Addr]bool{}}
}

var errNoEar = errors.New("address in use")

func (f *fabric) listen(p place) (receiver, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ears[p] != nil {
		return nil, errNoEar
	}
	e := &ear{f: f, at: p, in: make(chan heard, 100), done: make(chan struct{})}
	f.ears[p] = e
	return e, nil
}

func (f *fabric) dial(p place, to netip.Addr) (sender, error) {
	return &mouth{f: f, from: p, to: to}, nil
}

// heard is a packet on its way.
type heard struct {
	b    []byte
	from netip.Addr
	ttl  uint8
	err  error
}

// ear is a receiver in memory.
type ear struct {
	f    *fabric
	at   place
	in   chan heard
	done chan struct{}
}

func (e *ear) receive(b []byte) (int, netip.Addr, uint8, error) {
	select {
	case <-e.done:
		return 0, netip.Addr{}, 0, net.ErrClosed
	case h := <-e.in:
		return copy(b, h.b), h.from, h.ttl, h.err
	}
}

func (e *ear) Close() error {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	delete(e.f.ears, e.at)
	close(e.done)
	return nil
}

// mouth is a sender in memory.
type mouth struct {
	f    *fabric
	from place
	to   netip.Addr
}

func (m *mouth) send(b []byte) error {
	p, why := parse(b)
	if why != notDropped {
		panic("the session sends a packet that it would drop: " + why.String())
	}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.f.onOut != nil {
		if err := m.f.onOut(); err != nil {
			return err
		}
	}
	m.f.sent[m.from.local] = append(m.f.sent[m.from.local], record{time.Now(), p})
	if e := m.f.ears[place{m.to, m.from.device, m.from.multihop}]; e != nil && !m.f.cut[m.from.local] {
		e.in <- heard{b: slices.Clone(b), from: m.from.local, ttl: fullTTL}
	}
	return nil
}

func (m *mouth) Close() error { return nil }

// side is a node with one session, and what its user was told.
type side struct {
	t *testing.T
	f *fabric
	*Node
	*Session

	mu      sync.Mutex
	changes []Change
}

func newSide(t *testing.T, f *fabric, c Config, log *slog.Logger) *side {
	t.Helper()
	s := &side{t: t, f: f, Node: newNode(log, f)}
	s.add(c)
	return s
}

func (s *side) add(c Config) {
	s.t.Helper()
	var err error
	if s.Session, err = s.Add(c, s.told); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) told(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, c)
}

// take waits until nothing moves and returns the changes since the last call.
func (s *side) take() []Change {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.changes
	s.changes = nil
	return c
}

// takeSent does the same for the packets that the session sent.
func (s *side) takeSent() []record {
	synctest.Wait()
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	r := s.f.sent[s.config.Local]
	s.f.sent[s.config.Local] = nil
	return r
}

// hear gives the session a packet of the other side, filled in with what makes
// it an ordinary one, and waits until it is handled.
func (s *side) hear(p packet) {
	if p.mult == 0 {
		p.mult = 3
	}
	if p.mine == 0 {
		p.mine = 77
	}
	if p.minTx == 0 {
		p.minTx = 50 * time.Millisecond
	}
	if p.yours == 0 && p.state > Down {
		p.yours = s.vars.discr
	}
	s.accept(p)
	synctest.Wait()
}

func (s *side) accept(p packet) {
	s.Node.accept(s.place(), p.append(nil), s.config.Remote, fullTTL)
}

// raise brings the session up with a scripted other side that receives all.
func (s *side) raise() {
	s.t.Helper()
	s.hear(packet{state: Init, minRx: time.Microsecond})
	if got := s.Status().State; got != Up {
		s.t.Fatalf("state %s: want Up", got)
	}
}

// pair runs two sides that are Up in a bubble.
func pair(t *testing.T, test func(t *testing.T, a, b *side)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFabric()
		a := newSide(t, f, config(ourAddr, theirAddr), nil)
		synctest.Wait() // so its first packet is lost
		b := newSide(t, f, config(theirAddr, ourAddr), nil)
		defer func() { b.Close() }() // whichever it has by then
		defer func() { a.Close() }()
		synctest.Wait()
		for _, s := range []*side{a, b} {
			if got := s.Status().State; got != Up {
				t.Fatalf("state %s: want Up", got)
			}
		}
		test(t, a, b)
	})
}

// alone runs a side whose other side is played by the test.
func alone(t *testing.T, change func(*Config), test func(*testing.T, *side)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := config(ourAddr, theirAddr)
		if change != nil {
			change(&c)
		}
		s := newSide(t, newFabric(), c, nil)
		defer func() { s.Close() }()
		test(t, s)
	})
}
