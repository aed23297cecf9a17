// SPDX-License-Identifier: Apache-2.0

package rr

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// lines is a log that a test can read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// startReflector runs a reflector and returns its port and log, and a function
// that stops it and waits.
func startReflector(t *testing.T, cfg Config) (uint16, *lines, func()) {
	t.Helper()
	log := &lines{}
	cfg.RouterID = netip.MustParseAddr("192.0.2.254")
	cfg.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	cfg.Port = freePort(t)
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "reflector listens", func() bool { return strings.Contains(log.String(), ListeningMessage) })
	return cfg.Port, log, stop
}

// startClient runs a BGP speaker that dials the reflector from its own
// loopback address.
func startClient(t *testing.T, addr string, port uint16) *server.BgpServer {
	t.Helper()
	s := server.NewBgpServer()
	go s.Serve()
	t.Cleanup(s.Stop)
	ctx := t.Context()
	err := s.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: DefaultAS, RouterId: addr, ListenPort: -1}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.AddPeer(ctx, &api.AddPeerRequest{Peer: &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: "127.0.0.1", PeerAsn: DefaultAS},
		Transport: &api.Transport{LocalAddress: addr, RemotePort: uint32(port)},
		Timers:    &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1}},
		AfiSafis:  families(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// announce sends an E-VPN multicast route and the membership for its route target.
func announce(t *testing.T, s *server.BgpServer, origin string) {
	t.Helper()
	addr := netip.MustParseAddr(origin)
	rt := bgp.NewTwoOctetAsSpecificExtended(bgp.EC_SUBTYPE_ROUTE_TARGET, DefaultAS, 100, true)
	rd, err := bgp.ParseRouteDistinguisher(origin + ":1")
	if err != nil {
		t.Fatal(err)
	}
	multicast, err := bgp.NewEVPNMulticastEthernetTagRoute(rd, 0, addr)
	if err != nil {
		t.Fatal(err)
	}
	attrs := func(more ...bgp.PathAttributeInterface) []bgp.PathAttributeInterface {
		nh, err := bgp.NewPathAttributeNextHop(addr)
		if err != nil {
			t.Fatal(err)
		}
		return append([]bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), nh, bgp.NewPathAttributeLocalPref(100)}, more...)
	}
	_, err = s.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{
		{Family: bgp.RF_RTC_UC, Nlri: bgp.NewRouteTargetMembershipNLRI(DefaultAS, rt), Attrs: attrs()},
		{Family: bgp.RF_EVPN, Nlri: multicast, Attrs: attrs(
			bgp.NewPathAttributeExtendedCommunities([]bgp.ExtendedCommunityInterface{rt}))},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// routes lists the E-VPN routes of a speaker as text, with their attributes.
func routes(t *testing.T, s *server.BgpServer) string {
	t.Helper()
	var b strings.Builder
	err := s.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: bgp.RF_EVPN},
		func(nlri bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				fmt.Fprintf(&b, "%s %s\n", nlri, p.Attrs)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTwoClientsExchangeRoutes(t *testing.T) {
	port, log, stop := startReflector(t, Config{})
	a, b := startClient(t, "127.0.0.2", port), startClient(t, "127.0.0.3", port)
	announce(t, a, "127.0.0.2")
	announce(t, b, "127.0.0.3")

	eventually(t, "a has the route of b", func() bool { return strings.Contains(routes(t, a), "127.0.0.3:1") })
	eventually(t, "b has the route of a", func() bool { return strings.Contains(routes(t, b), "127.0.0.2:1") })
	// Reflection leaves its marks (RFC 4456 §8) and not its own next hop.
	got := routes(t, a)
	for _, want := range []string{"Originator: 127.0.0.3", "192.0.2.254"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in the routes of a:\n%s", want, got)
		}
	}

	b.Stop()
	eventually(t, "the reflector sees b leave", func() bool {
		return strings.Contains(log.String(), `msg="client left" client=127.0.0.3`)
	})
	eventually(t, "a loses the route of b", func() bool { return !strings.Contains(routes(t, a), "127.0.0.3:1") })
	stop()
	text := log.String()
	for _, client := range []string{"127.0.0.2", "127.0.0.3"} {
		if n := strings.Count(text, `msg="client came" client=`+client); n != 1 {
			t.Errorf("%d lines about %s coming:\n%s", n, client, text)
		}
	}
	if !strings.Contains(text, "reflector has stopped") {
		t.Errorf("no line about the end:\n%s", text)
	}
}

func TestClientsOutsideThePrefixesAreRefused(t *testing.T) {
	port, log, _ := startReflector(t, Config{ClientPrefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	startClient(t, "127.0.0.3", port)
	startClient(t, "127.0.0.2", port)
	eventually(t, "the one inside is taken", func() bool {
		return strings.Contains(log.String(), `msg="client came" client=127.0.0.2`)
	})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
	conn, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the one outside got an answer: %d bytes, %v", n, err)
	}
	if strings.Contains(log.String(), "client=127.0.0.3") {
		t.Errorf("the one outside was taken:\n%s", log)
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if err := Run(t.Context(), Config{RouterID: netip.MustParseAddr("2001:db8::1")}); err == nil {
		t.Error("an IPv6 router id was taken")
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	used := netip.MustParseAddrPort(l.Addr().String())
	err = Run(t.Context(), Config{RouterID: netip.MustParseAddr("192.0.2.254"), Listen: []netip.Addr{used.Addr()}, Port: used.Port()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v for a port in use", err)
	}
}

func TestStopWhileAClientConnects(t *testing.T) {
	for range 10 {
		port, log, stop := startReflector(t, Config{})
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
		if err != nil {
			t.Fatal(err)
		}
		stop()
		_ = conn.Close()
		if strings.Contains(log.String(), "farewell") {
			t.Error(log)
		}
	}
}
