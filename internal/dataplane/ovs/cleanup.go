// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// Cleanup removes all that this driver left in the bridge, and what
// networking-bagpipe left there: flows in the two tables that are the driver's
// alone, those of its priority in the input table that lead there, the groups
// that they use, and tunnel ports. It returns what it removed. No daemon may be
// running.
func Cleanup(ctx context.Context, cfg Config, log *slog.Logger) (removed []string, err error) {
	cfg.MPLSInterface = greInterface // that port may be gone, and is not needed
	d, err := New(cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	conn, err := d.bridge(ctx)
	if err != nil {
		return nil, err
	}
	flows, err := conn.Flows(ctx, of.Filter{})
	if err != nil {
		return nil, err
	}
	existing, err := conn.Groups(ctx)
	if err != nil {
		return nil, err
	}
	ids := map[uint32]bool{}
	for _, g := range existing {
		if ownGroup(g.ID) {
			ids[g.ID] = true
		}
	}
	var messages []of.Message
	for i := range flows {
		f := &flows[i].Flow
		if !d.isLeft(f) {
			continue
		}
		messages = append(messages, of.DeleteFlow(*f))
		if g, ok := f.Actions.GroupOf(); ok {
			ids[g] = true
		}
	}
	if n := len(messages); n > 0 {
		removed = append(removed, fmt.Sprintf("%d flows of OVS bridge %s", n, d.cfg.Bridge))
	}
	for id := range ids {
		messages = append(messages, of.DeleteGroup{ID: id})
	}
	if len(ids) > 0 {
		removed = append(removed, fmt.Sprintf("%d groups of OVS bridge %s", len(ids), d.cfg.Bridge))
	}
	if err := conn.Bundle(ctx, messages); err != nil {
		return nil, fmt.Errorf("remove flows of OVS bridge %s: %w", d.cfg.Bridge, err)
	}
	more, err := d.cleanPorts(ctx)
	for _, what := range append(removed, more...) {
		d.log.Info("removed", "what", what)
	}
	return append(removed, more...), err
}

// isLeft tells whether a flow is ours or of networking-bagpipe.
func (d *Driver) isLeft(f *of.Flow) bool {
	switch {
	case f.Cookie&cookieMask == cookieMark, f.Table == d.layout.in, f.Table == d.layout.table:
		return true
	}
	return f.Table == d.layout.input && f.Priority == prioFixed && (f.Actions.Resubmits(d.layout.in) || f.Actions.Resubmits(d.layout.table))
}

// cleanPorts takes out the ports that we added. A GRE port of networking-bagpipe
// stays, as with its own command.
func (d *Driver) cleanPorts(ctx context.Context) (removed []string, err error) {
	marked, err := d.db.Marked(ctx, ownerKey, ownerValue)
	errs := []error{err}
	for _, i := range marked {
		in, err := d.db.BridgeOf(ctx, i.Name)
		if err != nil || in != d.cfg.Bridge {
			errs = append(errs, err)
			continue
		}
		deleted, err := d.db.DeletePort(ctx, in, i.Name)
		errs = append(errs, err)
		if deleted {
			removed = append(removed, fmt.Sprintf("port %s of OVS bridge %s", i.Name, in))
		}
	}
	return removed, errors.Join(errs...)
}
