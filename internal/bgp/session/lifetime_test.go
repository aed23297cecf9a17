// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// A panic while decoding costs the session, not the daemon, and leaves a stack
// in the log.
func TestPanicInUpdate(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	run(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, func(r *rig) {
		r.onUpdate = func(_ *flow, body []byte) *wire.Error {
			if body[0] == 1 {
				panic("index out of range, say")
			}
			return nil
		}
		c := r.outgoing()
		r.establish(c, remoteOpen())
		c.write(update(1, 30))
		c.expectNotification("6/8")
		r.state(Idle)
		if got := r.peer.Status().LastError; !strings.Contains(got, "index out of range, say") {
			t.Errorf("last error %q", got)
		}
		c = r.outgoing()
		r.establish(c, remoteOpen())
		c.write(update(2, 30))
		r.state(Established)
	})
	for _, want := range []string{"index out of range, say", "TestPanicInUpdate", "peer=192.0.2.9"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not contain %q:\n%s", want, &log)
		}
	}
}

// Each session has its own flow; none is used after its Down.
func TestFlowPerSession(t *testing.T) {
	t.Parallel()
	run(t, nil, func(r *rig) {
		for i := range 3 {
			c := r.outgoing()
			r.establish(c, remoteOpen())
			c.write(update(byte(i), 30))
			synctest.Wait()
			_ = c.Close()
		}
		c := r.outgoing()
		r.establish(c, remoteOpen())
		var got [][]string
		for _, f := range r.flows {
			got = append(got, f.updates())
		}
		want := [][]string{{"update 0 of 30"}, {"update 1 of 30"}, {"update 2 of 30"}, nil}
		if diff := cmp.Diff(want, got, equalEmptyLists); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// equalEmptyLists makes nil and empty lists equal.
var equalEmptyLists = cmp.FilterValues(func(a, b []string) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())

// Updates, refreshes and sent routes at the same time; the race detector and
// the counters of flow check that each side is served by one goroutine.
func TestBusySession(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		r.fill = func(f *flow, p *wire.Packer) bool {
			manyRoutes(10)(f, p)
			return f.writing%5 != 0
		}
		c := r.incoming()
		r.establish(c, remoteOpen())
		c.absorb()
		const rounds = 500
		for i := range rounds {
			c.write(append(update(byte(i), 60), wire.RouteRefresh(wire.EVPN, wire.RefreshRequest)...))
			select {
			case r.last().wake <- struct{}{}:
			default:
			}
		}
		r.state(Established)
		if got := len(r.last().updates()); got != rounds {
			t.Errorf("%d updates: want %d", got, rounds)
		}
		_ = c.Close()
		r.state(Active)
		f := r.last()
		if f.reading < 2*rounds || f.writing < 10 {
			t.Errorf("%d calls of the reader, %d of the writer", f.reading, f.writing)
		}
	})
}

// A peer that is known only because it connected is forgotten when it has not
// connected for a while.
func TestLinger(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   func(*rig, *remote)
	}{
		{"closed before OPEN", func(_ *rig, c *remote) { _ = c.Close() }},
		{"refused OPEN", func(_ *rig, c *remote) { c.sendOpen(wire.Open{AS: 1, RouterID: remoteID, HoldTime: 9}) }},
		{"session lost", func(r *rig, c *remote) { r.establish(c, remoteOpen()); _ = c.Close() }},
		{"no KEEPALIVE", func(r *rig, c *remote) { r.establish(c, remoteOpen()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, func(c *Config) { c.Passive, c.Linger = true, 10*time.Second }, func(r *rig) {
				time.Sleep(5 * time.Second)
				first := r.incoming()
				tt.in(r, first)
				for r.peer.Status().State > Active {
					time.Sleep(time.Second)
				}
				time.Sleep(5 * time.Second)
				tt.in(r, r.incoming()) // it came back in time
				select {
				case <-r.done:
				case <-time.After(time.Hour):
					t.Error("Run has not returned")
				}
				if ours, _ := pipe(r.room); r.peer.Accept(r.t.Context(), ours) {
					t.Error("a connection was taken after the end")
				}
			})
		})
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	run(t, nil, func(r *rig) {
		want := Status{
			Peer: netip.MustParseAddr("192.0.2.9"), State: OpenSent, Previous: Connect, Since: time.Now(),
			ReceivedByType: map[wire.MsgType]uint64{1: 0, 2: 0, 3: 0, 4: 0, 5: 0},
			SentByType:     map[wire.MsgType]uint64{1: 1, 2: 0, 3: 0, 4: 0, 5: 0},
		}
		compare := func() {
			t.Helper()
			synctest.Wait()
			got := r.peer.Status()
			want.SentBytes = got.SentBytes
			if diff := cmp.Diff(want, got, byValue); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		c := r.outgoing()
		open := c.expect(wire.MsgOpen)
		compare()
		if got := r.peer.Status().SentBytes; got != uint64(len(open)+wire.HeaderLen) {
			t.Errorf("%d octets sent: want %d", got, len(open)+wire.HeaderLen)
		}

		time.Sleep(time.Second)
		c.sendOpen(remoteOpen())
		want.State, want.Previous, want.Since = OpenConfirm, OpenSent, time.Now()
		want.ReceivedByType[wire.MsgOpen], want.SentByType[wire.MsgKeepalive] = 1, 1
		compare()

		time.Sleep(time.Second)
		c.write(wire.Keepalive())
		synctest.Wait()
		want.State, want.Previous, want.Since = Established, OpenConfirm, time.Now()
		want.Established, want.Negotiated, want.ReceivedByType[wire.MsgKeepalive] = 1, r.last().deal, 1
		compare()

		c.write(append(update(0, 50), update(1, 50)...))
		want.ReceivedByType[wire.MsgUpdate] = 2
		compare()

		time.Sleep(time.Second)
		r.failDials(true)
		_ = c.Close()
		want.State, want.Previous, want.Since, want.LastError = Idle, Established, time.Now(), "connection closed by peer"
		want.LastLoss = Loss{At: time.Now(), FSMEvent: fsmTCPConnectionFail}
		compare()
	})
}

// A consumer that takes its time holds up the session, but not the status.
func TestStatusDoesNotWait(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		release, asked := make(chan struct{}), 0
		r.onUp = func() { <-release; r.peer.Status() }
		r.onUpdate = func(*flow, []byte) *wire.Error { asked++; r.peer.Status(); return nil }
		c := r.incoming()
		c.sendOpen(remoteOpen())
		c.write(append(wire.Keepalive(), update(1, 40)...))
		r.state(OpenConfirm) // fails with a deadlock if it waits
		close(release)
		r.state(Established)
		if asked != 1 {
			t.Errorf("%d updates", asked)
		}
	})
}

// Over real TCP: when Run has returned nothing is left of the peer.
func TestRunLeavesNoGoroutine(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   State // in which the peer is stopped
	}{{"while dialling is refused", Active}, {"without OPEN", OpenSent}, {"established", Established}} {
		t.Run(tt.name, func(t *testing.T) {
			ignore := goleak.IgnoreCurrent()
			lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			at := netip.MustParseAddrPort(lis.Addr().String())
			if tt.in == Active {
				_ = lis.Close()
			}
			p := New(Config{
				Peer: at.Addr(), Port: at.Port(), Local: netip.MustParseAddr("127.0.0.1"), LocalAS: testAS, PeerAS: testAS,
				RouterID: localID, HoldTime: 90, RetryMax: time.Second, Consumer: &consumer{t: t},
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); p.Run(ctx) }()
			if tt.in != Active {
				nc, err := lis.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = nc.Close() }()
				if tt.in == Established {
					_, _ = nc.Write(append(openMessage(t, remoteOpen()), wire.Keepalive()...))
				}
				_ = lis.Close()
			}
			for deadline := time.Now().Add(10 * time.Second); p.Status().State != tt.in; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("state %s: want %s", p.Status().State, tt.in)
				}
			}
			cancel(errors.New("test is over"))
			<-done
			if err := goleak.Find(ignore); err != nil {
				t.Error(err)
			}
		})
	}
}
