// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cleanup takes our programs from all devices in the network namespace of the calling
// thread, and with the last of them goes all that they hold. It returns what it removed,
// and goes on after an error. No daemon may be running.
func Cleanup(ctx context.Context, log *slog.Logger) (removed []string, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { _ = ns.Close() }()
	conn, err := netlinkx.Dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer nl.Close()
	links, err := conn.Links(0)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, clsact := range []bool{false, true} {
		h, err := newHooks(nl, ns, clsact)
		if err != nil {
			return removed, err
		}
		if !clsact && h.clsact {
			continue // a kernel without tcx
		}
		list, err := h.clean(ctx, links, log)
		removed, errs = append(removed, list...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// clean takes our programs from devices.
func (h *hooks) clean(ctx context.Context, links []netlinkx.Link, log *slog.Logger) (removed []string, err error) {
	for _, l := range links {
		if !l.Ethernet {
			continue
		}
		if ctx.Err() != nil {
			return removed, errors.Join(err, ctx.Err())
		}
		for _, name := range []string{portProgram, underlayProgram} {
			id, e := h.attached(l.Index, name)
			if id == 0 && e == nil {
				continue
			}
			what := fmt.Sprintf("program %s at device %s", name, l.Name)
			if e == nil {
				e = h.detach(l.Index, name)
			}
			if e != nil {
				err = errors.Join(err, fmt.Errorf("remove %s: %w", what, e))
				continue
			}
			log.Info("removed", "what", what)
			removed = append(removed, what)
		}
	}
	return removed, err
}
