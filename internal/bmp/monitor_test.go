// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

const started = `initiation "test" "node"`

func ends(peer string) []string {
	return []string{peer + " end of l2vpn-evpn", peer + " end of l3vpn-ipv4-flowspec"}
}

// A station hears of a peer, of all its routes, of changes, of the end of the
// session, and all again of the next one.
func TestLifeOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		w.announce(src, 200, macRoute(1), macRoute(2))
		w.announce(src, 300, macRoute(3))
		r := w.start(t, nil)
		r.want("dump", append([]string{started, "192.0.2.1 up", "192.0.2.1 +m1,m2 pref 200", "192.0.2.1 +m3 pref 300"}, ends("192.0.2.1")...)...)

		w.announce(src, 300, macRoute(1))
		synctest.Wait()
		r.want("changed", "192.0.2.1 +m1 pref 300")
		w.withdraw(src, macRoute(2), macRoute(3))
		w.announce(src, 200, macRoute(4), macRoute(5))
		synctest.Wait()
		r.want("changed", "192.0.2.1 -m2,m3", "192.0.2.1 +m4,m5 pref 200")

		w.change(src, lost(session.Loss{Received: &wire.Notification{Code: 6, Subcode: 2}}))
		synctest.Wait()
		r.want("down", "192.0.2.1 down 3 6/2 ")
		w.announce(src, 200, macRoute(6))
		w.withdraw(src, macRoute(5))
		synctest.Wait()
		r.want("kept while down")
		w.change(src, back)
		synctest.Wait()
		r.want("up again", append([]string{"192.0.2.1 up", "192.0.2.1 +m1 pref 300", "192.0.2.1 +m4,m6 pref 200"}, ends("192.0.2.1")...)...)

		w.change(src, func(s *Session) { // down and up before anyone looks
			lost(session.Loss{FSMEvent: 18})(s)
			back(s)
		})
		synctest.Wait()
		r.want("another session", append([]string{"192.0.2.1 down 4 ", "192.0.2.1 up", "192.0.2.1 +m1 pref 300", "192.0.2.1 +m4,m6 pref 200"}, ends("192.0.2.1")...)...)
		r.stop(errors.New("for maintenance"))
		r.want("end", `termination 0 "for maintenance"`)
	})
}

// Peers come while others are reported; only the new one is sent again.
func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src1 := w.addPeer(peer1)
		w.announce(src1, 200, macRoute(1))
		r := w.start(t, nil)
		r.take()
		src2 := w.source(peer2)
		s := w.newSession(src2, peer2, nil)
		s.Established = false
		w.set(func(all []Session) []Session { return append(all, s) })
		w.announce(src2, 200, macRoute(1), macRoute(2)) // the session is not seen yet
		synctest.Wait()
		r.want("not up")
		w.change(src2, func(s *Session) { s.Established = true })
		synctest.Wait()
		r.want("up", append([]string{"192.0.2.2 up", "192.0.2.2 +m1,m2 pref 200"}, ends("192.0.2.2")...)...)

		w.set(func(all []Session) []Session { return all[1:] })
		synctest.Wait()
		r.want("not configured any more", "192.0.2.1 down 5 ")
		w.rib.RemoveSource(src1)
		synctest.Wait()
		r.want("removed")
		if src := w.addPeer(peer6); src != src1 {
			t.Fatalf("source %d, want %d again", src, src1)
		}
		synctest.Wait()
		r.want("same source", append([]string{"2001:db8::6 up"}, ends("2001:db8::6")...)...)
		w.announce(src1, 200, macRoute(7))
		synctest.Wait()
		r.want("its route", "2001:db8::6 +m7 pref 200")
		other := w.newSession(src1, peer1, nil)
		w.change(src1, func(s *Session) { *s = other })
		synctest.Wait()
		r.want("another peer on the same source", append([]string{"2001:db8::6 down 5 ", "192.0.2.1 up", "192.0.2.1 +m7 pref 200"}, ends("192.0.2.1")...)...)
		r.stop(nil)
		r.want("end", "termination 0")
	})
}

// A session whose change can be seen only after the wake is noticed all the same.
func TestLateState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.addPeer(peer1)
		r := w.start(t, nil)
		r.take()
		w.mu.Lock()
		lost(session.Loss{Sent: &wire.Notification{Code: wire.CodeHold}})(&w.sessions[0])
		w.mu.Unlock()
		time.Sleep(lookEvery)
		synctest.Wait()
		r.want("down", "192.0.2.1 down 1 4/0 ")
		r.stop(nil)
	})
}

func TestPeerDownReasons(t *testing.T) {
	cease := wire.Shutdown(wire.CeaseAdminShutdown, "bye")
	for _, tt := range []struct {
		name string
		loss session.Loss
		want string
	}{
		{"local NOTIFICATION", session.Loss{Sent: &cease}, "192.0.2.1 down 1 6/2 03627965"},
		{"remote NOTIFICATION", session.Loss{Received: &cease}, "192.0.2.1 down 3 6/2 03627965"},
		{"stopped without a word", session.Loss{FSMEvent: 2}, "192.0.2.1 down 2 0002"},
		{"connection lost", session.Loss{FSMEvent: 18}, "192.0.2.1 down 4 "},
		{"not known", session.Loss{}, "192.0.2.1 down 2 0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				src := w.addPeer(peer1)
				r := w.start(t, nil)
				r.take()
				w.change(src, lost(tt.loss))
				synctest.Wait()
				r.want("down", tt.want)
				r.stop(nil)
			})
		})
	}
}

// An opaque NLRI is known by a digest: its withdrawal needs the octets.
func TestOpaqueRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src, flow := w.addPeer(peer1), flowRoute(t)
		octets := hex.EncodeToString(wire.AppendNLRI(nil, flow, false))
		r := w.start(t, nil)
		r.take()
		for range 2 {
			w.announce(src, 200, flow)
			synctest.Wait()
			r.want("announced", "192.0.2.1 +"+octets+" pref 200")
			w.withdraw(src, flow)
			synctest.Wait()
			r.want("withdrawn", "192.0.2.1 -"+octets)
		}
		// The monitor may see the route or not.
		w.announce(src, 200, flow)
		w.withdraw(src, flow)
		synctest.Wait()
		if got := r.take(); len(got) != 0 && !slices.Equal(got, []string{"192.0.2.1 +" + octets + " pref 200", "192.0.2.1 -" + octets}) {
			t.Errorf("a route that is withdrawn at once: %q", got)
		}
		r.stop(nil)
	})
}

// Routes with the same attributes share messages, up to the size that the
// session allows.
func TestMessagesAreFull(t *testing.T) {
	const routes = 10000
	for name, want := range map[string]struct {
		extended bool
		most     int
	}{"4,096 octets": {false, 100}, "65,535 octets": {true, 15}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				src := w.source(peer1)
				s := w.newSession(src, peer1, func(o *wire.Open) { o.ExtendedMessage = want.extended })
				w.set(func([]Session) []Session { return []Session{s} })
				w.announce(src, 200, macRoutes(0, routes)...)
				r := w.start(t, nil)
				time.Sleep(time.Second)
				synctest.Wait()
				lines := r.take()
				if len(lines) > want.most {
					t.Errorf("%d messages: want at most %d", len(lines), want.most)
				}
				if diff := cmp.Diff(ends("192.0.2.1"), lines[len(lines)-2:]); diff != "" || slices.Contains(lines[:len(lines)-2], ends("192.0.2.1")[0]) {
					t.Errorf("End-of-RIB is not at the end: %s", diff)
				}
				st := r.Status()[0]
				if st.Routes != routes || st.Messages != uint64(len(r.messages)) || st.Bytes != uint64(r.octets) {
					t.Errorf("%+v: want %d routes, %d messages, %d octets", st, routes, len(r.messages), r.octets)
				}
				r.stop(nil)
			})
		})
	}
}

// A route that filled a message of the peer may need a longer one of ours.
func TestRouteThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		a := wire.LocalAttrs{NextHop: peer1}
		for n := range 501 {
			a.Communities = append(a.Communities, wire.ExtCommunity{0x43, 0x77, 0, 0, 0, 0, byte(n >> 8), byte(n)})
		}
		w.announceRaw(src, a.Build().Raw, wire.Rules{FourOctetAS: true}, macRoute(1), macRoute(2))
		w.announce(src, 200, macRoute(3))
		r := w.start(t, nil)
		want := []string{started, "192.0.2.1 up", "192.0.2.1 +m1 pref 100", "192.0.2.1 +m2 pref 100", "192.0.2.1 +m3 pref 200"}
		r.want("dump", append(want, ends("192.0.2.1")...)...)
		r.stop(nil)
	})
}

// Many changes while a station is busy reach it as one.
func TestChangesAreCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		src := w.addPeer(peer1)
		r := w.start(t, func(_ *Config, p *pipes) { p.unread = true })
		for pref := range uint32(1000) {
			w.announce(src, pref+1, macRoute(1))
			w.withdraw(src, macRoute(2))
			w.announce(src, pref+1, macRoute(2))
		}
		conn := r.lastConn()
		r.wg.Go(func() { _ = r.read(conn) })
		synctest.Wait()
		lines := r.take()
		if want := "192.0.2.1 +m1,m2 pref 1000"; !slices.Contains(lines, want) || len(lines) > 6 {
			t.Errorf("got %q: want %q", lines, want)
		}
		r.stop(nil)
	})
}
