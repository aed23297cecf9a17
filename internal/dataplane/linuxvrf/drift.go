// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Drifted compares a list of all devices with what the open instances have, and looks
// for one nexthop object on each device: the kernel takes all of them, and the routes
// that have them, when a device goes down. Of rules it looks for all.
func (d *Driver) Drifted(ctx context.Context) ([]dataplane.Drift, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := d.k.Links(0)
	if err != nil {
		return nil, err
	}
	if err := d.followCarriers(links); err != nil {
		return nil, err
	}
	if err := d.findLost(links); err != nil {
		return nil, err
	}
	if err := d.findLostRules(); err != nil {
		return nil, err
	}
	for _, h := range d.open {
		if err := h.followPorts(links); err != nil {
			return nil, err
		}
	}
	var out []dataplane.Drift
	for _, h := range d.open {
		drift := dataplane.Drift{Instance: h.inst.ID}
		switch {
		case h.stale || !h.stands(links):
			drift.Whole = true
		default:
			if drift.Ports, err = h.driftedPorts(links); err != nil {
				return nil, err
			}
		}
		if drift.Whole || len(drift.Ports) > 0 {
			out = append(out, drift)
		}
	}
	return out, d.dropTunnels()
}

// findLost finds the devices whose nexthop objects are gone, and marks the instances
// that have routes by them.
func (d *Driver) findLost(links []netlinkx.Link) error {
	sample := map[int]uint32{}
	for hop, n := range d.nexthops.byHop {
		sample[hop.index] = n.id
	}
	lost := false
	for _, id := range sample {
		_, ok, err := d.k.Nexthop(id)
		if err != nil {
			return err
		}
		lost = lost || !ok
	}
	if d.mplsPort != 0 {
		l, ok := device(links, func(l netlinkx.Link) bool { return l.Name == d.cfg.MPLSInterface })
		if ok && l.Index != d.mplsPort {
			if err := d.takeLabels(l.Name); err != nil {
				return err
			}
			d.mplsPort, lost = l.Index, true
		}
	}
	for key, index := range d.tunnels {
		if _, ok := device(links, func(l netlinkx.Link) bool { return l.Index == index }); ok {
			continue
		}
		delete(d.tunnels, key)
		if lost = true; !key.remote.IsValid() {
			if _, err := d.tunnel(key); err != nil {
				return err
			}
		}
	}
	if !lost {
		return nil
	}
	before := d.nexthops.byID
	if err := d.findNexthops(); err != nil {
		return err
	}
	for _, h := range d.open {
		for _, r := range h.routes {
			if r.nexthop != nil && before[r.nexthop.id] == r.nexthop && d.nexthops.byID[r.nexthop.id] != r.nexthop {
				h.stale = true
				break
			}
		}
	}
	return nil
}

// followPorts notes that ports were switched off or on: entries on them are gone.
func (h *handle) followPorts(links []netlinkx.Link) error {
	for name, index := range h.ports {
		l, ok := device(links, func(l netlinkx.Link) bool { return l.Index == index })
		if ok && l.Up == h.down[name] {
			h.down[name] = !l.Up
			if err := h.lost(index); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *handle) stands(links []netlinkx.Link) bool {
	l, ok := device(links, func(l netlinkx.Link) bool { return l.Index == h.vrf })
	return ok && l.Kind == "vrf" && l.Alias == h.alias && l.Up && l.Table == h.table
}

// driftedPorts lists the ports that are not in the VRF, and those that are other
// devices than the ones plugged.
func (h *handle) driftedPorts(links []netlinkx.Link) (out []string, err error) {
	for name, index := range h.ports {
		l, ok := device(links, func(l netlinkx.Link) bool { return l.Name == name })
		if !ok || l.Master == h.vrf && l.Index == index {
			continue
		}
		if err := h.lost(index); err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// Repair makes the device right if it does not stand.
func (h *handle) Repair(ctx context.Context) (bool, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	links, err := h.d.k.Links(0)
	if err != nil {
		return false, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	if h.stands(links) && !h.stale {
		return false, nil
	}
	if err := h.ensure(); err != nil {
		return true, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	if err := h.load(); err != nil {
		return true, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	if err := h.frame(); err != nil {
		return true, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	return true, nil
}
