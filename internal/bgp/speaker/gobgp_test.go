// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

var (
	gobgpAddr = netip.MustParseAddr("127.0.0.1")
	nextHop   = netip.MustParseAddr("198.51.100.9")
	nextHop6  = netip.MustParseAddr("2001:db8::9")
)

// gobgp is GoBGP's server as a neighbour.
type gobgp struct {
	*server.BgpServer
	t    *testing.T
	peer netip.Addr // the node
}

// startGoBGP runs GoBGP with a node as its peer. Without a port to listen on it
// dials the node.
func startGoBGP(t *testing.T, listen, dial uint16, families []wire.Family) *gobgp {
	t.Helper()
	g := &gobgp{BgpServer: server.NewBgpServer(), t: t, peer: nodeAddr}
	served := make(chan struct{})
	go func() { defer close(served); g.Serve() }()
	t.Cleanup(func() { g.Stop(); <-served })
	global := &api.Global{Asn: testAS, RouterId: peerID.String(), ListenPort: -1}
	if listen != 0 {
		global.ListenPort, global.ListenAddresses = int32(listen), []string{gobgpAddr.String()}
	}
	must(t, g.StartBgp(t.Context(), &api.StartBgpRequest{Global: global}))
	var all []*api.AfiSafi
	for _, f := range families {
		family := &api.Family{Afi: api.Family_Afi(f.AFI), Safi: apiSAFI[f.SAFI]}
		all = append(all, &api.AfiSafi{Config: &api.AfiSafiConfig{Family: family, Enabled: true}})
	}
	must(t, g.AddPeer(t.Context(), &api.AddPeerRequest{Peer: &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: nodeAddr.String(), PeerAsn: testAS},
		Transport: &api.Transport{LocalAddress: gobgpAddr.String(), PassiveMode: dial == 0, RemotePort: uint32(dial)},
		Timers:    &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1}},
		AfiSafis:  all,
	}}))
	return g
}

var apiSAFI = map[uint8]api.Family_Safi{
	128: api.Family_SAFI_MPLS_VPN, 70: api.Family_SAFI_EVPN, 134: api.Family_SAFI_FLOW_SPEC_VPN, 132: api.Family_SAFI_ROUTE_TARGET_CONSTRAINTS,
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustGet[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func family(f wire.Family) bgp.Family { return bgp.NewFamily(f.AFI, f.SAFI) }

// sample is one route in the form of both sides.
type sample struct {
	name  string
	in    bgp.NLRI
	want  wire.Route
	attrs wire.LocalAttrs
}

func (s sample) family() wire.Family { return s.want.NLRI.Kind.Family() }

// samples has a route of each kind that the daemon knows.
func samples() []sample {
	rd := mustGet(bgp.NewRouteDistinguisherIPAddressAS(nodeID, 1))
	esi := bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: make([]byte, 9)}
	macip := func(ip netip.Addr) bgp.NLRI {
		return mustGet(bgp.NewEVPNMacIPAdvertisementRoute(rd, esi, 0, mac1.String(), ip, []uint32{5000}))
	}
	prefix := func(p, gw string) bgp.NLRI {
		x := netip.MustParsePrefix(p)
		return mustGet(bgp.NewEVPNIPPrefixRoute(rd, esi, 0, uint8(x.Bits()), x.Addr(), netip.MustParseAddr(gw), 5002))
	}
	flow := func(f bgp.Family, dst bgp.FlowSpecComponentInterface) bgp.NLRI {
		return mustGet(bgp.NewFlowSpecVPN(f, rd, []bgp.FlowSpecComponentInterface{
			dst, bgp.NewFlowSpecComponent(bgp.FLOW_SPEC_TYPE_IP_PROTO, []*bgp.FlowSpecComponentItem{bgp.NewFlowSpecComponentItem(1, 6)}),
		}))
	}
	v4, v6 := netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:1::/48")
	ip4, ip6 := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	vxlan := []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}
	evpn := wire.LocalAttrs{NextHop: nextHop, LocalPref: 200, Communities: append(vxlan, wire.MobilityCommunity(7)), RTs: []wire.RT{rt100}}
	imet := evpn
	imet.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: 5001, Endpoint: ip4}
	vpn := wire.LocalAttrs{NextHop: nextHop, LocalPref: 300, Communities: []wire.ExtCommunity{wire.HashOrderCommunity(3)}, RTs: []wire.RT{rt100, rt200}}
	vpn6 := vpn
	vpn6.NextHop = nextHop6
	redirect := wire.LocalAttrs{Communities: []wire.ExtCommunity{{0x80, 8, 0xfb, 0xf4, 0, 0, 0, 9}}, RTs: []wire.RT{rt100}}
	macRoute := func(ip netip.Addr) wire.Route { return wire.Route{NLRI: wire.MACIPRoute(rd1, mac1, ip), Label: 5000} }
	list := []sample{
		{"VPNv4", mustGet(bgp.NewLabeledVPNIPAddrPrefix(v4, *bgp.NewMPLSLabelStack(17), rd)), wire.Route{NLRI: wire.VPNRoute(rd1, v4), Label: wire.LabelField(17)}, vpn},
		{"VPNv6", mustGet(bgp.NewLabeledVPNIPAddrPrefix(v6, *bgp.NewMPLSLabelStack(18), rd)), wire.Route{NLRI: wire.VPNRoute(rd1, v6), Label: wire.LabelField(18)}, vpn6},
		{"type 2 without IP", macip(netip.Addr{}), macRoute(netip.Addr{}), evpn},
		{"type 2 with IPv4", macip(ip4), macRoute(ip4), evpn},
		{"type 2 with IPv6", macip(ip6), macRoute(ip6), evpn},
		{"type 3", mustGet(bgp.NewEVPNMulticastEthernetTagRoute(rd, 0, ip4)), wire.Route{NLRI: wire.IMETRoute(rd1, ip4)}, imet},
		{"type 5, IPv4", prefix("203.0.113.0/24", "0.0.0.0"), wire.Route{Label: 5002}, evpn},
		{"type 5, IPv6", prefix("2001:db8:1::/48", "::"), wire.Route{Label: 5002}, evpn},
		{"FlowSpec VPNv4", flow(bgp.RF_FS_IPv4_VPN, bgp.NewFlowSpecDestinationPrefix(mustGet(bgp.NewIPAddrPrefix(v4)))), wire.Route{}, redirect},
		{"FlowSpec VPNv6", flow(bgp.RF_FS_IPv6_VPN, bgp.NewFlowSpecDestinationPrefix6(mustGet(bgp.NewIPAddrPrefix(v6)), 0)), wire.Route{}, redirect},
	}
	// Kinds without a constructor of ours come from the octets, written by hand.
	for i, h := range map[int]string{
		6: "0522" + "0001c00002050001" + "00000000000000000000" + "00000000" + "18" + "cb007100" + "00000000" + "00138a",
		7: "053a" + "0001c00002050001" + "00000000000000000000" + "00000000" + "30" + "20010db8000100000000000000000000" + "00000000000000000000000000000000" + "00138a",
		8: "10" + "0001c00002050001" + "0118cb0071" + "038106",
		9: "14" + "0001c00002050001" + "01300020010db80001" + "038106",
	} {
		f := []wire.Family{wire.EVPN, wire.EVPN, wire.FlowVPNv4, wire.FlowVPNv6}[i-6]
		r := wire.NewNLRIReader(f, mustGet(hex.DecodeString(h)), false)
		if ok, err := r.Next(&list[i].want); !ok || err != nil {
			panic(fmt.Sprint(h, ok, err))
		}
	}
	return list
}

// path is a sample as GoBGP takes it.
func (s sample) path() *apiutil.Path {
	a := s.attrs.Build()
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeLocalPref(a.LocalPref)}
	nh := a.NextHop
	if !nh.IsValid() {
		nh = netip.IPv4Unspecified()
	}
	attrs = append(attrs, mustGet(bgp.NewPathAttributeNextHop(nh)))
	var ecs []bgp.ExtendedCommunityInterface
	for _, c := range a.Communities {
		ecs = append(ecs, mustGet(bgp.ParseExtended(c[:])))
	}
	attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities(ecs))
	if p := a.PMSI; p != nil {
		attrs = append(attrs, bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, p.Label, mustGet(bgp.NewIngressReplTunnelID(p.Endpoint))))
	}
	return &apiutil.Path{Family: family(s.family()), Nlri: s.in, Attrs: attrs}
}

func (g *gobgp) add(s sample) {
	g.t.Helper()
	_, err := g.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{s.path()}})
	must(g.t, err)
}

func (g *gobgp) remove(s sample) {
	g.t.Helper()
	must(g.t, g.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{s.path()}}))
}

// got is what one side knows about a route, in a form that both can give.
type got struct {
	NLRI        string // octets
	NextHop     netip.Addr
	LocalPref   uint32
	Communities []wire.ExtCommunity
	PMSI        *wire.PMSI
}

// wanted is what the other side should know about a sample.
func (s sample) wanted() got {
	a := s.attrs.Build()
	return got{hex.EncodeToString(wire.AppendNLRI(nil, s.want, false)), a.NextHop, a.LocalPref, a.Communities, a.PMSI}
}

// routes lists what GoBGP has received in a family.
func (g *gobgp) routes(f wire.Family) []got {
	g.t.Helper()
	all := []got{}
	err := g.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: g.peer.String(), Family: family(f)},
		func(nlri bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				all = append(all, received(nlri, p))
			}
		})
	must(g.t, err)
	return all
}

func received(nlri bgp.NLRI, p *apiutil.Path) got {
	r := got{NLRI: hex.EncodeToString(mustGet(nlri.Serialize())), LocalPref: 0}
	for _, attr := range p.Attrs {
		switch v := attr.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			r.NextHop = v.Nexthop
		case *bgp.PathAttributeLocalPref:
			r.LocalPref = v.Value
		case *bgp.PathAttributeExtendedCommunities:
			for _, c := range v.Value {
				r.Communities = append(r.Communities, wire.ExtCommunity(mustGet(c.Serialize())))
			}
		case *bgp.PathAttributePmsiTunnel:
			end, _ := netip.AddrFromSlice(mustGet(v.TunnelID.Serialize()))
			r.PMSI = &wire.PMSI{TunnelType: uint8(v.TunnelType), Label: v.Label, Endpoint: end}
		}
	}
	return r
}

// pair runs a node and GoBGP with a session between them.
func pair(t *testing.T, weDial bool, families []wire.Family) (*node, *gobgp) {
	t.Helper()
	var n *node
	var g *gobgp
	if weDial {
		port := freePort(t, gobgpAddr)
		g = startGoBGP(t, port, 0, families)
		n = startNode(t, func(c *Config) { c.Families, c.Peers = families, []PeerConfig{{Addr: gobgpAddr, Port: port}} })
	} else {
		n = startNode(t, func(c *Config) { c.Families, c.Peers = families, []PeerConfig{{Addr: gobgpAddr, Passive: true}} })
		g = startGoBGP(t, 0, n.ListenPort, families)
	}
	n.established(gobgpAddr)
	// GoBGP 4.8 loses a path that is added while its session comes up: wait
	// until it reads our End-of-RIB.
	eventually(t, "GoBGP reads", func() (reads bool) {
		must(t, g.ListPeer(t.Context(), &api.ListPeerRequest{}, func(p *api.Peer) {
			reads = p.GetState().GetMessages().GetReceived().GetUpdate() > 0
		}))
		return reads
	})
	return n, g
}

func sides(t *testing.T, f func(t *testing.T, weDial bool)) {
	for _, tt := range []struct {
		name   string
		weDial bool
	}{{"we dial", true}, {"GoBGP dials", false}} {
		t.Run(tt.name, func(t *testing.T) {
			f(t, tt.weDial)
		})
	}
}

func TestRoutesFromGoBGP(t *testing.T) {
	sides(t, func(t *testing.T, weDial bool) {
		n, g := pair(t, weDial, noRTC)
		list := func() []got {
			all := []got{}
			for _, p := range n.received(gobgpAddr) {
				all = append(all, got{
					hex.EncodeToString(wire.AppendNLRI(nil, p.Route, false)), p.Attrs.NextHop, p.Attrs.LocalPref, p.Attrs.Communities, p.Attrs.PMSI,
				})
			}
			return all
		}
		for _, s := range samples() {
			g.add(s)
			eventuallyEqual(t, s.name, []got{s.wanted()}, list)
			if diff := cmp.Diff(map[string]wire.NLRI{s.want.NLRI.String(): s.want.NLRI}, identities(n)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
			s.attrs.LocalPref, s.attrs.RTs = 77, []wire.RT{rt200}
			g.add(s)
			eventuallyEqual(t, s.name+" replaced", []got{s.wanted()}, list)
			g.remove(s)
			eventuallyEqual(t, s.name+" withdrawn", []got{}, list)
		}
		if st := n.neighbour(gobgpAddr).Status(); st.Established != 1 || st.State != session.Established {
			t.Errorf("the session suffered: %d sessions, last error %q", st.Established, st.LastError)
		}
	})
}

func identities(n *node) map[string]wire.NLRI {
	m := map[string]wire.NLRI{}
	for name, p := range n.received(gobgpAddr) {
		m[name] = p.NLRI
	}
	return m
}

func TestRoutesToGoBGP(t *testing.T) {
	sides(t, func(t *testing.T, weDial bool) {
		n, g := pair(t, weDial, noRTC)
		for _, s := range samples() {
			list := func() []got { return g.routes(s.family()) }
			n.announce(s.attrs, s.want)
			eventuallyEqual(t, s.name, []got{s.wanted()}, list)
			s.attrs.LocalPref, s.attrs.RTs = 77, []wire.RT{rt200}
			n.announce(s.attrs, s.want)
			eventuallyEqual(t, s.name+" replaced", []got{s.wanted()}, list)
			n.withdraw(s.want.NLRI)
			eventuallyEqual(t, s.name+" withdrawn", []got{}, list)
		}
		if st := n.neighbour(gobgpAddr).Status(); st.Established != 1 || st.State != session.Established {
			t.Errorf("the session suffered: %d sessions, last error %q", st.Established, st.LastError)
		}
	})
}

// With RTC each side gets what it asks for.
func TestRTCWithGoBGP(t *testing.T) {
	sides(t, func(t *testing.T, weDial bool) {
		n, g := pair(t, weDial, wire.Families)
		n.imports(rt100)
		all := samples()
		vpn, evpn, other := all[0], all[3], all[4] // of rt100 and rt200; of rt100; of rt200
		other.attrs.RTs = []wire.RT{rt200}
		for _, s := range []sample{other, evpn, vpn} {
			g.add(s)
		}
		want := []string{vpn.want.NLRI.String(), evpn.want.NLRI.String()}
		slices.Sort(want)
		eventuallyEqual(t, "what we import", want, func() []string {
			return slices.DeleteFunc(n.names(gobgpAddr), func(s string) bool { return s[:3] == "rtc" })
		})

		mine := other
		mine.want.NLRI.MAC = mac(9)
		n.announce(evpn.attrs, evpn.want)
		n.announce(mine.attrs, mine.want)
		ask := &apiutil.Path{
			Family: bgp.RF_RTC_UC, Nlri: bgp.NewRouteTargetMembershipNLRI(testAS, mustGet(bgp.ParseExtended(rt200[:]))),
			Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), mustGet(bgp.NewPathAttributeNextHop(gobgpAddr))},
		}
		_, err := g.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{ask}})
		must(t, err)
		eventuallyEqual(t, "what GoBGP asks for", []got{mine.wanted()}, func() []got { return g.routes(wire.EVPN) })
		must(t, g.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{ask}}))
		eventuallyEqual(t, "nothing any more", []got{}, func() []got { return g.routes(wire.EVPN) })
	})
}

// GoBGP closes the session and opens it again.
func TestSessionLossWithGoBGP(t *testing.T) {
	n, g := pair(t, true, noRTC)
	all := samples()
	vpn, evpn := all[0], all[3]
	g.add(vpn)
	n.announce(evpn.attrs, evpn.want)
	both := func(what string) {
		t.Helper()
		eventuallyEqual(t, what+": GoBGP's route", []string{vpn.want.NLRI.String()}, func() []string { return n.names(gobgpAddr) })
		eventuallyEqual(t, what+": our route", []got{evpn.wanted()}, func() []got { return g.routes(wire.EVPN) })
	}
	both("before")
	must(t, g.DisablePeer(t.Context(), &api.DisablePeerRequest{Address: nodeAddr.String(), Communication: "for maintenance"}))
	eventuallyEqual(t, "purge", []string{}, func() []string { return n.names(gobgpAddr) })
	eventually(t, "the reason", func() bool {
		s := n.neighbour(gobgpAddr).Status()
		return s.State != session.Established && s.LastError == `NOTIFICATION 6/2 (cease, administrative shutdown): "for maintenance" received`
	})
	must(t, g.EnablePeer(t.Context(), &api.EnablePeerRequest{Address: nodeAddr.String()}))
	both("after")
}
