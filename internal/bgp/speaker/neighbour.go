// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Neighbour is one BGP neighbour with its place in the RIB.
type Neighbour struct {
	// Name is the neighbour's name as a source of routes: "BGP-<address>".
	Name string
	// Dynamic neighbours exist only while they are connected, or their routes are kept.
	Dynamic bool

	addr      netip.Addr
	config    PeerConfig // as it was made; what can change since is in options
	options   atomic.Pointer[Settings]
	stop      context.CancelCauseFunc // ends run
	speaker   *Speaker
	peer      *session.Peer
	source    rib.SourceID
	recovery  recovery
	forgotten chan struct{} // closed when the neighbour is gone
	arriving  atomic.Int32  // connections that wait for it
	faults    [wire.SessionReset + 1]atomic.Uint64
	ignored   atomic.Uint64

	mu   sync.Mutex
	flow *flow // of the established session, or nil
	last SessionInfo
	path *bfd.Session
}

// dynamicLinger is how long a dynamic neighbour may be without a connection.
const dynamicLinger = 5 * time.Second

func (s *Speaker) newNeighbour(pc PeerConfig, dynamic bool) (*Neighbour, error) {
	n := &Neighbour{
		Name: "BGP-" + pc.Addr.String(), Dynamic: dynamic, addr: pc.Addr, config: pc, speaker: s, stop: func(error) {},
		forgotten: make(chan struct{}),
	}
	set := s.settings(pc.Settings)
	n.options.Store(set)
	n.recovery.n = n
	var err error
	if n.source, err = s.rib.AddSource(n.Name, rib.Peer); err != nil {
		return nil, fmt.Errorf("neighbour %s: %w", pc.Addr, err)
	}
	c := session.Config{
		Peer: pc.Addr, Port: pc.Port, Local: s.Local, LocalAS: s.AS, PeerAS: set.AS, RouterID: s.RouterID,
		HoldTime: set.HoldTime, Families: set.Families, Passive: pc.Passive, RetryMax: set.RetryMax,
		Restart: n.restartCapability, LongLived: set.Restart != nil && set.Restart.LongLived > 0,
		NextHops: extendedNextHops(set.Families), Hostname: s.Hostname,
		Disabled: set.Disabled, DisabledText: set.DisabledText, PrefixPause: set.MaxPrefixesPause,
		Consumer: n, Log: s.Log,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return transport.Dial(ctx, s.Local, netip.AddrPortFrom(pc.Addr, pc.Port), set.Transport)
		},
	}
	if c.PeerAS == 0 {
		c.PeerAS = s.AS
	}
	if dynamic {
		c.Linger, c.Needed = dynamicLinger, n.recovery.active
	}
	n.peer = session.New(c)
	return n, nil
}

// extendedNextHops lists the families for which we take IPv6 next hops although
// their routes are IPv4 (RFC 8950 §3). VPNv6 has IPv4 ones in mapped form, the
// other families do not depend on the address family of the next hop.
func extendedNextHops(families []wire.Family) []wire.ExtendedNextHop {
	if slices.Contains(families, wire.VPNv4) {
		return []wire.ExtendedNextHop{{Family: wire.VPNv4, AFI: wire.VPNv6.AFI}}
	}
	return nil
}

// run keeps the session until ctx ends, or the dynamic neighbour can be forgotten.
func (n *Neighbour) run(ctx context.Context) {
	stop := n.watchPath()
	n.peer.Run(ctx)
	stop()
	n.recovery.stop()
}

// Up implements session.Consumer.
func (n *Neighbour) Up(deal session.Negotiated) session.Flow {
	n.recovery.up(deal)
	f := newFlow(n, deal)
	n.mu.Lock()
	n.flow = f
	n.last.Epoch++
	n.last.Established, n.last.Since, n.last.Negotiated = true, f.up, deal
	n.mu.Unlock()
	n.speaker.changed()
	return f
}

// down ends the flow of a session.
func (n *Neighbour) down(f *flow, loss session.Loss) {
	n.mu.Lock()
	if n.flow == f {
		n.flow = nil
		n.last.Established, n.last.Since = false, loss.At
	}
	n.last.Down = loss
	n.mu.Unlock()
	n.recovery.down(f.deal, loss)
	n.speaker.changed()
}

// current returns the flow of the established session, or nil.
func (n *Neighbour) current() *flow {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.flow
}

// Status returns a snapshot of the session.
func (n *Neighbour) Status() session.Status { return n.peer.Status() }

// Config returns the session's configuration.
func (n *Neighbour) Config() session.Config { return n.peer.Config }

// Settings returns the neighbour's options.
func (n *Neighbour) Settings() Settings { return *n.settings() }

func (n *Neighbour) settings() *Settings { return n.options.Load() }

// Source returns the neighbour's source in the RIB.
func (n *Neighbour) Source() rib.SourceID { return n.source }

// Disable closes the session and keeps it down until Enable; text goes to the
// peer's operator (RFC 9003).
func (n *Neighbour) Disable(text string) { n.peer.Disable(text) }

// Enable ends Disable, and the pause after too many routes.
func (n *Neighbour) Enable() { n.peer.Enable() }

// Reset closes the session and connects again; text goes to the peer's operator.
func (n *Neighbour) Reset(text string) { n.peer.Reset(text) }

// Refresh asks the peer for its routes again (RFC 2918), all families or some.
// The error tells why that cannot be.
func (n *Neighbour) Refresh(families ...wire.Family) error {
	f := n.current()
	switch {
	case f == nil:
		return fmt.Errorf("neighbour %s has no established session", n.addr)
	case !f.deal.RouteRefresh:
		return fmt.Errorf("neighbour %s has no route refresh capability", n.addr)
	}
	if len(families) == 0 {
		families = f.deal.Families
	}
	for _, fam := range families {
		if !slices.Contains(f.deal.Families, fam) {
			return fmt.Errorf("family %s was not negotiated with neighbour %s", fam, n.addr)
		}
	}
	for _, fam := range families {
		f.ask(fam)
	}
	return nil
}

// SessionInfo is what monitoring wants to know of a session.
type SessionInfo struct {
	// Epoch counts the established sessions.
	Epoch       uint64
	Established bool
	// Since is when the session was established, or ended.
	Since time.Time
	// Negotiated is of this session, or the last one.
	session.Negotiated
	// Down tells how the last session ended.
	Down session.Loss
}

// Session returns a snapshot of the session, as those who Watch the speaker know it.
func (n *Neighbour) Session() SessionInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

// Received returns the number of routes from the neighbour, by family.
func (n *Neighbour) Received() map[wire.Family]int { return n.speaker.rib.SourceCounts(n.source) }

// StaleCounts returns the number of routes that are kept although the neighbour
// has not announced them (again), by family.
func (n *Neighbour) StaleCounts() map[wire.Family]int { return n.speaker.rib.StaleCounts(n.source) }

// Announced returns the number of routes that the neighbour has from us, by family.
func (n *Neighbour) Announced() map[wire.Family]int {
	if f := n.current(); f != nil {
		return f.exporter.Announced()
	}
	return nil
}

// Subscriptions lists what the neighbour gets: all of a family, or the route
// targets that it asked for.
func (n *Neighbour) Subscriptions() []string {
	if f := n.current(); f != nil {
		return f.exporter.Subscriptions()
	}
	return []string{}
}

// Faults counts the faults in UPDATEs so far, by what had to be done about them.
func (n *Neighbour) Faults() map[wire.Class]uint64 {
	out := map[wire.Class]uint64{}
	for c := wire.AttributeDiscard; c <= wire.SessionReset; c++ {
		out[c] = n.faults[c].Load()
	}
	return out
}

// Ignored counts the routes so far that were ignored because they are of an
// unknown type, or make no sense (RFC 7606 §5.4).
func (n *Neighbour) Ignored() uint64 { return n.ignored.Load() }

// Disabled returns the families that a fault disabled for the rest of the session.
func (n *Neighbour) Disabled() []wire.Family {
	f := n.current()
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.disabled)
}

// Stale returns the families of which routes are kept for a neighbour that may
// be restarting.
func (n *Neighbour) Stale() []StaleFamily { return n.recovery.list() }

// converged tells whether the neighbour has sent all its routes.
func (n *Neighbour) converged() bool {
	f := n.current()
	return f != nil && f.complete()
}
