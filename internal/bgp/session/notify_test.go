// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// header makes a message header with the given fields.
func header(marker byte, length uint16, typ byte) []byte {
	b := wire.AppendHeader(nil, wire.MsgType(typ), int(length)-wire.HeaderLen)
	b[0] = marker
	return b
}

func change(b []byte, at int, value ...byte) []byte {
	copy(b[at:], value)
	return b
}

func TestNotificationForFirstMessage(t *testing.T) {
	t.Parallel()
	open := func(f func(*wire.Open)) []byte {
		o := remoteOpen()
		f(&o)
		return openMessage(t, o)
	}
	same := func(*wire.Open) {}
	for _, tt := range []struct {
		name string
		in   []byte
		want string
		data []byte
	}{
		{"marker", header(0xfe, 29, 1), "1/1", nil},
		{"type 0", header(0xff, 29, 0), "1/3", []byte{0}},
		{"type 6", header(0xff, 29, 6), "1/3", []byte{6}},
		{"length 18", header(0xff, 18, 1), "1/2", []byte{0, 18}},
		{"length 4097", header(0xff, 4097, 2), "1/2", []byte{0x10, 0x01}},
		{"OPEN of 28 octets", header(0xff, 28, 1), "1/2", []byte{0, 28}},
		{"KEEPALIVE of 20 octets", header(0xff, 20, 4), "1/2", []byte{0, 20}},
		{"version 3", change(open(same), 19, 3), "2/1", []byte{0, 4}},
		{"version 5", change(open(same), 19, 5), "2/1", []byte{0, 4}},
		{"another AS", open(func(o *wire.Open) { o.AS = testAS + 1 }), "2/2", nil},
		{"AS 0", open(func(o *wire.Open) { o.AS = 0 }), "2/2", nil},
		{"another AS of four octets", open(func(o *wire.Open) { o.AS = testAS + 1<<16 }), "2/2", nil},
		{"identifier 0.0.0.0", open(func(o *wire.Open) { o.RouterID = netip.IPv4Unspecified() }), "2/3", nil},
		{"our own identifier", open(func(o *wire.Open) { o.RouterID = localID }), "2/3", nil},
		{"unknown optional parameter", append(header(0xff, 33, 1), 4, 0xfb, 0xf4, 0, 90, 192, 0, 2, 9, 4, 1, 2, 0, 0), "2/4", nil},
		{"hold time 1", open(func(o *wire.Open) { o.HoldTime = 1 }), "2/6", []byte{0, 1}},
		{"hold time 2", open(func(o *wire.Open) { o.HoldTime = 2 }), "2/6", []byte{0, 2}},
		{"KEEPALIVE before OPEN", wire.Keepalive(), "5/1", nil},
		{"UPDATE before OPEN", update(0, 23), "5/1", nil},
		{"ROUTE-REFRESH before OPEN", wire.RouteRefresh(wire.EVPN, wire.RefreshRequest), "5/1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				c := r.outgoing()
				c.expect(wire.MsgOpen)
				c.write(tt.in)
				n := c.expectNotification(tt.want)
				if diff := cmp.Diff(tt.data, n.Data, equalEmpty); diff != "" {
					t.Errorf("data (-want +got):\n%s", diff)
				}
				r.state(Idle)
				if r.sessions() != 0 {
					t.Error("there was a session")
				}
				if s := r.peer.Status(); s.LastError == "" {
					t.Error("the status names no error")
				}
				// The next attempt works.
				r.establish(r.outgoing(), remoteOpen())
			})
		})
	}
}

// equalEmpty makes nil and empty data equal.
var equalEmpty = cmp.FilterValues(func(a, b []byte) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())

func TestNotificationInOpenConfirm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"UPDATE", update(0, 23), "5/2"},
		{"ROUTE-REFRESH", wire.RouteRefresh(wire.EVPN, wire.RefreshRequest), "5/2"},
		{"second OPEN", openMessage(t, remoteOpen()), "5/2"},
		{"bad header", header(0xff, 19, 9), "1/3"},
		{"large message before the session is up", header(0xff, 5000, 2), "1/2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				c := r.outgoing()
				c.expect(wire.MsgOpen)
				c.sendOpen(remoteOpen())
				c.expect(wire.MsgKeepalive)
				c.write(tt.in)
				c.expectNotification(tt.want)
				r.state(Idle)
			})
		})
	}
}

func TestNotificationWhenEstablished(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"OPEN", openMessage(t, remoteOpen()), "5/3"},
		{"bad header", header(0, 19, 4), "1/1"},
		{"UPDATE of 22 octets", header(0xff, 22, 2), "1/2"},
		{"ROUTE-REFRESH of 24 octets", append(header(0xff, 24, 5), 0, 25, 0, 70, 0), "7/1"},
		{"UPDATE that the flow refuses", update(99, 40), "3/9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				r.onUpdate = func(_ *flow, body []byte) *wire.Error {
					if body[0] == 99 {
						return &wire.Error{Class: wire.SessionReset, Code: wire.CodeUpdate, Subcode: 9, Data: []byte{1, 2}, Text: "wrong"}
					}
					return nil
				}
				c := r.outgoing()
				r.establish(c, remoteOpen())
				c.write(append(update(1, 30), tt.in...))
				c.expectNotification(tt.want)
				r.state(Idle)
				calls := r.last().log()
				if !slices.Contains(calls, "update 1 of 30") || calls[len(calls)-2] != "flush" {
					t.Errorf("the UPDATE before was not flushed: %q", calls)
				}
			})
		})
	}
}

func TestNotificationReceived(t *testing.T) {
	t.Parallel()
	note := wire.Shutdown(wire.CeaseAdminShutdown, "maintenance until 5").Message()
	const text = `NOTIFICATION 6/2 (cease, administrative shutdown): "maintenance until 5" received`
	for _, tt := range []struct {
		name string
		in   func(*rig, *remote)
	}{
		{"in OpenSent", func(*rig, *remote) {}},
		{"in OpenConfirm", func(_ *rig, c *remote) { c.sendOpen(remoteOpen()); c.expect(wire.MsgOpen); c.expect(wire.MsgKeepalive) }},
		{"when established", func(r *rig, c *remote) { r.establish(c, remoteOpen()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, func(r *rig) {
				c := r.outgoing()
				tt.in(r, c)
				c.write(note)
				for { // no NOTIFICATION comes back (RFC 4271 §6.4)
					typ, _, ok := c.read()
					if typ == wire.MsgNotification {
						t.Error("NOTIFICATION answered with another one")
					}
					if !ok {
						break
					}
				}
				r.state(Idle)
				if got := r.peer.Status().LastError; got != text {
					t.Errorf("last error %q: want %q", got, text)
				}
			})
		})
	}
}

func TestShutdownNotification(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 200)
	for _, tt := range []struct {
		name string
		in   error
		want string
	}{
		{"without cause", nil, ""},
		{"cancelled", context.Canceled, ""},
		{"with text", errors.New("host goes down"), "host goes down"},
		{"long text is cut at a character", errors.New(long), long[:254]},
	} {
		for _, state := range []State{OpenSent, OpenConfirm, Established} {
			t.Run(tt.name+" in "+state.String(), func(t *testing.T) {
				t.Parallel()
				run(t, nil, func(r *rig) {
					c := r.outgoing()
					c.expect(wire.MsgOpen)
					if state >= OpenConfirm {
						c.sendOpen(remoteOpen())
						c.expect(wire.MsgKeepalive)
					}
					if state == Established {
						c.write(wire.Keepalive())
					}
					r.state(state)
					if took := r.shutdown(tt.in); took != 0 {
						t.Errorf("took %s", took)
					}
					n := c.expectNotification("6/2")
					if got := n.Communication(); got != tt.want {
						t.Errorf("communication %q: want %q", got, tt.want)
					}
					r.state(Idle)
				})
			})
		}
	}
}

// Stopping while dialling or waiting sends nothing and takes no time.
func TestShutdownWithoutConnection(t *testing.T) {
	t.Parallel()
	run(t, nil, func(r *rig) {
		r.failDials(true)
		time.Sleep(10 * time.Second)
		r.state(Active)
		if took := r.shutdown(errors.New("over")); took != 0 {
			t.Errorf("took %s", took)
		}
		r.state(Idle)
	})
}
