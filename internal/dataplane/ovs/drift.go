// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// Drifted counts the flows of each open instance and looks at the numbers of
// ports. Flows that were changed and not taken away are seen by Installed only.
func (d *Driver) Drifted(ctx context.Context) ([]dataplane.Drift, error) {
	conn, err := d.bridge(ctx)
	if err != nil {
		return nil, err
	}
	ports, err := portsByName(ctx, conn)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	l := d.layout
	handles := make([]*handle, 0, len(d.open))
	for _, h := range d.open {
		handles = append(handles, h)
	}
	d.mu.Unlock()
	shared, err := conn.CountFlows(ctx, of.Filter{Cookie: cookieMark, Mask: exactCookie})
	if err != nil {
		return nil, err
	}
	whole := shared == uint64(len(l.shared())) && d.tunnelsStand(&l, ports)
	var out []dataplane.Drift
	for _, h := range handles {
		drift, err := h.drift(ctx, conn, ports, whole)
		if err != nil {
			return nil, err
		}
		if drift.Whole || len(drift.Ports) > 0 {
			out = append(out, drift)
		}
	}
	return out, nil
}

// tunnelsStand tells whether the tunnel ports have the numbers that flows use.
func (d *Driver) tunnelsStand(l *layout, ports map[string]of.Port) bool {
	for name, number := range map[string]uint32{d.cfg.GRETunnel: l.gre, vxlanPort: l.vxlan, d.cfg.MPLSInterface: l.phys} {
		if number != 0 && ports[name[:min(len(name), 15)]].Number != number {
			return false
		}
	}
	return true
}

// drift looks at one instance. One that is being changed is looked at next time.
func (h *handle) drift(ctx context.Context, conn bridge, ports map[string]of.Port, shared bool) (dataplane.Drift, error) {
	out := dataplane.Drift{Instance: h.inst.ID}
	if !h.mu.TryLock() {
		return out, nil
	}
	defer h.mu.Unlock()
	if h.vrf == nil || h.gone {
		return out, nil
	}
	n, err := conn.CountFlows(ctx, of.Filter{Cookie: h.vrf.cookie(), Mask: exactCookie})
	if err != nil {
		return out, err
	}
	if !shared || h.lost || !h.dirty && n != uint64(h.count) {
		out.Whole = true
		return out, nil
	}
	for name, p := range h.vrf.ports {
		if number, err := numberOf(ports, &p.entry); err == nil && number != p.number {
			out.Ports = append(out.Ports, name)
		}
	}
	slices.Sort(out.Ports)
	return out, nil
}

// Repair makes again the tunnel ports and the flows that every instance has.
func (h *handle) Repair(ctx context.Context) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(ctx); err != nil {
		return false, err
	}
	repaired, err := h.repair(ctx)
	if err != nil {
		h.dirty = true
		return true, fmt.Errorf("repair instance %q: %w", h.inst.ID, err)
	}
	return repaired, nil
}

func (h *handle) repair(ctx context.Context) (bool, error) {
	before := h.count
	l := h.vrf.layout
	if _, err := h.d.ensureShared(ctx); err != nil {
		return false, err
	}
	if err := h.reload(ctx); err != nil {
		return false, err
	}
	missing, err := h.ensureBase(ctx)
	if err != nil {
		return false, err
	}
	lost, now := h.lost, h.vrf.layout
	h.lost = false
	return missing || lost || h.count != before || l.gre != now.gre || l.vxlan != now.vxlan || l.phys != now.phys, nil
}
