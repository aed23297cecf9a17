// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

var (
	oddAddr  = netip.MustParseAddr("127.1.0.9") // the peer that does not behave
	goodAddr = netip.MustParseAddr("127.1.0.2")
)

// bystander is a node with a peer that must not notice what another one does.
type bystander struct {
	*node
	good  *follower
	own   rib.SourceID
	count uint32
}

func newBystander(t *testing.T) *bystander {
	b := &bystander{node: startNode(t, setup{})}
	b.attachTenants(nil)
	var err error
	if b.own, err = b.rib.AddSource("own", rib.Local); err != nil {
		t.Fatal(err)
	}
	b.good = follow(t, goodAddr, b.at, peerOpen(goodAddr, vpnFamilies...), nil)
	return b
}

// unharmed checks that routes pass in both directions of the good session.
func (b *bystander) unharmed() {
	b.tb.Helper()
	b.count++
	set := b.rib.NewInterner().InternLocal(wire.LocalAttrs{NextHop: nodeAddr}.Build())
	var batch rib.Batch
	batch.Hold(set)
	batch.Announce(wire.Route{NLRI: marker, Label: b.count}, set)
	b.rib.Apply(b.own, &batch)
	eventually(b.tb, "route to the good peer", func() bool { return b.good.label(marker) == b.count })
	for _, l := range []load{{count: 30, admin: 2}, {}} {
		msgs := l.announcements()
		if l.count == 0 {
			msgs = load{count: 30, admin: 2}.withdrawals()
		}
		if err := b.good.write(msgs); err != nil {
			b.tb.Fatal(err)
		}
		eventually(b.tb, "routes of the good peer", func() bool { return b.received(goodAddr) == l.count })
	}
	if !b.established(goodAddr) || b.neighbour(goodAddr).Status().Established != 1 {
		b.tb.Error("the session with the good peer was lost")
	}
}

// gone checks that nothing is left of the odd peer's session.
func (b *bystander) gone() {
	b.tb.Helper()
	eventually(b.tb, "session ended", func() bool { return !b.established(oddAddr) })
	b.holds()
	b.forwards()
	b.unharmed()
}

// A peer whose octets come one at a time is slow, and nothing else.
func TestPeerThatDribbles(t *testing.T) {
	t.Parallel()
	b := newBystander(t)
	odd := &follower{link: dial(t, oddAddr, b.at), view: newView(), ended: make(chan struct{})}
	_ = odd.nc.SetNoDelay(true)
	l := load{count: size().dribbleRoutes, admin: 1}
	o, err := peerOpen(oddAddr, vpnFamilies...).Message()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { odd.abort(); <-odd.ended })
	go func() { // only reads: its KEEPALIVE would come in the middle of a message
		defer close(odd.ended)
		for _, _, err := odd.read(); err == nil; _, _, err = odd.read() {
		}
	}()
	var all []byte
	for _, m := range [][]byte{o, wire.Keepalive(), l.announcements(), endOfRIB(vpnFamilies...)} {
		all = append(all, m...)
	}
	for i := range all {
		if err := odd.write(all[i : i+1]); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			b.unharmed()
		}
	}
	eventually(t, "all routes", func() bool { return b.received(oddAddr) == l.count })
	b.holds(l)
	b.forwards(l)
	odd.abort()
	b.gone()
}

// shortHold is the OPEN of a peer with the shortest hold time there is.
func shortHold() wire.Open {
	o := peerOpen(oddAddr, vpnFamilies...)
	o.HoldTime = 3
	return o
}

// A peer that stops in the middle of a message is dead once the hold time is
// over, whether it is silent or goes on octet by octet and never gets to the end
// (RFC 4271 §8.2.2: a KEEPALIVE or UPDATE restarts the timer, no part of one).
func TestPeerThatStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"silent", "octet by octet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBystander(t)
			odd := dial(t, oddAddr, b.at)
			t.Cleanup(odd.abort)
			if err := odd.open(shortHold()); err != nil {
				t.Fatal(err)
			}
			l := load{count: 300, admin: 1}
			if err := odd.write(l.announcements()); err != nil {
				t.Fatal(err)
			}
			b.holds(l)
			long := wire.AppendHeader(nil, wire.MsgUpdate, 60_000)
			if err := odd.write(long, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			ended := make(chan struct{})
			if name != "silent" {
				wg.Go(func() { trickle(odd, ended) })
			}
			note, err := odd.notification()
			close(ended)
			wg.Wait()
			if err != nil || note.Code != wire.CodeHold {
				t.Errorf("NOTIFICATION %s, error %v: want hold timer expired", note, err)
			}
			b.gone()
		})
	}
}

// trickle sends an octet of a long message now and then.
func trickle(l *link, ended chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			if l.write([]byte{0}) != nil {
				return
			}
		}
	}
}

// A peer that does not read while there is much to send loses its session: it
// cannot be written to for the hold time. It makes no difference that it sends
// KEEPALIVEs. Nobody else waits for it.
func TestPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	b := newBystander(t)
	odd := dial(t, oddAddr, b.at)
	t.Cleanup(odd.abort)
	if err := odd.nc.SetReadBuffer(1 << 16); err != nil {
		t.Fatal(err)
	}
	if err := odd.open(shortHold()); err != nil {
		t.Fatal(err)
	}
	l := load{count: 300, admin: 1}
	if err := odd.write(l.announcements()); err != nil {
		t.Fatal(err)
	}
	b.holds(l)
	var last time.Time
	deadline := time.Now().Add(patience)
	for gen := uint32(0); b.established(oddAddr); gen++ {
		// More than all buffers on the way hold, at last.
		apply(b.rib, b.own, load{count: size().stuckRoutes, gen: gen % 100, admin: 2})
		if time.Since(last) > 100*time.Millisecond {
			_ = odd.write(wire.Keepalive())
			last = time.Now()
			b.unharmed()
		}
		if time.Now().After(deadline) {
			t.Fatal("the session lasts for ever")
		}
	}
	b.rib.Purge(b.own) // the instances import it
	b.gone()
}
