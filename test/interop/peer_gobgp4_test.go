// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

var gobgp4Kind = peerKind{
	name: "GoBGP (Go module)", version: gobgp4Version,
	families: []string{"VPNv4", "VPNv6", "EVPN", "FlowSpec VPNv4", "FlowSpec VPNv6", "RTC"},
	graceful: true, new: newGobgp4,
}

func gobgp4Version(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/osrg/gobgp/v4").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "v")
}

// gobgp4Variable holds the setup of a GoBGP 4 process.
const gobgp4Variable = "BAGPIPE_INTEROP_GOBGP"

// A gobgp4Setup is what the process needs to know.
type gobgp4Setup struct {
	AS, EngineAS                  int
	Local, Engine                 string
	Passive, Graceful, Restarting bool
	Families                      []string
	Routes                        []vpnRoute
}

// A gobgp4Command adds and deletes routes; List names a family to list.
type gobgp4Command struct {
	Add, Delete []vpnRoute
	List        string
}

type gobgp4Reply struct {
	Error string
	Table map[string][]*apiutil.Path `json:",omitempty"`
}

// A gobgp4 is GoBGP's server in a process of its own.
type gobgp4 struct {
	*host
	peerSetup
	proc   *child
	ran    bool
	routes []vpnRoute
}

func newGobgp4(h *host, s peerSetup) peer { return &gobgp4{host: h, peerSetup: s} }

func (g *gobgp4) start(testing.TB) {
	g.proc = startChild(g.host, "gobgp4", gobgp4Variable, gobgp4Setup{
		AS: g.as, EngineAS: g.engineAS, Local: g.v4.String(), Engine: g.engine.v4.String(),
		Passive: g.passive, Graceful: g.graceful, Restarting: g.graceful && g.ran, Families: g.families, Routes: g.routes,
	})
	g.ran = true
}

func (g *gobgp4) kill() {
	g.proc.kill()
	g.proc = nil
}

func (g *gobgp4) set(t testing.TB, routes []vpnRoute) {
	t.Helper()
	gone, news := difference(g.routes, routes)
	g.routes = slices.Clone(routes)
	if g.proc == nil {
		return
	}
	var r gobgp4Reply
	if g.proc.ask(t, gobgp4Command{Add: news, Delete: gone}, &r); r.Error != "" {
		t.Fatalf("GoBGP: %s", r.Error)
	}
}

func (g *gobgp4) sends(r vpnRoute) vpnRoute { return r }

func (g *gobgp4) shows(r vpnRoute) vpnRoute { return r }

func (g *gobgp4) received(t testing.TB, family string) ([]vpnRoute, error) {
	t.Helper()
	var r struct {
		Error string
		Table json.RawMessage
	}
	if g.proc.ask(t, gobgp4Command{List: family}, &r); r.Error != "" {
		return nil, fmt.Errorf("GoBGP: %s", r.Error)
	}
	if r.Table == nil {
		return nil, nil
	}
	return gobgpRoutes(r.Table, family)
}

// runGobgp4 is the GoBGP process: it obeys the commands of standard input until
// that ends.
func runGobgp4(setup string) error {
	var s gobgp4Setup
	if err := json.Unmarshal([]byte(setup), &s); err != nil {
		return err
	}
	g := server.NewBgpServer()
	go g.Serve()
	ctx := context.Background()
	global := &api.Global{Asn: uint32(s.AS), RouterId: s.Local, ListenPort: -1}
	if s.Passive {
		global.ListenPort, global.ListenAddresses = 179, []string{s.Local}
	}
	if err := g.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return err
	}
	if err := gobgp4Routes(g, s.Routes, nil); err != nil {
		return err
	}
	if err := g.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peer()}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var c gobgp4Command
		var r gobgp4Reply
		err := json.Unmarshal(in.Bytes(), &c)
		if err == nil {
			err = gobgp4Routes(g, c.Add, c.Delete)
		}
		if err == nil && c.List != "" {
			r.Table, err = gobgp4List(g, s.Engine, families[c.List])
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// peer returns the configuration of the neighbour.
func (s gobgp4Setup) peer() *api.Peer {
	p := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: s.Engine, PeerAsn: uint32(s.EngineAS)},
		Transport:       &api.Transport{LocalAddress: s.Local, PassiveMode: s.Passive, RemotePort: 179},
		Timers:          &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1}},
		GracefulRestart: &api.GracefulRestart{Enabled: s.Graceful, RestartTime: 60, LocalRestarting: s.Restarting},
	}
	safi := map[uint8]api.Family_Safi{
		128: api.Family_SAFI_MPLS_VPN, 70: api.Family_SAFI_EVPN, 134: api.Family_SAFI_FLOW_SPEC_VPN, 132: api.Family_SAFI_ROUTE_TARGET_CONSTRAINTS,
	}
	for _, name := range s.Families {
		f := families[name]
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: &api.Family{Afi: api.Family_Afi(f.AFI), Safi: safi[f.SAFI]}, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: s.Graceful}},
		})
	}
	return p
}

// gobgp4Routes adds and deletes routes of GoBGP's own.
func gobgp4Routes(g *server.BgpServer, add, remove []vpnRoute) error {
	for _, r := range remove {
		p, err := r.gobgp4Path()
		if err != nil {
			return err
		}
		if err := g.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return err
		}
	}
	for _, r := range add {
		p, err := r.gobgp4Path()
		if err != nil {
			return err
		}
		if _, err := g.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return err
		}
	}
	return nil
}

// gobgp4Path has GoBGP decode the message that would announce a route.
func (r vpnRoute) gobgp4Path() (*apiutil.Path, error) {
	route, attrs, err := r.wire()
	if err != nil {
		return nil, err
	}
	f := families[r.Family]
	packer := wire.NewPacker(wire.MaxMessage)
	packer.Announce(f, attrs.Raw, attrs.NextHop)
	packer.Add(route)
	m, err := bgp.ParseBGPMessage(packer.Flush())
	if err != nil {
		return nil, err
	}
	p := &apiutil.Path{Family: bgp.NewFamily(f.AFI, f.SAFI)}
	next := attrs.NextHop
	if !next.IsValid() {
		next = netip.IPv4Unspecified() // GoBGP wants one
	}
	for _, a := range m.Body.(*bgp.BGPUpdate).PathAttributes {
		if reach, ok := a.(*bgp.PathAttributeMpReachNLRI); ok {
			p.Nlri = reach.Value[0].NLRI
		} else {
			p.Attrs = append(p.Attrs, a)
		}
	}
	hop, err := bgp.NewPathAttributeNextHop(next)
	if err != nil {
		return nil, err
	}
	p.Attrs = append(p.Attrs, hop)
	return p, nil
}

// gobgp4List returns what was received from a neighbour.
func gobgp4List(g *server.BgpServer, peer string, f wire.Family) (map[string][]*apiutil.Path, error) {
	table := map[string][]*apiutil.Path{}
	err := g.ListPath(apiutil.ListPathRequest{
		TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: peer, Family: bgp.NewFamily(f.AFI, f.SAFI),
	}, func(nlri bgp.NLRI, paths []*apiutil.Path) { table[nlri.String()] = paths })
	return table, err
}
