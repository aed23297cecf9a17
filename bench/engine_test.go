// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/dummy"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

const (
	enginePort = 17900
	// rounds of a measurement; the median counts.
	rounds = 3
)

// engine is the daemon without API: speaker, RIB, instances, a dataplane.
type engine struct {
	rib        *rib.RIB
	manager    *vpn.Manager
	reconciler *dataplane.Reconciler
	speaker    *speaker.Speaker
	stop       func()
}

// startEngine starts an engine that listens on 127.0.0.1, with instances as
// load describes them. A driver that is nil is a dummy.
func startEngine(b *testing.B, l load, evpn, ipvpn dataplane.Driver, tunnel netip.Addr, irrelevant speaker.Irrelevant) *engine {
	b.Helper()
	if evpn == nil {
		evpn = dummy.New(dataplane.EVPN, tunnel)
	}
	if ipvpn == nil {
		ipvpn = dummy.New(dataplane.IPVPN, tunnel)
	}
	local := netip.MustParseAddr("127.0.0.1")
	log := slog.New(slog.DiscardHandler)
	e := &engine{rib: rib.New()}
	e.reconciler = dataplane.NewReconciler(map[dataplane.VPNType]dataplane.Driver{
		dataplane.EVPN: evpn, dataplane.IPVPN: ipvpn,
	}, log)
	var err error
	e.manager, err = vpn.NewManager(vpn.Config{
		AS: benchAS, RouterID: local, Local: local, AcceptNoEncap: true, Log: log,
		Tunnel: map[dataplane.VPNType]netip.Addr{dataplane.EVPN: tunnel, dataplane.IPVPN: tunnel},
	}, e.rib, e.reconciler)
	if err != nil {
		b.Fatal(err)
	}
	e.speaker, err = speaker.New(speaker.Config{
		AS: benchAS, RouterID: local, Local: local,
		Settings: speaker.Settings{Families: wire.Families[:len(wire.Families)-1], Irrelevant: irrelevant},
		Listen:   true, ListenPort: enginePort, Dynamic: []speaker.Group{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}, Log: log,
	}, e.rib)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.manager.Run(ctx); done <- struct{}{} }()
	go func() { _ = e.speaker.Run(ctx); done <- struct{}{} }()
	e.stop = func() { cancel(); <-done; <-done }
	for n := range l.Instances {
		e.attach(b, n, l.Mix)
	}
	return e
}

// attach makes instance n with one endpoint.
func (e *engine) attach(b *testing.B, n int, m mix) {
	b.Helper()
	a := vpn.Attachment{
		Type: dataplane.EVPN, InstanceID: strconv.Itoa(n), Port: fmt.Sprintf("p%d", n), MAC: ethernet.MAC{6, 0, 0, 0, byte(n >> 8), byte(n)},
		IP: netip.MustParsePrefix("198.51.100.1/24"), Imports: []wire.RT{instanceRT(n)}, Exports: []wire.RT{instanceRT(n)},
		Direction: dataplane.Both,
	}
	if !m.evpn(n) {
		a.Type = dataplane.IPVPN
	}
	if err := e.manager.Attach(context.Background(), a); err != nil {
		b.Fatal(err)
	}
}

// settled tells whether all routes of a load are in the RIB, or were dropped,
// and all that they mean has been handed to the dataplane.
func (e *engine) settled(l load, s *sender, changesBefore uint64) bool {
	stats := e.rib.Stats()
	received, _ := e.rib.Counts()
	held := received[wire.VPNv4] + received[wire.EVPN]
	return held+int(stats.Irrelevant) == l.Routes && e.reconciler.Changes()-changesBefore >= uint64(s.entries)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

var engineLoads = []struct {
	name string
	load load
}{
	{"packed", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100}},
	{"packed-VPNv4", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyVPNv4}},
	{"packed-EVPN", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyEVPN}},
	{"one-per-update", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 1}},
}

// BenchmarkEngine measures CPU and heap per route from TCP to a dummy
// dataplane: 100k routes in 100 instances, unless named otherwise half EVPN type
// 2 with MAC and IP and half VPNv4.
func BenchmarkEngine(b *testing.B) {
	measure(b, engineRun)
}

// measure runs all loads and reports the medians of what run returns.
func measure(b *testing.B, run func(*testing.B, load) (cpuPerRoute, heapPerPath float64)) {
	b.Helper()
	for _, el := range engineLoads {
		b.Run(el.name, func(b *testing.B) {
			var cpu, bytes []float64
			for range rounds {
				c, h := run(b, el.load)
				cpu, bytes = append(cpu, c), append(bytes, h)
			}
			b.ReportMetric(percentile(cpu, 50), "cpu-us/route")
			b.ReportMetric(percentile(bytes, 50), "heap-B/path")
		})
	}
}

// engineRun is one load into a new engine.
func engineRun(b *testing.B, l load) (cpuPerRoute, heapPerPath float64) {
	r := loaded(b, l, speaker.DropIfAsked)
	defer r.end()
	return float64(r.cpu.Microseconds()) / float64(l.Routes), r.heapPerRoute()
}

// BenchmarkEngineGoBGP is the same load into GoBGP's server, embedded, with
// nobody watching: the baseline of BenchmarkEngine.
func BenchmarkEngineGoBGP(b *testing.B) { measure(b, gobgpRun) }

func gobgpRun(b *testing.B, l load) (cpuPerRoute, heapPerPath float64) {
	ctx := context.Background()
	s := server.NewBgpServer(server.LoggerOption(slog.New(slog.DiscardHandler), new(slog.LevelVar)))
	go s.Serve()
	defer s.Stop()
	err := s.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: benchAS, RouterId: "127.0.0.1", ListenPort: enginePort, ListenAddresses: []string{"127.0.0.1"},
	}})
	if err != nil {
		b.Fatal(err)
	}
	var families []*api.AfiSafi
	for _, f := range []*api.Family{
		{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_MPLS_VPN}, {Afi: api.Family_AFI_L2VPN, Safi: api.Family_SAFI_EVPN},
	} {
		families = append(families, &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f, Enabled: true}})
	}
	err = s.AddPeer(ctx, &api.AddPeerRequest{Peer: &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: "127.0.0.2", PeerAsn: benchAS}, Transport: &api.Transport{PassiveMode: true}, AfiSafis: families,
	}})
	if err != nil {
		b.Fatal(err)
	}
	send := startSender(b, fmt.Sprintf("127.0.0.1:%d", enginePort), "127.0.0.2")
	defer send.close()
	send.prepare(l)
	base, start := heap(), cpuTime(b)
	send.send()
	awaitEvery(b, time.Second, "routes in GoBGP", func() bool { return gobgpPaths(b, s) >= uint64(l.Routes) })
	cpuPerRoute = float64((cpuTime(b) - start).Microseconds()) / float64(l.Routes)
	heapPerPath = float64(heap()-base) / float64(l.Routes)
	return cpuPerRoute, heapPerPath
}

func gobgpPaths(b *testing.B, s *server.BgpServer) (n uint64) {
	b.Helper()
	for _, f := range []*api.Family{
		{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_MPLS_VPN}, {Afi: api.Family_AFI_L2VPN, Safi: api.Family_SAFI_EVPN},
	} {
		t, err := s.GetTable(context.Background(), &api.GetTableRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f})
		if err != nil {
			b.Fatal(err)
		}
		n += t.NumPath
	}
	return n
}
