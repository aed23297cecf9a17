// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// graph is a random graph of up to 8 VRFs on two nodes that announce each other's routes
// again, and two that have routes of their own.
type graph struct {
	*rapid.T
	nodes []*node
	hops  []*graphHop
}

type graphHop struct {
	n                  *node
	a                  vpn.Attachment
	attached           bool
	from, to, redirect []string
}

var graphRTs = []string{"64512:1", "64512:2", "64512:3", "64512:4", "64512:5", "64512:6"}

func (g *graph) draw(h *graphHop) {
	list := func(most int, what string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(graphRTs), 1, most, rapid.ID[string]).Draw(g.T, what)
	}
	h.from, h.to, h.redirect = list(2, "from"), list(2, "to"), nil
	if len(h.to) == 1 && rapid.IntRange(0, 4).Draw(g.T, "attract") == 0 {
		h.redirect = list(2, "redirect")
	}
	readvertise(strings.Join(h.from, " "), strings.Join(h.to, " "))(&h.a)
	attract(strings.Join(h.redirect, " "), "", wire.Flow{})(&h.a)
}

// change attaches a hop, changes it, or detaches it.
func (g *graph) change() {
	h := rapid.SampledFrom(g.hops).Draw(g.T, "hop")
	if h.attached && rapid.IntRange(0, 2).Draw(g.T, "detach") == 0 {
		h.detach(g.T)
		return
	}
	if h.from != nil {
		g.draw(h)
	}
	h.attach(g.T)
}

func (h *graphHop) attach(t *rapid.T) {
	if err := h.n.Attach(context.Background(), h.a); err != nil {
		t.Fatal(err)
	}
	h.attached = true
}

func (h *graphHop) detach(t *rapid.T) {
	if err := h.n.Detach(context.Background(), detachment(h.a)); err != nil {
		t.Fatal(err)
	}
	h.attached = false
}

// recordsWanted is what a route announced again must carry.
func recordsWanted(p rib.Path) []string {
	var out []string
	for _, c := range p.Attrs.Communities {
		if kind, value := c.Known(); kind == "rtrecord" || kind == "target" {
			out = append(out, value)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func recordsOf(p rib.Path) (out []string) {
	for _, c := range p.Attrs.Communities {
		if kind, value := c.Known(); kind == "rtrecord" {
			out = append(out, value)
		}
	}
	slices.Sort(out)
	return out
}

func meets(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// check looks at each hop by itself: what it announces again is what the rules make of the
// routes that it can see. So all are in a stable state together.
func (g *graph) check() {
	settle()
	for _, h := range g.hops {
		if !h.attached || h.from == nil {
			continue
		}
		i := h.n.Instance(h.a.InstanceID)
		stops := slices.Concat(h.to, h.redirect)
		best := map[string][]string{} // by prefix, the fewest RT-records
		for _, p := range h.n.rib.Paths(func(p rib.Path) bool { return p.Source != i.Name || p.Kind == rib.Peer }) {
			var targets []string
			for _, rt := range p.Attrs.RTs {
				targets = append(targets, rt.String())
			}
			key := ""
			switch p.NLRI.Kind {
			case wire.KindVPNv4:
				key = p.NLRI.Prefix().String()
			case wire.KindFlowVPNv4:
				key = wire.FlowText(p.Raw, false)
			}
			if key == "" || p.NLRI.Kind == wire.KindFlowVPNv4 && h.redirect == nil || !meets(targets, h.from) || meets(recordsOf(p), stops) {
				continue
			}
			if records := recordsWanted(p); best[key] == nil || len(records) < len(best[key]) {
				best[key] = records
			}
		}
		got := map[string][]string{}
		for _, p := range i.Readvertised() {
			records := recordsOf(p)
			if meets(records, func() (targets []string) {
				for _, rt := range p.Attrs.RTs {
					targets = append(targets, rt.String())
				}
				return targets
			}()) && !meets(records, h.from) {
				g.Fatalf("%s: a route came round: %s", h.a.InstanceID, routeText(p))
			}
			switch {
			case p.NLRI.Kind == wire.KindFlowVPNv4:
				key := wire.FlowText(p.Raw, false)
				if p.NLRI.RD == i.RD { // made for a prefix
					key = strings.TrimPrefix(key, "destination-ipv4 ")
				}
				got[key] = records
			case h.redirect == nil:
				got[p.NLRI.Prefix().String()] = records
			}
		}
		for key, want := range best {
			if len(got[key]) != len(want) {
				g.Fatalf("%s (%v to %v, redirects %v): %s announced with %v, want %d such as %v\n%s\n%s", h.a.InstanceID, h.from, h.to, h.redirect,
					key, got[key], len(want), want, strings.Join(g.nodes[0].routes(), "\n"), strings.Join(g.nodes[1].routes(), "\n"))
			}
			delete(got, key)
		}
		if len(got) > 0 {
			g.Fatalf("%s announces %v, which nobody else does", h.a.InstanceID, got)
		}
	}
}

// TestRandomChains changes random graphs of VRFs that announce each other's routes again. They settle
// in a state where none has a route that it announced itself, and nothing is left when the routes
// that all began with are gone.
func TestRandomChains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		rapid.Check(plainTB{t}, func(rt *rapid.T) {
			g := &graph{T: rt, nodes: []*node{newNode(t, setup{number: 1, rtc: true}), newNode(t, setup{number: 2, rtc: true})}}
			end := connect(g.nodes...)
			defer func() {
				end()
				g.nodes[0].stopOnce()
				g.nodes[1].stopOnce()
			}()
			for n := range 2 {
				h := &graphHop{n: g.nodes[n], a: vrf(n+1, fmt.Sprintf("203.0.113.%d", n+1), named(fmt.Sprint("origin", n)), imports(), exports(graphRTs[n]))}
				g.hops = append(g.hops, h)
				h.attach(rt)
			}
			for n := range rapid.IntRange(1, 8).Draw(rt, "hops") {
				node := g.nodes[rapid.IntRange(0, 1).Draw(rt, "node")]
				h := &graphHop{n: node, a: vrf(10+n, fmt.Sprintf("10.1.0.%d", n+1), named(fmt.Sprint("hop", n)), imports(), exports())}
				g.draw(h)
				g.hops = append(g.hops, h)
				h.attach(rt)
			}
			g.check()
			for range rapid.IntRange(0, 6).Draw(rt, "changes") {
				g.change()
				if rapid.Bool().Draw(rt, "look") {
					g.check()
				}
			}
			g.check()
			for _, h := range g.hops[:2] {
				if h.attached {
					h.detach(rt)
				}
			}
			settle()
			for _, h := range g.hops[2:] {
				if left := h.n.chainLines(h.a.InstanceID); len(left) > 0 {
					rt.Fatalf("%s is left with %s", h.a.InstanceID, left)
				}
			}
			for _, h := range g.hops {
				if h.attached {
					h.detach(rt)
				}
			}
			settle()
			for _, n := range g.nodes {
				if st := n.rib.Stats(); st.Paths != 0 || len(n.RDs())+len(n.Labels()) != 0 {
					rt.Fatalf("left: %d paths, RDs %v, labels %v", st.Paths, n.RDs(), n.Labels())
				}
			}
		})
	})
}
