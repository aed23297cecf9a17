// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

func TestMain(m *testing.M) {
	// GoBGP forgets some of its goroutines when it stops.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer"))
}

var (
	local  = netip.MustParseAddr("192.0.2.5")
	peer1  = netip.MustParseAddr("192.0.2.1")
	peer2  = netip.MustParseAddr("192.0.2.2")
	peer6  = netip.MustParseAddr("2001:db8::6")
	peerID = netip.MustParseAddr("198.51.100.9")
	rd1    = wire.MakeRD(local, 1)
)

// fakePeers are sessions that a test sets.
type fakePeers struct {
	mu       sync.Mutex
	sessions []Session
	wakes    map[*func()]struct{}
	fail     bool // Sessions panics, once
}

func (p *fakePeers) Sessions() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail {
		p.fail = false
		panic("as the test wants it")
	}
	return slices.Clone(p.sessions)
}

func (p *fakePeers) Watch(wake func()) (cancel func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := &wake
	p.wakes[key] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.wakes, key)
	}
}

// set changes the sessions and wakes who watches.
func (p *fakePeers) set(change func(all []Session) []Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = change(p.sessions)
	for w := range p.wakes {
		(*w)()
	}
}

// world is a RIB with peers, as an Exporter sees it.
type world struct {
	testing.TB
	*fakePeers
	rib *rib.RIB
	in  *rib.Interner
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t, fakePeers: &fakePeers{wakes: map[*func()]struct{}{}}, rib: rib.New()}
	w.in = w.rib.NewInterner()
	return w
}

func (w *world) source(addr netip.Addr) rib.SourceID {
	w.Helper()
	src, err := w.rib.AddSource("BGP-"+addr.String(), rib.Peer)
	if err != nil {
		w.Fatal(err)
	}
	return src
}

// open returns an OPEN message with its content.
func open(t testing.TB, o wire.Open) (wire.Open, []byte) {
	t.Helper()
	o.HoldTime, o.Families = 90, []wire.Family{wire.EVPN, wire.FlowVPNv4}
	b, err := o.Message()
	if err != nil {
		t.Fatal(err)
	}
	return o, b
}

// watched is a RIB that remembers its watchers.
type watched struct {
	*rib.RIB
	all []*rib.Watcher
}

func (r *watched) NewWatcher(wake func()) *rib.Watcher {
	w := r.RIB.NewWatcher(wake)
	r.all = append(r.all, w)
	return w
}

// newSession returns an established session.
func (w *world) newSession(src rib.SourceID, addr netip.Addr, change func(*wire.Open)) Session {
	theirs := wire.Open{AS: 64501, RouterID: peerID, FourOctetAS: true}
	if change != nil {
		change(&theirs)
	}
	s := Session{Source: src, Epoch: 1, Established: true, Since: time.Now()}
	n := &s.Negotiated
	n.Ours, n.SentOpen = open(w, wire.Open{AS: 64500, RouterID: local, FourOctetAS: true, ExtendedMessage: true, Hostname: "node"})
	n.Theirs, n.ReceivedOpen = open(w, theirs)
	n.Local, n.Peer, n.LocalPort, n.PeerPort = local, addr, 179, 40000
	if addr.Is6() {
		n.Local = netip.MustParseAddr("2001:db8::5")
	}
	n.PeerAS, n.PeerID, n.Families = n.Theirs.AS, n.Theirs.RouterID, n.Theirs.Families
	n.FourOctetAS, n.ExtendedMessage = n.Theirs.FourOctetAS, n.Theirs.ExtendedMessage
	return s
}

// addPeer adds a peer whose session is up.
func (w *world) addPeer(addr netip.Addr) rib.SourceID {
	src := w.source(addr)
	s := w.newSession(src, addr, nil)
	w.set(func(all []Session) []Session { return append(all, s) })
	return src
}

// change changes the session of a peer.
func (w *world) change(src rib.SourceID, f func(*Session)) {
	w.set(func(all []Session) []Session {
		all = slices.Clone(all)
		for i := range all {
			if all[i].Source == src {
				f(&all[i])
			}
		}
		return all
	})
}

func lost(l session.Loss) func(*Session) {
	return func(s *Session) { s.Established, s.Since, s.Down = false, time.Now(), l }
}

func back(s *Session) { s.Established, s.Since, s.Epoch = true, time.Now(), s.Epoch+1 }

// announce applies routes of a peer that share LOCAL_PREF.
func (w *world) announce(src rib.SourceID, pref uint32, routes ...wire.Route) {
	w.Helper()
	a := wire.LocalAttrs{NextHop: peer1, LocalPref: pref}.Build()
	w.announceRaw(src, a.Raw, wire.Rules{FourOctetAS: true}, routes...)
}

func (w *world) announceRaw(src rib.SourceID, raw []byte, rules wire.Rules, routes ...wire.Route) {
	w.Helper()
	set, err := w.in.Intern(raw, peer1, rules)
	if err != nil {
		w.Fatal(err)
	}
	var b rib.Batch
	b.Hold(set)
	for _, r := range routes {
		b.Announce(r, set)
	}
	w.rib.Apply(src, &b)
}

func (w *world) withdraw(src rib.SourceID, routes ...wire.Route) {
	var b rib.Batch
	for _, r := range routes {
		b.Withdraw(r.NLRI)
	}
	w.rib.Apply(src, &b)
}

// macRoute returns an EVPN type 2 route; its name is "m<n>".
func macRoute(n int) wire.Route {
	return wire.Route{NLRI: wire.MACIPRoute(rd1, ethernet.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}, netip.Addr{}), Label: 5000}
}

func macRoutes(from, to int) (all []wire.Route) {
	for n := from; n < to; n++ {
		all = append(all, macRoute(n))
	}
	return all
}

// flowRoute returns a FlowSpec route, whose NLRI is opaque.
func flowRoute(t testing.TB) wire.Route {
	t.Helper()
	octets, err := hex.DecodeString("10" + "0001c00002050001" + "0118cb0071" + "038106")
	if err != nil {
		t.Fatal(err)
	}
	var route wire.Route
	in := wire.NewNLRIReader(wire.FlowVPNv4, octets, false)
	if ok, err := in.Next(&route); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return route
}

// pipes makes connections in memory to collectors, for tests with fake time.
type pipes struct {
	*collector
	mu     sync.Mutex
	dials  []time.Time
	refuse bool
	conns  []net.Conn
	unread bool // connections are not read
	wg     sync.WaitGroup
}

func (p *pipes) dial(context.Context, string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials = append(p.dials, time.Now())
	if p.refuse {
		return nil, io.ErrNoProgress
	}
	ours, theirs := net.Pipe()
	p.conns = append(p.conns, theirs)
	if !p.unread {
		p.wg.Go(func() { _ = p.read(theirs) })
	}
	return ours, nil
}

func (p *pipes) set(f func(*pipes)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// lastConn returns the station's side of the last connection.
func (p *pipes) lastConn() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[len(p.conns)-1]
}

// running is an exporter with one station, in fake time.
type running struct {
	*Exporter
	*pipes
	stop func(cause error)
}

// start runs an exporter in the bubble of a test; it is stopped at the latest at
// its end.
func (w *world) start(t *testing.T, change func(*Config, *pipes)) *running {
	t.Helper()
	r := &running{pipes: &pipes{collector: &collector{TB: t}}}
	c := Config{Stations: []string{"station:11019"}, Peers: w.fakePeers, Routes: w.rib, Dial: r.dial, SysName: "node", SysDescr: "test", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c, r.pipes)
	}
	var err error
	if r.Exporter, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	r.stop = func(cause error) {
		cancel(cause)
		wg.Wait()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.wg.Wait()
	}
	synctest.Wait()
	return r
}
