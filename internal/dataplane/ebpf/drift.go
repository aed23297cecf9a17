// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Drifted looks whether the programs are where they should be, with one list of devices
// and one question for each of ours.
func (d *Driver) Drifted(ctx context.Context) ([]dataplane.Drift, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stands, err := d.stands()
	if err != nil {
		return nil, err
	}
	links, err := d.conn.Links(0)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*netlinkx.Link, len(links))
	for i := range links {
		byName[links[i].Name] = &links[i]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	drifted := map[uint32][]string{}
	for index, plugs := range d.ports {
		if err := d.driftedPlugs(index, plugs, byName, drifted); err != nil {
			return nil, err
		}
	}
	err = each(d.maps.Fallbacks, func(vrf uint32, v fallbackValue) {
		if l := byName[nameOf(v.Port)]; l != nil && l.Index != int(v.Index) {
			drifted[vrf] = append(drifted[vrf], l.Name)
		}
	})
	if err != nil {
		return nil, err
	}
	var out []dataplane.Drift
	for _, h := range d.open {
		names := drifted[h.vrf]
		slices.Sort(names)
		if !stands || len(names) > 0 {
			out = append(out, dataplane.Drift{Instance: h.inst.ID, Whole: !stands, Ports: names})
		}
	}
	return out, nil
}

// driftedPlugs adds the instances whose port with that index is another device by now,
// or has lost the program.
func (d *Driver) driftedPlugs(index int, plugs map[uint32]plug, byName map[string]*netlinkx.Link, to map[uint32][]string) error {
	attached, asked := false, false
	for vrf, p := range plugs {
		l := byName[p.name]
		switch {
		case l == nil:
			continue
		case l.Index == index && !sends(p.direction):
			continue
		case l.Index == index:
			if !asked {
				id, err := d.taps.attached(index, portProgram)
				if err != nil {
					return err
				}
				attached, asked = id != 0, true
			}
			if attached {
				continue
			}
		}
		to[vrf] = append(to[vrf], p.name)
	}
	return nil
}

// stands tells whether all devices of the underlay that are there have the program.
func (d *Driver) stands() (bool, error) {
	devices, err := d.presentUnderlay()
	if err != nil {
		return false, err
	}
	for _, l := range devices {
		id, err := d.hooks.attached(l.Index, underlayProgram)
		if id == 0 || err != nil {
			return false, err
		}
	}
	return true, nil
}

// presentUnderlay lists the devices of the underlay that are there. One that is gone
// carries no packets, and comes back with an attachment missing.
func (d *Driver) presentUnderlay() ([]netlinkx.Link, error) {
	if len(d.cfg.Underlay) == 0 {
		l, err := d.deviceOfAddress()
		if err != nil {
			return nil, nil //nolint:nilerr // the address has moved or is gone for now
		}
		return []netlinkx.Link{l}, nil
	}
	var out []netlinkx.Link
	for _, name := range d.cfg.Underlay {
		l, ok, err := d.conn.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if ok && l.Ethernet {
			out = append(out, l)
		}
	}
	return out, nil
}

// Repair attaches the program to devices of the underlay that have lost it. No entries
// are lost with it: they are in maps.
func (h *handle) Repair(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	devices, err := d.presentUnderlay()
	if err != nil {
		return false, err
	}
	repaired := false
	for _, l := range devices {
		id, err := d.hooks.attached(l.Index, underlayProgram)
		if err != nil {
			return repaired, err
		}
		if id != 0 {
			continue
		}
		if err := d.hooks.attach(l.Index, d.progs.underlay, underlayProgram); err != nil {
			return repaired, fmt.Errorf("repair instance %q: underlay device %s: %w", h.inst.ID, l.Name, err)
		}
		repaired = true
	}
	return repaired, nil
}
