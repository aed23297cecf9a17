// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// A neighbour that makes connections faster than they are taken has few of them wait: the rest is
// closed, and none is counted any more once it is taken.
func TestArrivingConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	neighbour := n.neighbour(peerAddr)
	neighbour.arriving.Store(maxArriving)
	if typ, body := connect(t, n, peerAddr).read(); typ != 0 {
		t.Errorf("%s %x on a connection beyond the bound", typ, body)
	}
	neighbour.arriving.Store(maxArriving - 1)
	connect(t, n, peerAddr).open(peerOpen(wire.EVPN))
	n.established(peerAddr)
	eventually(t, "none arrives any more", func() bool { return neighbour.arriving.Load() == maxArriving-1 })
}
