// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Both sides connect at the same time (RFC 4271 §6.8, RFC 6286 §2.3).
func TestCollision(t *testing.T) {
	t.Parallel()
	low, high := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	for _, tt := range []struct {
		name     string
		remoteID netip.Addr
		remoteAS uint32
		oursGoes bool
	}{
		{"our identifier is lower", high, testAS, true},
		{"our identifier is higher", low, testAS, false},
		{"equal identifiers, our AS is lower", localID, testAS + 1, true},
		{"equal identifiers, our AS is higher", localID, testAS - 1, false},
	} {
		for _, oursFirst := range []bool{true, false} {
			name := tt.name + ", OPEN first on theirs"
			if oursFirst {
				name = tt.name + ", OPEN first on ours"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, func(c *Config) { c.PeerAS = tt.remoteAS }, func(r *rig) {
					open := remoteOpen()
					open.RouterID, open.AS = tt.remoteID, tt.remoteAS
					ours, theirs := r.outgoing(), r.incoming()
					ours.expect(wire.MsgOpen)
					theirs.expect(wire.MsgOpen)
					first, second := theirs, ours
					if oursFirst {
						first, second = ours, theirs
					}
					first.sendOpen(open)
					first.expect(wire.MsgKeepalive)
					r.state(OpenConfirm)
					second.sendOpen(open)
					stays, goes := ours, theirs
					if tt.oursGoes {
						stays, goes = theirs, ours
					}
					goes.expectNotification("6/7")
					if stays == second {
						stays.expect(wire.MsgKeepalive)
					}
					stays.write(wire.Keepalive())
					r.state(Established)
					checkStays(r, stays)
					if n := r.sessions(); n != 1 {
						t.Errorf("%d sessions came up", n)
					}
				})
			})
		}
	}
}

// checkStays checks that a session is not disturbed by what happened before.
func checkStays(r *rig, c *remote) {
	r.t.Helper()
	c.repeat(20*time.Second, wire.Keepalive())
	c.absorb()
	before := len(r.dialTimes())
	time.Sleep(10 * time.Minute)
	r.state(Established)
	if n := len(r.dialTimes()) - before; n != 0 {
		r.t.Errorf("dialled %d times during the session", n)
	}
	if s := r.peer.Status(); s.LastError != "" {
		r.t.Errorf("last error %q of an attempt that did not fail", s.LastError)
	}
}

// The established session stays, the new connection goes (RFC 4271 §6.8).
func TestConnectionBesideASession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   func(*rig) (session, other *remote)
	}{
		{"incoming, beside ours", func(r *rig) (*remote, *remote) {
			c := r.outgoing()
			r.establish(c, remoteOpen())
			return c, r.incoming()
		}},
		{"incoming, in OpenSent when ours came up", func(r *rig) (*remote, *remote) {
			c, other := r.outgoing(), r.incoming()
			other.expect(wire.MsgOpen)
			r.establish(c, remoteOpen())
			other.sendOpen(remoteOpen())
			return c, other
		}},
		{"ours, in OpenSent when theirs came up", func(r *rig) (*remote, *remote) {
			other, c := r.outgoing(), r.incoming()
			other.expect(wire.MsgOpen)
			r.establish(c, remoteOpen())
			return c, other
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				session, other := tt.in(r)
				other.expectNotification("6/7")
				checkStays(r, session)
				if n := r.sessions(); n != 1 {
					t.Errorf("%d sessions came up", n)
				}
			})
		})
	}
}

// One incoming connection at a time: it is the newest until one has sent its OPEN,
// for an older one that is silent may be of a host that died. Later ones are told
// so, and the first is not disturbed.
func TestSecondIncomingConnection(t *testing.T) {
	t.Parallel()
	run(t, passive, func(r *rig) {
		silent := r.incoming()
		silent.expect(wire.MsgOpen)
		first := r.incoming()
		first.expect(wire.MsgOpen)
		silent.expectNotification("6/7")
		first.sendOpen(remoteOpen())
		first.expect(wire.MsgKeepalive)
		r.incoming().expectNotification("6/7")
		first.write(wire.Keepalive())
		r.state(Established)
		r.incoming().expectNotification("6/7")
		checkStays(r, first)
		_ = first.Close()
		r.state(Active)
		r.establish(r.incoming(), remoteOpen())
	})
}
