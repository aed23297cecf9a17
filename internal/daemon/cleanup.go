// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ebpf"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linux"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linuxvrf"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ovs"
	"github.com/bagpipe-vpn/bagpipe/internal/nodelock"
	"github.com/bagpipe-vpn/bagpipe/internal/vethpair"
)

// Cleanup removes what the dataplane drivers of a stopped daemon have left in the
// network namespace of the calling thread, and returns what it removed. It goes on
// after an error, but does nothing while a daemon runs there.
//
// The daemon's configuration tells of Open vSwitch, which is looked at if it has
// driver ovs. The default file need not exist.
func Cleanup(ctx context.Context, src config.Source, log *slog.Logger) (removed []string, err error) {
	lock, err := nodelock.Take()
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	return clean(ctx, log, func(ctx context.Context, log *slog.Logger) ([]string, error) { return cleanOVS(ctx, src, log) })
}

// clean removes what drivers have left, and what last does. It runs with the lock of the
// node held and no driver open.
func clean(ctx context.Context, log *slog.Logger, last func(context.Context, *slog.Logger) ([]string, error)) (removed []string, err error) {
	for _, clean := range []func(context.Context, *slog.Logger) ([]string, error){
		ebpf.Cleanup, linux.Cleanup, linuxvrf.Cleanup,
		func(context.Context, *slog.Logger) ([]string, error) { return vethpair.Sweep(nil) },
		last,
	} {
		list, cerr := clean(ctx, log)
		removed = append(removed, list...)
		err = errors.Join(err, cerr)
	}
	return removed, err
}

func cleanOVS(ctx context.Context, src config.Source, log *slog.Logger) ([]string, error) {
	cfg, _, err := config.Load(src)
	switch {
	case errors.Is(err, fs.ErrNotExist) && slices.Equal(src.Files, []string{config.DefaultFile}):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for flows of Open vSwitch: %w", err)
	case cfg.IPVPN.Driver != "ovs":
		return nil, nil
	}
	return ovs.Cleanup(ctx, ovsConfig(&cfg.IPVPN), log)
}

// cleanUp removes the forwarding state of a node whose drivers are closed, and says how much
// that was.
func (d *Daemon) cleanUp(ctx context.Context) error {
	if d.lock == nil {
		return nil // there is none
	}
	ctx, cancel := context.WithTimeout(ctx, CleanupLimit)
	defer cancel()
	removed, err := clean(ctx, d.log, func(ctx context.Context, log *slog.Logger) ([]string, error) {
		if d.cfg.IPVPN.Driver != "ovs" {
			return nil, nil
		}
		return ovs.Cleanup(ctx, ovsConfig(&d.cfg.IPVPN), log)
	})
	if err != nil {
		return fmt.Errorf("remove forwarding state (cleanup_on_stop): %w", err)
	}
	d.log.Info("forwarding state removed (cleanup_on_stop)", "removed", len(removed))
	return nil
}
