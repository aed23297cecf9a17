// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb"
)

// recorded returns the numbers of the instances in the switch, by id.
func (d *Driver) recorded(ctx context.Context, conn bridge) (map[string]uint32, error) {
	flows, err := conn.Flows(ctx, of.Filter{
		Cookie: cookieMark, Mask: cookieMask, Table: int(d.layout.in) + 1, Match: of.NewMatch(of.Is(regRecord, recordMark)),
	})
	if err != nil {
		return nil, err
	}
	out := map[string]uint32{}
	for i := range flows {
		if id, ok := idOf(&flows[i].Flow); ok {
			out[id] = uint32(flows[i].Cookie)
		}
	}
	return out, nil
}

// Orphans lists the instances that flows or ports of ours belong to and that are not open.
func (d *Driver) Orphans(ctx context.Context) ([]string, error) {
	conn, err := d.bridge(ctx)
	if err != nil {
		return nil, err
	}
	numbers, err := d.recorded(ctx, conn)
	if err != nil {
		return nil, err
	}
	marked, err := d.db.Marked(ctx, ownerKey, ownerValue)
	if err != nil {
		return nil, err
	}
	var ids []string
	for id := range numbers {
		ids = append(ids, id)
	}
	for _, i := range marked {
		if id := i.ExternalIDs[instanceKey]; id != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool {
		// A port stays with the instance that added it while another one has it, too.
		return d.open[id] != nil || d.onlySharedPorts(id, numbers, marked)
	}), nil
}

// onlySharedPorts tells whether all that is left of an instance is ports that open ones have.
func (d *Driver) onlySharedPorts(id string, numbers map[string]uint32, marked []ovsdb.Interface) bool {
	if _, ok := numbers[id]; ok {
		return false
	}
	for _, i := range marked {
		if i.ExternalIDs[instanceKey] == id && len(d.users[i.Name]) == 0 {
			return false
		}
	}
	return true
}

// RemoveOrphan removes the flows, groups and ports of an instance. No instance is
// opened meanwhile: it would adopt what goes the next moment.
func (d *Driver) RemoveOrphan(ctx context.Context, id string) error {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	open := d.open[id] != nil
	d.mu.Unlock()
	if open {
		return fmt.Errorf("remove orphan %q: %w", id, dataplane.ErrOpen)
	}
	conn, err := d.bridge(ctx)
	if err != nil {
		return err
	}
	numbers, err := d.recorded(ctx, conn)
	if err != nil {
		return err
	}
	if err := d.removeInstance(ctx, id, numbers[id]); err != nil {
		return fmt.Errorf("remove orphan %q: %w", id, err)
	}
	return nil
}

// removeInstance removes all of an instance whose number, if it has one, is not 0.
func (d *Driver) removeInstance(ctx context.Context, id string, number uint32) error {
	conn, err := d.bridge(ctx)
	if err != nil {
		return err
	}
	var groups []uint32
	if number != 0 {
		cookie := cookieMark | uint64(number)
		flows, err := conn.Flows(ctx, of.Filter{Cookie: cookie, Mask: exactCookie})
		if err != nil {
			return err
		}
		messages := []of.Message{of.DeleteFlows{Cookie: cookie, Mask: exactCookie}}
		for _, f := range flows {
			if g, ok := f.Actions.GroupOf(); ok && ownGroup(g) && g != groupGuess {
				groups = append(groups, g)
				messages = append(messages, of.DeleteGroup{ID: g})
			}
		}
		if err := conn.Bundle(ctx, messages); err != nil {
			return err
		}
	}
	d.freeGroups(groups)
	d.mu.Lock()
	d.forget(id)
	delete(d.numbers, id)
	d.mu.Unlock()
	marked, err := d.db.Marked(ctx, instanceKey, id)
	errs := []error{err}
	for _, i := range marked {
		errs = append(errs, d.unplug(ctx, i.Name))
	}
	return errors.Join(errs...)
}
