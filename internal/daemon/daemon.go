// SPDX-License-Identifier: Apache-2.0

// Package daemon puts the parts of bagpipe-bgp together: dataplane drivers,
// RIB, VPN manager, BGP speaker and HTTP server, started in that order and all
// stopped when one fails or the context ends.
package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/bmp"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
	"github.com/bagpipe-vpn/bagpipe/internal/nodelock"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
	"github.com/bagpipe-vpn/bagpipe/internal/version"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// Daemon is a node that is ready to run.
type Daemon struct {
	cfg        *config.Config
	log        *slog.Logger
	drivers    map[dataplane.VPNType]dataplane.Driver
	reconciler *dataplane.Reconciler
	manager    *vpn.Manager
	speaker    *speaker.Speaker
	monitor    *bmp.Exporter
	routes     *rib.RIB
	server     *api.Server
	store      *store.Store                  // nil when nothing is kept
	restored   atomic.Bool                   // what it has kept is there again
	lock       *nodelock.Lock                // nil: no forwarding state is touched
	effective  atomic.Pointer[config.Config] // cfg with what was changed since

	// Service may be set before Run.
	Service Service
}

// New makes all parts and opens the API's port, so that every fault of the
// configuration shows before anything runs.
func New(cfg *config.Config, log *slog.Logger, book *logbook.Book) (*Daemon, error) {
	d := &Daemon{cfg: cfg, log: log}
	d.effective.Store(cfg)
	if err := d.build(book); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) build(book *logbook.Book) error {
	cfg, log := d.cfg, d.log
	if err := d.lockNode(); err != nil {
		return err
	}
	if err := d.openDrivers(); err != nil {
		return err
	}
	d.reconciler = dataplane.NewReconciler(d.drivers, log)
	routes := rib.New()
	d.routes = routes
	var err error
	if dir := cfg.Common.StateDirectory; dir != "" {
		if d.store, err = store.Open(dir, log); err != nil {
			return err
		}
	}
	d.manager, err = vpn.NewManager(vpn.Config{
		AS: cfg.BGP.MyAS, RouterID: cfg.BGP.RouterID, Local: cfg.BGP.LocalAddress,
		Tunnel: map[dataplane.VPNType]netip.Addr{
			dataplane.EVPN: cfg.EVPN.LocalAddress, dataplane.IPVPN: cfg.IPVPN.LocalAddress,
		},
		AcceptNoEncap: cfg.BGP.EVPNAcceptNoEncapsulation, RTC: cfg.BGP.EnableRTC, Joiner: joiner{finish: cfg.IPVPN.Driver == "ovs"}, Log: log, Store: d.store,
		FirstLabel: firstLabel(d.drivers[dataplane.IPVPN]),
	}, routes, d.reconciler)
	if err != nil {
		return err
	}
	sc := speakerConfig(cfg, log)
	sc.Restarting, sc.Deferral = d.manager.Kept() && len(d.manager.Unrestored()) > 0, deferral
	if d.speaker, err = speaker.New(sc, routes); err != nil {
		return err
	}
	if d.monitor, err = bmp.New(bmpConfig(cfg, log, d.speaker, routes)); err != nil {
		return err
	}
	d.server, err = api.New(api.Node{
		Manager: d.manager, RIB: routes, Speaker: d.speaker, Reconciler: d.reconciler, Settings: func() []config.Section { return d.effective.Load().Sections() },
		Ping: d.pingNumber(), Store: d.store,
		Monitoring: d.monitor.Status, Logs: book, Log: log, Version: version.String(), Started: time.Now(),
	})
	if err != nil {
		return err
	}
	return d.server.Listen(cfg.API)
}

// lockNode takes the forwarding plane of the network namespace, if a driver touches
// it, before the drivers do.
func (d *Daemon) lockNode() (err error) {
	if d.cfg.EVPN.Driver == "dummy" && d.cfg.IPVPN.Driver == "dummy" {
		return nil
	}
	d.lock, err = nodelock.Take()
	return err
}

func speakerConfig(cfg *config.Config, log *slog.Logger) speaker.Config {
	b := &cfg.BGP
	c := speaker.Config{
		AS: b.MyAS, RouterID: b.RouterID, Local: b.LocalAddress, Hostname: hostname(), Settings: *neighbourSettings(cfg, &b.Settings),
		Listen: b.Listen, ListenPort: b.ListenPort, BFD: bfd.NewNode(log), Log: log,
	}
	c.Peers, c.Dynamic = neighbours(cfg)
	return c
}

// firstLabel returns the smallest label to hand out. Where packets with labels may come in VXLAN,
// small numbers are left to the VNIs that operators choose for E-VPN.
func firstLabel(ipvpn dataplane.Driver) uint32 {
	if vpn.LabelsInVXLAN(ipvpn) {
		return 1 << 19
	}
	return 0
}

// neighbours returns what the speaker takes as its neighbours.
func neighbours(cfg *config.Config) (peers []speaker.PeerConfig, groups []speaker.Group) {
	for _, p := range cfg.BGP.Peers {
		peers = append(peers, speaker.PeerConfig{
			Addr: p.Addr, Port: p.Port, Passive: p.Passive, Settings: neighbourSettings(cfg, &p.Settings),
		})
	}
	for _, g := range cfg.BGP.Groups {
		groups = append(groups, speaker.Group{Prefix: g.Prefix, Settings: neighbourSettings(cfg, &g.Settings)})
	}
	return peers, groups
}

func neighbourSettings(cfg *config.Config, s *config.Settings) *speaker.Settings {
	out := speakerSettings(s)
	if len(cfg.BMP.Stations) > 0 && s.IrrelevantRoutes == config.IrrelevantAuto {
		out.Irrelevant = speaker.Keep // stations want to see all routes
	}
	return out
}

// hostname is told to peers and stations; "" when it is not known.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

func bmpConfig(cfg *config.Config, log *slog.Logger, s *speaker.Speaker, routes *rib.RIB) bmp.Config {
	c := bmp.Config{
		Retry: cfg.BMP.ConnectRetryTime, Statistics: cfg.BMP.StatisticsInterval,
		SysName: hostname(), SysDescr: "bagpipe-bgp " + version.String(),
		Peers: bmp.FromSpeaker(s), Routes: routes, Log: log,
	}
	for _, st := range cfg.BMP.Stations {
		c.Stations = append(c.Stations, st.Addr())
	}
	return c
}

func speakerSettings(s *config.Settings) *speaker.Settings {
	out := &speaker.Settings{
		Description: s.Description, AS: s.PeerAS, HoldTime: uint16(s.HoldTime / time.Second), RetryMax: s.ConnectRetryTime,
		Transport: transport.Options{
			Password: string(s.Password), TTLSecurity: int(s.TTLSecurity), Device: s.Device,
		},
		MaxPrefixes: int(s.MaxPrefixes), MaxPrefixesWarning: int(s.MaxPrefixesWarning), MaxPrefixesPause: s.MaxPrefixesPause,
		Disabled: s.Shutdown, DisabledText: "shut down in the configuration", AllowOwnAS: int(s.AllowOwnAS),
	}
	for _, f := range s.Families {
		out.Families = append(out.Families, wire.Families[f])
	}
	switch s.IrrelevantRoutes {
	case config.IrrelevantKeep:
		out.Irrelevant = speaker.Keep
	case config.IrrelevantDrop:
		out.Irrelevant = speaker.Drop
	case config.IrrelevantAuto:
		out.Irrelevant = speaker.DropIfAsked
	}
	if r := s.Restart; r.Mode != config.RestartOff {
		out.Restart = &speaker.Restart{Notification: r.Notification, StaleTime: r.StaleTime, LongLived: r.LongLivedTime}
		if r.Mode == config.RestartFull {
			out.Restart.Time = uint16(r.Time / time.Second)
		}
	}
	if w := s.BFD; w.Mode != config.BFDOff {
		out.BFD = &bfd.Config{Device: s.Device, MinTx: w.MinTx, MinRx: w.MinRx, Multiplier: w.Multiplier}
		if w.Mode == config.BFDMultihop {
			out.BFD.Multihop, out.BFD.MinTTL = true, w.MinTTL
		}
	}
	return out
}

// release gives free what New took.
func (d *Daemon) release() {
	d.close()
	d.unlock()
}

// close closes the store and the drivers.
func (d *Daemon) close() {
	if d.store != nil {
		if err := d.store.Close(); err != nil {
			d.log.Error("close the state", "err", err)
		}
	}
	for t, drv := range d.drivers {
		if err := drv.Close(); err != nil {
			d.log.Warn("close dataplane driver", "vpn_type", t, "err", err)
		}
	}
}

// unlock gives the forwarding plane free.
func (d *Daemon) unlock() {
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// Addr returns the address of the API.
func (d *Daemon) Addr() net.Addr { return d.server.Addr() }

// Run runs the node until ctx ends or a part fails. Forwarding state stays when
// it returns: a daemon that comes back adopts it. With cleanup_on_stop it is removed
// at the end of ctx, and CleanupLimit is added to the next limit. Parts that take longer than
// StopLimit to end are given up, with an error that names them; the process is to
// end then.
func (d *Daemon) Run(ctx context.Context) error {
	c := newCrew(ctx, StopLimit, d.log)
	leaves := sync.OnceValue(func() bool { return ctx.Err() != nil && d.effective.Load().Common.CleanupOnStop }) // asked once c.ctx has ended
	done := func(run func(context.Context)) func(context.Context) error {
		return func(ctx context.Context) error { run(ctx); return nil }
	}
	c.start("reconciler", done(d.reconciler.Run))
	c.start("VPN manager", done(d.manager.Run))
	c.start("BGP speaker", func(ctx context.Context) error { return d.speak(ctx, leaves) })
	c.start("BMP", done(d.monitor.Run))
	c.start("API", d.server.Serve)
	c.start("sweep", done(d.sweep))
	c.start("reload", done(d.reloads))
	if n := d.Service.Notifier; n != nil {
		defer context.AfterFunc(c.ctx, func() { tell(d.log, n.Send("STOPPING=1")) })()
		c.start("watchdog", done(newWatch(d.parts(), n, d.log).run))
		c.start("status", done(d.showStatus))
	}
	d.log.Info("running", "version", version.String(), "local_address", d.cfg.BGP.LocalAddress, "as", d.cfg.BGP.MyAS,
		"api", d.Addr().String(), "evpn_driver", d.drivers[dataplane.EVPN].Name(), "ipvpn_driver", d.drivers[dataplane.IPVPN].Name())
	<-c.ctx.Done()
	if !leaves() {
		return c.wait("state and dataplane drivers", func() error { d.release(); return nil })
	}
	c.limit += CleanupLimit
	return c.wait("state, dataplane drivers and forwarding state", func() error {
		d.close()
		defer d.unlock()
		return d.cleanUp(context.WithoutCancel(ctx))
	})
}

// sweep removes what an earlier run left, once agents had the time to attach everything
// again and the neighbours have sent their routes, for which they have the longest stale
// time (RFC 4724 §4.1); but not before all instances of that run are there that the store
// has kept.
func (d *Daemon) sweep(ctx context.Context) {
	if !pause(ctx, d.cfg.Common.SweepDelay) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, staleTime(d.cfg))
	defer cancel()
	d.speaker.WaitConverged(limited)
	for len(d.manager.Unrestored()) > 0 || ctx.Err() != nil {
		if !pause(ctx, time.Second) {
			return
		}
	}
	if removed := d.reconciler.Sweep(ctx); len(removed) > 0 {
		d.log.Info("removed forwarding state of an earlier run", "removed", strings.Join(removed, ", "))
	}
	d.sweepPairs()
	d.log.Info("sweep is done: no forwarding state is left but what is wanted")
}

// pause waits, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// staleTime returns the longest stale time of all neighbours.
func staleTime(cfg *config.Config) (longest time.Duration) {
	for _, p := range cfg.BGP.Peers {
		longest = max(longest, p.Settings.Restart.StaleTime)
	}
	for _, g := range cfg.BGP.Groups {
		longest = max(longest, g.Settings.Restart.StaleTime)
	}
	return longest
}
