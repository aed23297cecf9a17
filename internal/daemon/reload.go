// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/sdnotify"
)

// Service is what a running daemon is told by its surroundings, and tells them. The
// zero value is nothing.
type Service struct {
	// Notifier is that of the service manager, or nil.
	Notifier *sdnotify.Notifier
	// Reload asks to apply what Load returns. Load logs its errors, after which
	// nothing is changed.
	Reload <-chan os.Signal
	Load   func() (*config.Config, error)
	// Level is that of the log.
	Level *slog.LevelVar
}

// Level returns the level that a configuration asks for.
func Level(c config.Log) slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// reloads applies changed configurations until ctx ends.
func (d *Daemon) reloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.Service.Reload:
		}
		tell(d.log, d.Service.Notifier.Reloading())
		if next, err := d.Service.Load(); err == nil {
			d.reload(ctx, next)
		}
		tell(d.log, d.Service.Notifier.Send("READY=1"))
	}
}

// reload applies what can be changed of a configuration and logs what cannot.
func (d *Daemon) reload(ctx context.Context, next *config.Config) {
	effective, pending := d.effective.Load().Reload(next)
	for _, p := range pending {
		d.log.Warn("configuration: " + p)
	}
	if d.Service.Level != nil {
		d.Service.Level.Set(Level(effective.Log))
	}
	d.effective.Store(effective)
	peers, groups := neighbours(effective)
	if err := d.speaker.Reconfigure(ctx, peers, groups); err != nil {
		d.log.Error("configuration: neighbours", "err", err)
	}
	d.log.Info("configuration reloaded", "needs_restart", len(pending))
}
