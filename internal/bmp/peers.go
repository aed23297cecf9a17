// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Peers are the BGP peers of the node. Its methods are called concurrently and
// must not block.
type Peers interface {
	// Sessions returns a snapshot of all peers, each with a source of its own.
	Sessions() []Session
	// Watch calls wake, which does not block, whenever a session came up or went.
	Watch(wake func()) (cancel func())
}

// Routes has the routes of all peers. A *rib.RIB is one.
type Routes interface {
	// NewWatcher returns a watcher that begins with all routes of peers.
	NewWatcher(wake func()) *rib.Watcher
	// SourceCounts returns the number of routes of a source by family.
	SourceCounts(rib.SourceID) map[wire.Family]int
}

// Session is the state of the session with one peer.
type Session struct {
	// Source is where the RIB has the peer's routes.
	Source rib.SourceID
	// Epoch counts the sessions that were established with the peer.
	Epoch       uint64
	Established bool
	// Since is when the present state was reached.
	Since time.Time
	// Negotiated is of the present session, or the last.
	session.Negotiated
	// Down tells how the last session that is over ended.
	Down session.Loss
	// TreatAsWithdraw counts UPDATEs so far whose routes were withdrawn because of a
	// fault (RFC 7606 §2).
	TreatAsWithdraw uint64
}

// same tells whether s is the very session that o is.
func (s *Session) same(o *Session) bool {
	return s.Established && o.Established && s.Peer == o.Peer && s.Epoch == o.Epoch && s.Since.Equal(o.Since)
}

// FromSpeaker returns the peers of a speaker.
func FromSpeaker(s *speaker.Speaker) Peers { return speakerPeers{s} }

type speakerPeers struct{ *speaker.Speaker }

// Sessions implements Peers.
func (p speakerPeers) Sessions() []Session {
	neighbours := p.Neighbours()
	out := make([]Session, 0, len(neighbours))
	for _, n := range neighbours {
		i := n.Session()
		out = append(out, Session{
			Source: n.Source(), Epoch: i.Epoch, Established: i.Established, Since: i.Since, Negotiated: i.Negotiated, Down: i.Down,
			TreatAsWithdraw: n.Faults()[wire.TreatAsWithdraw],
		})
	}
	return out
}
