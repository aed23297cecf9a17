// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// longestStay bounds the random time between two migrations.
const longestStay = 1500 * time.Millisecond

// migrationGap is the longest that traffic to a machine may stop at any time while it migrates, also
// on a machine that has other things to do.
const migrationGap = 3 * time.Second

// migrant is a machine in one of two places, with who sends to it.
type migrant struct {
	dataplane string
	places    [2]*vm
	near, far probes // from neighbours on both nodes, and from a third one
	attach    func(*vm)
	detach    func(*vm)
}

// TestMigration moves a machine of an E-VPN and one of a VRF between two nodes, again and again
// at random times, shorter and longer than the second within which a route may be taken for one
// that was learned late. Neighbours on both nodes and on a third one ping them all the time.
// BAGPIPE_FAULTS=full makes it 200 migrations, BAGPIPE_FAULTS_SEED repeats a run.
func TestMigration(t *testing.T) {
	t.Parallel()
	migrations := 25
	if faultsFull {
		migrations = 200
	}
	for _, tt := range []struct {
		what string
		live bool
	}{
		{"migration: attached on the new node, then detached on the old", true},
		{"migration: detached on the old node, moved, then attached on the new", false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			seed := seedOfFaults(t)
			random := rand.New(rand.NewPCG(seed, seed))
			f := newFabric(t)
			a, b, c := f.ebpfNode("a", 11), f.ebpfNode("b", 12), f.ebpfNode("c", 13)
			bridged := &migrant{
				dataplane: linuxEVPN.name, places: [2]*vm{a.vm("moving-a", 50), b.vm("moving-b", 50)},
				attach: func(v *vm) { v.attach(red) }, detach: func(v *vm) { v.detach(red) },
			}
			routed := &migrant{
				dataplane: ebpfPlane.name, places: [2]*vm{a.routed("routed-a", 4, 1500), b.routed("routed-b", 4, 1500)},
				attach: func(v *vm) { v.join(blue) }, detach: func(v *vm) { v.leave(blue) },
			}
			a1, b1, c1 := a.vm("a1", 11), b.vm("b1", 21), c.vm("c1", 31)
			bridged.start(t, c1, a1, b1)
			routed.start(t, c.routed("rc1", 3, 1500), a.routed("ra1", 1, 1500), b.routed("rb1", 2, 1500))
			machines := []*migrant{bridged, routed}
			if !tt.live { // there is no copy of the machine
				for _, m := range machines {
					m.unplug(m.places[1])
				}
			}

			w := c.watch(red)
			clock := routed.far[0]
			rows, starts := map[*migrant]*fault{}, map[*probe][]int{}
			for _, m := range machines {
				rows[m] = traffic{within: m.near, to: m.far}.fault(t, tt.what, m.dataplane, "bagpipe rr")
			}
			for n := range migrations {
				from, to := n%2, (n+1)%2
				for _, p := range slices.Concat(bridged.near, bridged.far, routed.near, routed.far) {
					starts[p] = append(starts[p], p.count())
				}
				for _, m := range machines {
					if tt.live {
						m.attach(m.places[to])
						m.detach(m.places[from])
						continue
					}
					m.detach(m.places[from])
					m.unplug(m.places[from])
					m.plug(m.places[to])
					m.attach(m.places[to])
				}
				clock.sends(random.IntN(int(longestStay / probeEvery)))
			}

			at := migrations % 2
			for _, m := range machines {
				append(m.near, m.far...).flows(40)
				rows[m].end(limits{within: migrationGap, to: migrationGap})
				m.report(t, starts)
			}
			// Nothing must be left of where the machines have been.
			for _, m := range machines {
				m.unplug(m.places[1-at])
				append(m.near, m.far...).flows(40)
			}
			here, there := []*node{a, b}[at], []*node{a, b}[1-at]
			onHere := []*vm{bridged.places[at], []*vm{a1, b1}[at]}
			here.forwards(red, forwarding{}.behind(there.addr, []*vm{a1, b1}[1-at]).behind(c.addr, c1))
			there.forwards(red, forwarding{}.behind(here.addr, onHere...).behind(c.addr, c1))
			c.forwards(red, forwarding{}.behind(here.addr, onHere...).behind(there.addr, []*vm{a1, b1}[1-at]))
			t.Logf("node c: tunnel ends of the machine's MAC changed %d times in %d migrations", len(w.of(bridged.places[0].mac)), migrations)
			if tt.live {
				wantMobility(t, bridged.places[at], c, migrations)
				wantMobility(t, bridged.places[at], there, migrations)
				// The withdrawal of the old route may come first: they are from different nodes.
				places := slices.DeleteFunc(w.of(bridged.places[0].mac), func(end string) bool { return end == gone })
				if got := len(slices.Compact(places)); got != migrations {
					t.Errorf("the machine's MAC led elsewhere at node c %d times in %d migrations: %v", got, migrations, places)
				}
				return
			}
			// With all routes withdrawn in between, the count begins anew.
			if got := bridged.places[at].mobility(); got > migrations {
				t.Errorf("sequence number %d after %d migrations", got, migrations)
			}
		})
	}
}

// seedOfFaults returns a seed and logs it.
func seedOfFaults(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("BAGPIPE_FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("BAGPIPE_FAULTS_SEED=%d", seed)
	return seed
}

// start attaches the machine in its first place and others for good, and begins the traffic.
func (m *migrant) start(t *testing.T, third *vm, neighbours ...*vm) {
	t.Helper()
	at := m.places[0]
	for _, v := range append([]*vm{at, third}, neighbours...) {
		m.attach(v)
	}
	for _, v := range append([]*vm{third}, neighbours...) {
		v.reaches(at)
	}
	for _, v := range neighbours {
		m.near = append(m.near, startEcho(t, v, at.ip4(), m.places[:]...), startEcho(t, v, at.ip6(), m.places[:]...))
	}
	m.far = probes{startEcho(t, third, at.ip4(), m.places[:]...), startEcho(t, third, at.ip6(), m.places[:]...)}
	append(m.near, m.far...).flows(10)
}

// unplug takes the cable of a machine away, plug brings it back.
func (m *migrant) unplug(v *vm) { ip(v.node.t, v.node.NS, "link set "+v.tap+" down") }
func (m *migrant) plug(v *vm)   { ip(v.node.t, v.node.NS, "link set "+v.tap+" up") }

// report logs how long the longest gaps of each migration were.
func (m *migrant) report(t *testing.T, starts map[*probe][]int) {
	t.Helper()
	for name, ps := range map[string]probes{"neighbours": m.near, "third node": m.far} {
		var gaps []time.Duration
		for _, p := range ps {
			end := p.count()
			for n, from := range starts[p] {
				to := end
				if n+1 < len(starts[p]) {
					to = starts[p][n+1]
				}
				if to > from {
					gaps = append(gaps, p.result(from, to).Longest)
				}
			}
		}
		slices.Sort(gaps)
		at := func(percent int) string {
			return fmt.Sprintf("%.1f", float64(gaps[(len(gaps)-1)*percent/100].Microseconds())/1000)
		}
		t.Logf("%s, %s: gaps of %d: median %s, 99th percentile %s, longest %s ms", m.dataplane, name, len(gaps), at(50), at(99), at(100))
	}
}

// sends waits until a probe has sent so many more packets.
func (p *probe) sends(more int) {
	p.t.Helper()
	first := p.count()
	nstest.Eventually(p.t, routeTimeout, func() bool { return p.count() >= first+more }, func() string { return "packets of " + p.name })
}

// mobility returns the MAC mobility sequence number of a machine where it is attached.
func (v *vm) mobility() int {
	v.node.t.Helper()
	for _, e := range v.node.endpoints(red, v) {
		return e.Mobility
	}
	v.node.t.Fatalf("%s has no endpoint at %s", strings.TrimPrefix(v.tap, "tap-"), v.node.label)
	return 0
}
