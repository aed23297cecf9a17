// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	// moves is how often the machine moves between the nodes.
	moves = 5
	// stay is how long it stays, in packets of a probe: more than a second. A
	// move sooner than that may be taken for a route that was learned late.
	stay = 220
)

// TestPortMoves is a live migration, again and again: the machine's port is
// attached on the new node while the old one still has it, then detached there.
// A copy of the machine on either node answers, so that whatever gets lost is
// the network's fault. A third node, and a neighbour on the first one, ping it
// all the time.
func TestPortMoves(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b, c := f.node("a", 11), f.node("b", 12), f.node("c", 13)
	onA, onB := a.vm("moving-a", 50), b.vm("moving-b", 50)
	neighbour, third := a.vm("a1", 11), c.vm("c1", 31)
	for _, v := range []*vm{onA, neighbour, third} {
		v.attach(red)
	}
	b.vm("b1", 21).attach(red) // so that B's instance is there before the first move
	third.reaches(onA)
	neighbour.reaches(onA, third)

	w := c.watch(red)
	probes := []*probe{startEcho(t, third, onA.ip4(), onA, onB), startEcho(t, third, onA.ip6(), onA, onB), startEcho(t, neighbour, onA.ip4(), onA, onB)}
	settle := func() {
		for i, p := range probes {
			p.flows([]int{stay, 10, 10}[i])
		}
	}
	settle()
	start := probes[0].count()
	want := []string{}
	from, to := onA, onB
	for move := 1; move <= moves; move++ {
		to.attach(red)
		w.leads(onA.mac, to.node.addr.String())
		from.detach(red)
		want = append(want, to.node.addr.String())
		wantMobility(t, to, c, move)
		from.node.leads(onA.mac, to.node)
		settle()
		from, to = to, from
	}
	// Detaching must not have changed anything on the third node.
	if diff := cmp.Diff(want, w.of(onA.mac)); diff != "" {
		t.Errorf("tunnel ends of the machine's MAC at node c, in order (-want +got):\n%s", diff)
	}
	w.never(gone, onA)
	for _, p := range probes {
		if o := p.stop(start); o.Longest > 100*time.Millisecond {
			t.Errorf("%s: %v", p.name, o)
		}
	}
}

// wantMobility checks the MAC mobility sequence number of a machine after its
// move: at the node where it is, and in the routes that another one has.
func wantMobility(t *testing.T, v *vm, elsewhere *node, want int) {
	t.Helper()
	for _, e := range v.node.endpoints(red, v) {
		if e.Mobility != want {
			t.Errorf("endpoint %s %s at %s has sequence number %d, want %d", e.MAC, e.IP, v.node.label, e.Mobility, want)
		}
	}
	community := fmt.Sprintf("mac-mobility:%d", want)
	eventually(t, routeTimeout, func() error {
		got, err := elsewhere.routesOf(v)
		if err != nil {
			return err
		}
		for _, r := range got {
			if r.NextHop != v.node.addr.String() || !r.has(community) {
				return fmt.Errorf("a route to %s at %s: %+v, want %s by %s", v.mac, elsewhere.label, r, community, v.node.addr)
			}
		}
		if len(got) != 2 {
			return fmt.Errorf("%d routes to %s at %s, want 2", len(got), v.mac, elsewhere.label)
		}
		return nil
	})
}

// leads waits until the node's kernel sends what is for a MAC to another node.
func (n *node) leads(mac string, to *node) {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		got, err := n.forwarding(red)
		if err == nil && got.MACs[mac] != to.addr.String() {
			err = fmt.Errorf("%s leads to %q at %s, want %s; all: %v", mac, got.MACs[mac], n.label, to.addr, slices.Sorted(maps.Keys(got.MACs)))
		}
		return err
	})
}
