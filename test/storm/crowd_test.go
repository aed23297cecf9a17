// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"net/netip"
	"sync"
	"testing"
)

// Many neighbours that the node has never heard of connect at once, each with
// some routes, and go at once: in order, or with a RST. Nothing of them is left.
func TestCrowd(t *testing.T) {
	s := size()
	n := startNode(t, setup{})
	n.attachTenants(nil)
	n.forwards()
	var before, now resources
	for range 2 { // the first one is the measure of the second
		before = now
		crowd := n.invite(s.crowd, s.crowdRoutes)
		var wg sync.WaitGroup
		for i, p := range crowd {
			wg.Go(func() {
				if i%2 == 0 {
					p.abort()
				} else {
					p.finish()
				}
			})
		}
		wg.Wait()
		n.holds()
		n.forwards()
		eventually(t, "all neighbours forgotten", func() bool { return len(n.speaker.Neighbours()) == 0 })
		now = n.quiet()
	}
	if now.goroutines > before.goroutines || now.fds > before.fds || now.sets != before.sets || now.interned != before.interned || now.targets != before.targets {
		t.Errorf("left behind: %s; before: %s", now, before)
	}
	if source, err := n.rib.AddSource("probe", 0); err != nil || int(source) != 2*tenants {
		t.Errorf("AddSource() = %d, %v: want %d, for all others are free again", source, err, 2*tenants)
	}
}

// invite brings a crowd up at once, and waits until the node has all its routes.
func (n *node) invite(count, routes int) []*follower {
	n.tb.Helper()
	crowd := make([]*follower, count)
	var wg sync.WaitGroup
	for i := range crowd {
		addr := netip.AddrFrom4([4]byte{127, 1, byte(1 + i/200), byte(1 + i%200)})
		wg.Go(func() { crowd[i] = join(n.tb, n, addr, load{count: routes, admin: 1}) })
	}
	wg.Wait()
	if n.tb.Failed() {
		n.tb.FailNow()
	}
	eventually(n.tb, "all sessions", func() bool { return n.speaker.Established() == count })
	// They all have the same routes, so each entry has as many candidates.
	eventually(n.tb, "all routes", func() bool { return n.rib.Stats().Paths == localPaths+count*routes })
	n.forwards(load{count: routes, admin: 1})
	if got := len(n.speaker.Neighbours()); got != count {
		n.tb.Errorf("%d neighbours, want %d", got, count)
	}
	return crowd
}

// localPaths is what the endpoints of attachTenants announce: a host route each,
// and the multicast route of an EVI.
const localPaths = 3 * tenants

// join brings a session up and announces a load.
func join(t testing.TB, n *node, addr netip.Addr, l load) *follower {
	p := &follower{link: dial(t, addr, n.at), view: newView(), ended: make(chan struct{})}
	if err := p.open(peerOpen(addr, vpnFamilies...)); err != nil {
		close(p.ended)
		t.Error(err)
		return p
	}
	go p.loop()
	if err := p.write(l.announcements(), endOfRIB(vpnFamilies...)); err != nil {
		t.Error(err)
	}
	return p
}
