// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// firstTable is the first routing table that we give to a VRF, as the original does.
const firstTable = 1001

// handle implements dataplane.Handle. Its members are guarded by d.mu.
type handle struct {
	d     *Driver
	inst  dataplane.Instance
	alias string
	vrf   int // index of the device, 0 for none yet
	name  string
	table uint32

	ports     map[string]int // index by name
	endpoints map[endpointKey]endpoint
	routes    map[netip.Prefix]installed
	steering  map[uint8]*steering // by AF_INET and AF_INET6
	// down are the ports that were switched off when last seen.
	down map[string]bool
	// stale is set when entries were lost with a device.
	stale bool
}

func newHandle(d *Driver, inst dataplane.Instance) *handle {
	return &handle{
		d: d, inst: inst, alias: aliasOf(inst.ID), ports: map[string]int{}, down: map[string]bool{}, endpoints: map[endpointKey]endpoint{}, routes: map[netip.Prefix]installed{},
		steering: newSteering(),
	}
}

// ensure makes or adopts the VRF device.
func (h *handle) ensure() error {
	links, err := h.d.k.Links(0)
	if err != nil {
		return err
	}
	l, ok := device(links, func(l netlinkx.Link) bool { return l.Kind == "vrf" && l.Alias == h.alias })
	if !ok {
		if h.table == 0 {
			if h.table, err = h.d.freeTable(links); err != nil {
				return err
			}
		}
		l, err = newDevice(h.d.k, vrfPrefix, h.inst.ID, h.alias, func(name string) error {
			mark := uint32(devname.HalfMade)
			return h.d.k.Link(&netlinkx.LinkRequest{Name: name, Kind: "vrf", Table: h.table, Group: &mark})
		})
		if err != nil {
			return err
		}
		l.Table = h.table
	}
	h.vrf, h.name, h.table = l.Index, l.Name, l.Table
	if err := h.d.k.Link(&netlinkx.LinkRequest{
		Index: l.Index, Name: l.Name, Up: true, IPv4: map[uint16]uint32{devconfForwarding: 1},
	}); err != nil {
		return err
	}
	return h.d.do(h.closing(false))
}

// closing are the routes that keep packets in the VRF.
func (h *handle) closing(del bool) (reqs []netlinkx.Request) {
	for _, dst := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		reqs = append(reqs, netlinkx.RouteRequest{Delete: del, Route: netlinkx.Route{
			Dst: netip.PrefixFrom(dst, 0), Table: h.table, Metric: lastMetric, Protocol: ours,
		}})
	}
	return reqs
}

// freeTable returns a routing table that no VRF device and no rule has and that is empty.
func (d *Driver) freeTable(links []netlinkx.Link) (uint32, error) {
	taken := map[uint32]bool{}
	for _, l := range links {
		taken[l.Table] = true
	}
	for _, h := range d.open {
		taken[h.table] = true
	}
	for _, family := range families {
		rules, err := rulesOf(d.k, family)
		if err != nil {
			return 0, err
		}
		for _, r := range rules {
			taken[r.Table] = true
		}
	}
	for table := uint32(firstTable); ; table++ {
		if taken[table] {
			continue
		}
		empty := true
		for _, family := range families {
			routes, err := d.k.Routes(family, table, 0)
			if err != nil {
				return 0, err
			}
			empty = empty && len(routes) == 0
		}
		if empty {
			return table, nil
		}
	}
}

// Describe returns members for the looking glass.
func (h *handle) Describe() []dataplane.Member {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return []dataplane.Member{
		{Name: "vrf_if", Value: h.name},
		{Name: "route_table", Value: h.table},
	}
}

// Apply carries out changes in order. Routes go to the kernel in batches.
func (h *handle) Apply(ctx context.Context, changes []dataplane.Change) []error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	b := h.d.newBatch(len(changes))
	for i, c := range changes {
		if err := ctx.Err(); err != nil {
			b.results[i] = err
			continue
		}
		b.owner = i
		b.fail(i, h.change(b, c))
		if len(b.reqs) >= flushSize {
			b.flush()
		}
	}
	b.flush()
	for i, err := range b.results {
		if err != nil {
			b.results[i] = fmt.Errorf("%s: %w", changes[i], err)
		}
	}
	return b.results
}

func (h *handle) change(b *batch, c dataplane.Change) error {
	e := c.Entry
	switch e.Kind {
	case dataplane.LocalPort:
		if e.OVS != (dataplane.OVSPort{}) {
			return badPort(false, "%s is a port of Open vSwitch: want an Ethernet device", e.Port)
		}
		b.flush()
		return errors.Join(h.setPort(c.Delete, e.Port), h.frame())
	case dataplane.LocalPrefix:
		if c.Delete {
			return errors.Join(h.deleteEndpoint(b, e), h.frame())
		}
		return errors.Join(h.setEndpoint(b, e), h.frame())
	case dataplane.Redirect:
		return h.setClass(c.Delete, &e)
	case dataplane.Prefix:
		if c.Delete {
			h.deleteRoute(b, e.Prefix)
			return nil
		}
		return h.setRoute(b, e.Prefix, e.NextHops)
	}
	return fmt.Errorf("a VRF has no entry of kind %q", e.Kind)
}

// Remove takes the instance out of the kernel.
func (h *handle) Remove(ctx context.Context) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("remove instance %q: %w", h.inst.ID, err)
	}
	if err := h.remove(); err != nil {
		return fmt.Errorf("remove instance %q: %w", h.inst.ID, err)
	}
	if id := devname.Listed(vrfAlias, h.inst.ID); h.d.open[id] == h {
		delete(h.d.open, id)
	}
	return nil
}

// remove takes all entries out, and then the device.
func (h *handle) remove() error {
	if err := h.dropClasses(); err != nil {
		return err
	}
	b := h.d.newBatch(1)
	for prefix := range h.routes {
		h.deleteRoute(b, prefix)
		if len(b.reqs) >= flushSize {
			b.flush()
		}
	}
	for _, e := range h.endpoints {
		b.fail(0, h.deleteEndpoint(b, e.Entry))
	}
	for _, r := range h.closing(true) {
		b.request(r)
	}
	b.flush()
	errs := []error{b.results[0]}
	for name := range h.ports {
		errs = append(errs, h.releasePort(name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	l, ok, err := h.d.k.LinkByIndex(h.vrf)
	if err != nil || !ok || l.Alias != h.alias {
		return err
	}
	return goneIsFine(h.d.k.DeleteLink(h.vrf))
}
