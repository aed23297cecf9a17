// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Orphans lists the instances that VRF devices of ours belong to and that are not open.
func (d *Driver) Orphans(ctx context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := d.k.Links(0)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range links {
		if id, ours := instanceOf(l); ours && d.open[id] == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// RemoveOrphan removes the device of an instance with all that belongs to it.
func (d *Driver) RemoveOrphan(ctx context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.open[id] != nil {
		return fmt.Errorf("remove orphan %q: %w", id, dataplane.ErrOpen)
	}
	links, err := d.k.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		if got, ours := instanceOf(l); !ours || got != id {
			continue
		}
		h := newHandle(d, dataplane.Instance{ID: id, Type: dataplane.IPVPN})
		h.alias, h.vrf, h.name, h.table = l.Alias, l.Index, l.Name, l.Table
		err := h.load()
		if err == nil {
			err = h.remove()
		}
		if err != nil {
			return fmt.Errorf("remove orphan %q: %w", id, err)
		}
	}
	return d.sweepNexthops()
}

// sweepTables removes our routes from tables that are not those of a VRF device of
// ours: somebody took the device away while no process was there to see it.
func (d *Driver) sweepTables() error {
	links, err := d.k.Links(0)
	if err != nil {
		return err
	}
	kept := map[uint32]bool{}
	for _, l := range links {
		if _, ours := instanceOf(l); ours {
			kept[l.Table] = true
		}
	}
	var reqs []netlinkx.Request
	routes, err := ourRoutes(d.k)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if !kept[r.Table] {
			reqs = append(reqs, netlinkx.RouteRequest{Delete: true, Route: r})
		}
	}
	return d.do(reqs)
}

// ourRoutes lists the routes of both IP versions and all tables that are ours.
func ourRoutes(k kernel) (all []netlinkx.Route, err error) {
	for _, family := range families {
		list, err := k.Routes(family, 0, ours)
		if err != nil {
			return all, err
		}
		all = append(all, list...)
	}
	return all, nil
}
