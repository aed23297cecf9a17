// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Config describes the export.
type Config struct {
	// Stations are the monitoring stations, "host:port" each; the host may be a name.
	Stations []string
	// Retry is the longest pause between two attempts to connect; 0: 12 minutes (RFC
	// 7854 §3.2).
	Retry time.Duration
	// Statistics is the time between two Statistics Reports; 0: none.
	Statistics time.Duration
	// SysName and SysDescr name the node and what runs on it, in the sense of
	// sysName and sysDescr of RFC 1213: at most 255 octets each.
	SysName, SysDescr string
	// Peers are the sessions to report, Routes has their routes: a *rib.RIB.
	Peers  Peers
	Routes Routes
	// Dial connects to a station; nil means TCP.
	Dial func(ctx context.Context, station string) (net.Conn, error)
	Log  *slog.Logger
}

const (
	defaultRetry = 12 * time.Minute
	maxSysText   = 255 // of a DisplayString (RFC 1213 §6)
)

// Exporter reports to all stations. Make it with New, then Run it.
type Exporter struct {
	stations []*station
}

// New checks the configuration and returns an exporter that does nothing until
// Run. The error names the value and what is allowed.
func New(c Config) (*Exporter, error) {
	if c.Peers == nil || c.Routes == nil {
		return nil, errors.New("bmp: want Peers and Routes")
	}
	if c.Retry < 0 || c.Statistics < 0 {
		return nil, fmt.Errorf("bmp: retry %s, statistics %s: want 0 or more", c.Retry, c.Statistics)
	}
	for name, text := range map[string]string{"sysName": c.SysName, "sysDescr": c.SysDescr} {
		if len(text) > maxSysText {
			return nil, fmt.Errorf("bmp: %s of %d octets: want at most %d", name, len(text), maxSysText)
		}
	}
	if c.Retry == 0 {
		c.Retry = defaultRetry
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, station string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", station)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exporter{}
	for i, addr := range c.Stations {
		if err := checkStation(addr); err != nil {
			return nil, err
		}
		if slices.Contains(c.Stations[:i], addr) {
			return nil, fmt.Errorf("bmp station %q is configured twice", addr)
		}
		e.stations = append(e.stations, newStation(c, addr))
	}
	return e, nil
}

func checkStation(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("bmp station %q: want host:port: %w", addr, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("bmp station %q: want a host, and a port of 1 to 65535", addr)
	}
	return nil
}

// Run reports until ctx ends; then stations are told that the session is closed,
// with the cause of ctx (RFC 7854 §4.5). It returns when all connections are
// closed.
func (e *Exporter) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range e.stations {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
}

// Status is a snapshot of one station for people and metrics.
type Status struct {
	Station   string // "host:port" as configured
	Connected bool
	// Since is when the station was connected, or lost, or first tried; zero before
	// Run.
	Since time.Time
	// LastError tells why the last connection or attempt ended; "" when none did.
	LastError string
	// Connections counts those made so far: all but the first were reconnects.
	Connections uint64
	// Messages, Bytes (octets) and Routes (announced or withdrawn) count what was
	// sent so far.
	Messages, Bytes, Routes uint64
}

// Status returns a snapshot of each station, in the order of the configuration.
// It never waits for a station.
func (e *Exporter) Status() []Status {
	out := make([]Status, 0, len(e.stations))
	for _, s := range e.stations {
		out = append(out, s.snapshot())
	}
	return out
}
