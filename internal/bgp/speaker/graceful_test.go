// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// restartingNode starts a node with graceful restart and one passive peer.
func restartingNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	return startNode(t, func(c *Config) {
		passivePeer(wire.EVPN, wire.VPNv4)(c)
		c.Restart = &Restart{Time: 120, StaleTime: time.Hour, LongLived: time.Hour}
		if change != nil {
			change(c)
		}
	})
}

// restartOpen is the OPEN of a peer with graceful restart for EVPN.
func restartOpen(seconds uint16, preserved bool) wire.Open {
	o := peerOpen(wire.EVPN, wire.VPNv4)
	o.GracefulRestart = &wire.GracefulRestart{Time: seconds, Families: []wire.ForwardingState{{Family: wire.EVPN, Preserved: preserved}}}
	return o
}

var vpnRoute = wire.Route{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("198.51.100.0/24")), Label: wire.LabelField(16)}

// loaded brings a session up on which the peer announces two EVPN routes and a VPNv4 route.
func loaded(t *testing.T, n *node, o wire.Open) *rawPeer {
	t.Helper()
	p := connect(t, n, peerAddr)
	p.open(o)
	p.write(announcement(tagged(rt100), macRoute(1), macRoute(2)), announcement(tagged(rt100), vpnRoute), wire.EndOfRIBMessage(wire.EVPN), wire.EndOfRIBMessage(wire.VPNv4))
	n.has(macRoute(1), macRoute(2), vpnRoute)
	eventually(t, "End-of-RIB", n.Converged)
	return p
}

// has waits until the node has just these routes of the peer.
func (n *node) has(routes ...wire.Route) {
	n.t.Helper()
	want := map[string]bool{}
	for _, r := range routes {
		want[r.NLRI.String()] = true
	}
	eventuallyEqual(n.t, "routes of the peer", want, func() map[string]bool {
		got := map[string]bool{}
		for name := range n.received(peerAddr) {
			got[name] = true
		}
		return got
	})
}

// stale returns the stages of the peer's routes that are not fresh.
func (n *node) stale() map[string]rib.Staleness {
	m := map[string]rib.Staleness{}
	for name, p := range n.received(peerAddr) {
		if p.Stale != rib.Fresh {
			m[name] = p.Stale
		}
	}
	return m
}

func (n *node) down() {
	n.t.Helper()
	eventually(n.t, "session is down", func() bool {
		nb := n.neighbour(peerAddr)
		return nb.Status().State != session.Established && nb.current() == nil
	})
}

var oneAndTwo = map[string]rib.Staleness{macRoute(1).NLRI.String(): rib.Stale, macRoute(2).NLRI.String(): rib.Stale}

// RFC 4724 §4.2: what a restarting peer announced stays until its End-of-RIB, in
// the families that it named.
func TestHelperKeepsRoutesOfARestartingPeer(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, nil)
	p := loaded(t, n, restartOpen(60, true))
	_ = p.nc.Close()
	n.has(macRoute(1), macRoute(2))
	eventuallyEqual(t, "stale", oneAndTwo, n.stale)
	kept := n.neighbour(peerAddr).Stale()
	if len(kept) != 1 || kept[0].Family != wire.EVPN || kept[0].Stage != rib.Stale || time.Until(kept[0].Until) > time.Minute {
		t.Errorf("kept: %+v", kept)
	}
	p = connect(t, n, peerAddr)
	p.open(restartOpen(60, true))
	p.write(announcement(tagged(rt100), macRoute(2), macRoute(3)))
	n.has(macRoute(1), macRoute(2), macRoute(3))
	eventuallyEqual(t, "stale", map[string]rib.Staleness{macRoute(1).NLRI.String(): rib.Stale}, n.stale)
	p.write(wire.EndOfRIBMessage(wire.EVPN))
	n.has(macRoute(2), macRoute(3))
	if kept := n.neighbour(peerAddr).Stale(); kept != nil {
		t.Errorf("kept after End-of-RIB: %+v", kept)
	}
}

// A peer that names all families that there are: nothing of it goes.
func TestHelperKeepsAllFamilies(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, func(c *Config) { c.Families = wire.Families[:] })
	o := restartOpen(60, true)
	o.GracefulRestart.Families = nil
	for _, f := range wire.Families {
		o.GracefulRestart.Families = append(o.GracefulRestart.Families, wire.ForwardingState{Family: f, Preserved: true})
	}
	o.Families = wire.Families[:]
	p := connect(t, n, peerAddr)
	p.open(o)
	p.write(announcement(tagged(rt100), macRoute(1)))
	n.has(macRoute(1))
	_ = p.nc.Close()
	n.down()
	n.has(macRoute(1))
}

// What ends a session decides whether routes are kept (RFC 4724 §4.2, RFC 8538 §4).
func TestWhenRoutesAreKept(t *testing.T) {
	t.Parallel()
	cease := wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseAdminReset}
	notified := func(n wire.Notification) func(*testing.T, *node, *rawPeer) {
		return func(_ *testing.T, _ *node, p *rawPeer) { p.write(n.Message()) }
	}
	closed := func(_ *testing.T, _ *node, p *rawPeer) { _ = p.nc.Close() }
	bad := func(_ *testing.T, _ *node, p *rawPeer) {
		p.write(append(wire.AppendHeader(nil, wire.MsgUpdate, 4), 0, 0, 0, 50))
	}
	for _, tt := range []struct {
		name   string
		n, gr  bool // RFC 8538 on both sides; graceful restart of the peer
		end    func(*testing.T, *node, *rawPeer)
		retain bool
	}{
		{"connection lost", false, true, closed, true},
		{"connection lost, no graceful restart", false, false, closed, false},
		{"NOTIFICATION", false, true, notified(cease), false},
		{"NOTIFICATION, RFC 8538", true, true, notified(cease), true},
		{"hard reset", true, true, notified(wire.HardReset(cease)), false},
		{"error of the peer", false, true, bad, false},
		{"error of the peer, RFC 8538", true, true, bad, true},
		{"our operator", true, true, func(_ *testing.T, n *node, _ *rawPeer) { n.neighbour(peerAddr).Reset("maintenance") }, false},
		{"our operator for long", true, true, func(_ *testing.T, n *node, _ *rawPeer) { n.neighbour(peerAddr).Disable("maintenance") }, false},
		{"BFD of the control plane", false, true, func(_ *testing.T, n *node, _ *rawPeer) { n.neighbour(peerAddr).peer.Unreachable(true) }, true},
		{"BFD of the forwarding plane", true, true, func(_ *testing.T, n *node, _ *rawPeer) { n.neighbour(peerAddr).peer.Unreachable(false) }, false},
		{"new connection of a peer that restarted", false, true, func(t *testing.T, n *node, _ *rawPeer) {
			connect(t, n, peerAddr).open(restartOpen(60, true))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := restartingNode(t, func(c *Config) { c.Restart.Notification = tt.n })
			o := restartOpen(60, true)
			if o.GracefulRestart.Notification = tt.n; !tt.gr {
				o.GracefulRestart = nil
			}
			p := loaded(t, n, o)
			tt.end(t, n, p)
			if tt.retain {
				n.has(macRoute(1), macRoute(2))
				eventuallyEqual(t, "stale", oneAndTwo, n.stale)
				return
			}
			n.has()
		})
	}
}

// Stale routes go when the peer says that it lost its forwarding state.
func TestPeerThatLostItsForwardingState(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]wire.Open{
		"flag is clear":      restartOpen(60, false),
		"no longer named":    func() wire.Open { o := restartOpen(60, true); o.GracefulRestart.Families = nil; return o }(),
		"without capability": peerOpen(wire.EVPN, wire.VPNv4),
		"without the family": func() wire.Open { o := restartOpen(60, true); o.Families = []wire.Family{wire.VPNv4}; return o }(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := restartingNode(t, nil)
			_ = loaded(t, n, restartOpen(60, true)).nc.Close()
			n.down()
			n.has(macRoute(1), macRoute(2))
			connect(t, n, peerAddr).open(o)
			n.has()
		})
	}
}

// The peer does not come back in time; then its routes are used as the last
// resort, if it asked for that, and at last they go (RFC 9494 §4.2).
func TestRestartTimeIsOver(t *testing.T) {
	t.Parallel()
	longLived := func(seconds uint32) func(*wire.Open) {
		return func(o *wire.Open) {
			o.LongLived = []wire.LongLived{{Family: wire.EVPN, Preserved: true, Time: seconds}}
		}
	}
	for _, tt := range []struct {
		name   string
		in     func(*wire.Open)
		expect func(*testing.T, *node)
	}{
		{"no long-lived graceful restart", func(*wire.Open) {}, func(_ *testing.T, n *node) { n.has() }},
		{"long-lived", longLived(3600), func(t *testing.T, n *node) {
			name := macRoute(1).NLRI.String()
			eventuallyEqual(t, "stale", map[string]rib.Staleness{name: rib.LongLivedStale, macRoute(2).NLRI.String(): rib.LongLivedStale}, n.stale)
			p := connect(t, n, peerAddr)
			p.open(restartOpen(0, true))
			p.write(announcement(tagged(rt100), macRoute(2)))
			eventuallyEqual(t, "stale", map[string]rib.Staleness{name: rib.LongLivedStale}, n.stale)
			p.write(wire.EndOfRIBMessage(wire.EVPN))
			n.has(macRoute(2))
		}},
		{"long-lived, and lost again", longLived(3600), func(t *testing.T, n *node) {
			both := map[string]rib.Staleness{macRoute(1).NLRI.String(): rib.LongLivedStale, macRoute(2).NLRI.String(): rib.LongLivedStale}
			eventuallyEqual(t, "stale", both, n.stale)
			p := connect(t, n, peerAddr)
			o := restartOpen(0, true)
			longLived(3600)(&o)
			p.open(o)
			p.write(announcement(tagged(rt100), macRoute(2)))
			eventuallyEqual(t, "stale", map[string]rib.Staleness{macRoute(1).NLRI.String(): rib.LongLivedStale}, n.stale)
			_ = p.nc.Close()
			eventuallyEqual(t, "stale", both, n.stale)
		}},
		{"long-lived is over, too", longLived(1), func(_ *testing.T, n *node) { n.has() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := restartingNode(t, nil)
			o := restartOpen(0, true)
			tt.in(&o)
			_ = loaded(t, n, o).nc.Close()
			tt.expect(t, n)
		})
	}
}

// A second restart before the end of the first: what was stale goes (RFC 4724 §4.2).
func TestConsecutiveRestarts(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, nil)
	_ = loaded(t, n, restartOpen(60, true)).nc.Close()
	n.down()
	p := connect(t, n, peerAddr)
	p.open(restartOpen(60, true))
	p.write(announcement(tagged(rt100), macRoute(2)))
	eventuallyEqual(t, "stale", map[string]rib.Staleness{macRoute(1).NLRI.String(): rib.Stale}, n.stale)
	_ = p.nc.Close()
	n.has(macRoute(2))
}

// A dynamic neighbour that restarts is not forgotten meanwhile.
func TestDynamicNeighbourRestarts(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, func(c *Config) {
		c.Peers, c.Dynamic = nil, []Group{{Prefix: netip.PrefixFrom(peerAddr, 32)}}
	})
	p := connect(t, n, peerAddr)
	p.open(restartOpen(60, true))
	p.write(announcement(tagged(rt100), macRoute(1)))
	n.has(macRoute(1))
	first := n.neighbour(peerAddr)
	_ = p.nc.Close()
	n.down()
	p = connect(t, n, peerAddr)
	p.open(restartOpen(60, true))
	n.has(macRoute(1))
	if n.neighbour(peerAddr) != first {
		t.Error("another neighbour")
	}
	p.write(wire.EndOfRIBMessage(wire.EVPN))
	n.has()
}

// As the side that restarts (RFC 4724 §4.1): flags in the OPEN, and no End-of-RIB
// before our routes are complete.
func TestWeRestarted(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, func(c *Config) { c.Restarting, c.Deferral = true, time.Hour })
	n.announce(tagged(rt100), macRoute(9))
	p := connect(t, n, peerAddr)
	want := &wire.GracefulRestart{
		Restarting: true, Time: 120, Families: []wire.ForwardingState{{Family: wire.EVPN, Preserved: true}, {Family: wire.VPNv4, Preserved: true}},
	}
	if diff := cmp.Diff(want, p.open(restartOpen(60, true)).GracefulRestart); diff != "" {
		t.Errorf("capability (-want +got):\n%s", diff)
	}
	name := "+" + macRoute(9).NLRI.String()
	if diff := cmp.Diff([]string{name}, p.news(name)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n.announce(tagged(rt200), macRoute(10))
	p.write(wire.EndOfRIBMessage(wire.EVPN))
	p.write(wire.EndOfRIBMessage(wire.VPNv4))
	got := p.news("End-of-RIB l2vpn/evpn", "End-of-RIB ipv4/mpls-vpn")
	if got[0] != "+"+macRoute(10).NLRI.String() {
		t.Errorf("got %q: want the route before the markers", got)
	}
	_ = p.nc.Close()
	n.down()
	p = connect(t, n, peerAddr)
	want.Restarting = false
	if diff := cmp.Diff(want, p.open(restartOpen(60, true)).GracefulRestart); diff != "" {
		t.Errorf("capability later (-want +got):\n%s", diff)
	}
}

// A node that starts anew has nothing that a peer should keep.
func TestColdStart(t *testing.T) {
	t.Parallel()
	n := restartingNode(t, nil)
	want := &wire.GracefulRestart{Time: 120, Families: []wire.ForwardingState{{Family: wire.EVPN}, {Family: wire.VPNv4}}}
	if diff := cmp.Diff(want, connect(t, n, peerAddr).open(restartOpen(60, true)).GracefulRestart); diff != "" {
		t.Errorf("capability (-want +got):\n%s", diff)
	}
}

// Going down for a restart says nothing to peers that will keep our routes.
func TestStopForARestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		gr    bool
		cause error
		quiet bool
	}{
		{"restart", true, session.ErrRestarting, true},
		{"restart, peer without graceful restart", false, session.ErrRestarting, false},
		{"for good", true, errors.New("bye"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := restartingNode(t, nil)
			o := restartOpen(60, true)
			if !tt.gr {
				o.GracefulRestart = nil
			}
			p := connect(t, n, peerAddr)
			p.open(o)
			p.news("End-of-RIB l2vpn/evpn", "End-of-RIB ipv4/mpls-vpn")
			n.stop(tt.cause)
			typ, body := p.read()
			if quiet := typ == 0; quiet != tt.quiet {
				t.Errorf("%s %x", typ, body)
			}
		})
	}
}

// The operator's commands, and what the peer's operator reads (RFC 9003).
func TestAdministration(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	nb := n.neighbour(peerAddr)
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	n.established(peerAddr)
	nb.Reset("new line card")
	p.expectCease(wire.CeaseAdminReset, "new line card")
	p = connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	n.established(peerAddr)
	nb.Disable("moving house")
	p.expectCease(wire.CeaseAdminShutdown, "moving house")
	eventuallyEqual(t, "held down", "shut down by the operator", func() string { return nb.Status().HeldDown })
	if !n.Converged() {
		t.Error("a peer that is shut down holds up convergence")
	}
	p = connect(t, n, peerAddr)
	p.expectCease(wire.CeaseRejected, "")
	nb.Enable()
	eventuallyEqual(t, "held down", "", func() string { return nb.Status().HeldDown })
	p = connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	n.established(peerAddr)
}

// expectCease reads up to a Cease with a subcode and a communication.
func (p *rawPeer) expectCease(subcode uint8, text string) {
	p.t.Helper()
	for {
		typ, body := p.read()
		if typ == 0 {
			p.t.Fatal("connection closed without NOTIFICATION")
		}
		if typ != wire.MsgNotification {
			continue
		}
		n, err := wire.ParseNotification(body)
		if err != nil || n.Code != wire.CodeCease || n.Subcode != subcode || n.Communication() != text {
			p.t.Fatalf("%s, %v: want subcode %d, %q", n, err, subcode, text)
		}
		return
	}
}

// Too many routes: the session ends and stays down for a while, or for good.
func TestMaxPrefixes(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"for a while": time.Second, "for good": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, func(c *Config) {
				passivePeer(wire.EVPN)(c)
				c.MaxPrefixes, c.MaxPrefixesWarning, c.MaxPrefixesPause = 2, 50, pause
			})
			p := connect(t, n, peerAddr)
			p.open(peerOpen(wire.EVPN))
			p.write(announcement(tagged(rt100), macRoute(1), macRoute(2)))
			n.has(macRoute(1), macRoute(2))
			p.write(announcement(tagged(rt100), macRoute(3)))
			for typ := wire.MsgUpdate; typ != wire.MsgNotification; {
				var body []byte
				if typ, body = p.read(); typ == wire.MsgNotification {
					if diff := cmp.Diff([]byte{6, 1, 0, 25, 70, 0, 0, 0, 2}, body); diff != "" {
						t.Errorf("(-want +got):\n%s", diff)
					}
				}
			}
			n.has()
			if pause == 0 {
				if n.neighbour(peerAddr).Status().HeldDown == "" {
					t.Error("not held down")
				}
				n.neighbour(peerAddr).Enable()
			}
			eventually(t, "peer may connect", func() bool { return n.neighbour(peerAddr).Status().HeldDown == "" })
			connect(t, n, peerAddr).open(peerOpen(wire.EVPN))
			n.established(peerAddr)
		})
	}
}

// A node that is gone while a peer connects again and again must not be lost.
func TestDynamicNeighbourReconnectsAtOnce(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *Config) { c.Dynamic = []Group{{Prefix: netip.PrefixFrom(peerAddr, 32)}} })
	for range 20 {
		p := connect(t, n, peerAddr)
		p.open(peerOpen(wire.EVPN))
		n.established(peerAddr)
		_ = p.nc.(*net.TCPConn).SetLinger(0)
		_ = p.nc.Close()
		n.down()
	}
}
