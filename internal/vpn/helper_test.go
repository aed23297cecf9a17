// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// inBubble runs a test with fake time; settle then waits until all workers idle.
func inBubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func settle() { synctest.Wait() }

// node is a node without BGP sessions.
type node struct {
	*vpn.Manager
	tb         testing.TB
	rib        *rib.RIB
	plane      *fake.Plane
	reconciler *dataplane.Reconciler
	log        *bytes.Buffer
	stop       func()
	setup      setup
}

// setup is what tests vary; number is the last octet of the node's addresses.
type setup struct {
	number    int
	rtc       bool
	accept    bool // EVPN routes without encapsulation
	tunnel6   bool // the tunnels of VRFs go over IPv6
	plane     *fake.Plane
	evpnCaps  func(*dataplane.Capabilities)
	ipvpnCaps func(*dataplane.Capabilities)
	joiner    vpn.Joiner
	wrap      func(dataplane.Driver) dataplane.Driver // of VRFs
	store     string                                  // directory, "" without
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newNode(tb testing.TB, s setup) *node {
	tb.Helper()
	if s.number == 0 {
		s.number = 1
	}
	if s.plane == nil {
		s.plane = fake.NewPlane()
	}
	evpn, ipvpn := s.plane.Driver(dataplane.EVPN), s.plane.Driver(dataplane.IPVPN)
	if s.evpnCaps != nil {
		s.evpnCaps(&evpn.Caps)
	}
	if s.ipvpnCaps != nil {
		s.ipvpnCaps(&ipvpn.Caps)
	}
	if s.wrap == nil {
		s.wrap = func(d dataplane.Driver) dataplane.Driver { return d }
	}
	logged := &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(logged, nil))
	n := &node{tb: tb, rib: rib.New(), plane: s.plane, log: logged, setup: s}
	var kept *store.Store
	var err error
	if s.store != "" {
		if kept, err = store.Open(s.store, log); err != nil {
			tb.Fatal(err)
		}
	}
	n.reconciler = dataplane.NewReconciler(map[dataplane.VPNType]dataplane.Driver{dataplane.EVPN: evpn, dataplane.IPVPN: s.wrap(ipvpn)}, log)
	local := addr(fmt.Sprintf("10.77.0.%d", s.number))
	n.Manager, err = vpn.NewManager(vpn.Config{
		Store: kept,
		AS:    64512, RouterID: local, Local: local, AcceptNoEncap: s.accept, RTC: s.rtc, Joiner: s.joiner, Log: log,
		Tunnel: map[dataplane.VPNType]netip.Addr{
			dataplane.EVPN: addr(fmt.Sprintf("10.77.1.%d", s.number)), dataplane.IPVPN: addr(fmt.Sprintf("10.77.2.%d", s.number)),
		},
	}, n.rib, n.reconciler)
	if err != nil {
		tb.Fatal(err)
	}
	if s.tunnel6 {
		n.Tunnel[dataplane.IPVPN] = addr(fmt.Sprintf("2001:db8:2::%d", s.number))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { n.Run(ctx); done <- struct{}{} }()
	go func() { n.reconciler.Run(ctx); done <- struct{}{} }()
	n.stop = func() { cancel(); <-done; <-done }
	tb.Cleanup(n.stopOnce)
	return n
}

// stopOnce ends the node and closes its drivers; the plane stays.
func (n *node) stopOnce() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	for _, t := range []dataplane.VPNType{dataplane.EVPN, dataplane.IPVPN} {
		_ = n.reconciler.Driver(t).Close()
	}
	if n.Store != nil {
		if err := n.Store.Close(); err != nil {
			n.tb.Error(err)
		}
	}
}

// restarted is a node after this one, which was killed: it has what was on disk, and the same
// plane. Nothing is restored yet.
func (n *node) restarted() *node {
	n.tb.Helper()
	file, err := os.ReadFile(filepath.Join(n.setup.store, "state.db"))
	if err != nil {
		n.tb.Fatal(err)
	}
	n.stopOnce()
	s := n.setup
	s.store, s.plane = n.tb.TempDir(), n.plane
	if err := os.WriteFile(filepath.Join(s.store, "state.db"), file, 0o600); err != nil {
		n.tb.Fatal(err)
	}
	return newNode(n.tb, s)
}

func mac(n int) ethernet.MAC { return ethernet.MAC{2, 0, 0, 0, 0, byte(n)} }

func rts(list ...string) []wire.RT {
	out := []wire.RT{}
	for _, s := range list {
		rt, err := wire.ParseRT(s)
		if err != nil {
			panic(err)
		}
		out = append(out, rt)
	}
	return out
}

// prefix reads an address with or without length; "" is the invalid prefix.
func prefix(s string) netip.Prefix {
	switch {
	case s == "":
		return netip.Prefix{}
	case strings.Contains(s, "/"):
		return netip.MustParsePrefix(s)
	}
	a := addr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

type edit = func(*vpn.Attachment)

func onPort(p string) edit     { return func(a *vpn.Attachment) { a.Port = p } }
func subnet(a *vpn.Attachment) { a.AdvertiseSubnet = true }
func vni(n uint32) edit        { return func(a *vpn.Attachment) { a.VNI = n } }
func pref(n uint32) edit       { return func(a *vpn.Attachment) { a.LocalPref = n } }
func exports(l ...string) edit {
	return func(a *vpn.Attachment) { a.Exports = rts(l...) }
}
func imports(l ...string) edit {
	return func(a *vpn.Attachment) { a.Imports = rts(l...) }
}
func advertise(as vpn.Advertise) edit { return func(a *vpn.Attachment) { a.AdvertiseAs = as } }

// routerMAC is that of the node under test, in the capabilities that overVXLAN gives.
var routerMAC = ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1}

// overVXLAN has a driver route packets that come in VXLAN.
func overVXLAN(c *dataplane.Capabilities) {
	c.Encaps, c.RouterMAC = []encap.Type{encap.MPLS, encap.VXLAN}, routerMAC
}

func direction(d dataplane.Direction) edit { return func(a *vpn.Attachment) { a.Direction = d } }

func attachment(t dataplane.VPNType, id string, m int, ip string, edits []edit) vpn.Attachment {
	a := vpn.Attachment{
		Type: t, InstanceID: id, Port: "tap1", MAC: mac(m), IP: prefix(ip),
		Imports: rts("64512:1"), Exports: rts("64512:1"), Direction: dataplane.Both,
	}
	for _, e := range edits {
		e(&a)
	}
	return a
}

// evpn and vrf describe an endpoint of instance "red" and "blue" on port tap1.
func evpn(m int, ip string, edits ...edit) vpn.Attachment {
	return attachment(dataplane.EVPN, "red", m, ip, edits)
}

func vrf(m int, ip string, edits ...edit) vpn.Attachment {
	return attachment(dataplane.IPVPN, "blue", m, ip, edits)
}

// named changes the instance of an attachment.
func named(id string) edit { return func(a *vpn.Attachment) { a.InstanceID = id } }

func (n *node) attach(list ...vpn.Attachment) {
	n.tb.Helper()
	for _, a := range list {
		if err := n.Attach(context.Background(), a); err != nil {
			n.tb.Fatalf("attach %s %s %s: %v", a.InstanceID, a.MAC, a.IP, err)
		}
	}
	settle()
}

func detachment(a vpn.Attachment) vpn.Detachment {
	return vpn.Detachment{Type: a.Type, InstanceID: a.InstanceID, MAC: a.MAC, IP: a.IP.Addr()}
}

func (n *node) detach(list ...vpn.Attachment) {
	n.tb.Helper()
	for _, a := range list {
		if err := n.Detach(context.Background(), detachment(a)); err != nil {
			n.tb.Fatalf("detach %s %s %s: %v", a.InstanceID, a.MAC, a.IP, err)
		}
	}
	settle()
}

// wantRefused checks that an error is a RequestError about a field; "" is no error.
func wantRefused(tb testing.TB, err error, field string) {
	tb.Helper()
	var refused *vpn.RequestError
	switch {
	case field == "" && err == nil:
	case field == "" || !errors.As(err, &refused):
		tb.Fatalf("error %v, want one about %q", err, field)
	case refused.Field != field:
		tb.Fatalf("error %q is about %q, want %q", err, refused.Field, field)
	}
}

// routeText is a route with all that goes along, on one line.
func routeText(p rib.Path) string {
	var comms []string
	for _, c := range p.Attrs.Communities {
		comms = append(comms, c.String())
	}
	slices.Sort(comms)
	s := fmt.Sprintf("%s %s via %s pref %d [%s]", p.Source, p.Text(p.Attrs.NextHop), p.Attrs.NextHop, p.Attrs.LocalPref, strings.Join(comms, " "))
	if t := p.Attrs.PMSI; t != nil {
		s += fmt.Sprintf(" pmsi %d/%d/%s", t.TunnelType, t.Label, t.Endpoint)
	}
	return s
}

// routes lists the routes of local sources.
func (n *node) routes() []string {
	out := []string{}
	for _, p := range n.rib.Paths(func(p rib.Path) bool { return p.Kind == rib.Local }) {
		out = append(out, routeText(p))
	}
	slices.Sort(out)
	return out
}

func wantLines(tb testing.TB, what string, want, got []string) {
	tb.Helper()
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (n *node) wantRoutes(want ...string) {
	n.tb.Helper()
	wantLines(n.tb, "routes", want, n.routes())
}

// wantPlane compares the whole plane; want has one instance or entry per line.
func (n *node) wantPlane(want ...string) {
	n.tb.Helper()
	got := strings.Split(strings.TrimSuffix(n.plane.String(), "\n"), "\n")
	if n.plane.String() == "" {
		got = nil
	}
	wantLines(n.tb, "plane", want, got)
	wantLines(n.tb, "breaches of the driver contract", nil, n.plane.Breaches())
}

// state is all that an attach or detach may change, as text.
func (n *node) state() string {
	st := n.rib.Stats()
	var b strings.Builder
	rds := n.RDs()
	maps.DeleteFunc(rds, func(_ uint32, owner string) bool { return owner == "test" }) // of UseUpRDs
	fmt.Fprintf(&b, "labels %v\nrds %v\npaths %d sets %d\n%s", n.Labels(), rds, st.Paths, st.Sets, n.plane)
	for _, r := range n.routes() {
		fmt.Fprintln(&b, r)
	}
	for _, i := range n.Instances() {
		s := i.Snapshot()
		fmt.Fprintf(&b, "%s %s vni %d imports %v exports %v %s %+v\n", i.Name, i.ID, i.VNI, s.Imports, s.Exports, s.Description, s.Fallback)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %+v\n", e)
		}
	}
	return b.String()
}

func (n *node) wantState(want string) {
	n.tb.Helper()
	if diff := cmp.Diff(want, n.state()); diff != "" {
		n.tb.Errorf("state of the node (-before +after):\n%s", diff)
	}
}

// peer is a source of remote routes.
type peer struct {
	n    *node
	id   rib.SourceID
	in   *rib.Interner
	live bool
}

func (n *node) peer(name string) *peer {
	n.tb.Helper()
	id, err := n.rib.AddSource(name, rib.Peer)
	if err != nil {
		n.tb.Fatal(err)
	}
	return &peer{n: n, id: id, in: n.rib.NewInterner(), live: true}
}

func (p *peer) announce(r wire.Route, a wire.LocalAttrs) {
	var b rib.Batch
	set := p.in.InternLocal(a.Build())
	b.Hold(set)
	b.Announce(r, set)
	p.n.rib.Apply(p.id, &b)
	settle()
}

func (p *peer) withdraw(list ...wire.Route) {
	var b rib.Batch
	for _, r := range list {
		b.Withdraw(r.NLRI)
	}
	p.n.rib.Apply(p.id, &b)
	settle()
}

// pass is longer than any window in which late routes are answered.
func pass() { time.Sleep(time.Minute) }
