// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

// network makes the sockets.
type network interface {
	// listen receives the packets to a place.
	listen(place) (receiver, error)
	// dial sends packets from a place to an address, from a source port of its own.
	dial(place, netip.Addr) (sender, error)
}

// receiver is the receiving end of a place.
type receiver interface {
	// receive waits for a packet and returns its length, where it comes from, and
	// its TTL or hop limit, 0 when that is not known. The error is net.ErrClosed
	// after Close, which may come from another goroutine.
	receive(b []byte) (n int, from netip.Addr, ttl uint8, err error)
	io.Closer
}

// sender is the sending end of a session. Only one goroutine uses it.
type sender interface {
	// send sends a packet, or fails, at once.
	send(b []byte) error
	io.Closer
}

// place is where packets are received, with one socket for all sessions.
type place struct {
	local    netip.Addr
	device   string
	multihop bool
}

// remote identifies a session while a side does not know its discriminator.
type remote struct {
	place
	addr netip.Addr // without zone: the place knows the interface
}

// endpoint is a place in use.
type endpoint struct {
	place
	conn  receiver
	users int
	wg    sync.WaitGroup // the reader
	quit  chan struct{}
}

// Node has the sessions of a daemon. Its methods may be called from any
// goroutine.
type Node struct {
	log *slog.Logger
	net network
	// parse is for tests, which make it panic.
	parse   func([]byte) (packet, Reason)
	dropped drops

	// opening is held while sockets are opened and closed, so that a place has
	// one; mu is never held while waiting for anything.
	opening   sync.Mutex
	endpoints map[place]*endpoint // under opening

	mu      sync.RWMutex
	byDiscr map[uint32]*Session
	byAddr  map[remote]*Session
}

// NewNode returns a node without sessions. It has no goroutines and no sockets
// but those of its sessions. Log may be nil.
func NewNode(log *slog.Logger) *Node { return newNode(log, udp{}) }

func newNode(log *slog.Logger, n network) *Node {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Node{
		log: log, net: n, parse: parse, endpoints: map[place]*endpoint{},
		byDiscr: map[uint32]*Session{}, byAddr: map[remote]*Session{},
	}
}

// Add starts a session, in state Down. Changed is told about every transition,
// but the one that Close makes: in order, never two at a time, on a goroutine of
// the session. It may take its time, but must not call Close; it may be nil.
//
// The error tells which field of the Config is not valid, that there is a
// session of these addresses, or why a socket cannot be opened. It is no error
// that Local is not there yet: the packets are sent when it is.
func (n *Node) Add(c Config, changed func(Change)) (*Session, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("BFD session with %s: %w", c.Remote, err)
	}
	s := &Session{
		node: n, config: c.normal(), changed: changed, in: make(chan packet, queueLen),
		changes: make(chan Change, changesLen), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := n.register(s); err != nil {
		return nil, fmt.Errorf("BFD session with %s: %w", c.Remote, err)
	}
	if err := n.open(s); err != nil {
		n.forget(s)
		return nil, fmt.Errorf("BFD session with %s: %w", c.Remote, err)
	}
	s.start()
	return s, nil
}

// Dropped returns how many received packets belonged to no session, by each
// reason there is. Other drops are in the Status of their session.
func (n *Node) Dropped() map[Reason]uint64 { return n.dropped.byReason() }

func (s *Session) place() place {
	return place{s.config.Local, s.config.Device, s.config.Multihop}
}

func (s *Session) remote() remote { return remote{s.place(), s.config.Remote.WithZone("")} }

// register gives the session a discriminator and makes it known.
func (n *Node) register(s *Session) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byAddr[s.remote()] != nil {
		return errors.New("there is one already")
	}
	discr := uint32(0)
	for discr == 0 || n.byDiscr[discr] != nil {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		discr = binary.BigEndian.Uint32(b[:])
	}
	s.vars = newVariables(s.config, discr)
	s.vars.since = time.Now()
	n.byDiscr[discr], n.byAddr[s.remote()] = s, s
	return nil
}

// forget ends that packets get to the session.
func (n *Node) forget(s *Session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byDiscr, s.vars.discr)
	delete(n.byAddr, s.remote())
}

// open gives the session its sockets.
func (n *Node) open(s *Session) error {
	n.opening.Lock()
	defer n.opening.Unlock()
	e := n.endpoints[s.place()]
	if e == nil {
		conn, err := n.net.listen(s.place())
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		e = &endpoint{place: s.place(), conn: conn, quit: make(chan struct{})}
		n.endpoints[s.place()] = e
		e.wg.Go(func() { n.read(e) })
	}
	out, err := n.net.dial(s.place(), s.config.Remote)
	if err != nil {
		n.drop(e)
		return fmt.Errorf("open sending socket: %w", err)
	}
	e.users++
	s.endpoint, s.out = e, out
	return nil
}

// release takes one user from an endpoint.
func (n *Node) release(e *endpoint) {
	n.opening.Lock()
	defer n.opening.Unlock()
	e.users--
	n.drop(e)
}

// drop closes an endpoint without users. Its reader never needs the lock.
func (n *Node) drop(e *endpoint) {
	if e.users > 0 {
		return
	}
	delete(n.endpoints, e.place)
	close(e.quit)
	_ = e.conn.Close()
	e.wg.Wait()
}

// readPause is how long a reader waits after an error.
const readPause = 100 * time.Millisecond

// read hands received packets to their sessions until the endpoint is closed.
func (n *Node) read(e *endpoint) {
	buf := make([]byte, maxPacketLen+1)
	for failed := false; ; {
		k, from, ttl, err := e.conn.receive(buf)
		switch {
		case err == nil:
			failed = false
			n.accept(e.place, buf[:k], from, ttl)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case !failed:
			n.log.Warn("BFD packets cannot be received", "local", e.local, "device", e.device, "err", err)
			failed = true
		}
		select {
		case <-e.quit:
			return
		case <-time.After(readPause):
		}
	}
}

// accept gives a received packet to its session, or counts why it cannot. What
// is wrong is counted at the session with the sender, where there is one.
func (n *Node) accept(at place, b []byte, from netip.Addr, ttl uint8) {
	count := &n.dropped
	defer func() {
		if r := recover(); r != nil {
			count.add(Panicked)
			n.log.Error("panic while decoding a BFD packet", "remote", from, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	n.mu.RLock()
	s := n.byAddr[remote{at, from.WithZone("")}]
	n.mu.RUnlock()
	if s != nil {
		count = &s.dropped
	}
	p, why := n.parse(b)
	if why == notDropped && p.yours != 0 {
		s = n.owner(at, p.yours)
	}
	if s != nil && why == notDropped {
		count = &s.dropped
	}
	switch {
	case why != notDropped:
	case s == nil:
		why = UnknownSession
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		why = BadState
	case p.auth:
		why = Authenticated
	case ttl == 0 || ttl < s.config.MinTTL:
		why = LowTTL
	default:
		s.offer(p)
		return
	}
	count.add(why)
}

// owner returns the session that has a discriminator. The sender's address does
// not matter (RFC 5880 §6.3); but the TTL rules of a place must not be evaded by
// way of another.
func (n *Node) owner(at place, discr uint32) *Session {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if s := n.byDiscr[discr]; s != nil && s.place() == at {
		return s
	}
	return nil
}
