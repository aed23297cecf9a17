// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Names of what the Python networking-bagpipe left: bridges "evpn---…" and
// VXLAN devices "vxlan--…".
const (
	originalBridge = "evpn---"
	originalVXLAN  = "vxlan--"
)

// Cleanup removes all that this driver, or the original one, left in the
// network namespace of the calling thread, and returns what it removed. It goes
// on after an error. No daemon may be running.
func Cleanup(ctx context.Context, log *slog.Logger) ([]string, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	conn, err := netlinkx.Dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	links, err := conn.Links(0)
	if err != nil {
		return nil, err
	}
	c := &cleaner{conn: conn, log: log}
	c.entries(ctx, links)
	c.devices(ctx, links)
	return c.removed, errors.Join(c.errs...)
}

type cleaner struct {
	conn    *netlinkx.Conn
	log     *slog.Logger
	removed []string
	errs    []error
}

func (c *cleaner) done(what string, err error) {
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("remove %s: %w", what, err))
		return
	}
	c.log.Info("removed", "what", what)
	c.removed = append(c.removed, what)
}

// devices deletes what is ours by alias, or the original's by name.
func (c *cleaner) devices(ctx context.Context, links []netlinkx.Link) {
	for _, l := range links {
		id, ours := instanceOf(l)
		what := "device " + l.Name
		switch {
		case ours:
			what += fmt.Sprintf(" of instance %q", id)
		case isHalfMade(l), isOriginal(l):
		default:
			continue
		}
		if err := ctx.Err(); err != nil {
			c.errs = append(c.errs, err)
			return
		}
		c.done(what, deleteLink(c.conn, l.Index))
	}
}

// isOriginal tells whether a device is one that the original would remove at its cleanup.
func isOriginal(l netlinkx.Link) bool {
	return l.Kind == "bridge" && strings.Contains(l.Name, originalBridge) ||
		strings.Contains(l.Name, originalVXLAN)
}

// entries removes our entries from bridges of others. Such a bridge is known by
// a VXLAN device of ours in it, or by a neighbour of ours on it.
func (c *cleaner) entries(ctx context.Context, links []netlinkx.Link) {
	used, err := c.usedBridges(links)
	if err != nil {
		c.errs = append(c.errs, err)
	}
	for _, l := range links {
		if _, ours := instanceOf(l); ours || l.Kind != "bridge" || !used[l.Index] {
			continue
		}
		if err := ctx.Err(); err != nil {
			c.errs = append(c.errs, err)
			return
		}
		n, err := purge(c.conn, l.Index, 0)
		if err == nil {
			var more int
			more, err = c.tunnels(links, l.Index)
			n += more
		}
		if n > 0 || err != nil {
			c.done(fmt.Sprintf("%d entries in bridge %s", n, l.Name), err)
		}
	}
}

func (c *cleaner) usedBridges(links []netlinkx.Link) (map[int]bool, error) {
	used := map[int]bool{}
	for _, l := range links {
		if _, ours := instanceOf(l); ours && l.Kind == "vxlan" {
			used[l.Master] = true
		}
	}
	for _, family := range families {
		list, err := c.conn.Neighbours(family, 0)
		if err != nil {
			return used, err
		}
		for _, n := range list {
			if isOurNeighbour(n) {
				used[n.Index] = true
			}
		}
	}
	return used, nil
}

// tunnels removes our entries from the VXLAN devices of others in a bridge.
func (c *cleaner) tunnels(links []netlinkx.Link, bridge int) (int, error) {
	fdb, err := c.conn.FDB(bridge)
	if err != nil {
		return 0, err
	}
	var msgs []netlinkx.Message
	for _, l := range links {
		if _, ours := instanceOf(l); ours || l.Kind != "vxlan" || l.Master != bridge {
			continue
		}
		for _, n := range fdb {
			if onDevice(n, l.Index) && !n.Addr.IsMulticast() {
				msgs = append(msgs, fdbDeletion(n))
			}
		}
	}
	return len(msgs), deleteAll(c.conn, msgs)
}
