// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

func (v *vrf) fallbackFlows() []of.Flow {
	e := v.fallback
	if e == nil {
		return nil
	}
	note, _ := encodeEntry(e)
	a := of.Actions("").Note(note)
	if e.OVS.VLAN != 0 {
		a = a.PushVLAN(e.OVS.VLAN)
	}
	a = a.SetMAC(of.EthSrc, e.Source).SetMAC(of.EthDst, e.MAC).Output(e.OVS.Number)
	return []of.Flow{v.flow(v.table, prioFallback, a, v.inVRF())}
}

// symmetric in a group's parameter has the datapath hash both directions of a flow alike, so
// that both meet the same instance of a service (OVS_HASH_ALG_SYM_L4).
const symmetric = 1 << 32

func prefixPriority(p netip.Prefix) uint16 { return uint16(prioFixed - 128 + p.Bits()) }

// prefixKey returns the flow of a prefix without its actions.
func (v *vrf) prefixKey(p netip.Prefix) of.Flow {
	f := familyOf(p.Addr())
	return v.flow(v.table, prefixPriority(p), "", v.inVRF(), f.is(), of.In(f.dst, p))
}

// orderedSlots is how many buckets a group has whose next hops have orders.
const orderedSlots = 64

// buckets returns what each next hop of a prefix does, without those whose MAC is not known.
//
// The switch takes a bucket by a hash modulo their number, so that with one more nearly all
// flows would move. When routes give an order, which says that it matters, the buckets are
// always as many, and shared among the hops so that only some change theirs.
func (v *vrf) buckets(p netip.Prefix, hops []dataplane.NextHop) (out []of.Bucket) {
	if len(hops) == 1 || !dataplane.Ordered(hops) {
		sorted, ids := orderHops(hops)
		for i := range sorted {
			if a, ok := v.way(p, &sorted[i]); ok {
				out = append(out, of.Bucket{ID: ids[i], Actions: a})
			}
		}
		return out
	}
	var known []dataplane.NextHop
	var ways []of.Actions
	for i := range hops {
		if a, ok := v.way(p, &hops[i]); ok {
			known, ways = append(known, hops[i]), append(ways, a)
		}
	}
	if len(known) == 0 {
		return nil
	}
	var slots [orderedSlots]uint8
	dataplane.Spread(known, slots[:])
	for id, i := range slots {
		out = append(out, of.Bucket{ID: uint32(id), Actions: ways[i]})
	}
	return out
}

// way returns what sends packets for a prefix to a next hop; ok is as of toHop.
func (v *vrf) way(p netip.Prefix, h *dataplane.NextHop) (a of.Actions, ok bool) {
	if !v.onLink.IsValid() || v.onLink.Bits() > p.Bits() || !v.onLink.Contains(p.Addr()) {
		a = a.DecTTL()
	}
	return v.toHop(a, h)
}

// prefixFlow returns the flow of a prefix, and its group, which has no buckets when there is none.
func (v *vrf) prefixFlow(p netip.Prefix, r route) (of.Flow, of.Group, error) {
	e := dataplane.Entry{Kind: dataplane.Prefix, Prefix: p, NextHops: r.hops}
	note, err := encodeEntry(&e)
	if err != nil {
		return of.Flow{}, of.Group{}, err
	}
	f := v.prefixKey(p)
	buckets := v.buckets(p, r.hops)
	switch {
	case len(buckets) == 0:
		return f, of.Group{}, fmt.Errorf("the MAC address of next hop %s is not known yet: want a neighbour entry of this host", r.hops[0].Addr)
	case r.group == 0:
		f.Actions = of.Actions("").Note(note) + buckets[0].Actions
		return f, of.Group{}, nil
	}
	f.Actions = of.Actions("").Note(note).Group(r.group)
	g := of.Group{ID: r.group, Method: v.method, Param: v.param, Fields: v.fields, Buckets: buckets}
	if dataplane.Ordered(r.hops) && g.Method == "dp_hash" && g.Param>>32 == 0 {
		g.Param |= symmetric
	}
	return f, g, nil
}
