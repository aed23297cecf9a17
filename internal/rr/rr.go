// SPDX-License-Identifier: Apache-2.0

// Package rr is a small BGP route reflector for labs and tests: a server of
// GoBGP, set up so that any node that connects becomes a reflector client for
// the VPN families.
//
// Clients are taken by prefix, not by configuration, and the reflector never
// dials: it is a peer that a node can point at. It is not for production: among
// other things GoBGP 4.8.0 withdraws a route with several route targets from a
// client that gives up just one of them.
//
// The package links all of GoBGP's server, so only cmd/bagpipe may import it,
// never the daemon.
package rr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// Defaults of Config.
const (
	DefaultAS   = 64512
	DefaultPort = 179
)

// ListeningMessage is logged when clients are let in.
const ListeningMessage = "reflector is listening"

// group names the peer group that all clients fall in.
const group = "clients"

// Config says how to run a reflector. RouterID is required.
type Config struct {
	// AS is the AS number of the reflector and of all its clients; 0 means DefaultAS.
	AS uint32
	// RouterID is an IPv4 address; it is also the cluster id.
	RouterID netip.Addr
	// Listen are the addresses to listen on; none means all.
	Listen []netip.Addr
	// Port is the TCP port to listen on; 0 means DefaultPort.
	Port uint16
	// ClientPrefixes are the addresses that clients may come from; none means any.
	ClientPrefixes []netip.Prefix
	// Log takes one line when a client comes or goes; nil means no logging.
	Log *slog.Logger
}

// withDefaults fills what was left out and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.AS == 0 {
		c.AS = DefaultAS
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		return c, fmt.Errorf("router id must be an IPv4 address, not %q", c.RouterID)
	}
	if len(c.Listen) == 0 {
		c.Listen = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if len(c.ClientPrefixes) == 0 {
		c.ClientPrefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Run serves until ctx is done, then takes leave of the clients with a
// NOTIFICATION and returns nil.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("configure reflector: %w", err)
	}
	var level slog.LevelVar
	level.Set(slog.LevelError)
	bgp := server.NewBgpServer(server.LoggerOption(slog.New(atLeast(&level, cfg.Log.Handler())), &level))
	served := make(chan struct{})
	go func() {
		defer close(served)
		bgp.Serve()
	}()
	if err := start(ctx, bgp, cfg); err != nil {
		bgp.Stop()
		<-served
		return err
	}
	cfg.Log.Info(ListeningMessage, "as", cfg.AS, "router_id", cfg.RouterID,
		"addresses", cfg.Listen, "port", cfg.Port, "client_prefixes", cfg.ClientPrefixes)
	<-ctx.Done()
	turnAway(context.WithoutCancel(ctx), bgp, cfg)
	bgp.Stop()
	<-served
	cfg.Log.Info("reflector has stopped")
	return nil
}

// start opens the listeners and lets clients in. A client that connects in the
// moment between the two is refused and tries again; the watch comes before the
// clients, so that no coming is missed.
func start(ctx context.Context, bgp *server.BgpServer, cfg Config) error {
	if err := bgp.StartBgp(ctx, &api.StartBgpRequest{Global: global(cfg)}); err != nil {
		return fmt.Errorf("listen on port %d: %w", cfg.Port, err)
	}
	watch := &clientLog{log: cfg.Log, up: map[netip.Addr]bool{}, came: make(chan struct{}, 1)}
	err := bgp.WatchEvent(ctx, server.WatchEventMessageCallbacks{OnPeerUpdate: watch.event}, server.WatchPeer())
	if err != nil {
		return fmt.Errorf("watch sessions: %w", err)
	}
	go repeat(ctx, bgp, watch.came, cfg.Log)
	if err := bgp.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: peerGroup(cfg)}); err != nil {
		return fmt.Errorf("make peer group: %w", err)
	}
	for _, p := range cfg.ClientPrefixes {
		n := &api.DynamicNeighbor{Prefix: p.Masked().String(), PeerGroup: group}
		if err := bgp.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{DynamicNeighbor: n}); err != nil {
			return fmt.Errorf("take clients from %s: %w", p, err)
		}
	}
	return nil
}

// repeatAfter are the pauses after which all routes are sent again, from when the last client came on.
var repeatAfter = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second}

// repeat sends all clients all routes again, some times, when no more clients come: of two that come within
// a millisecond GoBGP 4.8.0 does not tell one which route targets the other imports.
func repeat(ctx context.Context, bgp *server.BgpServer, came <-chan struct{}, log *slog.Logger) {
	timer := time.NewTimer(repeatAfter[0])
	timer.Stop()
	next := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-came:
			next = 0
		case <-timer.C:
			err := bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
			if err != nil {
				log.Debug("routes are not sent again", "err", err)
			}
			next++
		}
		if next < len(repeatAfter) {
			timer.Reset(repeatAfter[next])
		}
	}
}

// turnAway stops taking clients and takes leave of those there are. GoBGP's own
// Stop does the second only, and fails on a client that connects meanwhile: it
// takes the server's identity away while the session still writes its OPEN.
func turnAway(ctx context.Context, bgp *server.BgpServer, cfg Config) {
	var clients []string
	note := func(p *api.Peer) { clients = append(clients, p.GetState().GetNeighborAddress()) }
	var errs []error
	for _, p := range cfg.ClientPrefixes {
		errs = append(errs, bgp.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{
			Prefix: p.Masked().String(), PeerGroup: group,
		}))
	}
	errs = append(errs, bgp.ListPeer(ctx, &api.ListPeerRequest{}, note))
	for _, addr := range clients {
		errs = append(errs, bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: addr}))
	}
	// A client that left between the two calls makes an error of no interest.
	if err := errors.Join(errs...); err != nil {
		cfg.Log.Debug("a client did not get a farewell", "err", err)
	}
}

func global(cfg Config) *api.Global {
	listen := make([]string, len(cfg.Listen))
	for i, a := range cfg.Listen {
		listen[i] = a.String()
	}
	return &api.Global{
		Asn:             cfg.AS,
		RouterId:        cfg.RouterID.String(),
		ListenPort:      int32(cfg.Port),
		ListenAddresses: listen,
	}
}

func peerGroup(cfg Config) *api.PeerGroup {
	return &api.PeerGroup{
		Conf:      &api.PeerGroupConf{PeerGroupName: group, PeerAsn: cfg.AS},
		Transport: &api.Transport{PassiveMode: true},
		RouteReflector: &api.RouteReflector{
			RouteReflectorClient:    true,
			RouteReflectorClusterId: cfg.RouterID.String(),
		},
		AfiSafis: families(),
	}
}

// families are those that a bagpipe node can speak.
func families() []*api.AfiSafi {
	var all []*api.AfiSafi
	for _, f := range []struct {
		afi  api.Family_Afi
		safi api.Family_Safi
	}{
		{api.Family_AFI_IP, api.Family_SAFI_MPLS_VPN},
		{api.Family_AFI_IP6, api.Family_SAFI_MPLS_VPN},
		{api.Family_AFI_L2VPN, api.Family_SAFI_EVPN},
		{api.Family_AFI_IP, api.Family_SAFI_FLOW_SPEC_VPN},
		{api.Family_AFI_IP6, api.Family_SAFI_FLOW_SPEC_VPN},
		{api.Family_AFI_IP, api.Family_SAFI_ROUTE_TARGET_CONSTRAINTS},
	} {
		all = append(all, &api.AfiSafi{Config: &api.AfiSafiConfig{
			Family:  &api.Family{Afi: f.afi, Safi: f.safi},
			Enabled: true,
		}})
	}
	return all
}

// ErrNoRouterID is returned by HostRouterID on a host without IPv4 address.
var ErrNoRouterID = errors.New("this host has no IPv4 address to take as router id")
