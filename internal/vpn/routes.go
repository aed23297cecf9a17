// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"slices"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// behind tells which label is behind an EVPN type 5 route of this node: the route
// has the VNI of its VRF, and within the node packets go straight to the endpoint.
// Its methods may be called concurrently.
type behind struct {
	mu     sync.RWMutex
	labels map[wire.NLRI]uint32
}

// set notes the label of a route before it is announced.
func (b *behind) set(n wire.NLRI, label uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.labels[n] = label
}

// drop forgets a route that is about to be withdrawn.
func (b *behind) drop(n wire.NLRI) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.labels, n)
}

// label returns the label behind a route; false for one that is not of this node.
func (b *behind) label(n wire.NLRI) (uint32, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	label, ok := b.labels[n]
	return label, ok
}

// announceAll announces every route of the instance again.
func (i *Instance) announceAll(b *rib.Batch) {
	i.multicast = false
	i.announceMulticast(b)
	for _, e := range i.endpoints {
		i.announce(b, e)
	}
}

// announceMulticast announces the inclusive multicast route of an EVI (RFC 7432
// §7.3), unless it was announced with these route targets. Its next hop is the
// tunnel end, as in the other routes: some receivers flood there and not to the
// end that the PMSI tunnel names.
func (i *Instance) announceMulticast(b *rib.Batch) {
	if i.Type != dataplane.EVPN || i.multicast {
		return
	}
	i.multicast = true
	set := i.interner.InternLocal(wire.LocalAttrs{
		NextHop: i.m.Tunnel[i.Type], RTs: i.exports, Communities: i.encapCommunities(),
		PMSI: &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: i.VNI, Endpoint: i.m.Tunnel[i.Type]},
	}.Build())
	b.Hold(set)
	b.Announce(wire.Route{NLRI: wire.IMETRoute(i.RD, i.m.originator())}, set)
}

// announce announces the routes of an endpoint and withdraws those that it had
// and has no longer.
func (i *Instance) announce(b *rib.Batch, e *endpoint) {
	var now []wire.NLRI
	for _, r := range i.routesOf(e) {
		now = append(now, r.NLRI)
		if r.NLRI.Kind == wire.KindPrefix {
			i.m.behind.set(r.NLRI, e.label)
		}
		set := i.interner.InternLocal(i.attrsOf(e, r.NLRI.Kind).Build())
		b.Hold(set)
		b.Announce(r, set)
	}
	for _, n := range e.routes {
		if !slices.Contains(now, n) {
			i.withdraw(b, n)
		}
	}
	e.routes = now
}

// withdraw withdraws a route of an endpoint.
func (i *Instance) withdraw(b *rib.Batch, n wire.NLRI) {
	if n.Kind == wire.KindPrefix {
		i.m.behind.drop(n)
	}
	b.Withdraw(n)
}

// routesOf returns the endpoint's routes: none of one that only sends.
func (i *Instance) routesOf(e *endpoint) (out []wire.Route) {
	rd := i.RD
	if i.needsOwnRD(e.Attachment) {
		rd = wire.MakeRD(i.m.RouterID, uint16(e.rdNumber))
	}
	switch {
	case i.Type == dataplane.EVPN:
		return []wire.Route{{NLRI: wire.MACIPRoute(rd, e.MAC, e.IP.Addr()), Label: i.VNI}}
	case e.Direction == dataplane.FromPort:
		return nil
	}
	if i.AdvertiseAs != AsEVPN {
		out = append(out, wire.Route{NLRI: wire.VPNRoute(rd, e.prefix()), Label: wire.LabelField(e.label)})
	}
	if i.AdvertiseAs.evpn() {
		out = append(out, wire.Route{NLRI: wire.PrefixRoute(rd, e.prefix()), Label: i.VNI})
	}
	return out
}

// attrsOf returns the attributes of the endpoint's route of a kind. Those of type 5
// say that packets go in VXLAN, in frames to the node's MAC (RFC 9136 §4.4.1).
func (i *Instance) attrsOf(e *endpoint, kind wire.Kind) wire.LocalAttrs {
	a := wire.LocalAttrs{NextHop: i.m.Tunnel[i.Type], LocalPref: e.LocalPref, RTs: i.exports}
	if kind == wire.KindPrefix {
		a.Communities = []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN), wire.RouterMACCommunity(i.caps.RouterMAC)}
	} else {
		a.Communities = i.encapCommunities()
	}
	if seq := i.macs[e.MAC].seq; seq > 0 {
		a.Communities = append(a.Communities, wire.MobilityCommunity(seq))
	}
	if e.HashOrder != 0 && i.Type == dataplane.IPVPN {
		a.Communities = append(a.Communities, wire.HashOrderCommunity(e.HashOrder))
	}
	return a
}

// encapCommunities names the encapsulations of the driver; Default stands for
// none and is never on the wire.
func (i *Instance) encapCommunities() []wire.ExtCommunity {
	var out []wire.ExtCommunity
	for _, t := range slices.Sorted(slices.Values(i.caps.Encaps)) {
		if t != encap.Default {
			out = append(out, wire.EncapCommunity(t))
		}
	}
	return out
}
