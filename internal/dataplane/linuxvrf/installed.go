// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// Installed reads the instance's entries from the kernel. What the kernel does not keep
// is as this process last knew it; after a restart that is missing: the order of next
// hops, the prefix that an endpoint is announced with, and which gateway is whose when
// a port has several. Such entries differ from what is desired, and are set again,
// which changes nothing in the kernel.
func (h *handle) Installed(ctx context.Context) ([]dataplane.Entry, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := h.load(); err != nil {
		return nil, fmt.Errorf("read instance %q: %w", h.inst.ID, err)
	}
	var out []dataplane.Entry
	for name := range h.ports {
		out = append(out, dataplane.Entry{Kind: dataplane.LocalPort, Port: name, Direction: dataplane.Both})
	}
	for _, e := range h.endpoints {
		out = append(out, e.Entry)
	}
	for prefix, r := range h.routes {
		out = append(out, dataplane.Entry{Kind: dataplane.Prefix, Prefix: prefix, NextHops: slices.Clone(r.hops)})
	}
	return h.installedClasses(out)
}

// load makes what is known of the instance what the kernel has.
func (h *handle) load() error {
	links, err := h.d.k.Links(h.vrf)
	if err != nil {
		return err
	}
	h.ports = map[string]int{}
	for _, l := range links {
		h.ports[l.Name] = l.Index
	}
	if err := h.loadEndpoints(); err != nil {
		return err
	}
	if err := h.loadRoutes(); err != nil {
		return err
	}
	if err := h.loadSteering(); err != nil {
		return err
	}
	h.stale = false
	return nil
}

func (h *handle) loadEndpoints() error {
	labels, err := ourLabels(h.d.k)
	if err != nil {
		return err
	}
	type behind struct {
		index int
		mac   ethernet.MAC
	}
	byMAC := map[behind][]uint32{}
	for _, m := range labels {
		at := behind{m.Index, m.MAC}
		byMAC[at] = append(byMAC[at], m.Label)
	}
	found := map[endpointKey]endpoint{}
	for name, index := range h.ports {
		addrs, err := h.d.k.Addresses(index)
		if err != nil {
			return err
		}
		for _, family := range families {
			list, err := h.d.k.Neighbours(family, index)
			if err != nil {
				return err
			}
			for _, n := range list {
				if n.Protocol != ours || n.State&unix.NUD_PERMANENT == 0 {
					continue
				}
				for _, number := range byMAC[behind{index, n.MAC}] {
					e := h.endpointOf(name, number, n, addrs)
					found[keyOf(e.Entry)] = e
				}
			}
		}
	}
	gone := h.endpoints
	h.endpoints = found
	b := h.d.newBatch(1)
	touched := map[uint32]bool{}
	for key := range gone {
		touched[key.label] = true
	}
	for key := range found {
		touched[key.label] = true
	}
	for number := range touched {
		if l := h.d.labels[number]; l == nil || l.h == h {
			b.fail(0, h.d.setLabel(b, h, number))
		}
	}
	b.flush()
	return b.results[0]
}

// endpointOf returns the entry as it is remembered or, as far as the kernel tells, as it must have been.
func (h *handle) endpointOf(port string, number uint32, n netlinkx.Neigh, addrs []netlinkx.Address) endpoint {
	ip := behindGateway(n.Addr)
	old, known := h.endpoints[endpointKey{number, ip}]
	var gateways []netip.Addr
	for _, a := range addrs {
		if a.Protocol == ours && a.Prefix.Addr().Is4() == n.Addr.Is4() {
			gateways = append(gateways, a.Prefix.Addr())
		}
	}
	if known && old.index == n.Index && old.Port == port && old.MAC == n.MAC &&
		(!old.Gateway.IsValid() || slices.Contains(gateways, old.Gateway)) {
		return old
	}
	e := endpoint{index: n.Index, Entry: dataplane.Entry{
		Kind: dataplane.LocalPrefix, Port: port, Label: number, MAC: n.MAC, IP: ip,
		Prefix: netip.PrefixFrom(ip, ip.BitLen()), Direction: dataplane.Both,
	}}
	if len(gateways) == 1 {
		e.Gateway = gateways[0]
	}
	return e
}

func (h *handle) loadRoutes() error {
	t := &h.d.nexthops
	now := map[netip.Prefix]installed{}
	for _, family := range families {
		list, err := h.d.k.Routes(family, h.table, ours)
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.Metric == lastMetric {
				continue
			}
			old, known := h.routes[r.Dst]
			i := installed{nexthop: t.byID[r.Nexthop]}
			if known && old.nexthop == i.nexthop {
				i.hops = old.hops
			} else {
				i.hops = h.d.nextHops(i.nexthop)
			}
			now[r.Dst] = i
		}
	}
	for prefix, i := range now {
		if i.nexthop != nil {
			i.nexthop.refs++
		}
		h.d.use(routeKey{h, prefix}, h.routes[prefix].hops, i.hops)
	}
	for prefix, i := range h.routes {
		if _, ok := now[prefix]; !ok {
			h.d.use(routeKey{h, prefix}, i.hops, nil)
		}
		t.release(i.nexthop)
	}
	h.routes = now
	return h.d.do(t.collect())
}
