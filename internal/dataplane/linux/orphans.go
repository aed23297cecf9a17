// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Orphans lists the instances that devices of ours belong to and that are not
// open. An id that does not fit in an alias is listed as "sha256:" and its hash.
func (d *Driver) Orphans(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := d.conn.Links(0)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range links {
		if id, ours := instanceOf(l); ours && !d.isOpen(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// RemoveOrphan removes the devices of an instance, and its entries from the
// existing bridge that its VXLAN device is in. No instance is opened meanwhile:
// it would adopt devices and entries that go the next moment.
func (d *Driver) RemoveOrphan(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.isOpen(id) {
		return fmt.Errorf("remove orphan %q: %w", id, dataplane.ErrOpen)
	}
	links, err := d.conn.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		if got, ours := instanceOf(l); !ours || got != id {
			continue
		}
		if err := d.removeOrphanDevice(l); err != nil {
			return fmt.Errorf("remove orphan %q: %w", id, err)
		}
	}
	return nil
}

func (d *Driver) removeOrphanDevice(l netlinkx.Link) error {
	if l.Kind == "vxlan" && l.Master != 0 && !d.usesBridge(l.Master) {
		if _, err := purgeOthers(d.conn, l.Master, l.Index); err != nil {
			return err
		}
	}
	return d.deleteOurs(l.Index, l.Alias)
}

// purgeOthers purges a bridge unless it is one of ours, which is deleted whole.
func purgeOthers(conn *netlinkx.Conn, bridge, except int) (int, error) {
	l, ok, err := conn.LinkByIndex(bridge)
	if err != nil || !ok {
		return 0, err
	}
	if _, ours := instanceOf(l); ours {
		return 0, nil
	}
	return purge(conn, bridge, except)
}

// isOpen tells whether the instance with that listed id is open.
func (d *Driver) isOpen(listed string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[listed] != nil
}

func (d *Driver) usesBridge(index int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.open {
		if h.bridge == index {
			return true
		}
	}
	return false
}
