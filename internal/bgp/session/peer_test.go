// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// byValue lets cmp compare addresses.
var byValue = cmpopts.EquateComparable(netip.Addr{})

func passive(c *Config) { c.Passive = true }

func TestSessionComesUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		passive bool
	}{{"we dial", false}, {"the peer dials", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, func(c *Config) { c.Passive = tt.passive }, func(r *rig) {
				var c *remote
				if tt.passive {
					r.state(Active)
					c = r.incoming()
				} else {
					c = r.outgoing()
				}
				open, err := wire.ParseOpen(c.expect(wire.MsgOpen))
				if err != nil {
					r.t.Fatal(err)
				}
				want := wire.Open{
					AS: testAS, HoldTime: 90, RouterID: localID, Families: []wire.Family{wire.EVPN, wire.RTC},
					FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true,
				}
				if diff := cmp.Diff(want, open, byValue); diff != "" {
					t.Errorf("our OPEN (-want +got):\n%s", diff)
				}
				r.state(OpenSent)
				c.sendOpen(remoteOpen())
				c.expect(wire.MsgKeepalive)
				r.state(OpenConfirm)
				if r.sessions() != 0 {
					t.Error("the session is up before the KEEPALIVE")
				}
				c.write(append(wire.Keepalive(), update(7, 40)...))
				r.state(Established)
				if diff := cmp.Diff([]string{"up", "update 7 of 40", "flush"}, r.last().log()); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	base := Negotiated{
		Local: netip.MustParseAddr("192.0.2.5"), Peer: netip.MustParseAddr("192.0.2.9"), PeerAS: testAS, PeerID: remoteID,
		HoldTime: 90 * time.Second, Families: []wire.Family{wire.EVPN, wire.RTC},
		FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true,
	}
	for _, tt := range []struct {
		name string
		in   func(*wire.Open)
		want func(*Negotiated)
	}{
		{"all in common", func(*wire.Open) {}, func(*Negotiated) {}},
		{"shorter hold time of the peer", func(o *wire.Open) { o.HoldTime = 3 }, func(n *Negotiated) { n.HoldTime = 3 * time.Second }},
		{"longer hold time of the peer", func(o *wire.Open) { o.HoldTime = 65535 }, func(*Negotiated) {}},
		{"no hold time", func(o *wire.Open) { o.HoldTime = 0 }, func(n *Negotiated) { n.HoldTime = 0 }},
		{"families in our order, unknown ones left out",
			func(o *wire.Open) { o.Families = []wire.Family{wire.RTC, {AFI: 1, SAFI: 1}, wire.VPNv4, wire.EVPN} }, func(*Negotiated) {}},
		{"one family", func(o *wire.Open) { o.Families = []wire.Family{wire.RTC} }, func(n *Negotiated) { n.Families = []wire.Family{wire.RTC} }},
		{"no family", func(o *wire.Open) { o.Families = nil }, func(n *Negotiated) { n.Families = nil }},
		{"two-octet AS", func(o *wire.Open) { o.FourOctetAS = false }, func(n *Negotiated) { n.FourOctetAS = false }},
		{"no route refresh", func(o *wire.Open) { o.RouteRefresh = false }, func(n *Negotiated) { n.RouteRefresh = false }},
		{"no extended message", func(o *wire.Open) { o.ExtendedMessage = false }, func(n *Negotiated) { n.ExtendedMessage = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, passive, func(r *rig) {
				open, want := remoteOpen(), base
				tt.in(&open)
				tt.want(&want)
				r.establish(r.incoming(), open)
				got := r.last().deal
				if diff := cmp.Diff(want, got, byValue, cmpopts.IgnoreFields(Negotiated{}, "Ours", "Theirs", "SentOpen", "ReceivedOpen")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				for _, o := range []struct {
					open wire.Open
					raw  []byte
				}{{got.Ours, got.SentOpen}, {got.Theirs, got.ReceivedOpen}} {
					parsed, err := wire.ParseOpen(o.raw[wire.HeaderLen:])
					if diff := cmp.Diff(o.open, parsed, byValue, cmpopts.EquateEmpty()); err != nil || diff != "" {
						t.Errorf("OPEN kept as %x: %v (-want +got):\n%s", o.raw, err, diff)
					}
				}
				want = got
				if diff := cmp.Diff(want, r.peer.Status().Negotiated, byValue); diff != "" {
					t.Errorf("status (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A four-octet AS number of ours has AS_TRANS in the old field and works.
func TestLargeASNumber(t *testing.T) {
	t.Parallel()
	const as = 4200000001
	run(t, func(c *Config) { c.LocalAS, c.PeerAS, c.Passive = as, as, true }, func(r *rig) {
		open := remoteOpen()
		open.AS = as
		r.establish(r.incoming(), open)
		if got := r.last().deal.PeerAS; got != as {
			t.Errorf("peer AS %d: want %d", got, as)
		}
	})
}

func TestHoldTimerExpires(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		r.establish(c, remoteOpen())
		start := time.Now()
		c.expectNotification("4/0")
		if got := time.Since(start); got != 90*time.Second {
			t.Errorf("after %s: want 90s", got)
		}
		r.state(Active)
		if got := r.peer.Status().LastError; got != "hold timer expired" {
			t.Errorf("last error %q", got)
		}
	})
}

// Every kind of message that may come restarts the hold timer (RFC 4271 §8.2.2
// for KEEPALIVE and UPDATE).
func TestMessagesRestartTheHoldTimer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"KEEPALIVE", wire.Keepalive()},
		{"UPDATE", update(1, 30)},
		{"ROUTE-REFRESH", wire.RouteRefresh(wire.EVPN, wire.RefreshRequest)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, passive, func(r *rig) {
				c := r.incoming()
				r.establish(c, remoteOpen())
				for range 20 {
					time.Sleep(89 * time.Second)
					c.write(tt.in)
				}
				r.state(Established)
				start := time.Now()
				c.expectNotification("4/0")
				if got := time.Since(start); got != 90*time.Second {
					t.Errorf("expired %s after the last message: want 90s", got)
				}
			})
		})
	}
}

// A message that never becomes complete does not keep the session alive.
func TestPartOfAMessageDoesNotRestartTheHoldTimer(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		r.establish(c, remoteOpen())
		start := time.Now()
		c.write(update(0xff, 4000)[:20])
		c.repeat(time.Second, []byte{0xff})
		c.expectNotification("4/0")
		if got := time.Since(start); got != 90*time.Second {
			t.Errorf("after %s: want 90s", got)
		}
	})
}

func TestHoldTimeZero(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		ours, peers uint16
	}{{"ours", 0, 90}, {"the peer's", 90, 0}, {"both", 0, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, func(c *Config) { c.HoldTime, c.Passive = tt.ours, true }, func(r *rig) {
				c := r.incoming()
				open := remoteOpen()
				open.HoldTime = tt.peers
				r.establish(c, open)
				time.Sleep(48 * time.Hour)
				r.state(Established)
				if got := r.peer.Status().SentByType[wire.MsgKeepalive]; got != 1 {
					t.Errorf("%d KEEPALIVEs: want only the one that confirms the OPEN", got)
				}
			})
		})
	}
}

func TestKeepaliveInterval(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		r.establish(c, remoteOpen())
		c.repeat(30*time.Second, wire.Keepalive())
		differ, first := false, time.Duration(0)
		for i := range 60 {
			start := time.Now()
			c.expect(wire.MsgKeepalive)
			gap := time.Since(start)
			if gap < 22500*time.Millisecond || gap > 30*time.Second {
				t.Errorf("KEEPALIVE %d came after %s: want 75 to 100%% of 30s", i, gap)
			}
			if i == 0 {
				first = gap
			}
			differ = differ || gap != first
		}
		if !differ {
			t.Error("the interval has no jitter")
		}
	})
}

// In OpenConfirm KEEPALIVEs are sent, and the negotiated hold time counts.
func TestOpenConfirmTimers(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		c := r.incoming()
		c.expect(wire.MsgOpen)
		open := remoteOpen()
		open.HoldTime = 9
		c.sendOpen(open)
		start := time.Now()
		for range 3 {
			c.expect(wire.MsgKeepalive)
		}
		c.expectNotification("4/0")
		if got := time.Since(start); got != 9*time.Second {
			t.Errorf("after %s: want 9s", got)
		}
	})
}

// A peer that connects and says nothing has the large hold time (RFC 4271
// §8.2.2, OpenSent), whatever was configured.
func TestPeerNeverSendsOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hold uint16
	}{{"hold time 3", 3}, {"hold time 0", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, func(c *Config) { c.HoldTime, c.Passive = tt.hold, true }, func(r *rig) {
				c := r.incoming()
				start := time.Now()
				c.expect(wire.MsgOpen)
				c.expectNotification("4/0")
				if got := time.Since(start); got != 4*time.Minute {
					t.Errorf("after %s: want 4m", got)
				}
				r.establish(r.incoming(), remoteOpen())
			})
		})
	}
}
