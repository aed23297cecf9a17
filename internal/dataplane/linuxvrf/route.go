// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

const (
	// metric is that of our routes, the kernel's default for IPv6.
	metric = 1024
	// lastMetric is that of the unreachable defaults, as the kernel's VRF text has it.
	lastMetric = 4278198272
)

// setRoute plans a route.
func (h *handle) setRoute(b *batch, prefix netip.Prefix, nextHops []dataplane.NextHop) error {
	if !prefix.IsValid() || prefix != prefix.Masked() {
		return fmt.Errorf("prefix %s is not valid: want an IPv4 or IPv6 prefix without host bits", prefix)
	}
	if len(nextHops) == 0 {
		return fmt.Errorf("prefix %s has no next hop: want one or more", prefix)
	}
	key := routeKey{h, prefix}
	if b.pending[key] {
		b.flush()
	}
	var hops []hop
	for _, nh := range nextHops {
		one, ok, err := h.d.hopOf(nh, prefix.Addr().Is6())
		if err != nil {
			return fmt.Errorf("next hop %s: %w", nh, err)
		}
		if ok {
			hops = append(hops, one)
		}
	}
	s := &step{key: key, now: installed{hops: slices.Clone(nextHops)}}
	if len(hops) > 0 {
		s.now.nexthop = h.d.nexthops.acquire(b, hops)
	}
	h.d.use(key, h.routes[prefix].hops, nextHops)
	if old, ok := h.routes[prefix]; ok && old.nexthop == s.now.nexthop {
		h.d.nexthops.release(old.nexthop)
		h.routes[prefix] = s.now
		return nil
	}
	b.pending[key] = true
	b.queue(netlinkx.RouteRequest{Route: h.route(prefix, s.now.nexthop)}, item{step: s})
	return nil
}

func (h *handle) route(prefix netip.Prefix, n *nexthop) netlinkx.Route {
	r := netlinkx.Route{Dst: prefix, Table: h.table, Metric: metric, Protocol: ours}
	if n != nil {
		r.Nexthop = n.id
	}
	return r
}

// deleteRoute plans the end of a route.
func (h *handle) deleteRoute(b *batch, prefix netip.Prefix) {
	key := routeKey{h, prefix}
	if b.pending[key] {
		b.flush()
	}
	old, ok := h.routes[prefix]
	if !ok {
		return
	}
	h.d.use(key, old.hops, nil)
	b.pending[key] = true
	b.queue(netlinkx.RouteRequest{Delete: true, Route: h.route(prefix, nil)}, item{step: &step{key: key, delete: true}})
}

// farEnd is the gateway in tunnels over IPv6; any link-local address would do.
var farEnd = netip.MustParseAddr("fe80::1")

// hopOf resolves a next hop; ok is false for one at this node whose label has no
// endpoint of that IP version.
func (d *Driver) hopOf(nh dataplane.NextHop, v6 bool) (out hop, ok bool, err error) {
	if nh.Addr == d.cfg.LocalAddr {
		l := d.labels[nh.Label]
		if l == nil || !l.via(v6).IsValid() {
			return out, false, nil
		}
		return hop{via: l.via(v6), index: l.index}, true, nil
	}
	switch {
	case !nh.Addr.IsValid() || nh.Addr.Is4() != d.cfg.LocalAddr.Is4():
		return out, false, fmt.Errorf("its address is not of the IP version of ours, %s", d.cfg.LocalAddr)
	case nh.Label > maxLabel:
		return out, false, fmt.Errorf("label %d is not valid: want 0 to %d", nh.Label, maxLabel)
	}
	out.via, out.label = nh.Addr, nh.Label
	switch {
	case nh.Addr.Is6() && nh.Encap != encap.MPLS:
		out.via = farEnd // the kernel finds the PE's own address by another device
	case nh.Addr.Is4() && v6:
		out.via = netip.AddrFrom16(nh.Addr.As16())
	}
	out.index, err = d.way(nh.Encap, nh.Addr)
	return out, err == nil, err
}

// use notes which local labels a route refers to.
func (d *Driver) use(key routeKey, before, after []dataplane.NextHop) {
	for _, nh := range before {
		if nh.Addr == d.cfg.LocalAddr {
			delete(d.users[nh.Label], key)
			if len(d.users[nh.Label]) == 0 {
				delete(d.users, nh.Label)
			}
		}
	}
	for _, nh := range after {
		if nh.Addr == d.cfg.LocalAddr {
			if d.users[nh.Label] == nil {
				d.users[nh.Label] = map[routeKey]bool{}
			}
			d.users[nh.Label][key] = true
		}
	}
}

// nextHops says what a nexthop object means, as far as the kernel knows.
func (d *Driver) nextHops(n *nexthop) (out []dataplane.NextHop) {
	if n == nil {
		return nil
	}
	members := n.members
	if members == nil {
		members = []*nexthop{n}
	}
	for _, m := range members {
		if key, ok := d.wayOf(m.hop.index); ok {
			nh := dataplane.NextHop{Addr: key.remote, Label: m.hop.label, Encap: key.encap}
			if key.encap == encap.MPLS {
				nh.Addr = m.hop.via.Unmap()
			}
			out = append(out, nh)
			continue
		}
		for number, l := range d.labels {
			if l.index == m.hop.index && (l.v4 == m.hop.via || l.v6 == m.hop.via) {
				out = append(out, dataplane.NextHop{Addr: d.cfg.LocalAddr, Label: number, Encap: d.cfg.Encaps[0]})
				break
			}
		}
	}
	return out
}
