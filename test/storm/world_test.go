// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// world is a node with its peers, and the model beside it.
type world struct {
	tb      testing.TB
	m       *model
	n       *node
	plane   *fake.Plane
	drivers map[dataplane.VPNType]dataplane.Driver
	players []*player
}

// player plays one peer.
type player struct {
	role
	number int
	f      *talk // nil while there is no session
}

func newWorld(tb testing.TB) *world {
	w := &world{tb: tb, m: newModel(), plane: fake.NewPlane()}
	for i, r := range roles {
		w.players = append(w.players, &player{role: r, number: i})
	}
	w.start(false)
	return w
}

// start starts the node, perhaps with what an earlier one left in the plane.
func (w *world) start(restarting bool) {
	w.drivers = w.plane.Drivers()
	w.n = startNode(w.tb, setup{drivers: w.drivers, rtc: true, change: func(c *speaker.Config) {
		speakerConfig(c)
		c.Restarting, c.Deferral = restarting, 0 // players come later, when all is attached again
	}})
}

// stop ends the node; the plane stays.
func (w *world) stop() {
	w.n.stop()
	for _, d := range w.drivers {
		_ = d.Close()
	}
	for _, p := range w.players {
		if p.f != nil {
			<-p.f.ended
			p.close()
		}
	}
}

// do carries out an event in the node and in the model, unless it makes no sense.
func (w *world) do(e event) {
	w.tb.Helper()
	if !w.m.can(e) {
		return
	}
	p := w.players[e.peer]
	switch e.op {
	case "settle":
		w.settle()
	case "restart", "restart gracefully":
		w.restart(e.op != "restart")
	case "attach", "detach":
		w.plug(e)
	case "up", "reopen":
		w.open(p, e)
	case "refresh":
		p.f.say(func() []byte { return wire.RouteRefresh(e.family, wire.RefreshRequest) })
	case "ask":
		if err := w.n.neighbour(p.addr).Refresh(e.family); err != nil {
			w.tb.Fatal(err)
		}
	case "announce", "withdraw", "End-of-RIB", "resync":
		p.f.say(func() []byte { return p.f.messages(e) })
	default:
		w.down(p, e)
	}
	w.m.do(e)
	switch e.op {
	case "fin", "notify", "cut", "reset", "half resync":
		w.ended(p)
	}
}

// plug attaches or detaches.
func (w *world) plug(e event) {
	p := places[e.place]
	a := p.attachment(p.endpoints[e.spot], e.rts[0], e.rts[1], e.pref)
	var err error
	if e.op == "attach" {
		err = w.n.Attach(context.Background(), a)
	} else {
		err = w.n.Detach(context.Background(), vpn.Detachment{Type: a.Type, InstanceID: a.InstanceID, MAC: a.MAC, IP: a.IP.Addr()})
	}
	if err != nil {
		w.tb.Fatalf("%s: %v", e, err)
	}
}

// restart starts the node again and attaches all that was attached.
func (w *world) restart(gracefully bool) {
	w.stop()
	w.start(gracefully)
	for at, i := range w.m.instances {
		for spot, a := range i.endpoints {
			w.plug(event{op: "attach", place: at, spot: spot, rts: [2][]wire.RT{i.imports, i.exports}, pref: a.LocalPref})
		}
	}
}

// settle waits until node and model are the same, and looks whether they stay so
// when every peer asks for everything again. Then the plane must have what is
// desired, and nothing else.
func (w *world) settle() {
	w.tb.Helper()
	w.agree("after the events")
	for _, p := range w.players {
		if p.f != nil {
			for _, f := range p.families {
				w.do(event{op: "refresh", peer: p.number, family: f})
			}
		}
	}
	w.agree("after all routes were sent again")
	w.n.rec.Sweep(context.Background())
	for _, p := range places {
		desired := []string{}
		if i := w.n.Instance(p.id); i != nil {
			for _, e := range i.Forwarding().Entries() {
				desired = append(desired, e.String())
			}
		}
		slices.Sort(desired)
		if diff := cmp.Diff(desired, append([]string{}, w.plane.Entries(p.typ, p.id)...)); diff != "" {
			w.tb.Fatalf("plane of %s (-desired +installed):\n%s", p.id, diff)
		}
	}
	if b := w.plane.Breaches(); len(b) > 0 {
		w.tb.Fatalf("contract of the driver broken: %v", b)
	}
}

// agree waits until node and model are the same.
func (w *world) agree(when string) {
	w.tb.Helper()
	want := w.m.state()
	var got state
	wait := 20 * time.Second
	if x, ok := w.tb.(*trial); ok {
		wait = x.patience
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) {
		if got = w.state(); got.equal(want) {
			return
		}
		if time.Now().After(deadline) {
			w.tb.Fatalf("%s (-model +node):\n%s", when, cmp.Diff(want, got))
		}
	}
}

// end takes everything away: nothing may be left.
func (w *world) end() {
	w.tb.Helper()
	for i, p := range w.players {
		if p.f != nil {
			w.do(event{op: "notify", peer: i})
		}
		w.m.peers[i].reset() // routes kept for peers that restart go below
	}
	for _, at := range slices.Collect(maps.Keys(w.m.instances)) {
		for _, spot := range slices.Collect(maps.Keys(w.m.instances[at].endpoints)) {
			w.do(event{op: "detach", place: at, spot: spot})
		}
	}
	for _, p := range w.players {
		if x := w.n.neighbour(p.addr); x != nil {
			w.n.rib.Purge(x.Source())
		}
	}
	eventually(w.tb, "an empty RIB", func() bool { return w.n.rib.Stats().Paths == 0 })
	if sets, interned, targets := ribSizes(w.n.rib); sets+targets > 0 || interned > 1 { // the set of RTC routes stays
		w.tb.Errorf("left behind: %d sets, %d interned, %d route targets", sets, interned, targets)
	}
	if got := w.plane.String(); got != "" || len(w.n.Labels())+len(w.n.RDs()) > 0 {
		w.tb.Errorf("left behind: labels %v, RDs %v, plane\n%s", w.n.Labels(), w.n.RDs(), got)
	}
}
