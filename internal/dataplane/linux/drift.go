// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Drifted compares a list of all devices with what the open instances have. It
// does not look at entries: those go only with a device, or by hand.
func (d *Driver) Drifted(ctx context.Context) ([]dataplane.Drift, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := d.dumps.Links(0)
	if err != nil {
		return nil, err
	}
	byIndex, byName := make(map[int]*netlinkx.Link, len(links)), make(map[string]*netlinkx.Link, len(links))
	for i := range links {
		byIndex[links[i].Index], byName[links[i].Name] = &links[i], &links[i]
	}
	var out []dataplane.Drift
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.open {
		drift := dataplane.Drift{Instance: h.inst.ID}
		switch {
		case h.bridge == 0: // just being opened
		case !h.stands(byIndex[h.bridge], byIndex[h.vxlan]):
			drift.Whole = true
			out = append(out, drift)
		default:
			if drift.Ports = h.driftedPorts(byName); len(drift.Ports) > 0 {
				out = append(out, drift)
			}
		}
	}
	return out, nil
}

// stands tells whether devices, nil for those that are not there, are the
// instance's and work. Of what belongs to others their settings are their affair.
func (h *handle) stands(bridge, vxlan *netlinkx.Link) bool {
	alias := aliasOf(h.inst.ID)
	switch {
	case bridge == nil || bridge.Kind != "bridge" || vxlan == nil || vxlan.Kind != "vxlan" || vxlan.Master != h.bridge:
		return false
	case h.ownBridge && (bridge.Alias != alias || !bridge.Up):
		return false
	}
	return !h.ownVXLAN || vxlan.Alias == alias && vxlan.Up
}

// driftedPorts lists the ports that are not in the bridge, and those that are
// other devices than the ones plugged; these once, for then they are known. Into an
// existing bridge its owner puts ports. It runs with d.mu held.
func (h *handle) driftedPorts(byName map[string]*netlinkx.Link) (out []string) {
	for name, index := range h.ports {
		l := byName[name]
		plugged := l != nil && l.Master == h.bridge
		if l == nil || !plugged && !h.ownBridge || plugged && l.Index == index {
			continue
		}
		out = append(out, name)
		if plugged {
			h.ports[name] = l.Index
		}
	}
	slices.Sort(out)
	return out
}

// Repair makes the devices right if they do not stand.
func (h *handle) Repair(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	var now [2]*netlinkx.Link
	for i, index := range []int{h.bridge, h.vxlan} {
		l, ok, err := h.d.conn.LinkByIndex(index)
		switch {
		case err != nil:
			return false, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
		case ok:
			now[i] = &l
		}
	}
	if h.stands(now[0], now[1]) {
		return false, nil
	}
	h.d.opening.RLock()
	defer h.d.opening.RUnlock()
	fresh, err := h.d.build(h.inst)
	if err != nil {
		return true, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if fresh.vxlan == h.vxlan && !fresh.ownVXLAN {
		maps.Copy(fresh.borrowed.flood, h.borrowed.flood)
		if fresh.borrowed.port == nil {
			fresh.borrowed.port = h.borrowed.port
		}
	}
	fresh.ports = h.ports
	*h = *fresh
	return true, nil
}
