// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"testing"
	"time"
)

const md5Password = "example-not-a-secret"

// option brings a session up with an option on both sides, and exchanges routes.
func (m *matrix) option(t *testing.T, option string) {
	e, p := engineSetup{}, peerSetup{families: m.kind.families[:1], option: option}
	switch option {
	case "eBGP":
		e.AS, e.PeerAS, p.families = 64512, 64496, m.kind.families
	case "TCP-MD5":
		e.Password = md5Password
	case "TTL security":
		e.TTLSecurity = 1
	case "BFD":
		e.BFD = "single-hop"
	}
	pair := m.pair(t, e, p)
	pair.step(option, []string{""}, func(t *testing.T) {
		pair.up(t)
		pair.engine.announce(t, flat(pair.ours, 0)...)
		pair.peer.set(t, flat(pair.theirs, 0))
		pair.wantAll(t)
		pair.faultless(t)
		if option == "BFD" {
			pair.cut(t)
		}
	})
}

// cut takes the peer off the network: BFD ends the session long before its hold
// time does. Then it puts it back.
func (p *pairing) cut(t *testing.T) {
	up := func(s engineState) bool { return s.BFD == "up" }
	p.engine.until(t, "BFD up", up)
	p.peerHost.Run("ip", "link", "set", "eth0", "down")
	start := time.Now()
	p.engine.lost(t)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the session ended %v after the cut: want less than 10s", took)
	}
	p.peerHost.Run("ip", "link", "set", "eth0", "up")
	p.up(t)
	p.engine.until(t, "BFD up again", up)
	p.wantAll(t)
}
