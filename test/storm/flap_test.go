// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// All routes come and go, again and again: those of a peer, and as many of the
// node's own. Meanwhile one peer reads slowly, one reader follows the Adj-RIB-In
// slowly, one lists everything all the time. Fast peers are not held up, memory
// stays bounded, and in the end everybody knows the same.
func TestFlaps(t *testing.T) {
	t.Run("session kept", func(t *testing.T) { newFlapping(t).test(false) })
	t.Run("session dropped", func(t *testing.T) { newFlapping(t).test(true) })
}

// flapping is a node under flaps with those who look at it.
type flapping struct {
	*node
	load     load
	loader   *follower
	fast     *follower
	slow     *sipper
	own      rib.SourceID // of the node's own routes
	listing  sync.Mutex   // held by who lists
	watcher  *rib.Watcher
	watched  map[watchedKey]string
	changes  []rib.Change
	up, down []byte // UPDATEs of the loader
}

type watchedKey struct {
	source rib.SourceID
	nlri   wire.NLRI
}

func newFlapping(t *testing.T) *flapping {
	f := &flapping{load: load{count: size().flapRoutes, admin: 1}, watched: map[watchedKey]string{}}
	f.node = startNode(t, setup{change: func(c *speaker.Config) {
		c.Peers = []speaker.PeerConfig{{Addr: loaderAddr, Passive: true}}
	}})
	f.attachTenants(nil)
	var err error
	if f.own, err = f.rib.AddSource("own", rib.Local); err != nil {
		t.Fatal(err)
	}
	f.up, f.down = f.load.announcements(), f.load.withdrawals()
	f.connect()
	fast := netip.MustParseAddr("127.1.0.2")
	f.fast = follow(t, fast, f.at, peerOpen(fast, vpnFamilies...), nil)
	f.slow = sip(t, netip.MustParseAddr("127.1.0.3"), f.at)
	f.watcher = f.rib.NewWatcher(func() {})
	t.Cleanup(f.watcher.Close)
	return f
}

// connect brings the session up that flaps.
func (f *flapping) connect() {
	f.loader = follow(f.tb, loaderAddr, f.at, peerOpen(loaderAddr, vpnFamilies...), nil)
}

// flap announces everything, and unless it is to stay takes everything back.
func (f *flapping) flap(round int, drop, stay bool) {
	f.tb.Helper()
	f.announceOwn(uint32(round + 1))
	if err := f.loader.write(f.up); err != nil {
		f.tb.Fatal(err)
	}
	if round%10 == 0 || stay {
		f.forwards(f.load) // else all may be gone before a worker looks
	}
	if stay {
		return
	}
	f.withdrawOwn()
	if drop {
		f.loader.finish()
		f.connect()
	} else if err := f.loader.write(f.down); err != nil {
		f.tb.Fatal(err)
	}
}

// halve takes all routes of the peer back and announces half of them: the other
// half must be gone, for everybody.
func (f *flapping) halve(drop bool) {
	f.tb.Helper()
	f.load.count /= 2
	half := f.load.announcements()
	if drop {
		f.loader.finish()
		f.connect()
	} else {
		half = append(slices.Clone(f.down), half...)
	}
	if err := f.loader.write(half); err != nil {
		f.tb.Fatal(err)
	}
}

// ownLoad is the node's own routes, which peers are told.
func (f *flapping) ownLoad() load { return load{count: size().flapRoutes, admin: 2} }

// announceOwn announces the node's own routes with a label that tells the round.
func (f *flapping) announceOwn(label uint32) {
	in := f.rib.NewInterner()
	l := f.ownLoad()
	var b rib.Batch
	for i := range l.count {
		set := in.InternLocal(wire.LocalAttrs{NextHop: tunnels["evpn"], RTs: []wire.RT{rt(3000 + tenantOf(i))}}.Build())
		r := l.route(i)
		r.Label = wire.LabelField(label)
		b.Hold(set)
		b.Announce(r, set)
		if b.Len() == 2048 {
			f.rib.Apply(f.own, &b)
		}
	}
	f.rib.Apply(f.own, &b)
}

func (f *flapping) withdrawOwn() {
	l := f.ownLoad()
	var b rib.Batch
	for i := range l.count {
		b.Withdraw(l.route(i).NLRI)
		if b.Len() == 2048 {
			f.rib.Apply(f.own, &b)
		}
	}
	f.rib.Apply(f.own, &b)
}

// marker is a route of the node's own that tells how far it is.
var marker = wire.MACIPRoute(wire.MakeRD(nodeID, 65535), mac(1<<24), netip.Addr{})

func (f *flapping) mark(label uint32) {
	set := f.rib.NewInterner().InternLocal(wire.LocalAttrs{NextHop: tunnels["evpn"]}.Build())
	var b rib.Batch
	b.Hold(set)
	b.Announce(wire.Route{NLRI: marker, Label: label}, set)
	f.rib.Apply(f.own, &b)
}

// watch takes what is waiting in the watcher, but leaves some.
func (f *flapping) watch(leave int) {
	more := true
	for taken, limit := 0, max(1, f.load.count-leave); more && taken < limit; taken += len(f.changes) {
		f.changes, more = f.watcher.Next(min(1000, limit-taken), f.changes[:0])
		for _, c := range f.changes {
			k := watchedKey{c.Source, c.NLRI}
			if c.Attrs == nil {
				delete(f.watched, k)
			} else {
				f.watched[k] = c.Text(c.Attrs.NextHop)
			}
		}
	}
}

// test runs the flaps.
func (f *flapping) test(drop bool) {
	stop := f.list()
	var heaps []int64
	empty, rounds := heap(), size().flaps
	for round := range rounds {
		f.flap(round, drop, false)
		f.mark(uint32(round + 1))
		// The fast peer hears of it although the slow one holds back.
		eventually(f.tb, "the fast peer is up to date", func() bool { return f.fast.label(marker) == uint32(round+1) })
		f.slow.sip(2048)
		f.watch(f.load.count / 10)
		if round%4 == 3 { // a moment without routes of the peer, to compare like with like
			f.holds()
			f.forwards()
			f.listing.Lock()
			heaps = append(heaps, heap())
			f.listing.Unlock()
		}
	}
	f.flap(rounds, drop, true)
	f.watch(f.load.count / 10)
	f.halve(drop)
	f.mark(uint32(rounds + 1))
	stop()
	f.settled(uint32(rounds + 1))
	peak := heap() - empty
	half := len(heaps) / 2
	rise := slices.Min(heaps[half:]) - slices.Min(heaps[:half])
	f.tb.Logf("all that is loaded takes %.1f MB; heap rises by %.2f MB in %d flaps", float64(peak)/1e6, float64(rise)/1e6, rounds)
	if rise > peak/5 {
		f.tb.Errorf("heap grows by %d octets; all that is loaded takes %d: %v", rise, peak, heaps)
	}
}

// list reads all listings over and over until it is stopped.
func (f *flapping) list() (stop func()) {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
			}
			f.listing.Lock()
			_ = f.rib.Paths(rib.FromSource("own"))
			for _, i := range f.Instances() {
				_ = i.Routes()
			}
			f.listing.Unlock()
		}
	})
	return sync.OnceFunc(func() { close(ended); wg.Wait() })
}

// settled checks that everybody knows the end state.
func (f *flapping) settled(last uint32) {
	f.tb.Helper()
	f.holds(f.load)
	f.forwards(f.load)
	l := f.ownLoad()
	expected := l.count + 1 + localPaths
	eventually(f.tb, "the fast peer has all", func() bool { return len(f.fast.now()) == expected && f.fast.label(marker) == last })
	told := f.fast.now()
	for i := range l.count {
		if got := told[l.route(i).NLRI].label; got != wire.LabelField(last) {
			f.tb.Fatalf("%s has label %d at the fast peer, want %d", l.route(i).NLRI, got, wire.LabelField(last))
		}
	}
	_ = f.slow.nc.SetReadBuffer(1 << 22) // enough of it
	eventually(f.tb, "the slow peer has the same", func() bool { f.slow.sip(1 << 20); return maps.Equal(told, f.slow.now()) })
	inRIB := map[watchedKey]string{}
	source := f.neighbour(loaderAddr).Source()
	for _, p := range f.rib.Paths(rib.FromSource("BGP-" + loaderAddr.String())) {
		inRIB[watchedKey{source, p.NLRI}] = p.Text(p.Attrs.NextHop)
	}
	eventually(f.tb, "the watcher knows the same", func() bool { f.watch(0); return maps.Equal(inRIB, f.watched) })
}

// sipper is a peer that reads a little now and then.
type sipper struct {
	*link
	*view
	tb  testing.TB
	buf []byte
}

// sip brings a session up with a small receive buffer: one much smaller than a
// segment of the loopback device would stall TCP.
func sip(tb testing.TB, from netip.Addr, to netip.AddrPort) *sipper {
	tb.Helper()
	s := &sipper{link: dial(tb, from, to), view: newView(), tb: tb}
	tb.Cleanup(s.abort)
	if err := s.nc.SetReadBuffer(1 << 16); err != nil {
		tb.Fatal(err)
	}
	o := peerOpen(from, vpnFamilies...)
	o.HoldTime = 0 // it is slow, not dead
	if err := s.open(o); err != nil {
		tb.Fatal(err)
	}
	return s
}

// sip reads at most so many octets of what is there.
func (s *sipper) sip(most int) {
	s.tb.Helper()
	for most > 0 {
		_ = s.nc.SetReadDeadline(time.Now().Add(time.Millisecond))
		chunk := make([]byte, min(most, 1<<16))
		n, err := s.r.Read(chunk)
		most -= n
		s.buf = append(s.buf, chunk[:n]...)
		s.messages()
		if err != nil {
			return // nothing there
		}
	}
}

// messages takes whole messages off the buffer.
func (s *sipper) messages() {
	for len(s.buf) >= wire.HeaderLen {
		typ, length, werr := wire.ParseHeader(s.buf, wire.MaxExtMessage)
		if werr != nil {
			s.tb.Fatal(werr)
		}
		if len(s.buf) < length {
			return
		}
		if typ == wire.MsgUpdate {
			if err := s.update(s.buf[wire.HeaderLen:length]); err != nil {
				s.tb.Fatal(err)
			}
		}
		s.buf = s.buf[length:]
	}
}
