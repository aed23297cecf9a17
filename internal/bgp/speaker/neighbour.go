// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Neighbour is one BGP neighbour with its place in the RIB.
type Neighbour struct {
	// Name is the neighbour's name as a source of routes: "BGP-<address>".
	Name string
	// Dynamic neighbours exist only while they are connected.
	Dynamic bool

	addr    netip.Addr
	speaker *Speaker
	peer    *session.Peer
	source  rib.SourceID

	mu   sync.Mutex
	flow *flow // of the established session, or nil
}

func (s *Speaker) newNeighbour(pc PeerConfig, dynamic bool) (*Neighbour, error) {
	n := &Neighbour{Name: "BGP-" + pc.Addr.String(), Dynamic: dynamic, addr: pc.Addr, speaker: s}
	var err error
	if n.source, err = s.rib.AddSource(n.Name, rib.Peer); err != nil {
		return nil, fmt.Errorf("neighbour %s: %w", pc.Addr, err)
	}
	n.peer = session.New(session.Config{
		Peer: pc.Addr, Port: pc.Port, Local: s.Local, LocalAS: s.AS, PeerAS: s.AS, RouterID: s.RouterID,
		HoldTime: s.HoldTime, Families: s.Families, Passive: pc.Passive, Once: dynamic, RetryMax: s.RetryMax,
		Consumer: n, Log: s.Log,
	})
	return n, nil
}

// Up implements session.Consumer.
func (n *Neighbour) Up(deal session.Negotiated) session.Flow {
	f := newFlow(n, deal)
	n.mu.Lock()
	n.flow = f
	n.mu.Unlock()
	return f
}

// Status returns a snapshot of the session.
func (n *Neighbour) Status() session.Status { return n.peer.Status() }

// Config returns the session's configuration.
func (n *Neighbour) Config() session.Config { return n.peer.Config }

// Received returns the number of routes from the neighbour, by family.
func (n *Neighbour) Received() map[wire.Family]int { return n.speaker.rib.SourceCounts(n.source) }

// Announced returns the number of routes that the neighbour has from us, by family.
func (n *Neighbour) Announced() map[wire.Family]int {
	n.mu.Lock()
	f := n.flow
	n.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.exporter.Announced()
}

// Subscriptions lists what the neighbour gets: all of a family, or the route
// targets that it asked for.
func (n *Neighbour) Subscriptions() []string {
	n.mu.Lock()
	f := n.flow
	n.mu.Unlock()
	if f == nil {
		return []string{}
	}
	return f.exporter.Subscriptions()
}

// converged tells whether the neighbour has sent an End-of-RIB for all families.
func (n *Neighbour) converged() bool {
	n.mu.Lock()
	f := n.flow
	n.mu.Unlock()
	return f != nil && f.allEndOfRIB()
}

// drop forgets the flow of a session that ended.
func (n *Neighbour) drop(f *flow) {
	n.mu.Lock()
	if n.flow == f {
		n.flow = nil
	}
	n.mu.Unlock()
	n.speaker.rib.Purge(n.source)
}
