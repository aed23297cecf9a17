// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// base are the settings that the tests change.
func base(change func(*Settings)) *Settings {
	set := &Settings{HoldTime: 90, RetryMax: time.Second, Families: noRTC, Irrelevant: Keep, Restart: &Restart{StaleTime: time.Minute}}
	if change != nil {
		change(set)
	}
	return set
}

// reconfigure reconfigures a node.
func (n *node) reconfigure(peers []PeerConfig, groups []Group) {
	n.t.Helper()
	if err := n.Reconfigure(n.t.Context(), peers, groups); err != nil {
		n.t.Fatal(err)
	}
}

// ceased reads until the session's end and returns the subcode of the Cease.
func (p *rawPeer) ceased() uint8 {
	p.t.Helper()
	for {
		switch typ, body := p.read(); typ {
		case wire.MsgNotification:
			n, err := wire.ParseNotification(body)
			if err != nil {
				p.t.Fatal(err)
			}
			if inner, ok := n.Hard(); ok {
				n = inner
			}
			if n.Code != wire.CodeCease {
				p.t.Fatalf("NOTIFICATION %s instead of a Cease", n)
			}
			return n.Subcode
		case 0:
			p.t.Fatal("the session ended without a word")
		}
	}
}

func TestReconfigureNeighbours(t *testing.T) {
	t.Parallel()
	start := []PeerConfig{{Addr: peerAddr, Passive: true, Settings: base(nil)}}
	with := func(change func(*PeerConfig)) []PeerConfig {
		pc := PeerConfig{Addr: peerAddr, Passive: true, Settings: base(nil)}
		change(&pc)
		return []PeerConfig{pc}
	}
	settings := func(change func(*Settings)) []PeerConfig {
		return with(func(pc *PeerConfig) { change(pc.Settings) })
	}
	const kept = 0
	for _, tt := range []struct {
		name string
		want []PeerConfig
		end  uint8 // subcode of the Cease, or kept
	}{
		{"nothing", start, kept},
		{"another neighbour", append(with(func(*PeerConfig) {}), PeerConfig{Addr: netip.MustParseAddr("127.0.0.10"), Passive: true}), kept},
		{"description", settings(func(s *Settings) { s.Description = "ToR" }), kept},
		{"limits", settings(func(s *Settings) { s.MaxPrefixes, s.MaxPrefixesWarning, s.MaxPrefixesPause = 10, 50, time.Hour }), kept},
		{"pauses", settings(func(s *Settings) { s.RetryMax = time.Minute }), kept},
		{"stale time", settings(func(s *Settings) { s.Restart.StaleTime = time.Hour }), kept},
		{"shutdown", settings(func(s *Settings) { s.Disabled, s.DisabledText = true, "shut down in the configuration" }), wire.CeaseAdminShutdown},
		{"hold time", settings(func(s *Settings) { s.HoldTime = 30 }), wire.CeaseOtherChange},
		{"families", settings(func(s *Settings) { s.Families = noRTC[:1] }), wire.CeaseOtherChange},
		{"password", settings(func(s *Settings) { s.Transport.Password = "secret" }), wire.CeaseOtherChange},
		{"graceful restart", settings(func(s *Settings) { s.Restart = nil }), wire.CeaseOtherChange},
		{"port", with(func(pc *PeerConfig) { pc.Port = 1179 }), wire.CeaseOtherChange},
		{"no neighbour", nil, wire.CeaseDeconfigured},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, func(c *Config) { c.Peers = start })
			p := connect(t, n, peerAddr)
			p.open(peerOpen(noRTC...))
			p.write(announcement(tagged(rt100), macRoute(1)))
			before := n.neighbour(peerAddr)
			eventually(t, "route", func() bool { return len(n.received(peerAddr)) == 1 })
			n.reconfigure(tt.want, nil)
			if tt.end != kept {
				if got := p.ceased(); got != tt.end {
					t.Errorf("Cease of subcode %d, want %d", got, tt.end)
				}
				eventually(t, "routes are gone", func() bool { return len(n.received(peerAddr)) == 0 })
			} else if st := before.Status(); st.State != session.Established || st.Established != 1 || len(n.received(peerAddr)) != 1 {
				t.Errorf("session is %v, established %d times, routes %v: want that nothing happened to it", st.State, st.Established, n.names(peerAddr))
			}
			var have []netip.Addr
			for _, nb := range n.Neighbours() {
				have = append(have, nb.addr)
			}
			if len(have) != len(tt.want) {
				t.Errorf("neighbours %v, want %v", have, tt.want)
			}
			if len(tt.want) > 0 {
				if got := n.neighbour(peerAddr).Settings(); got.HoldTime != tt.want[0].HoldTime || got.Description != tt.want[0].Description || got.MaxPrefixes != tt.want[0].MaxPrefixes {
					t.Errorf("settings %+v, want %+v", got, *tt.want[0].Settings)
				}
			}
		})
	}
}

// A neighbour that is taken away and one that is added: both work at once, also
// with another password than before.
func TestReconfigureAcceptsNewNeighbours(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer())
	other := netip.MustParseAddr("127.0.0.10")
	n.reconfigure([]PeerConfig{{Addr: other, Passive: true}}, nil)
	connect(t, n, other).open(peerOpen(noRTC...))
	n.established(other)
	if got := connect(t, n, peerAddr).ceased(); got != wire.CeaseRejected {
		t.Errorf("a neighbour of before gets subcode %d, want %d", got, wire.CeaseRejected)
	}
}

// With a password the kernel refuses what is not signed, and takes it again when
// the password is gone.
func TestReconfigurePasswords(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer())
	secret := []PeerConfig{{Addr: peerAddr, Passive: true, Settings: base(func(s *Settings) { s.Transport.Password = "secret" })}}
	connect(t, n, peerAddr).open(peerOpen(noRTC...)) // it listens
	n.reconfigure(secret, nil)
	n.mu.Lock()
	keys := n.keys(n.Peers, n.Dynamic)
	n.mu.Unlock()
	if len(keys) != 1 || keys[0].Password != "secret" {
		t.Errorf("keys %v, want that of the neighbour", keys)
	}
	n.reconfigure([]PeerConfig{{Addr: peerAddr, Passive: true}}, nil)
	connect(t, n, peerAddr).open(peerOpen(noRTC...))
	n.established(peerAddr)
}

func TestReconfigureGroups(t *testing.T) {
	t.Parallel()
	group := func(prefix string, change func(*Settings)) []Group {
		return []Group{{Prefix: netip.MustParsePrefix(prefix), Settings: base(change)}}
	}
	n := startNode(t, func(c *Config) { c.Dynamic = group("127.0.0.0/28", nil) })
	p := connect(t, n, peerAddr)
	p.open(peerOpen(noRTC...))
	n.established(peerAddr)
	// A prefix around it with the same settings changes nothing.
	n.reconfigure(nil, group("127.0.0.0/24", nil))
	n.established(peerAddr)
	n.reconfigure(nil, group("127.0.0.0/24", func(s *Settings) { s.HoldTime = 30 }))
	if got := p.ceased(); got != wire.CeaseOtherChange {
		t.Errorf("subcode %d, want %d", got, wire.CeaseOtherChange)
	}
	p = connect(t, n, peerAddr)
	if o := p.open(peerOpen(noRTC...)); o.HoldTime != 30 {
		t.Errorf("hold time %d, want that of the group now, 30", o.HoldTime)
	}
	n.established(peerAddr)
	// As a peer of its own it is another neighbour.
	n.reconfigure([]PeerConfig{{Addr: peerAddr, Passive: true}}, nil)
	if got := p.ceased(); got != wire.CeaseOtherChange {
		t.Errorf("subcode %d, want %d", got, wire.CeaseOtherChange)
	}
	if n.neighbour(peerAddr).Dynamic {
		t.Error("the neighbour is dynamic although it is configured")
	}
}

func TestReconfigureShutdownAndBack(t *testing.T) {
	t.Parallel()
	peer := func(down bool) []PeerConfig {
		return []PeerConfig{{Addr: peerAddr, Passive: true, Settings: base(func(s *Settings) { s.Disabled, s.DisabledText = down, "shut down in the configuration" })}}
	}
	n := startNode(t, func(c *Config) { c.Peers = peer(true) })
	nb := n.neighbour(peerAddr)
	eventually(t, "held down", func() bool { return nb.Status().HeldDown == "shut down in the configuration" })
	n.reconfigure(peer(false), nil)
	eventually(t, "enabled", func() bool { return nb.Status().HeldDown == "" })
	n.reconfigure(peer(true), nil)
	eventually(t, "held down again", func() bool { return nb.Status().HeldDown == "shut down in the configuration" })
	if !slices.Contains(n.Neighbours(), nb) {
		t.Error("the neighbour was made anew")
	}
}

func TestReconfigureNeedsRun(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)}, rib.New())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Reconfigure(ended, nil, nil); !errors.Is(err, errNotRunning) {
		t.Errorf("Reconfigure before Run: %v", err)
	}
	n := startNode(t, nil)
	n.reconfigure(nil, nil)
	n.stop(nil)
	if err := n.Reconfigure(t.Context(), nil, nil); !errors.Is(err, errNotRunning) {
		t.Errorf("Reconfigure after Run: %v", err)
	}
}
