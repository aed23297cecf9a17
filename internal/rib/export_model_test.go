// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// worldPeer is a session with a peer and what the peer holds.
type worldPeer struct {
	worldSource
	*Exporter
	families []wire.Family
	held     map[wire.NLRI]string
	waiting  bool
}

func (w *world) connect(s worldSource, families ...wire.Family) *worldPeer {
	p := &worldPeer{worldSource: s, families: families}
	w.reconnect(p)
	return p
}

// reconnect begins a new session: the peer holds nothing.
func (w *world) reconnect(p *worldPeer) {
	if p.Exporter != nil {
		p.Close()
	}
	p.held = map[wire.NLRI]string{}
	p.Exporter = w.rib.NewExporter(ExporterConfig{Source: p.id, Families: p.families, Wake: func() { p.waiting = true }})
}

// exportText renders what the peer is told about a route.
func exportText(r wire.Route, a *wire.Attrs) string {
	return fmt.Sprintf("label %d raw %x via %v attrs %x", r.Label, r.Raw, a.NextHop, a.Raw)
}

// receive drains the exporter, or takes once.
func (p *worldPeer) receive(t rapid.TB, limit int, drain bool) {
	t.Helper()
	for more := true; more; more = more && drain {
		var out []Export
		out, more = p.Next(limit, nil)
		if len(out) > limit {
			t.Errorf("%d routes, limit is %d", len(out), limit)
		}
		for _, x := range out {
			p.learn(t, x)
		}
		if !more {
			p.waiting = false
		}
	}
}

// learn does what a peer does with an announcement or a withdraw.
func (p *worldPeer) learn(t rapid.TB, x Export) {
	t.Helper()
	if x.NLRI.Kind.Opaque() && x.Raw == nil {
		t.Errorf("%v: no octets to send", x.NLRI)
	}
	if x.Attrs == nil {
		if _, have := p.held[x.NLRI]; !have {
			t.Errorf("withdraw of %v, which the peer does not have", x.NLRI)
		}
		delete(p.held, x.NLRI)
		return
	}
	p.held[x.NLRI] = exportText(x.Route, x.Attrs)
}

// bitsOf writes octets as ones and zeroes.
func bitsOf(b []byte) string {
	var s strings.Builder
	for _, x := range b {
		fmt.Fprintf(&s, "%08b", x)
	}
	return s.String()
}

// asks tells whether the peer's RTC routes ask for one of the route targets.
func (w *world) asks(p *worldPeer, rts []wire.RT) bool {
	for k := range w.paths {
		if k.source != p.id || k.nlri.Kind != wire.KindRTC {
			continue
		}
		n := max(int(k.nlri.Bits), 32) - 32
		if n == 0 {
			return true
		}
		for _, rt := range rts {
			if bitsOf(rt[:])[:n] == bitsOf(k.nlri.RD[:])[:n] {
				return true
			}
		}
	}
	return false
}

// checkPeer compares what a peer holds with what it must hold.
func (w *world) checkPeer(t rapid.TB, p *worldPeer) {
	t.Helper()
	want := map[wire.NLRI]string{}
	rtc := slices.Contains(p.families, wire.RTC)
	for k, path := range w.paths {
		family := k.nlri.Kind.Family()
		if w.sources[k.source].kind == Peer || !slices.Contains(p.families, family) {
			continue
		}
		if !rtc || family == wire.RTC || w.asks(p, path.attrs.RTs) {
			want[k.nlri] = exportText(path.route, path.attrs)
		}
	}
	if diff := gocmp.Diff(want, p.held); diff != "" {
		t.Errorf("%s holds (-want +got):\n%s", p.name, diff)
	}
	counts := map[wire.Family]int{}
	for n := range want {
		counts[n.Kind.Family()]++
	}
	if diff := gocmp.Diff(counts, p.Announced()); diff != "" {
		t.Errorf("Announced (-want +got):\n%s", diff)
	}
	if p.waiting {
		t.Errorf("%s drained, but Wake calls for more", p.name)
	}
}

// drawRTC draws an RTC route that matches some, all or none of someRTs.
func drawRTC(t *rapid.T) wire.NLRI {
	n := wire.RTCRoute(rapid.Uint32Range(64511, 64513).Draw(t, "origin AS"), rapid.SampledFrom(someRTs).Draw(t, "target"))
	n.Bits = rapid.SampledFrom([]uint8{96, 96, 96, 96, 95, 48, 40, 33, 32, 0}).Draw(t, "bits")
	full := n
	n.RD = wire.RD{}
	for i := range int(max(n.Bits, 32)) - 32 {
		n.RD[i/8] |= full.RD[i/8] & (0x80 >> (i % 8))
	}
	if n.Bits == 0 {
		n.Tag = 0
	}
	return n
}

func TestPeersHoldWhatTheModelSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Peer, Peer, Local, Local)
		peers := []*worldPeer{
			w.connect(w.sources[0], wire.VPNv4, wire.EVPN, wire.FlowVPNv4, wire.RTC),
			w.connect(w.sources[1], wire.EVPN, wire.VPNv6, wire.FlowVPNv4),
		}
		source, peer := rapid.SampledFrom(w.sources), rapid.SampledFrom(peers)
		apply := func(t *rapid.T) { w.drawBatch(t, source.Draw(t, "source")) }
		membership := func(t *rapid.T) {
			var b Batch
			p := peer.Draw(t, "peer")
			if n := drawRTC(t); rapid.Bool().Draw(t, "announced") {
				w.announce(&b, p.worldSource, wire.Route{NLRI: n}, drawAttrs(t), false)
			} else {
				w.withdraw(&b, p.worldSource, n)
			}
			w.rib.Apply(p.id, &b)
		}
		check := func(t *rapid.T) {
			for _, p := range peers {
				p.receive(t, rapid.IntRange(1, 5).Draw(t, "limit"), true)
				w.checkPeer(t, p)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"apply":           apply,
			"apply more":      apply,
			"membership":      membership,
			"membership more": membership,
			"purge":           func(t *rapid.T) { w.purge(source.Draw(t, "source")) },
			"receive some": func(t *rapid.T) {
				peer.Draw(t, "peer").receive(t, rapid.IntRange(1, 3).Draw(t, "limit"), false)
			},
			"resend": func(t *rapid.T) {
				p, f := peer.Draw(t, "peer"), rapid.SampledFrom(wire.Families).Draw(t, "family")
				for n := range p.held {
					if n.Kind.Family() == f {
						p.held[n] = "to be sent again"
					}
				}
				p.Resend(f)
			},
			"reconnect":            func(t *rapid.T) { p := peer.Draw(t, "peer"); w.purge(p.worldSource); w.reconnect(p) },
			"reconnect with stale": func(t *rapid.T) { w.reconnect(peer.Draw(t, "peer")) },
			"check":                check,
		})
		check(t)
		for _, s := range w.sources {
			w.purge(s)
		}
		check(t)
		for _, p := range peers {
			if len(p.announced)+len(p.dirty)+p.queue.len()+len(p.interest.wants) != 0 || p.interest.lengths != [65]int{} {
				t.Errorf("left at %s: %d announced, %d dirty, %d queued, %v", p.name, len(p.announced), len(p.dirty), p.queue.len(), p.interest)
			}
			p.Close()
		}
		w.checkEmpty(t)
		if len(w.rib.exporters) != 0 {
			t.Errorf("left: %d exporters", len(w.rib.exporters))
		}
	})
}
