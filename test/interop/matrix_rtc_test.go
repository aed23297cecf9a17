// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"slices"
	"testing"
)

// targets of the RT constraint session.
const targetA, targetB = "64512:100", "64512:200"

// A constrained is a session with RT constraint. The first sample of each family
// has target A, the others B.
type constrained struct {
	*pairing
	routed []string
}

// constrain has both sides ask for route targets (RFC 4684): a change of what
// one asks for makes routes appear and disappear.
func (m *matrix) constrain(t *testing.T) {
	only := []string{"RTC"}
	c := m.constrained(t, false)
	c.step(lineDial, only, c.up)
	c.step(lineReceive, only, func(t *testing.T) {
		c.peer.set(t, flat(c.theirs, 0))
		c.engine.announce(t, flat(c.ours, 0)...)
		c.ask(t, targetA)
		c.ask(t, targetA, targetB)
	})
	c.step(lineUnset, only, func(t *testing.T) { c.ask(t, targetB) })
	c.step(lineSend, only, func(t *testing.T) {
		c.asked(t, targetA)
		c.asked(t, targetA, targetB)
	})
	c.step(lineChange, only, func(t *testing.T) {
		c.asked(t, targetB)
		c.faultless(t)
	})
	c.step(lineRestart, only, func(t *testing.T) {
		c.peer.kill()
		c.engine.lost(t)
		c.peer.start(t)
		c.up(t)
		c.ask(t, targetB)
		c.asked(t, targetB)
	})
}

// constrainAccept has the peer connect for the same.
func (m *matrix) constrainAccept(t *testing.T) {
	c := m.constrained(t, true)
	c.step(lineAccept, []string{"RTC"}, func(t *testing.T) {
		c.up(t)
		c.peer.set(t, flat(c.theirs, 0))
		c.engine.announce(t, flat(c.ours, 0)...)
		c.ask(t, targetA)
		c.asked(t, targetB)
	})
}

func (m *matrix) constrained(t *testing.T, accept bool) constrained {
	t.Helper()
	c := constrained{pairing: m.pair(t, engineSetup{Passive: accept}, peerSetup{families: m.kind.families})}
	for _, family := range m.kind.families {
		if family == "RTC" {
			delete(c.ours, family)
			delete(c.theirs, family)
			continue
		}
		c.routed = append(c.routed, family)
		for _, routes := range [][]vpnRoute{c.ours[family], c.theirs[family]} {
			for i := range routes {
				if routes[i].RTs = []string{targetB}; i == 0 {
					routes[i].RTs = []string{targetA}
				}
			}
		}
	}
	return c
}

// ask makes the engine import these targets, and waits until the peer knows and
// the engine has exactly their routes.
func (c constrained) ask(t *testing.T, targets ...string) {
	t.Helper()
	c.engine.imports(t, targets...)
	var want []vpnRoute
	for _, target := range targets {
		r := membership(target)
		r.Origin, r.NextHop = "igp", c.engine.v4.String()
		want = append(want, r)
	}
	wantVPNRoutes(t, c.kind.name+" has of RTC", func() ([]vpnRoute, error) { return c.peer.received(t, "RTC") }, want)
	for _, family := range c.routed {
		c.wantEngine(t, family, having(c.theirs[family], targets))
	}
}

// asked makes the peer ask for these targets, and waits until it has exactly
// their routes.
func (c constrained) asked(t *testing.T, targets ...string) {
	t.Helper()
	routes := flat(c.theirs, 0)
	for _, target := range targets {
		routes = append(routes, membership(target))
	}
	c.peer.set(t, routes)
	for _, family := range c.routed {
		c.wantPeer(t, family, having(c.ours[family], targets))
	}
}

// having returns the routes with one of the targets.
func having(routes []vpnRoute, targets []string) []vpnRoute {
	return slices.DeleteFunc(slices.Clone(routes), func(r vpnRoute) bool { return !slices.Contains(targets, r.RTs[0]) })
}

// membership asks for a route target.
func membership(target string) vpnRoute {
	return vpnRoute{Family: "RTC", Target: "64512:" + target, NextHop: elsewhere4, LocalPref: "100"}
}
