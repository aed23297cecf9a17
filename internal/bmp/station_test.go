// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Stations = []string{"192.0.2.1"} }, `bmp station "192.0.2.1": want host:port`},
		{func(c *Config) { c.Stations = []string{"192.0.2.1:0"} }, `bmp station "192.0.2.1:0": want a host, and a port of 1 to 65535`},
		{func(c *Config) { c.Stations = []string{"192.0.2.1:65536"} }, `want a host, and a port of 1 to 65535`},
		{func(c *Config) { c.Stations = []string{":1"} }, `want a host, and a port of 1 to 65535`},
		{func(c *Config) { c.Stations = []string{"a:1", "b:1", "a:1"} }, `bmp station "a:1" is configured twice`},
		{func(c *Config) { c.Retry = -1 }, `want 0 or more`},
		{func(c *Config) { c.SysName = long }, `bmp: sysName of 256 octets: want at most 255`},
		{func(c *Config) { c.SysDescr = long }, `bmp: sysDescr of 256 octets: want at most 255`},
		{func(c *Config) { c.Routes = nil }, `bmp: want Peers and Routes`},
		{func(c *Config) { c.Stations = []string{"[2001:db8::1]:11019", "station.example:11019"} }, ""},
	} {
		c := Config{Stations: []string{"192.0.2.1:11019"}, Peers: w.fakePeers, Routes: w.rib}
		tt.change(&c)
		_, err := New(c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: want %q", err, tt.want)
		}
	}
}

// Attempts come at growing intervals, at most Retry.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start(t, func(c *Config, p *pipes) { p.refuse, c.Retry = true, 10*time.Second })
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			pause := r.dials[i+1].Sub(r.dials[i])
			if want *= time.Second; pause > want || pause < want*3/4 {
				t.Errorf("pause %d of %s: want 75 to 100 percent of %s", i, pause, want)
			}
		}
		st := r.Status()[0]
		if st.Connected || st.LastError != "connect to BMP station station:11019: multiple Read calls return no data or error" || st.Connections != 0 {
			t.Errorf("status %+v", st)
		}
		r.pipes.set(func(p *pipes) { p.refuse = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.want("connected", started)
		if st := r.Status()[0]; !st.Connected || st.Connections != 1 || time.Since(st.Since) > 10*time.Second {
			t.Errorf("status %+v", st)
		}
		r.stop(nil)
	})
}

// After a loss of the connection everything is sent again; a connection that lived
// resets the back-off.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		w.announce(src, 200, macRoute(1))
		r := w.start(t, nil)
		all := append([]string{started, "192.0.2.1 up", "192.0.2.1 +m1 pref 200"}, ends("192.0.2.1")...)
		r.want("first", all...)
		for i := range 3 {
			time.Sleep(2 * stableAfter)
			_ = r.lastConn().Close()
			synctest.Wait()
			if st := r.Status()[0]; st.Connected || st.LastError != errClosed.Error() {
				t.Errorf("status %+v", st)
			}
			w.withdraw(src, macRoute(i+1)) // meanwhile
			w.announce(src, 200, macRoute(i+2))
			all[2] = "192.0.2.1 +m" + string(rune('0'+i+2)) + " pref 200"
			time.Sleep(firstRetry)
			synctest.Wait()
			r.want("again", all...)
			if st := r.Status()[0]; !st.Connected || st.Connections != uint64(i)+2 {
				t.Errorf("status %+v", st)
			}
		}
		r.stop(nil)
	})
}

// A station that does not read is given up after a minute, holds nothing up, and
// gets everything when it is back.
func TestStuckStation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		r := w.start(t, func(_ *Config, p *pipes) { p.unread = true })
		start := time.Now()
		for i := range 100 {
			w.announce(src, 200, macRoutes(100*i, 100*i+100)...) // returns at once
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the RIB was held up for %s", d)
		}
		time.Sleep(stuckAfter - time.Second)
		if st := r.Status()[0]; !st.Connected {
			t.Errorf("given up too early: %+v", st)
		}
		r.pipes.set(func(p *pipes) { p.unread = false })
		time.Sleep(time.Second)
		synctest.Wait()
		if st := r.Status()[0]; st.Connected || st.LastError != "the station has not read for 1m0s" || st.Messages != 0 {
			t.Errorf("status %+v", st)
		}
		time.Sleep(firstRetry)
		synctest.Wait()
		if st := r.Status()[0]; !st.Connected || st.Routes != 10000 {
			t.Errorf("status %+v", st)
		}
		r.stop(nil)
		if lines := r.take(); lines[0] != started || lines[len(lines)-1] != "termination 0" {
			t.Errorf("%d lines, first %q, last %q", len(lines), lines[0], lines[len(lines)-1])
		}
	})
}

// A station that reads slowly is kept.
func TestSlowStation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		w.announce(src, 200, macRoutes(0, 10000)...)
		r := w.start(t, func(_ *Config, p *pipes) { p.unread = true })
		conn := r.lastConn()
		r.wg.Go(func() { _ = r.read(slowly{conn}) })
		time.Sleep(time.Hour)
		if st := r.Status()[0]; !st.Connected || st.Connections != 1 || st.Routes != 10000 {
			t.Errorf("status %+v", st)
		}
		r.stop(nil)
	})
}

// slowly reads 8 KiB each half a minute.
type slowly struct{ net.Conn }

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(stuckAfter / 2)
	return s.Conn.Read(b[:min(len(b), 8<<10)])
}

// To stop does not take longer than the Termination message may.
func TestStopWhileStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		w.announce(src, 200, macRoutes(0, 10000)...)
		r := w.start(t, func(_ *Config, p *pipes) { p.unread = true })
		time.Sleep(10 * time.Second)
		start := time.Now()
		r.stop(nil)
		if d := time.Since(start); d > closeTimeout {
			t.Errorf("stopped after %s", d)
		}
	})
}

// Nor does a station hold it up that stopped to read.
func TestStopWhenUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start(t, func(_ *Config, p *pipes) { p.unread = true })
		if _, err := r.lastConn().Read(make([]byte, chunk)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r.stop(nil)
		if d := time.Since(start); d != closeTimeout {
			t.Errorf("stopped after %s: want %s", d, closeTimeout)
		}
	})
}

// Nothing is left in the RIB of a connection that is over.
func TestWatchersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		routes := &watched{RIB: w.rib}
		r := w.start(t, func(c *Config, _ *pipes) { c.Routes = routes })
		_ = r.lastConn().Close()
		time.Sleep(firstRetry)
		synctest.Wait()
		r.stop(nil)
		w.announce(src, 200, macRoute(1))
		if len(routes.all) != 2 {
			t.Errorf("%d watchers: want 2", len(routes.all))
		}
		for i, x := range routes.all {
			if out, more := x.Next(9, nil); len(out) > 0 || more {
				t.Errorf("watcher %d still follows the routes", i)
			}
		}
	})
}

func TestPanicIsConfined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.addPeer(peer1)
		w.fail = true
		r := w.start(t, nil)
		if st := r.Status()[0]; st.Connected || st.LastError != "panic: as the test wants it" {
			t.Errorf("status %+v", st)
		}
		r.take()
		time.Sleep(firstRetry)
		synctest.Wait()
		r.want("after the panic", append([]string{started, "192.0.2.1 up"}, ends("192.0.2.1")...)...)
		r.stop(nil)
		if len(w.wakes) != 0 {
			t.Errorf("%d watches left", len(w.wakes))
		}
	})
}

func TestStatistics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		w.announce(src, 200, macRoute(1), macRoute(2), flowRoute(t))
		r := w.start(t, func(c *Config, _ *pipes) { c.Statistics = 30 * time.Second })
		r.take()
		w.change(src, func(s *Session) { s.TreatAsWithdraw = 7 })
		time.Sleep(90*time.Second + time.Millisecond)
		synctest.Wait()
		r.want("each 30 s", "192.0.2.1 statistics", "192.0.2.1 statistics", "192.0.2.1 statistics")
		checkStatistics(t, r.last(1), map[string]uint64{"7": 3, "9 25/70": 2, "9 1/134": 1, "11": 7})
		w.withdraw(src, macRoute(1), flowRoute(t))
		w.change(src, lost(session.Loss{}))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if slices.Contains(r.take(), "192.0.2.1 statistics") {
			t.Error("statistics of a peer that is down")
		}
		w.change(src, back)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		checkStatistics(t, r.last(1), map[string]uint64{"7": 1, "9 25/70": 1, "9 1/134": 0, "11": 7})
		r.stop(nil)
	})
}

// Several stations do not depend on each other. This one uses TCP.
func TestStationsOverTCP(t *testing.T) {
	w := newWorld(t)
	src := w.addPeer(peer1)
	w.announce(src, 200, macRoutes(0, 20000)...)
	var addrs []string
	var all []*collector
	for range 3 {
		l, c := listen(t)
		addrs, all = append(addrs, l.Addr().String()), append(all, c)
	}
	dead, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, and does not read
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dead.Close() }()
	e, err := New(Config{Stations: append(addrs, dead.Addr().String()), Peers: w.fakePeers, Routes: w.rib, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	for i := range all {
		eventually(t, "all routes", func() bool { return e.Status()[i].Routes == 20000 })
	}
	w.withdraw(src, macRoutes(0, 10000)...)
	for i := range all {
		eventually(t, "all withdrawals", func() bool { return e.Status()[i].Routes == 30000 })
	}
	cancel(errors.New("done"))
	<-done
	for _, c := range all {
		eventually(t, "the end", func() bool {
			lines := c.peek()
			return len(lines) > 4 && lines[len(lines)-1] == `termination 0 "done"` && slices.Contains(lines, ends("192.0.2.1")[1])
		})
	}
}

// The per-peer header and Peer Up have what was negotiated.
func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(999999999) // the fraction of a second that floats round up
		src := w.source(peer6)
		s := w.newSession(src, peer6, func(o *wire.Open) { o.FourOctetAS = false })
		w.set(func([]Session) []Session { return []Session{s} })
		path := []byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 2, 0xfb, 0xf5, 0x5b, 0xa0, 0xc0, 17, 10, 2, 2, 0, 0, 0xfb, 0xf5, 0, 1, 0, 0}
		w.announceRaw(src, path, wire.Rules{External: true}, macRoute(1))
		r := w.start(t, nil)
		checkHeaders(t, r, &s)
		r.stop(nil)
	})
}
