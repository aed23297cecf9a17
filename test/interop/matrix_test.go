// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A peer is another implementation of BGP on a host of its own, with one
// neighbour, our engine. Files peer_*_test.go have one each.
type peer interface {
	// start runs it, with the routes of set; again after kill.
	start(t testing.TB)
	// kill ends it without warning.
	kill()
	// set makes these the routes that it announces, all others are withdrawn. It
	// may come before start.
	set(t testing.TB, routes []vpnRoute)
	// received returns the routes of a family that it has from the engine.
	received(t testing.TB, family string) ([]vpnRoute, error)
	// sends returns a route as the engine should get it, when set is asked for
	// it; shows returns one of the engine's as received reports it.
	sends(vpnRoute) vpnRoute
	shows(vpnRoute) vpnRoute
}

// A peerKind describes an implementation for the matrix.
type peerKind struct {
	name string
	// version asks the program; it is part of the table, but not compared.
	version func(t testing.TB) string
	needs   []dependency
	// families are those exchanged; the peer announces routes of all but those in
	// receiveOnly. RTC is tested in a session of its own.
	families, receiveOnly []string
	// graceful: it asks us to keep its routes while it restarts.
	graceful bool
	// options lists the session options it is tested with: "eBGP", "TCP-MD5",
	// "TTL security", "BFD".
	options []string
	new     func(h *host, s peerSetup) peer
	// flaws are what the peer is known to fail at itself, by line, with the text for
	// the table: those steps are left out.
	flaws map[string]string
	// notes go below the table.
	notes []string
}

// A peerSetup is what tests choose of a peer.
type peerSetup struct {
	as, engineAS int
	engine       *host
	// passive peers wait for the engine to connect.
	passive  bool
	families []string
	graceful bool
	// option is one of peerKind.options.
	option string
	// feeder makes a node that announces routes through the peer, for those that
	// only pass routes on.
	feeder func(as int) *feeder
}

// Numbers of the hosts on the fabric, the addresses 10.77.0.<number>.
const (
	engineNumber, peerNumber, feederNumber = 1, 2, 3
	// elsewhere is the next hop of the peer's routes.
	elsewhere4, elsewhere6 = "10.77.0.9", "fd00:77::9"
)

// Lines of the table, in its order.
const (
	lineDial, lineAccept                         = "session, we connect", "session, they connect"
	lineReceive, lineSend, lineChange, lineUnset = "our routes arrive", "their routes arrive", "route target change", "withdraw"
	lineRestart, lineGraceful                    = "peer killed and started", "peer killed, graceful restart"
)

var lines = []string{lineDial, lineAccept, lineReceive, lineSend, lineChange, lineUnset, lineRestart, lineGraceful}

// matrixPeers are all peers, in the order of the document.
var matrixPeers = []peerKind{birdKind, exabgpKind, openbgpdKind, frrKind, gobgp3Kind, gobgp4Kind}

// TestMatrix takes every peer through all families and writes down what holds.
func TestMatrix(t *testing.T) {
	var all report
	for _, kind := range matrixPeers {
		t.Run(kind.name, func(t *testing.T) {
			need(t, kind.needs)
			all = append(all, peerReport{kind: kind, version: kind.version(t), cells: map[string]string{}})
			m := &matrix{kind: kind, report: &all[len(all)-1]}
			routed := slices.DeleteFunc(slices.Clone(kind.families), func(f string) bool { return f == "RTC" })
			t.Run("dial", func(t *testing.T) { m.exchange(t, routed) })
			t.Run("accept", func(t *testing.T) { m.accept(t, routed) })
			if kind.graceful {
				t.Run("graceful", func(t *testing.T) { m.graceful(t, routed) })
			}
			if slices.Contains(kind.families, "RTC") {
				t.Run("rtc dial", m.constrain)
				t.Run("rtc accept", m.constrainAccept)
			}
			for _, o := range kind.options {
				t.Run(o, func(t *testing.T) { m.option(t, o) })
			}
		})
	}
	if len(all) == len(matrixPeers) && !t.Failed() {
		all.check(t)
	}
}

// A matrix is the run of one peer.
type matrix struct {
	kind   peerKind
	report *peerReport
}

// A pairing is an engine and a peer.
type pairing struct {
	*matrix
	t      *testing.T
	engine *engineNode
	peer   peer
	// peerHost is where the peer runs.
	peerHost *host
	// ours and theirs are sample routes by family.
	ours, theirs map[string][]vpnRoute
}

// pair makes a fabric with an engine and a peer and brings the session up.
func (m *matrix) pair(t *testing.T, e engineSetup, p peerSetup) *pairing {
	t.Helper()
	f := newFabric(t)
	he, hp := f.host("engine", engineNumber), f.host("peer", peerNumber)
	e.Local, e.Peer, e.Families = he.v4.String(), hp.v4.String(), p.families
	if e.AS == 0 {
		e.AS, e.PeerAS = 64512, 64512
	}
	p.as, p.engineAS, p.engine = int(e.PeerAS), int(e.AS), he
	p.passive = !e.Passive
	p.feeder = func(as int) *feeder { return newFeeder(f.host("feeder", feederNumber), hp, as, p.families) }
	pair := &pairing{matrix: m, t: t, peerHost: hp, peer: m.kind.new(hp, p), ours: map[string][]vpnRoute{}, theirs: map[string][]vpnRoute{}}
	for _, family := range p.families {
		pair.ours[family] = samples(family, he.v4.String(), he.v4.String(), he.v6.String())
		if !slices.Contains(m.kind.receiveOnly, family) {
			pair.theirs[family] = samples(family, elsewhere4, elsewhere4, elsewhere6)
		}
	}
	pair.engine = newEngineNode(he, e)
	pair.peer.start(t)
	return pair
}

// step runs one line of the table for some families.
func (p *pairing) step(line string, families []string, f func(t *testing.T)) {
	p.t.Helper()
	if flaw := p.kind.flaws[line]; flaw != "" {
		for _, family := range families {
			p.report.cells[line+"|"+family] = flaw
		}
		return
	}
	ok := p.t.Run(strings.Join(append([]string{line}, families...), " "), f)
	for _, family := range families {
		p.report.note(line, family, ok)
	}
}

// up waits for the session and checks what was negotiated.
func (p *pairing) up(t *testing.T) {
	t.Helper()
	got := slices.Sorted(slices.Values(p.engine.established(t).Families))
	if want := slices.Sorted(slices.Values(p.engine.setup.Families)); !slices.Equal(got, want) {
		t.Errorf("families %v, want %v", got, want)
	}
}

// wantPeer waits until the peer has these routes of ours, wantEngine until the
// engine has these of the peer.
func (p *pairing) wantPeer(t testing.TB, family string, routes []vpnRoute) {
	t.Helper()
	wantVPNRoutes(t, p.kind.name+" has of "+family, func() ([]vpnRoute, error) { return p.peer.received(t, family) },
		each(routes, func(r vpnRoute) vpnRoute { return p.peer.shows(p.abroad(r, p.engine.setup.AS)) }))
}

func (p *pairing) wantEngine(t testing.TB, family string, routes []vpnRoute) {
	t.Helper()
	wantVPNRoutes(t, "engine has of "+family, p.engine.received(t, family),
		each(routes, func(r vpnRoute) vpnRoute { return p.peer.sends(p.abroad(r, p.engine.setup.PeerAS)) }))
}

// abroad returns a route with what it gets on its way out of an AS.
func (p *pairing) abroad(r vpnRoute, as uint32) vpnRoute {
	r.Origin = "igp"
	if p.engine.setup.AS != p.engine.setup.PeerAS {
		r.ASPath, r.LocalPref = strconv.Itoa(int(as)), ""
	}
	return r
}

// wantAll waits until all routes are where they should be.
func (p *pairing) wantAll(t testing.TB) {
	t.Helper()
	for _, family := range p.engine.setup.Families {
		p.wantEngine(t, family, p.theirs[family])
		p.wantPeer(t, family, p.ours[family])
	}
}

// flat lists the routes of all families, at most n of each if n is not 0.
func flat(routes map[string][]vpnRoute, n int) []vpnRoute {
	var out []vpnRoute
	for _, family := range familyNames {
		list := routes[family]
		if n > 0 && len(list) > n {
			list = list[:n]
		}
		out = append(out, list...)
	}
	return out
}

// each applies f to all routes.
func each(routes []vpnRoute, f func(vpnRoute) vpnRoute) []vpnRoute {
	var out []vpnRoute
	for _, r := range routes {
		out = append(out, f(r))
	}
	return out
}

// samples returns routes of a family, all from one router.
func samples(family, router, next4, next6 string) []vpnRoute {
	r := vpnRoute{Family: family, RD: router + ":7", NextHop: next4, LocalPref: "100", RTs: []string{"64512:100"}}
	full := r
	full.LocalPref, full.RTs = "150", []string{"64512:100", "4200000001:300", "192.0.2.1:9"}
	switch family {
	case "VPNv4":
		r.Prefix, r.Label, r.Communities = "203.0.113.0/24", 100, []string{"encap:mpls"}
		full.Prefix, full.Label = "198.51.100.7/32", 1048575
	case "VPNv6":
		r.Prefix, r.Label, r.Communities = "2001:db8:7::/48", 100, []string{"encap:mpls"}
		full.Prefix, full.Label, full.NextHop = "2001:db8:8::7/128", 1048575, next6
	case "EVPN":
		return evpnSamples(r, full, router)
	case "FlowSpec VPNv4":
		r.NextHop, full.NextHop = "", ""
		r.Flow, full.Flow = "destination 203.0.113.0/24", "destination 203.0.113.0/24; source 198.51.100.0/24; protocol =6; destination-port =80; source-port >=1000&<=2000"
		r.Communities, full.Communities = []string{"redirect:64512:5"}, []string{"redirect:64512:6"}
	case "FlowSpec VPNv6":
		r.NextHop, full.NextHop = "", ""
		r.Flow, full.Flow = "destination 2001:db8:7::/48", "destination 2001:db8:7::/48; source 2001:db8:8::/48; protocol =6; destination-port =80"
		r.Communities, full.Communities = []string{"redirect:64512:5"}, []string{"redirect:64512:6"}
	}
	return []vpnRoute{full, r}
}

// evpnSamples returns types 2, with and without IP address, and 3.
func evpnSamples(r, full vpnRoute, router string) []vpnRoute {
	r.Communities, full.Communities = []string{"encap:vxlan"}, []string{"encap:vxlan", "mac-mobility:3"}
	imet, alone, with6 := r, r, r
	imet.Kind, imet.IP, imet.PMSI = "imet", router, fmt.Sprintf("ingress-replication 16777215 %s", r.NextHop)
	// Each its own MAC: GoBGP takes another route with the MAC for a move.
	mac := "00:00:5e:00:53:" + router[len(router)-1:]
	full.Kind, full.MAC, full.IP, full.Label = "mac-ip", mac+"1", "198.51.100.7", 16777215
	alone.Kind, alone.MAC, alone.Label = "mac-ip", mac+"2", 5000
	with6.Kind, with6.MAC, with6.IP, with6.Label = "mac-ip", mac+"3", "2001:db8::7", 5000
	return []vpnRoute{full, imet, alone, with6}
}
