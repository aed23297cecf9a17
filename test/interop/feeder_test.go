// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A feeder is a second engine that announces routes to a peer, for the peer to
// pass on as a route reflector: for those that have no routes of their own.
type feeder struct {
	*engineNode
	set []vpnRoute
}

// newFeeder starts an engine that connects to the peer.
func newFeeder(h, to *host, as int, families []string) *feeder {
	h.t.Helper()
	return &feeder{engineNode: newEngineNode(h, engineSetup{
		AS: uint32(as), PeerAS: uint32(as), Local: h.v4.String(), Peer: to.v4.String(), Families: families,
	})}
}

// replace makes these the feeder's routes.
func (f *feeder) replace(t testing.TB, routes []vpnRoute) {
	t.Helper()
	gone, news := difference(f.set, routes)
	f.withdraw(t, gone...)
	f.announce(t, news...)
	f.set = slices.Clone(routes)
}

// reflected returns a route of the feeder as a reflector passes it on.
func (f *feeder) reflected(r vpnRoute, cluster string) vpnRoute {
	r.Originator, r.Clusters = f.v4.String(), cluster
	return r
}

// difference returns what to withdraw and what to announce to get from one set
// of routes to another.
func difference(have, want []vpnRoute) (gone, news []vpnRoute) {
	has := func(list []vpnRoute, same func(vpnRoute) bool) bool { return slices.ContainsFunc(list, same) }
	for _, h := range have {
		if !has(want, func(w vpnRoute) bool { return w.key() == h.key() }) {
			gone = append(gone, h)
		}
	}
	for _, w := range want {
		if !has(have, func(h vpnRoute) bool { return cmp.Equal(h, w) }) {
			news = append(news, w)
		}
	}
	return gone, news
}
