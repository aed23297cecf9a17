// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// stream is what a peer sends in a whole session, and what the flow must get.
func stream(t *testing.T, lengths ...int) (octets []byte, want []string) {
	t.Helper()
	octets = append(openMessage(t, remoteOpen()), wire.Keepalive()...)
	for i, length := range lengths {
		octets = append(octets, update(byte(i), length)...)
		want = append(want, fmt.Sprintf("update %d of %d", i, length))
		if i%3 == 0 {
			octets = append(octets, wire.Keepalive()...)
		}
	}
	return octets, want
}

// However the octets of a session fall into reads, the messages are the same.
func TestMessagesInAnyPieces(t *testing.T) {
	t.Parallel()
	few, wantFew := stream(t, 23, 24, 300, 30, 23, 512)
	many, wantMany := stream(t, 23, 4096, 24, 4097, 65535, 65535, 30, 223, 65534, 8192)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name string
		in   func() int // size of the next piece
	}{
		{"all at once", func() int { return len(many) }},
		{"octet by octet", func() int { return 1 }},
		{"as long as a header", func() int { return wire.HeaderLen }},
		{"small", func() int { return 1 + rnd.IntN(40) }},
		{"around the limit", func() int { return 4095 + rnd.IntN(3) }},
		{"any", func() int { return 1 + rnd.IntN(100000) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, passive, func(r *rig) {
				r.room = 1 << 20
				c := r.incoming()
				c.absorb()
				octets, want := few, wantFew
				if tt.in() > 100 {
					octets, want = many, wantMany
				}
				for rest := octets; len(rest) > 0; {
					n := min(tt.in(), len(rest))
					c.write(rest[:n])
					rest = rest[n:]
					synctest.Wait() // the peer reads this piece by itself
				}
				r.state(Established)
				if diff := cmp.Diff(want, r.last().updates()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if calls := r.last().log(); calls[len(calls)-1] != "flush" {
					t.Errorf("the last UPDATE was not flushed: %q", calls)
				}
			})
		})
	}
}

// A whole session in one piece, read one octet at a time: OPEN, KEEPALIVE and
// UPDATE messages are all at hand before the session is up.
func TestReaderGetsOneOctetAtATime(t *testing.T) {
	t.Parallel()
	octets, want := stream(t, 23, 4096, 24, 4097, 30)
	run(t, passive, func(r *rig) {
		r.room = 1 << 20
		c := r.incoming()
		c.out.most = 1
		c.absorb()
		c.write(octets)
		r.state(Established)
		if diff := cmp.Diff(want, r.last().updates()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// UPDATEs that are at hand together are flushed once.
func TestFlushComesWhenNothingIsAtHand(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		r.establish(c, remoteOpen())
		before := len(r.last().log())
		var all []byte
		for i := range 5 {
			all = append(all, update(byte(i), 30)...)
		}
		c.write(append(all, update(9, 100)[:50]...))
		synctest.Wait()
		want := []string{"update 0 of 30", "update 1 of 30", "update 2 of 30", "update 3 of 30", "update 4 of 30", "flush"}
		if diff := cmp.Diff(want, r.last().log()[before:]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// We offer extended messages, so that every peer may send them, with the
// capability or without (RFC 8654 §4).
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		extended bool
		length   int
	}{
		{"4096 without", false, 4096},
		{"4097 without", false, 4097},
		{"65535 without", false, 65535},
		{"4097 with", true, 4097},
		{"65535 with", true, 65535},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, passive, func(r *rig) {
				c := r.incoming()
				open := remoteOpen()
				open.ExtendedMessage = tt.extended
				r.establish(c, open)
				c.write(update(1, tt.length))
				r.state(Established)
				if diff := cmp.Diff([]string{fmt.Sprintf("update 1 of %d", tt.length)}, r.last().updates()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The packer of a session knows how long its messages may be.
func TestLimitOfSentMessages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		extended bool
		want     int
	}{{"without extended message", false, wire.MaxMessage}, {"with extended message", true, wire.MaxExtMessage}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, passive, func(r *rig) {
				r.fill = manyRoutes(12000)
				c := r.incoming()
				open := remoteOpen()
				open.ExtendedMessage = tt.extended
				r.establish(c, open)
				r.last().wake <- struct{}{}
				longest := 0
				for range 2 {
					body := c.expect(wire.MsgUpdate)
					longest = max(longest, len(body)+wire.HeaderLen)
				}
				if longest > tt.want || longest < tt.want-100 {
					t.Errorf("longest message has %d octets: want nearly %d", longest, tt.want)
				}
			})
		})
	}
}

// manyRoutes returns a fill function that gives n routes once.
func manyRoutes(n int) func(*flow, *wire.Packer) bool {
	return func(f *flow, p *wire.Packer) bool {
		p.Withdraw(wire.RTC)
		for i := range n {
			p.Add(wire.Route{NLRI: wire.RTCRoute(uint32(i), wire.RT{0, 2})})
		}
		return false
	}
}

func TestRouteRefresh(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		r.establish(c, remoteOpen())
		before := len(r.last().log())
		begin := wire.RouteRefresh(wire.RTC, wire.RefreshRequest)
		begin[wire.HeaderLen+2] = 1 // RFC 7313 §3.2
		c.write(append(wire.RouteRefresh(wire.EVPN, wire.RefreshRequest), begin...))
		synctest.Wait()
		want := []string{"refresh l2vpn/evpn 0", "refresh ipv4/rtc 1", "flush"}
		if diff := cmp.Diff(want, r.last().log()[before:]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := r.peer.Status().ReceivedByType[wire.MsgRouteRefresh]; got != 2 {
			t.Errorf("counted %d ROUTE-REFRESH messages: want 2", got)
		}
	})
}

// endless is a fill function that always has one more message of 300 RTC routes.
func endless(f *flow, p *wire.Packer) bool {
	manyRoutes(300)(f, p)
	return true
}

// A peer that reads nothing: the hold time ends the session, though its own
// KEEPALIVEs come.
func TestPeerStopsReading(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		r.fill = endless
		c := r.incoming()
		open := remoteOpen()
		open.HoldTime = 9
		r.establish(c, open)
		c.repeat(2*time.Second, wire.Keepalive())
		r.last().wake <- struct{}{}
		time.Sleep(8 * time.Second)
		r.state(Established)
		time.Sleep(2 * time.Second)
		r.state(Active)
		if calls := r.last().log(); calls[len(calls)-1] != "down" {
			t.Errorf("the flow is not down: %q", calls)
		}
		if got := r.peer.Status().LastError; !strings.Contains(got, "timeout") {
			t.Errorf("last error %q: want that a write timed out", got)
		}
	})
}

// Neither stopping nor a lost session waits for a peer that reads nothing.
func TestEndWithBlockedWriter(t *testing.T) {
	t.Parallel()
	const most = 2 * closeTimeout
	for _, tt := range []struct {
		name string
		in   func(*rig, *remote) // ends the session
		want time.Duration
	}{
		{"stop", func(r *rig, _ *remote) { r.shutdown(nil) }, most},
		{"NOTIFICATION to send", func(_ *rig, c *remote) { c.write(openMessage(c.t, remoteOpen())) }, most},
		{"NOTIFICATION received", func(_ *rig, c *remote) { c.write(wire.Notification{Code: 6}.Message()) }, 0},
		{"connection lost", func(_ *rig, c *remote) { _ = c.Close() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, passive, func(r *rig) {
				r.fill = endless
				c := r.incoming()
				r.establish(c, remoteOpen())
				r.last().wake <- struct{}{}
				synctest.Wait()
				start := time.Now()
				tt.in(r, c)
				for r.peer.Status().State == Established {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(start); took > tt.want+100*time.Millisecond {
					t.Errorf("took %s: want at most %s", took, tt.want)
				}
			})
		})
	}
}

// slowDeadlines is a connection whose long write deadlines take effect late, as
// those of a writer that is preempted between two calls.
type slowDeadlines struct{ net.Conn }

func (c slowDeadlines) SetWriteDeadline(at time.Time) error {
	if time.Until(at) > 2*closeTimeout {
		time.Sleep(20 * time.Millisecond)
	}
	return c.Conn.SetWriteDeadline(at)
}

// The writer begins a write just when the NOTIFICATION sets its short deadline:
// the FSM does not wait for the long one.
func TestEndWhileWriterBegins(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		r.fill = endless
		ours, theirs := pipe(1 << 10)
		c := &remote{t: r.t, end: theirs, helpers: &r.helpers}
		r.helpers.Go(func() { r.peer.Accept(r.t.Context(), slowDeadlines{ours}) })
		r.establish(c, remoteOpen())
		r.last().wake <- struct{}{}
		time.Sleep(10 * time.Millisecond)
		if took := r.shutdown(nil); took > 2*closeTimeout {
			t.Errorf("the end took %s", took)
		}
	})
}

// KEEPALIVEs go out on time in the middle of a long table that the peer reads
// slowly.
func TestKeepalivesInterleave(t *testing.T) {
	t.Parallel()
	run(t, func(c *Config) { c.Passive, c.HoldTime = true, 9 }, func(r *rig) {
		r.fill, r.room = endless, 1<<14
		c := r.incoming()
		r.establish(c, remoteOpen())
		c.repeat(2*time.Second, wire.Keepalive())
		r.last().wake <- struct{}{}
		last, updates, keepalives := time.Now(), 0, 0
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
			typ, _, ok := c.read()
			switch {
			case !ok:
				r.t.Fatal("the session ended: ", r.peer.Status().LastError)
			case typ == wire.MsgUpdate:
				updates++
			case typ == wire.MsgKeepalive:
				keepalives++
				last = time.Now()
			}
			if gap := time.Since(last); gap > 4*time.Second {
				r.t.Fatalf("no KEEPALIVE for %s", gap)
			}
		}
		if updates < 500 || keepalives < 20 {
			t.Errorf("%d UPDATEs and %d KEEPALIVEs in a minute", updates, keepalives)
		}
	})
}
