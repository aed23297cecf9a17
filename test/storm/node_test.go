// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/dummy"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

const nodeAS = 64512

// patience is how long a test waits before it calls something hanging.
const patience = 60 * time.Second

var (
	nodeID   = netip.MustParseAddr("192.0.2.254")
	nodeAddr = netip.MustParseAddr("127.2.0.1")
	tunnels  = map[dataplane.VPNType]netip.Addr{
		dataplane.EVPN: netip.MustParseAddr("198.51.100.1"), dataplane.IPVPN: netip.MustParseAddr("198.51.100.2"),
	}
	vpnFamilies = []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN}
)

// eventually waits for something that other goroutines bring about.
func eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	wait := patience
	if x, ok := tb.(*trial); ok {
		wait = x.patience
	}
	for deadline := time.Now().Add(wait); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not reached: %s", what)
		}
	}
}

// node is a whole node but for its API.
type node struct {
	*vpn.Manager
	tb      testing.TB
	rib     *rib.RIB
	rec     *dataplane.Reconciler
	speaker *speaker.Speaker
	at      netip.AddrPort
	stop    func() // ends it and waits, once
}

// setup is what tests vary.
type setup struct {
	drivers map[dataplane.VPNType]dataplane.Driver // nil: dummies
	rtc     bool
	change  func(*speaker.Config)
}

// startNode runs a node that listens on a free port of nodeAddr and takes
// neighbours from 127.1.0.0/16.
func startNode(tb testing.TB, s setup) *node {
	tb.Helper()
	if s.drivers == nil {
		s.drivers = map[dataplane.VPNType]dataplane.Driver{}
		for t, local := range tunnels {
			s.drivers[t] = dummy.New(t, local)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("BAGPIPE_STORM_LOG") != "" {
		log = slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n := &node{tb: tb, rib: rib.New(), rec: dataplane.NewReconciler(s.drivers, log)}
	var err error
	n.Manager, err = vpn.NewManager(vpn.Config{
		AS: nodeAS, RouterID: nodeID, Local: nodeAddr, AcceptNoEncap: true, RTC: s.rtc, Log: log, Tunnel: tunnels,
	}, n.rib, n.rec)
	if err != nil {
		tb.Fatal(err)
	}
	c := speaker.Config{
		AS: nodeAS, RouterID: nodeID, Local: nodeAddr, Listen: true, ListenPort: freePort(tb), Log: log,
		Settings: speaker.Settings{HoldTime: 90, RetryMax: time.Second, Families: wire.Families, Irrelevant: speaker.Keep},
		Dynamic:  []speaker.Group{{Prefix: netip.MustParsePrefix("127.1.0.0/16")}},
	}
	if s.change != nil {
		s.change(&c)
	}
	n.at = netip.AddrPortFrom(c.Local, c.ListenPort)
	if n.speaker, err = speaker.New(c, n.rib); err != nil {
		tb.Fatal(err)
	}
	n.run()
	tb.Cleanup(n.stop)
	return n
}

// run starts the parts and sets stop.
func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Manager.Run(ctx) })
	wg.Go(func() { n.rec.Run(ctx) })
	wg.Go(func() {
		if err := n.speaker.Run(ctx); err != nil {
			n.tb.Error(err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
}

func freePort(tb testing.TB) uint16 {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", netip.AddrPortFrom(nodeAddr, 0).String())
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// neighbour returns the neighbour with an address, or nil.
func (n *node) neighbour(addr netip.Addr) *speaker.Neighbour {
	for _, x := range n.speaker.Neighbours() {
		if x.Config().Peer == addr {
			return x
		}
	}
	return nil
}

// established tells whether there is a session with a neighbour.
func (n *node) established(addr netip.Addr) bool {
	x := n.neighbour(addr)
	return x != nil && x.Status().State == session.Established
}

// received returns how many routes a neighbour has announced.
func (n *node) received(addr netip.Addr) (count int) {
	if x := n.neighbour(addr); x != nil {
		for _, c := range x.Received() {
			count += c
		}
	}
	return count
}
