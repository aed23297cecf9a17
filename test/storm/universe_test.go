// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"net/netip"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// role is one of the peers that random events are about.
type role struct {
	name     string
	addr     netip.Addr
	dynamic  bool
	families []wire.Family
	enhanced bool          // RFC 7313
	restarts []wire.Family // whose routes it asks to keep while it restarts, if it does
	drops    bool          // the node keeps only routes of it that an instance imports
	brief    bool          // the node keeps its long-lived stale routes for a moment only
}

const moment = 30 * time.Millisecond

var roles = []role{
	{name: "keeper", addr: peerAt(1), families: vpnFamilies, enhanced: true, restarts: []wire.Family{wire.VPNv4, wire.EVPN}},
	{name: "picky", addr: peerAt(2), families: withRTC, enhanced: true, restarts: withRTC},
	{name: "plain", addr: peerAt(3), families: vpnFamilies},
	{name: "brief", addr: peerAt(4), families: vpnFamilies, restarts: vpnFamilies, enhanced: true, brief: true},
	{name: "guest", addr: netip.MustParseAddr("127.1.0.5"), dynamic: true, families: withRTC, restarts: vpnFamilies},
	{name: "dropper", addr: peerAt(6), families: vpnFamilies, enhanced: true, drops: true},
}

var withRTC = []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN, wire.RTC}

func peerAt(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 3, 0, n}) }

// speakerConfig makes the roles neighbours.
func speakerConfig(c *speaker.Config) {
	c.Restart = &speaker.Restart{Time: 120, StaleTime: time.Hour, LongLived: time.Hour}
	for _, r := range roles {
		if r.dynamic {
			continue
		}
		own, restart := c.Settings, *c.Restart
		own.Restart = &restart
		if r.brief {
			restart.LongLived = moment
		}
		if r.drops {
			own.Irrelevant = speaker.Drop
		}
		c.Peers = append(c.Peers, speaker.PeerConfig{Addr: r.addr, Passive: true, Settings: &own})
	}
}

// Everything that is announced is one of these. There is much that two peers, or
// a peer and an endpoint, announce both.
var (
	remoteRDs = []wire.RD{wire.MakeRD(netip.MustParseAddr("203.0.113.1"), 1), wire.MakeRD(netip.MustParseAddr("203.0.113.2"), 1)}
	nextHops  = []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12"), netip.MustParseAddr("192.0.2.13")}
	universe  = remoteRoutes()
)

func remoteRoutes() (all []wire.NLRI) {
	prefixes := []string{"10.9.0.0/24", "10.9.0.1/32", "0.0.0.0/0", "2001:db8:9::1/128", "::/0"}
	for _, rd := range remoteRDs {
		for _, m := range []int{1, 2, 3, 6} {
			all = append(all, wire.MACIPRoute(rd, mac(m), netip.Addr{}), wire.MACIPRoute(rd, mac(m), addr4(m)))
		}
		all = append(all, wire.MACIPRoute(rd, mac(6), addr4(1)), wire.IMETRoute(rd, netip.MustParseAddr("203.0.113.9")))
		for _, p := range prefixes {
			all = append(all, wire.VPNRoute(rd, netip.MustParsePrefix(p)))
		}
	}
	for n := 1; n <= 4; n++ {
		all = append(all, wire.RTCRoute(nodeAS, rt(n)))
	}
	return append(all, wire.RTCRoute(nodeAS+1, rt(1)), wire.NLRI{Kind: wire.KindRTC})
}

// place is an instance that may be, with endpoints that may be. Nobody else
// announces MACs and addresses of green, and green cannot import red's routes: the
// mobility sequence numbers of contested MACs depend on when what came, and
// nothing that is compared may depend on them.
type place struct {
	id               string
	typ              dataplane.VPNType
	vni              uint32
	imports, exports []int // it may have
	endpoints        []spot
}

type spot struct {
	mac int
	ip  string
}

var places = []place{
	{"red", dataplane.EVPN, 5100, []int{1, 2, 3, 4}, []int{1, 2}, []spot{{1, "10.0.0.1"}, {1, "10.0.0.11"}, {2, "10.0.0.2"}, {3, "10.0.0.3"}}},
	{"green", dataplane.EVPN, 5200, []int{3, 4}, []int{1, 2, 3}, []spot{{14, "10.0.1.4"}, {15, "10.0.1.5"}}},
	{"blue", dataplane.IPVPN, 5300, []int{1, 2, 3, 4}, []int{1, 2, 3, 4}, []spot{{21, "10.9.0.1"}, {22, "10.9.0.2"}, {21, "2001:db8:9::1"}}},
	{"pink", dataplane.IPVPN, 5400, []int{1, 2, 3, 4}, []int{1, 2, 3, 4}, []spot{{31, "10.9.0.1"}, {32, "10.9.0.3"}}},
}

// attachment returns the attachment of an endpoint.
func (p place) attachment(at spot, imports, exports []wire.RT, pref uint32) vpn.Attachment {
	ip := netip.MustParseAddr(at.ip)
	return vpn.Attachment{
		Type: p.typ, InstanceID: p.id, VNI: p.vni, Port: "tap" + mac(at.mac).String(), MAC: mac(at.mac), IP: netip.PrefixFrom(ip, ip.BitLen()),
		Imports: imports, Exports: exports, LocalPref: pref, Direction: dataplane.Both,
	}
}
