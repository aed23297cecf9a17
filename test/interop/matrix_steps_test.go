// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"slices"
	"testing"
)

// exchange has the engine connect, and takes routes of each family through
// announcement, change and withdrawal, both ways; then the peer dies.
func (m *matrix) exchange(t *testing.T, routed []string) {
	p := m.pair(t, engineSetup{}, peerSetup{families: routed})
	p.step(lineDial, routed, p.up)
	for _, family := range routed {
		p.family(family)
	}
	p.step(lineRestart, routed, p.restart)
}

// family takes the routes of one family through their life.
func (p *pairing) family(family string) {
	only := []string{family}
	ours, theirs := p.ours[family], p.theirs[family]
	p.step(lineReceive, only, func(t *testing.T) {
		p.engine.announce(t, ours...)
		p.wantPeer(t, family, ours)
	})
	if theirs != nil {
		p.step(lineSend, only, func(t *testing.T) {
			p.peer.set(t, theirs)
			p.wantEngine(t, family, theirs)
			p.faultless(t)
		})
	}
	p.step(lineChange, only, func(t *testing.T) {
		p.engine.announce(t, retargeted(ours)...)
		p.wantPeer(t, family, retargeted(ours))
		p.peer.set(t, retargeted(theirs))
		p.wantEngine(t, family, retargeted(theirs))
	})
	p.step(lineUnset, only, func(t *testing.T) {
		p.engine.withdraw(t, ours[0])
		p.wantPeer(t, family, retargeted(ours[1:]))
		p.engine.withdraw(t, ours[1:]...)
		p.wantPeer(t, family, nil)
		if theirs != nil {
			p.peer.set(t, retargeted(theirs[1:]))
			p.wantEngine(t, family, retargeted(theirs[1:]))
		}
		p.peer.set(t, nil)
		p.wantEngine(t, family, nil)
	})
}

// retargeted returns the routes with other route targets and LOCAL_PREF.
func retargeted(routes []vpnRoute) []vpnRoute {
	return each(routes, func(r vpnRoute) vpnRoute {
		r.RTs, r.LocalPref = []string{"64512:200", "64512:201"}, "120"
		return r
	})
}

// faultless checks that the engine found nothing wrong in what it received.
func (p *pairing) faultless(t *testing.T) {
	t.Helper()
	if s := p.engine.do(t, engineCommand{Do: "state"}); s.Faults != 0 || s.Sessions != 1 {
		t.Errorf("%d faults, %d sessions: want 0, 1; last error %q", s.Faults, s.Sessions, s.LastError)
	}
}

// restart kills the peer: its routes go, and all come back with it.
func (p *pairing) restart(t *testing.T) {
	p.engine.announce(t, flat(p.ours, 0)...)
	p.peer.set(t, flat(p.theirs, 0))
	p.wantAll(t)
	p.peer.kill()
	p.engine.lost(t)
	for family := range p.theirs {
		p.wantEngine(t, family, nil)
	}
	p.peer.start(t)
	p.up(t)
	p.wantAll(t)
}

// accept has the peer connect, and all routes exchanged.
func (m *matrix) accept(t *testing.T, routed []string) {
	p := m.pair(t, engineSetup{Passive: true}, peerSetup{families: routed})
	p.step(lineAccept, routed, func(t *testing.T) {
		p.up(t)
		p.engine.announce(t, flat(p.ours, 0)...)
		p.peer.set(t, flat(p.theirs, 0))
		p.wantAll(t)
		p.faultless(t)
	})
}

// graceful has the peer restart gracefully: the engine keeps its routes, and
// sweeps those that it has no longer.
func (m *matrix) graceful(t *testing.T, routed []string) {
	p := m.pair(t, engineSetup{GracefulRestart: true}, peerSetup{families: routed, graceful: true})
	sending := slices.DeleteFunc(slices.Clone(routed), func(f string) bool { return p.theirs[f] == nil })
	p.step(lineGraceful, sending, func(t *testing.T) {
		p.engine.announce(t, flat(p.ours, 0)...)
		p.peer.set(t, flat(p.theirs, 0))
		p.wantAll(t)
		p.engine.until(t, "End-of-RIB", func(s engineState) bool { return s.EndOfRIB })
		p.peer.kill()
		p.engine.lost(t)
		for _, family := range sending {
			wantVPNRoutes(t, "kept of "+family, p.engine.received(t, family), each(p.theirs[family], func(r vpnRoute) vpnRoute {
				r.Origin = "igp"
				r = p.peer.sends(r)
				r.Stale = "stale"
				return r
			}))
		}
		p.peer.set(t, flat(p.theirs, 1))
		p.peer.start(t)
		p.up(t)
		for _, family := range sending {
			p.wantEngine(t, family, p.theirs[family][:1])
		}
		for _, family := range routed {
			p.wantPeer(t, family, p.ours[family])
		}
	})
}
