// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

func TestNeighbourConfiguredTwice(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Peers: []PeerConfig{{Addr: peerAddr}, {Addr: nodeAddr}, {Addr: peerAddr}}}, rib.New())
	if err == nil || err.Error() != "neighbour 127.0.0.9 is configured twice" {
		t.Errorf("got %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	used := netip.MustParseAddrPort(l.Addr().String())
	s, err := New(Config{Local: used.Addr(), Listen: true, ListenPort: used.Port(), Log: slog.New(slog.DiscardHandler)}, rib.New())
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("listen for BGP on %s: ", used)) {
		t.Errorf("got %v", err)
	}
}

func TestStateOfNeighbours(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
	n.announce(tagged(rt100), macRoute(1))
	nb := n.neighbour(peerAddr)
	type state struct {
		Name                  string
		Established           int
		Converged             bool
		Received, Announced   map[wire.Family]int
		Subscriptions         []string
		ConfiguredAS, Passive any
	}
	get := func() state {
		return state{
			nb.Name, n.Established(), n.Converged(), nb.Received(), nb.Announced(), nb.Subscriptions(),
			nb.Config().PeerAS, nb.Config().Passive,
		}
	}
	want := state{"BGP-127.0.0.9", 0, false, map[wire.Family]int{}, nil, []string{}, uint32(testAS), true}
	eventuallyEqual(t, "no session", want, get)

	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.VPNv4))
	want.Established, want.Announced = 1, map[wire.Family]int{wire.EVPN: 1}
	want.Subscriptions = []string{"match:ipv4/mpls-vpn,*", "match:l2vpn/evpn,*"}
	eventuallyEqual(t, "session", want, get)

	p.write(announcement(tagged(rt100), macRoute(2), macRoute(3)), wire.EndOfRIBMessage(wire.EVPN))
	want.Received = map[wire.Family]int{wire.EVPN: 2}
	eventuallyEqual(t, "routes, and one of two End-of-RIB markers", want, get)

	p.write(wire.EndOfRIBMessage(wire.VPNv4))
	want.Converged = true
	eventuallyEqual(t, "both markers", want, get)

	_ = p.nc.Close()
	want = state{"BGP-127.0.0.9", 0, false, map[wire.Family]int{}, nil, []string{}, uint32(testAS), true}
	eventuallyEqual(t, "session lost", want, get)
}

// A lost session takes the peer's routes along, and the next one starts with
// everything.
func TestSessionLossAndReturn(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	n.announce(tagged(rt100), macRoute(1))
	want := []string{"+" + macRoute(1).NLRI.String(), "End-of-RIB l2vpn/evpn"}
	for i := range 3 {
		p := connect(t, n, peerAddr)
		p.open(peerOpen(wire.EVPN))
		if diff := cmp.Diff(want, p.news(want...)); diff != "" {
			t.Errorf("session %d (-want +got):\n%s", i, diff)
		}
		p.write(announcement(tagged(rt100), macRoute(10+i), macRoute(20)))
		eventuallyEqual(t, "routes", []string{macRoute(10 + i).NLRI.String(), macRoute(20).NLRI.String()}, func() []string { return n.names(peerAddr) })
		_ = p.nc.Close()
		eventuallyEqual(t, "purge", []string{}, func() []string { return n.names(peerAddr) })
	}
}

// ROUTE-REFRESH brings the routes of one family again (RFC 2918); other
// subtypes (RFC 7313) do not.
func TestRouteRefreshIsAnswered(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
	vpn := wire.Route{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("198.51.100.0/24")), Label: wire.LabelField(16)}
	n.announce(tagged(rt100), macRoute(1), macRoute(2), vpn)
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.VPNv4))
	one, two := "+"+macRoute(1).NLRI.String(), "+"+macRoute(2).NLRI.String()
	p.news("End-of-RIB l2vpn/evpn", "End-of-RIB ipv4/mpls-vpn")
	begin := wire.RouteRefresh(wire.EVPN, wire.RefreshRequest)
	begin[wire.HeaderLen+2] = 1
	p.write(begin, wire.RouteRefresh(wire.FlowVPNv4, wire.RefreshRequest), wire.RouteRefresh(wire.VPNv4, wire.RefreshRequest))
	if diff := cmp.Diff([]string{"+" + vpn.NLRI.String()}, p.news("+"+vpn.NLRI.String())); diff != "" {
		t.Errorf("VPNv4 (-want +got):\n%s", diff)
	}
	p.write(wire.RouteRefresh(wire.EVPN, wire.RefreshRequest))
	got := p.news(one, two)
	slices.Sort(got)
	if diff := cmp.Diff([]string{one, two}, got); diff != "" {
		t.Errorf("EVPN (-want +got):\n%s", diff)
	}
}

// A node is not a route reflector.
func TestNoReflectionBetweenPeers(t *testing.T) {
	t.Parallel()
	other := netip.MustParseAddr("127.0.0.10")
	n := startNode(t, func(c *Config) {
		c.Families = []wire.Family{wire.EVPN}
		c.Peers = []PeerConfig{{Addr: peerAddr, Passive: true}, {Addr: other, Passive: true}}
	})
	a, b := connect(t, n, peerAddr), connect(t, n, other)
	a.open(peerOpen(wire.EVPN))
	b.open(peerOpen(wire.EVPN))
	b.news("End-of-RIB l2vpn/evpn")
	a.write(announcement(tagged(rt100), macRoute(1)))
	eventually(t, "the route of a", func() bool { return len(n.received(peerAddr)) == 1 })
	n.announce(tagged(rt100), macRoute(2))
	for _, p := range []*rawPeer{a, b} {
		name := "+" + macRoute(2).NLRI.String()
		got := slices.DeleteFunc(p.news(name), func(s string) bool { return strings.HasPrefix(s, "End") })
		if diff := cmp.Diff([]string{name}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *Config) { c.Dynamic = []Group{{Prefix: netip.MustParsePrefix("127.0.1.0/24")}} })
	connect(t, n, netip.MustParseAddr("127.0.2.1")).expectNotification("6/5")
	if got := len(n.Neighbours()); got != 0 {
		t.Errorf("%d neighbours", got)
	}
}

// A hundred neighbours that nobody configured come, exchange routes and go.
func TestDynamicNeighbours(t *testing.T) {
	t.Parallel()
	const count = 100
	n := startNode(t, func(c *Config) {
		c.Families, c.Dynamic = []wire.Family{wire.EVPN}, []Group{{Prefix: netip.MustParsePrefix("127.0.1.0/24")}}
	})
	n.announce(tagged(rt100), macRoute(1))
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}) }
	peers := make([]*rawPeer, count)
	for i := range peers {
		peers[i] = connect(t, n, addr(i))
	}
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			open := peerOpen(wire.EVPN)
			open.RouterID = addr(i)
			p.open(open)
			p.write(announcement(tagged(rt100), macRoute(100+i), macRoute(2)))
			p.news("+" + macRoute(1).NLRI.String())
		})
	}
	wg.Wait()
	if n.Established() != count || len(n.Neighbours()) != count {
		t.Errorf("%d sessions of %d neighbours: want %d", n.Established(), len(n.Neighbours()), count)
	}
	for i := range count {
		eventually(t, "routes of "+addr(i).String(), func() bool { return len(n.received(addr(i))) == 2 })
		if nb := n.neighbour(addr(i)); !nb.Dynamic || nb.Name != "BGP-"+addr(i).String() {
			t.Errorf("neighbour %s, dynamic %t", nb.Name, nb.Dynamic)
		}
	}
	if !n.Converged() {
		t.Error("dynamic neighbours count for convergence")
	}
	for _, p := range peers[1:] {
		_ = p.nc.Close()
	}
	eventually(t, "one neighbour is left", func() bool { return len(n.Neighbours()) == 1 })
	eventually(t, "two routes are left", func() bool { return n.rib.Stats().Paths == 3 })
	eventually(t, "the RIB has forgotten one of the sources", func() bool {
		id, err := n.rib.AddSource("probe", rib.Peer)
		return err == nil && id <= count
	})

	// One that comes again is taken again.
	p := connect(t, n, addr(5))
	p.open(peerOpen(wire.EVPN))
	p.news("+" + macRoute(1).NLRI.String())
}

// Connections that come just when a dynamic neighbour ends are served or
// closed, never forgotten.
func TestDynamicNeighbourComesAndGoes(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *Config) { c.Dynamic = []Group{{Prefix: netip.MustParsePrefix("127.0.1.0/24")}} })
	from := netip.MustParseAddr("127.0.1.1")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				p := connect(t, n, from)
				_ = p.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := p.r.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a connection got no answer")
				}
				_ = p.nc.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "no neighbour is left", func() bool { return len(n.Neighbours()) == 0 })
}

// Two of our nodes, over IPv6: one dials, one listens.
func TestTwoNodesOverIPv6(t *testing.T) {
	t.Parallel()
	local := netip.IPv6Loopback()
	a := startNode(t, func(c *Config) {
		c.Local, c.Families, c.ListenPort = local, wire.Families, freePort(t, local)
		c.Dynamic = []Group{{Prefix: netip.MustParsePrefix("::1/128")}}
	})
	b := startNode(t, func(c *Config) {
		c.Local, c.Families, c.Listen, c.RouterID = local, wire.Families, false, peerID
		c.Peers = []PeerConfig{{Addr: local, Port: a.ListenPort}}
	})
	a.imports(rt100)
	b.imports(rt100)
	nh := netip.MustParseAddr("2001:db8::5")
	routes := []wire.Route{
		{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("198.51.100.0/24")), Label: wire.LabelField(16)},
		{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("2001:db8:1::/48")), Label: wire.LabelField(17)},
		{NLRI: wire.MACIPRoute(rd1, mac1, netip.MustParseAddr("2001:db8::10")), Label: 5000},
		{NLRI: wire.IMETRoute(rd1, nh)},
	}
	a.announce(wire.LocalAttrs{NextHop: nh, RTs: []wire.RT{rt100}}, routes...)
	b.announce(wire.LocalAttrs{NextHop: nh, RTs: []wire.RT{rt100, rt200}}, macRoute(1))
	want := map[string]wire.Route{}
	for _, r := range routes {
		want[r.NLRI.String()] = r
	}
	// The next hop of RTC routes is ::1, which both nodes have: they are dropped
	// as our own. So ask with another one, as nodes with other addresses do.
	eventually(t, "sessions", func() bool { return a.Established() == 1 && b.Established() == 1 })
	askAs(t, a, netip.MustParseAddr("2001:db8::a"))
	askAs(t, b, netip.MustParseAddr("2001:db8::b"))
	eventuallyEqual(t, "routes of a", want, func() map[string]wire.Route {
		got := map[string]wire.Route{}
		for name, p := range b.received(local) {
			if p.NLRI.Kind != wire.KindRTC {
				if p.Attrs.NextHop != nh {
					t.Fatalf("%s has next hop %s", name, p.Attrs.NextHop)
				}
				got[name] = p.Route
			}
		}
		return got
	})
	eventually(t, "route of b", func() bool { _, ok := a.received(local)[macRoute(1).NLRI.String()]; return ok })
	eventually(t, "convergence", b.Converged)
	if st := b.neighbour(local).Status(); st.State != session.Established || st.Negotiated.Local != local {
		t.Errorf("%+v", st)
	}
}

// askAs announces the wish for rt100 with a next hop.
func askAs(t *testing.T, n *node, nh netip.Addr) {
	t.Helper()
	n.announce(wire.LocalAttrs{NextHop: nh}, rtcRoute(testAS+1, rt100))
}
