// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

const operationsOf = "/bgp/peers/" + livePeer

// Requests that cannot be carried out, on a neighbour without a session.
func TestOperationsRefused(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	s.shows(t, livePage, `"state":"Active"`)
	const long = `{"message": "` // and 256 octets
	for _, tt := range []struct {
		name, path, body string
		code             int
		want             string // "" is any
	}{
		{"unknown peer", "/bgp/peers/192.0.2.77/shutdown", "{}", 404, "no such BGP peer: 192.0.2.77"},
		{"no address", "/bgp/peers/rr/reset", "{}", 404, "no such BGP peer: rr"},
		{"unknown operation", operationsOf + "/stop", "{}", 404, "no such operation: stop: want one of enable, refresh, reset, shutdown"},
		{"below an operation", operationsOf + "/reset/now", "{}", 404, ""},
		{"no operation", operationsOf, "{}", 404, ""},
		{"text", operationsOf + "/shutdown", "now", 400, ""},
		{"two objects", operationsOf + "/shutdown", "{}{}", 400, "API error: no operation details received: text after the JSON object"},
		{"number for a message", operationsOf + "/shutdown", `{"message": 5}`, 400, "API error: message: 5 is not valid: want a string"},
		{"long message", operationsOf + "/shutdown", long + strings.Repeat("x", 256) + `"}`, 400, "API error: message: 256 octets are not valid: want at most 255"},
		{"long message in octets", operationsOf + "/reset", long + strings.Repeat("ü", 128) + `"}`, 400, "API error: message: 256 octets are not valid: want at most 255"},
		{"not UTF-8", operationsOf + "/shutdown", "{\"message\": \"\xff\"}", 400, `API error: message: "\"\xff\"" is not valid: want UTF-8`},
		{"slip in a name", operationsOf + "/shutdown", `{"mesage": "disks"}`, 400, "API error: mesage: is not a member of this request: want message"},
		{"message where there is none", operationsOf + "/enable", `{"message": "hello"}`, 400, "API error: message: is not a member of this request: want no member"},
		{"unknown family", operationsOf + "/refresh", `{"families": ["evpn"]}`, 400,
			`API error: families: "evpn" is not valid: want one of ipv4/mpls-vpn, ipv6/mpls-vpn, l2vpn/evpn, ipv4/flow-vpn, ipv6/flow-vpn, ipv4/rtc`},
		{"no list", operationsOf + "/refresh", `{"families": "l2vpn/evpn"}`, 400, `API error: families: "l2vpn/evpn" is not valid: want a list of families`},
		{"refresh without a session", operationsOf + "/refresh", "{}", 409, "API error: neighbour " + livePeer + " has no established session"},
		{"reset without a session", operationsOf + "/reset", "{}", 409, "API error: neighbour " + livePeer + " has no established session: it is Active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if f := wantFailure(t, s.post(tt.path, tt.body), tt.code); tt.want != "" && f.Description != tt.want {
				t.Errorf("description %q, want %q", f.Description, tt.want)
			}
		})
	}
}

func TestOperationsArePosted(t *testing.T) {
	t.Parallel()
	s := newServer(t, livePeer)
	for op := range strings.FieldsSeq("shutdown enable reset refresh") {
		for method := range strings.FieldsSeq("GET PUT DELETE") {
			w := s.call(method, operationsOf+"/"+op, nil)
			if wantFailure(t, w, http.StatusMethodNotAllowed); w.Header().Get("Allow") != http.MethodPost {
				t.Errorf("%s %s allows %q, want POST", method, op, w.Header().Get("Allow"))
			}
		}
	}
}

// do carries out an operation that must succeed.
func (s *server) do(t *testing.T, operation, body string) {
	t.Helper()
	if w := s.post(operationsOf+"/"+operation, body); w.Code != http.StatusOK || w.Body.String() != "null" {
		t.Fatalf("%s %s: %d %s", operation, body, w.Code, w.Body)
	}
}

// ended reads the NOTIFICATION with which the server ends a session.
func (n *neighbour) ended() wire.Notification {
	n.t.Helper()
	note, err := wire.ParseNotification(n.await(wire.MsgNotification))
	if err != nil {
		n.t.Fatal(err)
	}
	return note
}

func TestShutdownAndEnable(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	n := s.connect(t, fullOpen(wire.EVPN))
	text := strings.Repeat("ü", 127) // as long as it may be
	s.do(t, "shutdown", `{"message": "`+text+`"}`)
	if got := n.ended(); got.Subcode != wire.CeaseAdminShutdown || got.Communication() != text {
		t.Errorf("NOTIFICATION %s, want an administrative shutdown with the message", got)
	}
	s.shows(t, livePage, `"held_down":"shut down by the operator"`)
	s.shows(t, livePage, `"sent":{"code":6,"subcode":2,`)
	f := wantFailure(t, s.post(operationsOf+"/reset", "{}"), http.StatusConflict)
	if want := "API error: neighbour " + livePeer + " is held down: shut down by the operator: want enable"; f.Description != want {
		t.Errorf("description %q, want %q", f.Description, want)
	}
	s.do(t, "enable", "")
	s.shows(t, livePage, `"held_down":null`)
	s.connect(t, fullOpen(wire.EVPN))
	s.do(t, "enable", "{}")
	if got := s.Speaker.Established(); got != 1 {
		t.Errorf("%d sessions after enabling a neighbour that is up, want 1", got)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	n := s.connect(t, fullOpen(wire.EVPN))
	s.do(t, "reset", `{"message": "new policy"}`)
	if got := n.ended(); got.Subcode != wire.CeaseAdminReset || got.Communication() != "new policy" {
		t.Errorf("NOTIFICATION %s, want an administrative reset with the message", got)
	}
	eventually(t, "session is gone", func() bool { return s.Speaker.Neighbours()[0].Status().State != session.Established })
	s.connect(t, fullOpen(wire.EVPN))
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	n := s.connect(t, fullOpen(wire.EVPN, wire.VPNv4))
	s.do(t, "refresh", `{"families": ["l2vpn/evpn"]}`)
	if f, _, err := wire.ParseRouteRefresh(n.await(wire.MsgRouteRefresh)); err != nil || f != wire.EVPN {
		t.Errorf("ROUTE-REFRESH for %s (%v), want EVPN", f, err)
	}
	s.do(t, "refresh", "{}")
	asked := map[wire.Family]bool{}
	for len(asked) < 2 { // EVPN not before a second after the last request
		f, _, err := wire.ParseRouteRefresh(n.await(wire.MsgRouteRefresh))
		if err != nil {
			t.Fatal(err)
		}
		asked[f] = true
	}
	s.shows(t, livePage, `"messages_sent":3}`)
	f := wantFailure(t, s.post(operationsOf+"/refresh", `{"families": ["ipv6/mpls-vpn"]}`), http.StatusConflict)
	if want := "API error: family ipv6/mpls-vpn was not negotiated with neighbour " + livePeer; f.Description != want {
		t.Errorf("description %q, want %q", f.Description, want)
	}
}

func TestRefreshNeedsTheCapability(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	o := fullOpen(wire.EVPN)
	o.RouteRefresh = false
	s.connect(t, o)
	f := wantFailure(t, s.post(operationsOf+"/refresh", "{}"), http.StatusConflict)
	if want := "API error: neighbour " + livePeer + " has no route refresh capability"; f.Description != want {
		t.Errorf("description %q, want %q", f.Description, want)
	}
}
