// SPDX-License-Identifier: Apache-2.0

// Package speaker ties BGP sessions to the RIB: it runs the configured and the
// dynamic neighbours, listens for incoming connections, decodes what neighbours
// announce into the RIB (Adj-RIB-In), and sends them what the RIB has for them
// (Adj-RIB-Out).
//
// Every neighbour is a source of the RIB named "BGP-<address>". A Speaker's
// methods may be called concurrently.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Config describes the speaker.
type Config struct {
	AS       uint32
	RouterID netip.Addr // IPv4
	Local    netip.Addr // source of our connections, and where we listen
	HoldTime uint16     // seconds
	RetryMax time.Duration
	Families []wire.Family
	Peers    []PeerConfig
	// Listen accepts connections on ListenPort of Local.
	Listen     bool
	ListenPort uint16
	// Dynamic neighbours may connect from these prefixes.
	Dynamic []netip.Prefix
	Log     *slog.Logger
}

// PeerConfig describes a configured neighbour.
type PeerConfig struct {
	Addr    netip.Addr
	Port    uint16
	Passive bool
}

// maxDynamic bounds the neighbours that exist only because they connected.
const maxDynamic = 1000

// Speaker runs the neighbours. Make it with New, then Run it.
type Speaker struct {
	Config
	rib *rib.RIB

	mu         sync.Mutex
	neighbours map[netip.Addr]*Neighbour
	wg         sync.WaitGroup
}

// New returns a speaker with its configured neighbours, none connected yet.
func New(c Config, r *rib.RIB) (*Speaker, error) {
	s := &Speaker{Config: c, rib: r, neighbours: map[netip.Addr]*Neighbour{}}
	for _, pc := range c.Peers {
		if _, dup := s.neighbours[pc.Addr]; dup {
			return nil, fmt.Errorf("neighbour %s is configured twice", pc.Addr)
		}
		n, err := s.newNeighbour(pc, false)
		if err != nil {
			return nil, err
		}
		s.neighbours[pc.Addr] = n
	}
	return s, nil
}

// Run runs until ctx ends and all sessions are closed. The error is that of
// listening. The cause of ctx is what the neighbours are told.
func (s *Speaker) Run(ctx context.Context) error {
	var lis net.Listener
	if s.Listen {
		addr := net.JoinHostPort(s.Local.String(), strconv.Itoa(int(s.ListenPort)))
		var err error
		if lis, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return fmt.Errorf("listen for BGP on %s: %w", addr, err)
		}
		s.wg.Go(func() { s.accept(ctx, lis) })
	}
	for _, n := range s.Neighbours() {
		s.wg.Go(func() { n.peer.Run(ctx) })
	}
	<-ctx.Done()
	if lis != nil {
		_ = lis.Close()
	}
	s.wg.Wait()
	return nil
}

// accept hands incoming connections to their neighbours.
func (s *Speaker) accept(ctx context.Context, lis net.Listener) {
	for {
		c, err := lis.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.Log.Warn("accept BGP connection", "err", err)
			select { // e.g. out of file descriptors: do not spin
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if n := s.neighbourFor(ctx, from); n != nil {
			s.wg.Go(func() { n.peer.Accept(ctx, c) })
		} else {
			s.Log.Info("BGP connection refused: not a neighbour", "from", from)
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.Write(wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseRejected}.Message())
			_ = c.Close()
		}
	}
}

// neighbourFor returns the neighbour for an incoming connection; one from a
// dynamic prefix is made and run when it is new.
func (s *Speaker) neighbourFor(ctx context.Context, from netip.Addr) *Neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.neighbours[from]; n != nil {
		return n
	}
	if !slices.ContainsFunc(s.Dynamic, func(p netip.Prefix) bool { return p.Contains(from) }) || len(s.neighbours) >= maxDynamic+len(s.Peers) {
		return nil
	}
	n, err := s.newNeighbour(PeerConfig{Addr: from, Passive: true}, true)
	if err != nil {
		s.Log.Warn("dynamic neighbour", "from", from, "err", err)
		return nil
	}
	s.neighbours[from] = n
	s.wg.Go(func() {
		n.peer.Run(ctx)
		s.mu.Lock()
		delete(s.neighbours, from)
		s.mu.Unlock()
		s.rib.RemoveSource(n.source)
	})
	return n
}

// Neighbours returns all neighbours, by address.
func (s *Speaker) Neighbours() []*Neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Neighbour
	for _, n := range s.neighbours {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *Neighbour) int { return a.addr.Compare(b.addr) })
	return out
}

// Established counts the neighbours with an established session.
func (s *Speaker) Established() int {
	count := 0
	for _, n := range s.Neighbours() {
		if n.Status().State == session.Established {
			count++
		}
	}
	return count
}

// Converged tells whether every configured neighbour has sent all its routes,
// that is an End-of-RIB for each family of its session (RFC 4724 §3).
func (s *Speaker) Converged() bool {
	for _, n := range s.Neighbours() {
		if !n.Dynamic && !n.converged() {
			return false
		}
	}
	return true
}
