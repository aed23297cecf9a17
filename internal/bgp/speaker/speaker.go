// SPDX-License-Identifier: Apache-2.0

// Package speaker ties BGP sessions to the RIB: it runs the configured and the
// dynamic neighbours, listens for incoming connections, decodes what neighbours
// announce into the RIB (Adj-RIB-In), and sends them what the RIB has for them
// (Adj-RIB-Out).
//
// Every neighbour is a source of the RIB named "BGP-<address>". What outlives a
// session, the stale routes of a neighbour that may be restarting among them,
// belongs to the Neighbour; the rest to its flow. A Speaker's methods may be
// called concurrently.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Config describes the speaker.
type Config struct {
	AS       uint32
	RouterID netip.Addr // IPv4
	Local    netip.Addr // source of our connections, and where we listen
	Hostname string     // told to peers; "" is not
	// Settings are those of peers and groups that have none of their own.
	Settings
	Peers []PeerConfig
	// Listen accepts connections on ListenPort of Local.
	Listen     bool
	ListenPort uint16
	// Dynamic neighbours may connect from these prefixes; the longest one that
	// matches counts.
	Dynamic []Group
	// Restarting is set when the node took over forwarding state of an earlier
	// run: until all neighbours have sent their routes, at most for Deferral, none
	// is told that ours are complete (RFC 4724 §4.1). Those of the node's own
	// instances must be in the RIB before Run.
	Restarting bool
	Deferral   time.Duration
	// BFD runs the BFD sessions of the neighbours that have some; nil: none may.
	BFD *bfd.Node
	Log *slog.Logger
}

// PeerConfig describes a configured neighbour.
type PeerConfig struct {
	Addr    netip.Addr
	Port    uint16
	Passive bool
	*Settings
}

// Group describes the neighbours that may connect from a prefix.
type Group struct {
	Prefix netip.Prefix
	*Settings
}

// Settings are the options of a neighbour.
type Settings struct {
	Description string
	AS          uint32 // of the peer; 0: ours
	HoldTime    uint16 // seconds
	RetryMax    time.Duration
	Families    []wire.Family
	Transport   transport.Options
	// MaxPrefixes bounds the routes of each family, 0: no bound. A warning is
	// logged at MaxPrefixesWarning percent. Beyond the bound the peer is held down
	// for MaxPrefixesPause, or for good when that is 0.
	MaxPrefixes, MaxPrefixesWarning int
	MaxPrefixesPause                time.Duration
	// Disabled peers stay down until enabled; DisabledText is what Status says then.
	Disabled     bool
	DisabledText string
	// AllowOwnAS is how often our AS may be in the AS_PATH of a route.
	AllowOwnAS int
	// Irrelevant tells what becomes of routes that no instance imports.
	Irrelevant Irrelevant
	// Restart configures graceful restart; nil: none.
	Restart *Restart
	// BFD watches the path to the peer; nil: not. Addresses come from the peer.
	BFD *bfd.Config
}

// Irrelevant tells what becomes of routes that no instance imports.
type Irrelevant uint8

// What becomes of irrelevant routes.
const (
	// DropIfAsked drops them where the peer has route refresh, so that they can be
	// asked for again, and no RT constraint, with which it would not send them.
	DropIfAsked Irrelevant = iota
	// Keep keeps them.
	Keep
	// Drop drops them where the peer has route refresh, RT constraint or not.
	Drop
)

// Restart configures graceful restart.
type Restart struct {
	// Time is how long peers keep our routes, in seconds (RFC 4724 §3). 0: they are
	// asked to keep none, and only we keep theirs.
	Time uint16
	// Notification keeps routes after NOTIFICATIONs, too (RFC 8538).
	Notification bool
	// StaleTime is how long stale routes wait for End-of-RIB once the peer is back.
	StaleTime time.Duration
	// LongLived is how long we keep a peer's routes at most after its restart time
	// is over (RFC 9494); 0: not.
	LongLived time.Duration
}

const (
	// convergedEvery is the time between two looks at whether neighbours have sent all their routes.
	convergedEvery = 100 * time.Millisecond
	// quietTime is how long a neighbour without graceful restart has sent nothing when all its
	// routes are taken as sent.
	quietTime = 5 * time.Second
)

// maxArriving bounds the connections that a neighbour has made and that wait for its goroutine.
const maxArriving = 8

// maxDynamic bounds the neighbours that exist only because they connected.
const maxDynamic = 1000

// Speaker runs the neighbours. Make it with New, then Run it.
type Speaker struct {
	Config
	rib *rib.RIB

	changing sync.Mutex    // held by Reconfigure
	begun    chan struct{} // closed when Run has launched the neighbours

	mu         sync.Mutex
	running    context.Context     // that of Run, else nil
	listener   *transport.Listener // nil: we do not listen
	neighbours map[netip.Addr]*Neighbour
	watchers   map[*func()]struct{}
	wg         sync.WaitGroup

	restarted chan struct{} // closed when our routes are complete after a restart
}

// New returns a speaker with its configured neighbours, none connected yet.
func New(c Config, r *rib.RIB) (*Speaker, error) {
	s := &Speaker{Config: c, rib: r, neighbours: map[netip.Addr]*Neighbour{}, watchers: map[*func()]struct{}{}, restarted: make(chan struct{}), begun: make(chan struct{})}
	if !c.Restarting {
		close(s.restarted)
	}
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
// listening. The cause of ctx is what the neighbours are told; see
// session.ErrRestarting.
func (s *Speaker) Run(ctx context.Context) error {
	var lis *transport.Listener
	if s.Listen {
		var err error
		at := netip.AddrPortFrom(s.Local, s.ListenPort)
		if lis, err = transport.Listen(ctx, at); err != nil {
			return fmt.Errorf("listen for BGP on %s: %w", at, err)
		}
		if err = lis.SetKeys(s.keys(s.Peers, s.Dynamic)); err != nil {
			_ = lis.Close()
			return fmt.Errorf("listen for BGP on %s: %w", at, err)
		}
		s.wg.Go(func() { s.accept(ctx, lis) })
	}
	s.mu.Lock()
	s.running, s.listener = ctx, lis
	for _, n := range s.neighbours {
		s.launch(ctx, n)
	}
	s.mu.Unlock()
	close(s.begun)
	if s.Restarting {
		s.wg.Go(func() { s.endRestart(ctx) })
	}
	<-ctx.Done()
	s.mu.Lock()
	s.running, s.listener = nil, nil
	s.mu.Unlock()
	if lis != nil {
		_ = lis.Close()
	}
	s.wg.Wait()
	return nil
}

// launch runs a neighbour until it is stopped, alone or by the end of ctx, and
// forgets it then; configured ones are forgotten only when they are stopped alone.
// It runs with s.mu held.
func (s *Speaker) launch(ctx context.Context, n *Neighbour) {
	own, stop := context.WithCancelCause(ctx)
	n.stop = stop
	s.wg.Go(func() {
		n.run(own)
		stop(nil)
		if n.Dynamic || ctx.Err() == nil {
			s.forget(n)
		}
		close(n.forgotten)
	})
}

// forget takes a neighbour that has ended and its routes away.
func (s *Speaker) forget(n *Neighbour) {
	s.mu.Lock()
	delete(s.neighbours, n.addr)
	s.mu.Unlock()
	s.rib.RemoveSource(n.source)
}

// endRestart waits until our routes are complete after a restart, those among them that
// follow from other nodes' (service chains), and has the End-of-RIB sent that was held back.
func (s *Speaker) endRestart(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, s.Deferral)
	defer cancel()
	s.WaitConverged(limited)
	close(s.restarted)
	for _, n := range s.Neighbours() {
		if f := n.current(); f != nil {
			f.signal()
		}
	}
}

// keys lists the TCP-MD5 passwords of configured neighbours and groups.
func (s *Speaker) keys(peers []PeerConfig, groups []Group) []transport.Key {
	var keys []transport.Key
	add := func(p netip.Prefix, own *Settings) {
		if o := s.settings(own).Transport; o.Password != "" {
			keys = append(keys, transport.Key{Prefix: p, Password: o.Password})
		}
	}
	for _, p := range peers {
		add(netip.PrefixFrom(p.Addr, p.Addr.BitLen()), p.Settings)
	}
	for _, g := range groups {
		add(g.Prefix, g.Settings)
	}
	return keys
}

// settings returns given ones, or those for all.
func (s *Speaker) settings(own *Settings) *Settings {
	if own != nil {
		return own
	}
	return &s.Settings
}

// accept hands incoming connections to their neighbours.
func (s *Speaker) accept(ctx context.Context, lis *transport.Listener) {
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
		s.wg.Go(func() { s.hand(ctx, c) })
	}
}

// hand gives a connection to its neighbour.
func (s *Speaker) hand(ctx context.Context, c net.Conn) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	for {
		n := s.neighbourFor(ctx, from)
		if n == nil {
			s.Log.Info("BGP connection refused: not a neighbour", "from", from)
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.Write(wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseRejected}.Message())
			_ = c.Close()
			return
		}
		if n.arriving.Add(1) > maxArriving { // its goroutine does not get to them
			n.arriving.Add(-1)
			_ = c.Close()
			return
		}
		if n.take(ctx, c) {
			n.arriving.Add(-1)
			return
		}
		<-n.forgotten // it was on its way out
	}
}

// take gives the neighbour a connection; one that the transport refuses is closed. False: the
// neighbour was on its way out, and the connection is for the next one.
func (n *Neighbour) take(ctx context.Context, c net.Conn) bool {
	if err := n.settings().Transport.Apply(c); err != nil {
		n.speaker.Log.Warn("BGP connection refused", "from", n.addr, "err", err)
		_ = c.Close()
		return true
	}
	return n.peer.Accept(ctx, c)
}

// neighbourFor returns the neighbour for an incoming connection; one from a
// dynamic prefix is made and run when it is new.
func (s *Speaker) neighbourFor(ctx context.Context, from netip.Addr) *Neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.neighbours[from]; n != nil {
		return n
	}
	group := groupFor(s.Dynamic, from)
	if group == nil || s.isPeer(from) || len(s.neighbours) >= maxDynamic+len(s.Peers) || ctx.Err() != nil {
		return nil
	}
	n, err := s.newNeighbour(PeerConfig{Addr: from, Passive: true, Settings: group.Settings}, true)
	if err != nil {
		s.Log.Warn("dynamic neighbour", "from", from, "err", err)
		return nil
	}
	s.neighbours[from] = n
	s.launch(ctx, n)
	return n
}

// isPeer tells whether an address is that of a configured neighbour, which may be
// about to be made. It runs with s.mu held.
func (s *Speaker) isPeer(addr netip.Addr) bool {
	return slices.ContainsFunc(s.Peers, func(p PeerConfig) bool { return p.Addr == addr })
}

// groupFor returns the group with the longest prefix that contains an address.
func groupFor(groups []Group, from netip.Addr) *Group {
	var best *Group
	for i := range groups {
		if g := &groups[i]; g.Prefix.Contains(from) && (best == nil || g.Prefix.Bits() > best.Prefix.Bits()) {
			best = g
		}
	}
	return best
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

// Watch calls wake, which must not block, whenever a session comes up or goes.
func (s *Speaker) Watch(wake func()) (cancel func()) {
	key := &wake
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[key] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, key)
	}
}

func (s *Speaker) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		(*w)()
	}
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

// Answer waits until Run has begun and every neighbour has time for it. The error is
// that of ctx, with the neighbour that did not answer.
func (s *Speaker) Answer(ctx context.Context) error {
	select {
	case <-s.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, n := range s.Neighbours() {
		if err := n.peer.Answer(ctx); err != nil {
			return fmt.Errorf("neighbour %s: %w", n.addr, err)
		}
	}
	return nil
}

// WaitConverged waits until every configured neighbour has sent all its routes, that is an
// End-of-RIB for each family of its session (RFC 4724 §3) or, without graceful restart,
// nothing for a while; or ctx ends. Neighbours that the operator keeps down do not count.
func (s *Speaker) WaitConverged(ctx context.Context) {
	tick := time.NewTicker(convergedEvery)
	defer tick.Stop()
	for !s.Converged() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Converged tells whether every configured neighbour has sent all its routes; see
// WaitConverged.
func (s *Speaker) Converged() bool {
	for _, n := range s.Neighbours() {
		if !n.Dynamic && n.Status().HeldDown == "" && !n.converged() {
			return false
		}
	}
	return true
}
