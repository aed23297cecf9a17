// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// A peer sends all its routes at once, as fast as TCP takes them, with End-of-RIB
// behind; then it withdraws them all in the same way.
func TestBurst(t *testing.T) {
	for _, count := range []int{50_000, 500_000} {
		t.Run(fmt.Sprint(count), func(t *testing.T) { burst(t, load{count: count, admin: 1}) })
	}
}

func burst(t *testing.T, l load) {
	addr := netip.MustParseAddr("127.1.0.1")
	n := startNode(t, setup{change: func(c *speaker.Config) {
		c.Peers = []speaker.PeerConfig{{Addr: addr, Passive: true}} // a dynamic one does not count for Converged
	}})
	n.attachTenants(nil)
	p := follow(t, addr, n.at, peerOpen(addr, vpnFamilies...), nil)
	if n.speaker.Converged() {
		t.Error("converged before the peer said anything")
	}
	if err := p.write(l.announcements(), endOfRIB(vpnFamilies...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "End-of-RIB", n.speaker.Converged)
	// End-of-RIB is noticed behind all routes, never before.
	if got := n.received(addr); got != l.count {
		t.Errorf("%d routes at End-of-RIB, want %d", got, l.count)
	}
	n.holds(l)
	n.forwards(l)
	for _, f := range vpnFamilies {
		eventually(t, "End-of-RIB of the node for "+f.String(), func() bool { return p.marked(f) == 1 })
	}
	if err := p.write(l.withdrawals()); err != nil {
		t.Fatal(err)
	}
	n.holds()
	n.forwards()
	if st := n.rib.Stats(); st.Withdrawn != uint64(l.count) || !n.established(addr) {
		t.Errorf("%+v, session established %t: want %d routes withdrawn in a session that lasts", st, n.established(addr), l.count)
	}
}

// A peer loses its session and is back with the same routes, all at once: with
// graceful restart nothing changes in the dataplane, nor in the RIB.
func TestBurstOfAPeerThatRestarts(t *testing.T) {
	l := load{count: size().cycleRoutes, admin: 1}
	n := startNode(t, setup{change: func(c *speaker.Config) {
		c.Restart = &speaker.Restart{Time: 120, StaleTime: time.Hour}
		c.Peers = []speaker.PeerConfig{{Addr: loaderAddr, Passive: true}}
	}})
	n.attachTenants(nil)
	o := peerOpen(loaderAddr, vpnFamilies...)
	o.GracefulRestart = &wire.GracefulRestart{Time: 3600}
	for _, f := range vpnFamilies {
		o.GracefulRestart.Families = append(o.GracefulRestart.Families, wire.ForwardingState{Family: f, Preserved: true})
	}
	all := append(l.announcements(), endOfRIB(vpnFamilies...)...)
	var changes uint64
	var before rib.Stats
	for session := range 4 {
		p := follow(t, loaderAddr, n.at, o, nil)
		if err := p.write(all); err != nil {
			t.Fatal(err)
		}
		eventually(t, "End-of-RIB", n.speaker.Converged)
		n.holds(l)
		n.forwards(l)
		if session == 0 {
			changes, before = n.rec.Changes(), n.rib.Stats()
		}
		p.finish()
		eventually(t, "session gone", func() bool { return !n.established(loaderAddr) })
	}
	if got := n.rec.Changes(); got != changes {
		t.Errorf("%d changes of the dataplane while the peer restarted", got-changes)
	}
	if st := n.rib.Stats(); st.Announced != before.Announced || st.Withdrawn != 0 {
		t.Errorf("%+v after restarts, %+v before", st, before)
	}
	n.forwards(l)
}
