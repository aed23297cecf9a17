// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

func TestMain(m *testing.M) {
	// GoBGP forgets some of its goroutines when it stops.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer"))
}

const testAS = 64500

var (
	nodeID   = netip.MustParseAddr("192.0.2.5")
	nodeAddr = netip.MustParseAddr("127.0.0.2")
	peerID   = netip.MustParseAddr("192.0.2.9")
	peerAddr = netip.MustParseAddr("127.0.0.9")

	rt100, rt200 = mustRT("64500:100"), mustRT("64500:200")
	rd1          = wire.MakeRD(nodeID, 1)
	mac1         = ethernet.MAC{2, 0, 0, 0, 0, 1}
	noRTC        = slices.DeleteFunc(slices.Clone(wire.Families), func(f wire.Family) bool { return f == wire.RTC })
	byValue      = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
)

func mustRT(s string) wire.RT {
	rt, err := wire.ParseRT(s)
	if err != nil {
		panic(err)
	}
	return rt
}

func mac(n int) ethernet.MAC { return ethernet.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

// eventuallyEqual waits until get returns want, and shows the difference if not.
func eventuallyEqual[T any](t *testing.T, what string, want T, get func() T) {
	t.Helper()
	var diff string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if diff = cmp.Diff(want, get(), byValue); diff == "" {
			return
		}
	}
	t.Fatalf("%s (-want +got):\n%s", what, diff)
}

func freePort(t *testing.T, addr netip.Addr) uint16 {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Skipf("no port on %s: %v", addr, err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// node is a speaker that runs, with its RIB and one instance's source.
type node struct {
	*Speaker
	t        *testing.T
	rib      *rib.RIB
	instance rib.SourceID
	stop     func(cause error) // stops it and waits
}

// startNode runs a speaker. It listens on a free port.
func startNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	c := Config{
		AS: testAS, RouterID: nodeID, Local: nodeAddr, Listen: true, Log: slog.New(slog.DiscardHandler),
		Settings: Settings{HoldTime: 90, RetryMax: time.Second, Families: noRTC, Irrelevant: Keep},
	}
	if change != nil {
		change(&c)
	}
	if c.Listen && c.ListenPort == 0 {
		c.ListenPort = freePort(t, c.Local)
	}
	n := &node{t: t, rib: rib.New()}
	var err error
	if n.instance, err = n.rib.AddSource("VRF-1", rib.Local); err != nil {
		t.Fatal(err)
	}
	if n.Speaker, err = New(c, n.rib); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	n.stop = func(cause error) { cancel(cause); <-done }
	t.Cleanup(func() { n.stop(nil) })
	return n
}

// imports makes the node ask for route targets.
func (n *node) imports(rts ...wire.RT) *rib.Table {
	n.t.Helper()
	src, err := n.rib.AddSource("RTC", rib.Local)
	if err != nil {
		n.t.Fatal(err)
	}
	n.rib.OriginateRTC(src, testAS, wire.LocalAttrs{NextHop: n.Local}.Build())
	table := n.rib.NewTable(rib.TableConfig{Source: n.instance})
	table.SetImports(rts)
	return table
}

// announce announces routes with the same attributes.
func (n *node) announce(a wire.LocalAttrs, routes ...wire.Route) {
	if !a.NextHop.IsValid() {
		a.NextHop = n.Local
	}
	set := n.rib.NewInterner().InternLocal(a.Build())
	var b rib.Batch
	b.Hold(set)
	for _, r := range routes {
		b.Announce(r, set)
	}
	n.rib.Apply(n.instance, &b)
}

func (n *node) withdraw(nlris ...wire.NLRI) {
	var b rib.Batch
	for _, x := range nlris {
		b.Withdraw(x)
	}
	n.rib.Apply(n.instance, &b)
}

// neighbour returns the only neighbour, or the one with an address.
func (n *node) neighbour(addr netip.Addr) *Neighbour {
	n.t.Helper()
	for _, x := range n.Neighbours() {
		if x.addr == addr {
			return x
		}
	}
	n.t.Fatalf("no neighbour %s", addr)
	return nil
}

// received returns the routes from a neighbour by their text.
func (n *node) received(addr netip.Addr) map[string]rib.Path {
	m := map[string]rib.Path{}
	for _, p := range n.rib.Paths(rib.FromSource("BGP-" + addr.String())) {
		m[p.NLRI.String()] = p
	}
	return m
}

// names returns the texts of the routes from a neighbour, in order.
func (n *node) names(addr netip.Addr) []string {
	names := []string{}
	for name := range n.received(addr) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// established waits for the session with a neighbour.
func (n *node) established(addr netip.Addr) {
	n.t.Helper()
	eventually(n.t, "session with "+addr.String(), func() bool {
		return n.neighbour(addr).Status().State == session.Established
	})
}

// rawPeer is a neighbour played octet by octet over TCP.
type rawPeer struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// connect opens a connection from an address to a node.
func connect(t *testing.T, n *node, from netip.Addr) *rawPeer {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	var nc net.Conn
	eventually(t, "node listens", func() (ok bool) {
		var err error
		nc, err = d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(n.Local, n.ListenPort).String())
		return err == nil
	})
	t.Cleanup(func() { _ = nc.Close() })
	return &rawPeer{t: t, nc: nc, r: bufio.NewReaderSize(nc, 1<<17)}
}

// peerOpen is the OPEN of a raw peer.
func peerOpen(families ...wire.Family) wire.Open {
	return wire.Open{
		AS: testAS, HoldTime: 90, RouterID: peerID, Families: families,
		FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true,
	}
}

// passivePeer configures peerAddr as a neighbour that is not dialled.
func passivePeer(families ...wire.Family) func(*Config) {
	return func(c *Config) {
		c.Peers = []PeerConfig{{Addr: peerAddr, Passive: true}}
		if len(families) > 0 {
			c.Families = families
		}
	}
}

// open brings a session up and returns the node's OPEN.
func (p *rawPeer) open(o wire.Open) wire.Open {
	p.t.Helper()
	msg, err := o.Message()
	if err != nil {
		p.t.Fatal(err)
	}
	return p.handshake(msg)
}

func (p *rawPeer) handshake(msg []byte) wire.Open {
	p.t.Helper()
	p.write(msg)
	typ, body := p.read()
	if typ != wire.MsgOpen {
		p.t.Fatalf("%s %x instead of OPEN", typ, body)
	}
	o, werr := wire.ParseOpen(body)
	if werr != nil {
		p.t.Fatal(werr)
	}
	if typ, body = p.read(); typ != wire.MsgKeepalive {
		p.t.Fatalf("%s %x instead of KEEPALIVE", typ, body)
	}
	p.write(wire.Keepalive())
	return o
}

func (p *rawPeer) write(msgs ...[]byte) {
	p.t.Helper()
	if _, err := p.nc.Write(slices.Concat(msgs...)); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next message, type 0 at the end of the connection.
func (p *rawPeer) read() (wire.MsgType, []byte) {
	p.t.Helper()
	_ = p.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(p.r, head); err != nil {
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			p.t.Fatal("no message")
		}
		return 0, nil
	}
	typ, length, werr := wire.ParseHeader(head, wire.MaxExtMessage)
	if werr != nil {
		p.t.Fatal(werr)
	}
	body := make([]byte, length-wire.HeaderLen)
	if _, err := io.ReadFull(p.r, body); err != nil {
		p.t.Fatal(err)
	}
	return typ, body
}

// news reads UPDATEs until all that is awaited came, and returns what came:
// "+route", "-route" or "End-of-RIB family".
func (p *rawPeer) news(awaited ...string) []string {
	p.t.Helper()
	var all []string
	missing := func(s string) bool { return !slices.Contains(all, s) }
	for slices.ContainsFunc(awaited, missing) {
		typ, body := p.read()
		switch typ {
		case wire.MsgUpdate:
			all = append(all, updateTexts(p.t, body)...)
		case wire.MsgKeepalive:
		default:
			p.t.Fatalf("%s %x while waiting for %q; so far %q", typ, body, awaited, all)
		}
	}
	return all
}

// updateTexts lists what an UPDATE says.
func updateTexts(t *testing.T, body []byte) []string {
	t.Helper()
	u, err := wire.ParseUpdate(body, nil)
	if err != nil || u.Withdraw != nil {
		t.Fatal("UPDATE of the node: ", err, u.Withdraw)
	}
	if f, ok := u.EndOfRIB(); ok {
		return []string{"End-of-RIB " + f.String()}
	}
	var all []string
	for _, r := range routesIn(t, u.Unreach, true) {
		all = append(all, "-"+r.NLRI.String())
	}
	for _, r := range routesIn(t, u.Reach, false) {
		all = append(all, "+"+r.NLRI.String())
	}
	return all
}

func routesIn(t *testing.T, part wire.MPNLRI, withdraw bool) []wire.Route {
	t.Helper()
	var all []wire.Route
	for r := wire.NewNLRIReader(part.Family, part.NLRI, withdraw); ; {
		var route wire.Route
		ok, err := r.Next(&route)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, route)
	}
}

// announcement makes UPDATEs that announce routes of one family.
func announcement(a wire.LocalAttrs, routes ...wire.Route) []byte {
	if !a.NextHop.IsValid() {
		a.NextHop = peerAddr
	}
	p := wire.NewPacker(wire.MaxMessage)
	p.Announce(routes[0].NLRI.Kind.Family(), a.Build().Raw, a.NextHop)
	for _, r := range routes {
		p.Add(r)
	}
	return slices.Clone(p.Flush())
}

// withdrawal makes an UPDATE that withdraws routes of one family.
func withdrawal(routes ...wire.Route) []byte {
	p := wire.NewPacker(wire.MaxMessage)
	p.Withdraw(routes[0].NLRI.Kind.Family())
	for _, r := range routes {
		p.Add(r)
	}
	return slices.Clone(p.Flush())
}

// macRoute returns the EVPN type 2 route of the nth MAC.
func macRoute(n int) wire.Route {
	return wire.Route{NLRI: wire.MACIPRoute(rd1, mac(n), netip.Addr{}), Label: 5000}
}

func rtcRoute(as uint32, rt wire.RT) wire.Route { return wire.Route{NLRI: wire.RTCRoute(as, rt)} }

// tagged returns attributes with route targets.
func tagged(rts ...wire.RT) wire.LocalAttrs { return wire.LocalAttrs{RTs: rts} }
