// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"context"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// loaderAddr is the peer that brings the load.
var loaderAddr = netip.MustParseAddr("127.1.0.1")

// A node that is loaded and unloaded again and again, each time with other
// attributes, route targets and instances, does not grow.
func TestMemoryReturns(t *testing.T) {
	s := size()
	n := startNode(t, setup{rtc: true, change: func(c *speaker.Config) {
		c.Peers = []speaker.PeerConfig{{Addr: loaderAddr, Passive: true}}
	}})
	n.attachTenants(nil)
	empty := heap()
	var loaded int64
	var at []resources
	// Instances are made anew in one cycle of three, so one of three is measured.
	for cycle := range 3 * (s.cycles + 1) {
		l := load{count: s.cycleRoutes, gen: uint32(cycle), admin: byte(1 + cycle%20)}
		cycleOnce(t, n, l, cycle, func() {
			if cycle == 0 {
				loaded = heap() - empty
			}
		})
		if cycle >= 3 && cycle%3 == 2 {
			at = append(at, n.quiet())
			t.Logf("cycle %d: %s", cycle, at[len(at)-1])
		}
	}
	series := map[string]func(resources) int64{
		"goroutines":    func(r resources) int64 { return int64(r.goroutines) },
		"fds":           func(r resources) int64 { return int64(r.fds) },
		"sets":          func(r resources) int64 { return int64(r.sets) },
		"interned sets": func(r resources) int64 { return int64(r.interned) },
		"route targets": func(r resources) int64 { return int64(r.targets) },
	}
	for name, get := range series {
		first, last := get(at[0]), get(at[len(at)-1])
		if rise := slope(all(at, get)); first != last || rise > 1 {
			t.Errorf("%s: %v: want always the same", name, all(at, get))
		}
	}
	heaps := all(at, func(r resources) int64 { return r.heap })
	if rise := slope(heaps); rise > float64(loaded)/10 {
		t.Errorf("heap grows by %.0f octets in %d cycles; the load takes %d: %v", rise, len(at), loaded, heaps)
	}
	t.Logf("the load takes %.1f MB; heap rises by %.2f MB over %d cycles", float64(loaded)/1e6, slope(heaps)/1e6, len(at))
}

func all(at []resources, get func(resources) int64) (out []int64) {
	for _, r := range at {
		out = append(out, get(r))
	}
	return out
}

// cycleOnce loads a node and takes everything away, by turns by withdrawal and
// by the end of the session.
func cycleOnce(t *testing.T, n *node, l load, cycle int, full func()) {
	t.Helper()
	p := follow(t, loaderAddr, n.at, peerOpen(loaderAddr, wire.VPNv4, wire.VPNv6, wire.EVPN, wire.RTC), nil)
	n.attachTenants(func(a *vpn.Attachment) {
		a.Imports, a.Exports = append(a.Imports, rt(2000+cycle)), []wire.RT{rt(3000 + cycle)}
	})
	if err := p.write(wantAll(), l.announcements(), endOfRIB(vpnFamilies...)); err != nil {
		t.Fatal(err)
	}
	n.holds(l)
	n.forwards(l)
	eventually(t, "the node's routes", func() bool { return len(p.now()) >= localPaths })
	full()
	if cycle%2 == 0 {
		if err := p.write(l.withdrawals()); err != nil {
			t.Fatal(err)
		}
		n.holds()
	}
	p.finish()
	if cycle%3 == 0 {
		n.detachAll()
	}
	n.attachTenants(nil)
	n.holds()
	n.forwards()
	eventually(t, "session gone", func() bool { return !n.established(loaderAddr) })
}

// wantAll asks for all routes (RFC 4684 §4: the default RTC route).
func wantAll() []byte {
	p := wire.NewPacker(wire.MaxMessage)
	a := wire.LocalAttrs{NextHop: netip.MustParseAddr("192.0.2.1")}
	p.Announce(wire.RTC, a.Build().Raw, a.NextHop)
	p.Add(wire.Route{NLRI: wire.NLRI{Kind: wire.KindRTC}})
	return append([]byte(nil), p.Flush()...)
}

// detachAll ends all instances.
func (n *node) detachAll() {
	n.tb.Helper()
	for _, i := range n.Instances() {
		for _, e := range i.Snapshot().Endpoints {
			if err := n.Detach(context.Background(), vpn.Detachment{Type: i.Type, InstanceID: i.ID, MAC: e.MAC, IP: e.IP.Addr()}); err != nil {
				n.tb.Fatal(err)
			}
		}
	}
}
