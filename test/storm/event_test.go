// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// event is one thing that happens. What makes no sense when its turn comes is
// left out, so that any part of a list of events is one, too.
type event struct {
	op     string
	peer   int          // of roles
	family wire.Family  // of End-of-RIB, refreshes
	routes []announced  // to announce or withdraw
	open   opening      // of "up" and "reopen"
	place  int          // of places
	spot   int          // of its endpoints
	rts    [2][]wire.RT // imports, exports
	pref   uint32       // of the endpoint's routes
}

// announced is a route with its attributes.
type announced struct {
	wire.Route
	attrs wire.LocalAttrs
}

// opening is what a peer's OPEN says.
type opening struct {
	graceful, preserved, longLived bool
	immediate                      bool // restart time 0
	marks                          bool // End-of-RIB of all families comes at once
}

// onSession tells whether an event is about a session that is up.
func (e event) onSession() bool { return e.op == "announce" || e.op == "End-of-RIB" }

// String is how failures show an event.
func (e event) String() string {
	var b strings.Builder
	b.WriteString(e.op)
	switch e.op {
	case "settle", "restart", "restart gracefully":
	case "attach", "detach":
		p := places[e.place]
		fmt.Fprintf(&b, " %s %v", p.id, p.endpoints[e.spot])
		if e.op == "attach" {
			fmt.Fprintf(&b, " imports %v exports %v pref %d", e.rts[0], e.rts[1], e.pref)
		}
	default:
		b.WriteString(" " + roles[e.peer].name)
	}
	switch e.op {
	case "up", "reopen":
		fmt.Fprintf(&b, " %+v", e.open)
	case "resync", "half resync", "End-of-RIB", "refresh", "ask":
		b.WriteString(" " + e.family.String())
	}
	for _, r := range e.routes {
		fmt.Fprintf(&b, "\n\t\t%s", r)
	}
	return b.String()
}

func (r announced) String() string {
	a := r.attrs.Build()
	return fmt.Sprintf("%s label %d %s seq %d", r.NLRI, r.Label, attrsText(a), a.MobilitySeq)
}

// draw makes a list of events from a seed. The peer whose irrelevant routes are
// not kept takes part in some lists only: its refreshes take their time.
func draw(seed uint64, count int) []event {
	r := rand.New(rand.NewPCG(seed, 1))
	peers := len(roles) - 1
	if seed%4 == 0 {
		peers++
	}
	ops := map[string]int{
		"up": 5, "fin": 3, "notify": 1, "cut": 1, "reset": 1, "reopen": 1, "announce": 10, "withdraw": 3, "End-of-RIB": 3, "refresh": 1,
		"ask": 1, "resync": 1, "half resync": 1, "attach": 6, "detach": 3, "settle": 2,
	}
	var names []string
	for op, weight := range ops {
		names = append(names, slices.Repeat([]string{op}, weight)...)
	}
	slices.Sort(names) // maps have no order
	var list []event
	for p := range peers {
		list = append(list, event{op: "up", peer: p, open: drawOpening(r)}, drawEvent(r, "announce", p))
	}
	for at := range places {
		e := drawEvent(r, "attach", 0)
		e.place, e.spot = at, 0
		e.rts = [2][]wire.RT{drawRTs(r, places[at].imports), drawRTs(r, places[at].exports)}
		list = append(list, e)
	}
	for range count {
		op := names[r.IntN(len(names))]
		switch r.IntN(60) {
		case 0:
			op = "restart"
		case 1:
			op = "restart gracefully"
		}
		list = append(list, drawEvent(r, op, r.IntN(peers)))
		if op == "fin" && r.IntN(2) == 0 { // what is kept now is gone soon
			list = append(list, event{op: "settle"})
		}
	}
	return append(list, event{op: "settle"})
}

func drawOpening(r *rand.Rand) opening {
	return opening{graceful: r.IntN(4) > 0, preserved: r.IntN(4) > 0, longLived: r.IntN(4) > 0, immediate: r.IntN(2) == 0, marks: r.IntN(2) == 0}
}

func drawEvent(r *rand.Rand, op string, peer int) event {
	e := event{op: op, peer: peer, open: drawOpening(r), pref: []uint32{0, 0, 150}[r.IntN(3)]}
	families := roles[peer].families
	e.family = families[r.IntN(len(families))]
	e.place = r.IntN(len(places))
	p := places[e.place]
	e.spot = r.IntN(len(p.endpoints))
	e.rts = [2][]wire.RT{drawRTs(r, p.imports), drawRTs(r, p.exports)}
	switch op {
	case "announce", "withdraw", "resync", "half resync":
		for range 1 + r.IntN(12) {
			n := universe[r.IntN(len(universe))]
			one := op == "resync" || op == "half resync"
			if fam := n.Kind.Family(); slices.Contains(families, fam) && (!one || fam == e.family) {
				e.routes = append(e.routes, drawRoute(r, n))
			}
		}
	}
	return e
}

func drawRTs(r *rand.Rand, from []int) (list []wire.RT) {
	for _, n := range from {
		if r.IntN(2) == 0 {
			list = append(list, rt(n))
		}
	}
	return list
}

// drawRoute draws what goes along with a route.
func drawRoute(r *rand.Rand, n wire.NLRI) announced {
	a := wire.LocalAttrs{NextHop: nextHops[r.IntN(len(nextHops))]}
	x := announced{Route: wire.Route{NLRI: n}}
	if n.Kind == wire.KindRTC {
		x.attrs = a
		return x
	}
	a.LocalPref, a.RTs = []uint32{100, 100, 200}[r.IntN(3)], drawRTs(r, []int{1, 2, 3, 4})
	own := encap.VXLAN
	x.Label = []uint32{5000, 5001, 5000, 5001, 0}[r.IntN(5)]
	switch n.Kind {
	case wire.KindVPNv4, wire.KindVPNv6:
		own, x.Label = encap.MPLS, wire.LabelField(uint32(16+r.IntN(2)))
	case wire.KindIMET:
		if r.IntN(4) > 0 {
			a.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: x.Label, Endpoint: a.NextHop}
		}
		x.Label = 0
	case wire.KindMACIP:
		switch r.IntN(6) {
		case 0, 1:
			a.Communities = append(a.Communities, wire.MobilityCommunity(uint32(1+r.IntN(2))))
		case 2:
			a.Communities = append(a.Communities, wire.ExtCommunity{6, 0, 1}) // sticky
		}
	}
	switch r.IntN(5) {
	case 0:
	case 1:
		a.Communities = append(a.Communities, wire.EncapCommunity(encap.GRE))
	default:
		a.Communities = append(a.Communities, wire.EncapCommunity(own))
	}
	x.attrs = a
	return x
}
