// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Timing that is not configurable.
const (
	dialTimeout  = 15 * time.Second
	firstRetry   = time.Second
	stableAfter  = time.Minute // a connection that lived so long resets the back-off
	stuckAfter   = time.Minute // a station that takes no octets for so long is given up
	closeTimeout = time.Second // for what is under way when we are to stop, and for the Termination message
	// lookEvery is how often sessions are looked at without being woken: a wake may
	// come before the session's new state can be seen.
	lookEvery = time.Second
)

var errClosed = errors.New("the station closed the connection")

// station keeps the connection to one station.
type station struct {
	cfg  Config
	addr string
	log  *slog.Logger

	mu     sync.Mutex
	status Status
}

func newStation(c Config, addr string) *station {
	return &station{cfg: c, addr: addr, log: c.Log.With("station", addr), status: Status{Station: addr}}
}

func (s *station) snapshot() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *station) update(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// run connects until ctx ends, with exponential back-off (RFC 7854 §3.2).
func (s *station) run(ctx context.Context) {
	s.update(func(st *Status) { st.Since = time.Now() })
	backOff := firstRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		lived, err := s.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if lived >= stableAfter {
			backOff = firstRetry
		}
		pause := jitter(min(backOff, s.cfg.Retry))
		s.failed(lived > 0, err, pause)
		timer.Reset(pause)
		backOff = min(2*backOff, s.cfg.Retry)
	}
}

// jitter spreads a time over 75 to 100 percent, so that the nodes that lost a
// station do not come back all at once.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/4+1)) }

// failed notes why a connection or an attempt ended. Only the first of several
// attempts in a row that fail alike is worth a warning.
func (s *station) failed(connected bool, err error, pause time.Duration) {
	level, text := slog.LevelDebug, err.Error()
	s.update(func(st *Status) {
		if connected || st.LastError != text {
			level = slog.LevelWarn
		}
		st.LastError = text
	})
	s.log.Log(context.Background(), level, "BMP station not connected", "err", text, "retry_in", pause.Round(time.Millisecond))
}

// attempt connects and serves the connection. It returns how long the connection
// was up, 0 when there was none, and why it ended.
func (s *station) attempt(ctx context.Context) (lived time.Duration, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := s.cfg.Dial(dialCtx, s.addr)
	cancel()
	if err != nil {
		return 0, fmt.Errorf("connect to BMP station %s: %w", s.addr, err)
	}
	start := time.Now()
	s.update(func(st *Status) {
		st.Connected, st.Since = true, start
		st.Connections++
	})
	s.log.Info("BMP station connected")
	err = s.serve(ctx, conn)
	s.update(func(st *Status) { st.Connected, st.Since = false, time.Now() })
	return max(time.Since(start), 1), err
}

// serve reports over a connection until it ends, and closes it.
func (s *station) serve(ctx context.Context, conn net.Conn) error {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	closed, done := make(chan struct{}), make(chan struct{})
	defer close(done)
	defer func() { _ = conn.Close() }()
	helpers.Go(func() { // stations send nothing (RFC 7854 §3.2): only the end matters
		defer close(closed)
		_, _ = io.Copy(io.Discard, conn)
	})
	out := newOutbox(ctx, conn, s)
	helpers.Go(func() { // a write may be blocked when we are to stop
		select {
		case <-ctx.Done():
			out.limit()
		case <-done:
		}
	})
	return s.report(ctx, out, closed)
}

// report is the life of a connection. A panic ends the connection, and nothing
// else.
func (s *station) report(ctx context.Context, out *outbox, closed <-chan struct{}) (err error) {
	defer s.confine(&err)
	routes, sessions := make(chan struct{}, 1), make(chan struct{}, 1)
	cancel := s.cfg.Peers.Watch(func() { signal(sessions) })
	defer cancel()
	m := newMonitor(s, out, s.cfg.Routes.NewWatcher(func() { signal(routes) }))
	defer m.routes.Close()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	statistics, stop := ticks(s.cfg.Statistics)
	defer stop()
	ready := make(chan struct{})
	close(ready)

	out.message(initiation(s.cfg.SysName, s.cfg.SysDescr))
	m.sync()
	for ctx.Err() == nil {
		var again <-chan struct{}
		if m.next() {
			again = ready
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-again:
		case <-routes:
		case <-sessions:
			m.sync()
		case <-look.C:
			m.sync()
		case <-statistics:
			m.statistics()
		case <-closed:
			return errClosed
		case <-ctx.Done():
		}
	}
	out.message(termination(context.Cause(ctx)))
	return out.flush()
}

// confine makes a panic an error.
func (s *station) confine(err *error) {
	if r := recover(); r != nil {
		s.log.Error("panic while reporting to a BMP station", "panic", r, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", r)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ticks returns the channel of a ticker; none ticks when d is 0.
func ticks(d time.Duration) (c <-chan time.Time, stop func()) {
	if d == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(d)
	return t.C, t.Stop
}
