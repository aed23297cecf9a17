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
	"syscall"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/daemon"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
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
	cfg, warnings, err := config.Load(flags.Source)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bagpipe-bgp: configuration:\n%v\n", err)
		for _, w := range warnings {
			if w.Level() >= slog.LevelWarn {
				fmt.Fprintln(os.Stderr, "warning:", w)
			}
		}
		return 1
	}
	book := &logbook.Book{}
	log, closeLog, err := logger(cfg.Log, book)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bagpipe-bgp:", err)
		return 1
	}
	defer closeLog()
	for _, w := range warnings {
		log.Log(context.Background(), w.Level(), w.String())
	}
	if err := serve(cfg, log, book); err != nil {
		log.Error("stopped", "err", err)
		return 1
	}
	return 0
}

// serve runs the daemon until SIGTERM or SIGINT; a second signal kills.
func serve(cfg *config.Config, log *slog.Logger, book *logbook.Book) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		sig := <-signals
		for sig == syscall.SIGHUP { // would kill; units of the original send it on reload
			log.Warn("SIGHUP is ignored: restart to apply a changed configuration, forwarding goes on meanwhile")
			sig = <-signals
		}
		log.Info("stopping", "signal", sig.String())
		cancel(errStopped)
		<-signals
		os.Exit(1)
	}()
	d, err := daemon.New(cfg, log, book)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// errStopped is what neighbours are told (RFC 9003).
var errStopped = errors.New("bagpipe-bgp is stopped by its operator")

// logger returns the log of the daemon; warnings also go to book. Journald adds
// the time itself.
func logger(c config.Log, book *logbook.Book) (*slog.Logger, func(), error) {
	out, done := io.Writer(os.Stderr), func() {}
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Debug {
		opts.Level = slog.LevelDebug
	}
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
