// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

var (
	nodeAddr  = netip.MustParseAddr("127.0.0.2")
	gobgpAddr = netip.MustParseAddr("127.0.0.1")
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startGoBGP runs GoBGP, which waits for the node at a port.
func startGoBGP(t *testing.T, port uint16) *server.BgpServer {
	t.Helper()
	g := server.NewBgpServer()
	served := make(chan struct{})
	go func() { defer close(served); g.Serve() }()
	t.Cleanup(func() { g.Stop(); <-served })
	must(t, g.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{
		Asn: 64500, RouterId: peerID.String(), ListenPort: int32(port), ListenAddresses: []string{gobgpAddr.String()},
	}}))
	must(t, g.AddPeer(t.Context(), &api.AddPeerRequest{Peer: &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: nodeAddr.String(), PeerAsn: 64500},
		Transport: &api.Transport{LocalAddress: gobgpAddr.String(), PassiveMode: true},
		Timers:    &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1}},
		AfiSafis: []*api.AfiSafi{{Config: &api.AfiSafiConfig{
			Family: &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_MPLS_VPN}, Enabled: true,
		}}},
	}}))
	return g
}

// startNode runs a speaker that dials GoBGP, and an exporter to a station.
func startNode(t *testing.T, port uint16, station string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := rib.New()
	s, err := speaker.New(speaker.Config{
		AS: 64500, RouterID: local, Local: nodeAddr, Log: log,
		Settings: speaker.Settings{HoldTime: 90, RetryMax: time.Second, Families: []wire.Family{wire.VPNv4}, Irrelevant: speaker.Keep},
		Peers:    []speaker.PeerConfig{{Addr: gobgpAddr, Port: port}},
	}, r)
	must(t, err)
	e, err := New(Config{Stations: []string{station}, Peers: FromSpeaker(s), Routes: r, Log: log})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { defer func() { done <- struct{}{} }(); e.Run(ctx) }()
	go func() { defer func() { done <- struct{}{} }(); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; <-done })
}

// vpnPath is a VPNv4 path of GoBGP.
func vpnPath(t *testing.T) *apiutil.Path {
	t.Helper()
	rd, err := bgp.NewRouteDistinguisherIPAddressAS(local, 1)
	must(t, err)
	nlri, err := bgp.NewLabeledVPNIPAddrPrefix(netip.MustParsePrefix("203.0.113.0/24"), *bgp.NewMPLSLabelStack(17), rd)
	must(t, err)
	nh, err := bgp.NewPathAttributeNextHop(gobgpAddr)
	must(t, err)
	return &apiutil.Path{Family: bgp.RF_IPv4_VPN, Nlri: nlri, Attrs: []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeLocalPref(200), nh,
	}}
}

// What GoBGP announces to a node reaches a station.
func TestRealSpeaker(t *testing.T) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	port := netip.MustParseAddrPort(free.Addr().String()).Port()
	_ = free.Close()
	l, c := listen(t)
	g := startGoBGP(t, port)
	startNode(t, port, l.Addr().String())
	await := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return slices.Contains(c.peek(), want) })
	}
	await("127.0.0.1 end of l3vpn-ipv4-unicast")
	eventually(t, "GoBGP reads", func() (reads bool) { // it loses a path that is added while its session comes up
		must(t, g.ListPeer(t.Context(), &api.ListPeerRequest{}, func(p *api.Peer) {
			reads = p.GetState().GetMessages().GetReceived().GetUpdate() > 0
		}))
		return reads
	})
	_, err = g.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{vpnPath(t)}})
	must(t, err)
	const route = "127.0.0.1 +700001110001c00002050001cb0071 pref 200"
	await(route)
	must(t, g.ResetPeer(t.Context(), &api.ResetPeerRequest{Address: nodeAddr.String(), Communication: "bye"}))
	const down = "127.0.0.1 down 3 6/4 03627965"
	await(down)
	want := []string{`initiation "" ""`, "up", "end of l3vpn-ipv4-unicast", "+700001110001c00002050001cb0071 pref 200", "down 3 6/4 03627965", "up"}
	var lines []string
	eventually(t, "all again", func() bool {
		lines = nil
		for _, l := range c.peek() { // the withdrawal may come before the end of the session; how much of the rest came is a race
			if l = strings.TrimPrefix(l, "127.0.0.1 "); l[0] != '-' {
				lines = append(lines, l)
			}
		}
		return len(lines) >= len(want)+2
	})
	if diff := cmp.Diff(want, lines[:len(want)]); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if !slices.Contains(lines[len(want):], route[len("127.0.0.1 "):]) {
		t.Errorf("not announced again: %q", lines)
	}
}
