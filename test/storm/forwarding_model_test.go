// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// candidate is a route that an instance imports.
type candidate struct {
	wire.Route
	a      *wire.Attrs
	source string
	last   bool // the last resort
	own    bool // of the VRF itself
}

// takes tells whether instances of a type import routes of a kind.
func takes(t dataplane.VPNType, k wire.Kind) bool {
	return (k.Family() == wire.EVPN) == (t == dataplane.EVPN) && k.Family() != wire.RTC
}

// plainRD is the RD of an instance as it is compared: what the node allocates
// depends on what came before.
func plainRD(place int) wire.RD { return wire.MakeRD(nodeID, uint16(60000+place)) }

// plainLabel is the same of the MPLS label of a MAC in a VRF.
func plainLabel(place, mac int) uint32 { return uint32(900_000 + 100*place + mac) }

// localRoutes returns what an instance announces.
func (i *modelInstance) localRoutes(place int) (all []announced) {
	p := places[place]
	base := wire.LocalAttrs{NextHop: tunnels[p.typ], RTs: i.exports}
	if p.typ == dataplane.EVPN {
		base.Communities = []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}
		flood := base
		flood.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: p.vni, Endpoint: tunnels[p.typ]}
		all = append(all, announced{wire.Route{NLRI: wire.IMETRoute(plainRD(place), nodeAddr)}, flood})
	} else {
		base.Communities = []wire.ExtCommunity{wire.EncapCommunity(encap.MPLS)}
	}
	for at, e := range i.endpoints {
		a, r := base, wire.Route{NLRI: wire.VPNRoute(plainRD(place), e.IP), Label: wire.LabelField(plainLabel(place, p.endpoints[at].mac))}
		if p.typ == dataplane.EVPN {
			r = wire.Route{NLRI: wire.MACIPRoute(plainRD(place), e.MAC, e.IP.Addr()), Label: p.vni}
		}
		a.LocalPref = e.LocalPref
		all = append(all, announced{r, a})
	}
	return all
}

// candidates returns all usable routes that an instance imports.
func (m *model) candidates(place int) (all []candidate) {
	typ, imports := places[place].typ, m.instances[place].imports
	add := func(r announced, source string, last, own bool) {
		c := candidate{r.Route, r.attrs.Build(), source, last, own}
		if takes(typ, r.NLRI.Kind) && (own || overlap(imports, r.attrs.RTs)) && c.usable(typ) {
			all = append(all, c)
		}
	}
	for _, p := range m.peers {
		for _, h := range p.in {
			add(h.announced, "BGP-"+p.addr.String(), h.stale == rib.LongLivedStale, false)
		}
	}
	for at, i := range m.instances {
		// A VRF has its own routes, whatever their route targets.
		if own := at == place; !own || typ == dataplane.IPVPN {
			for _, r := range i.localRoutes(at) {
				add(r, places[at].id, false, own)
			}
		}
	}
	return all
}

func (c candidate) usable(t dataplane.VPNType) bool {
	own, label := encap.VXLAN.Bit(), c.Label
	if t == dataplane.IPVPN {
		own = encap.MPLS.Bit()
	}
	if c.NLRI.Kind == wire.KindIMET {
		if c.a.PMSI == nil {
			return false
		}
		label = c.a.PMSI.Label
	}
	return (c.a.EncapBits == 0 || c.a.EncapBits&own != 0) && (t == dataplane.IPVPN || label != 0)
}

// better orders candidates: the last resort last; higher LOCAL_PREF; what is local; for MACs
// sticky ones and higher sequence numbers. 0 is a tie.
func better(a, b candidate, isMAC bool) int {
	flag := func(x bool) int { return map[bool]int{true: 1}[x] }
	d := cmp.Or(cmp.Compare(flag(a.last), flag(b.last)), cmp.Compare(b.a.LocalPref, a.a.LocalPref), cmp.Compare(flag(b.own), flag(a.own)))
	if d != 0 || !isMAC {
		return d
	}
	return cmp.Or(cmp.Compare(flag(b.a.Sticky), flag(a.a.Sticky)), cmp.Compare(b.a.MobilitySeq, a.a.MobilitySeq))
}

// tie orders candidates that are equally good.
func tie(a, b candidate) int {
	return cmp.Or(
		a.a.NextHop.Compare(b.a.NextHop), bytes.Compare(a.NLRI.RD[:], b.NLRI.RD[:]), cmp.Compare(a.Label, b.Label),
		a.NLRI.IP().Compare(b.NLRI.IP()), bytes.Compare(a.NLRI.MAC[:], b.NLRI.MAC[:]), cmp.Compare(a.source, b.source),
	)
}

// best returns the best candidates for one thing: all for prefixes, else one.
func best(all []candidate, isMAC bool) []candidate {
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(better(a, b, isMAC), tie(a, b)) })
	if isMAC {
		return all[:1]
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return better(c, all[0], false) != 0 })
}

// forwarding returns the entries that an instance must desire.
func (m *model) forwarding(place int) (all []dataplane.Entry) {
	macs, ips := map[string][]candidate{}, map[netip.Addr][]candidate{}
	floods, prefixes := map[dataplane.NextHop]bool{}, map[netip.Prefix][]candidate{}
	for _, c := range m.candidates(place) {
		switch c.NLRI.Kind {
		case wire.KindMACIP:
			macs[c.NLRI.MAC.String()] = append(macs[c.NLRI.MAC.String()], c)
			if ip := c.NLRI.IP(); ip.IsValid() {
				ips[ip] = append(ips[ip], c)
			}
		case wire.KindIMET:
			floods[dataplane.NextHop{Addr: c.a.PMSI.Endpoint, Label: c.a.PMSI.Label, Encap: encap.VXLAN}] = true
		default:
			prefixes[c.NLRI.Prefix()] = append(prefixes[c.NLRI.Prefix()], c)
		}
	}
	for _, e := range m.instances[place].endpoints { // local beats remote
		delete(macs, e.MAC.String())
		delete(ips, e.IP.Addr())
	}
	for _, list := range macs {
		c := best(list, true)[0]
		all = append(all, dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: c.NLRI.MAC, NextHops: hops(c)})
	}
	for ip, list := range ips {
		all = append(all, dataplane.Entry{Kind: dataplane.Neighbour, IP: ip, MAC: best(list, true)[0].NLRI.MAC})
	}
	for hop := range floods {
		all = append(all, dataplane.Entry{Kind: dataplane.Flood, NextHops: []dataplane.NextHop{hop}})
	}
	for prefix, list := range prefixes {
		all = append(all, dataplane.Entry{Kind: dataplane.Prefix, Prefix: prefix, NextHops: hops(best(list, false)...)})
	}
	return append(all, m.localEntries(place)...)
}

// hops returns the distinct next hops of candidates.
func hops(list ...candidate) (out []dataplane.NextHop) {
	for _, c := range list {
		hop := dataplane.NextHop{Addr: c.a.NextHop, Label: c.Label, Encap: encap.VXLAN}
		if c.NLRI.Kind != wire.KindMACIP {
			hop.Label, hop.Encap = c.MPLSLabel(), encap.MPLS
		}
		if !slices.Contains(out, hop) {
			out = append(out, hop)
		}
	}
	return out
}

// localEntries returns the entries of an instance's own endpoints.
func (m *model) localEntries(place int) (all []dataplane.Entry) {
	seen := map[string]bool{}
	p := places[place]
	for at, e := range m.instances[place].endpoints {
		if !seen[e.Port] {
			all = append(all, dataplane.Entry{Kind: dataplane.LocalPort, Port: e.Port})
		}
		switch {
		case p.typ == dataplane.IPVPN:
			label := plainLabel(place, p.endpoints[at].mac)
			all = append(all, dataplane.Entry{Kind: dataplane.LocalPrefix, Port: e.Port, MAC: e.MAC, IP: e.IP.Addr(), Prefix: netip.PrefixFrom(e.IP.Addr(), e.IP.Addr().BitLen()), Label: label})
		case !seen[e.Port]:
			all = append(all, dataplane.Entry{Kind: dataplane.LocalMAC, Port: e.Port, MAC: e.MAC})
		}
		seen[e.Port] = true
	}
	return all
}
