// SPDX-License-Identifier: Apache-2.0

// Command bagpipe-bgp is the BGP VPN daemon of a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/daemon"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
	"github.com/bagpipe-vpn/bagpipe/internal/sdnotify"
	"github.com/bagpipe-vpn/bagpipe/internal/version"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status: 2 for a bad command line, 1 for any other error.
func run(args []string) int {
	flags, err := config.ParseArgs(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bagpipe-bgp:", err)
		return 2
	}
	switch {
	case flags.Help:
		fmt.Print(config.Usage())
		return 0
	case flags.Version:
		fmt.Println("bagpipe-bgp", version.String())
		return 0
	}
	cfg, warnings, err := load(flags.Source)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bagpipe-bgp: configuration:\n%v\n", err)
		for _, w := range warnings {
			if w.Level() >= slog.LevelWarn {
				fmt.Fprintln(os.Stderr, "warning:", w)
			}
		}
		return 1
	}
	book, level := &logbook.Book{}, &slog.LevelVar{}
	log, closeLog, err := logger(cfg.Log, book, level)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bagpipe-bgp:", err)
		return 1
	}
	defer closeLog()
	logWarnings(log, warnings)
	service := daemon.Service{Load: func() (*config.Config, error) { return reload(flags.Source, log) }, Level: level}
	if err := serve(cfg, log, book, service); err != nil {
		log.Error("stopped", "err", err)
		return 1
	}
	return 0
}

// load loads the configuration. State is kept where systemd has made a directory for it, unless
// the configuration says where.
func load(src config.Source) (*config.Config, []config.Warning, error) {
	cfg, warnings, err := config.Load(src)
	if err == nil && cfg.Common.StateDirectory == "" {
		cfg.Common.StateDirectory, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	}
	return cfg, warnings, err
}

func logWarnings(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		log.Log(context.Background(), w.Level(), w.String())
	}
}

// reload loads the configuration again and logs what there is to say about it.
func reload(src config.Source, log *slog.Logger) (*config.Config, error) {
	cfg, warnings, err := load(src)
	logWarnings(log, warnings)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			log.Error("configuration: " + line)
		}
		log.Error("configuration refused: what was in effect stays in effect")
	}
	return cfg, err
}

// serve runs the daemon until SIGTERM or SIGINT; a second one ends the process at
// once. SIGHUP loads the configuration again.
func serve(cfg *config.Config, log *slog.Logger, book *logbook.Book, service daemon.Service) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	hangups, signals := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		sig := <-signals
		cancel(errStopped)
		go func() { // does not wait for the log, which may be what hangs
			select {
			case <-signals:
			case <-time.After(daemon.StopLimit + daemon.CleanupLimit + 5*time.Second):
			}
			os.Exit(1)
		}()
		log.Info("stopping", "signal", sig.String())
	}()
	var err error
	if service.Notifier, err = sdnotify.FromEnvironment(); err != nil {
		return err
	}
	d, err := daemon.New(cfg, log, book)
	if err != nil {
		return err
	}
	service.Reload = hangups
	d.Service = service
	return d.Run(ctx)
}

// errStopped is what neighbours are told (RFC 9003).
var errStopped = errors.New("bagpipe-bgp is stopped by its operator")

// logger returns the log of the daemon at a level that it sets; warnings also go to
// book. Journald adds the time itself.
func logger(c config.Log, book *logbook.Book, level *slog.LevelVar) (*slog.Logger, func(), error) {
	out, done := io.Writer(os.Stderr), func() {}
	level.Set(daemon.Level(c))
	opts := &slog.HandlerOptions{Level: level}
	if path := c.Path(); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("open log file: %w", err)
		}
		out, done = f, func() { _ = f.Close() }
	} else if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	var h slog.Handler = slog.NewTextHandler(out, opts)
	if c.JSON {
		h = slog.NewJSONHandler(out, opts)
	}
	return slog.New(book.Handler(h)), done, nil
}
