// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
)

// FuzzAttachBody: no body makes the server panic or answer 5xx; what is refused
// leaves no trace; what is accepted can be shown, and detached by the same body.
// Run it with -fuzzminimizetime 1x: goroutines make the coverage vary.
func FuzzAttachBody(f *testing.F) {
	for _, m := range []members{
		evpnBody(), ipvpnBody(), evpnBody().with("ip_address", nil), evpnBody().with("vni", "5000"), evpnBody().with("vpn_instance_id", 7),
		evpnBody().with("vpn_instance_id", "a/.. b"), evpnBody().with("description", []any{members{"a": nil}}),
		ipvpnBody().with("advertise_subnet", true).with("ip_address", "192.0.2.5/24").with("direction", "from-port"),
		ipvpnBody().with("gateway_ip", "2001:db8::1").with("local_pref", 4294967295), ipvpnBody().with("readvertise", members{}),
		ipvpnBody().with("advertise_as", "both").with("vni", 17), ipvpnBody().with("advertise_as", "vpn"), evpnBody().with("advertise_as", "evpn"),
		evpnBody().with("import_rt", "1:1,, 70000:2,1.2.3.4:5"), ipvpnBody().with("local_port", members{"evpn": nil}),
	} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(strings.Repeat("[", 20000))
	f.Add(`{"vpn_type":"evpn","vpn_type":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		s := newServer(t)
		s.overVXLAN()
		before := s.tree() + s.plane.String()
		w := s.post("/attach_localport", body)
		switch w.Code {
		case http.StatusOK:
			s.tree()
			if d := s.post("/detach_localport", body); d.Code != http.StatusOK {
				t.Fatalf("detach of what was attached: %d %s", d.Code, d.Body)
			}
		case http.StatusBadRequest:
			wantFailure(t, w, http.StatusBadRequest)
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if after := s.tree() + s.plane.String(); after != before {
			t.Fatalf("a trace is left:\n%s\nbefore:\n%s", after, before)
		}
		if b := s.plane.Breaches(); len(b) > 0 {
			t.Fatalf("contract of the driver broken: %v", b)
		}
	})
}

// FuzzRequest: whatever the method, path and body, the server answers with a status
// of docs/rest-api.md in its form, panics never, breaks no rule of the driver, and
// works after as before.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{
		"/", "/ping", "/ping/", "/attach_localport", "/detach_localport.json", "/looking-glass", "/looking-glass/summary/x.json", "/healthz", "/readyz",
		"/looking-glass/vpns/instances/red/ports", "/looking-glass/bgp/routes", "/looking-glass/vpns/dataplane/drivers/evpn", "/metrics", "/none",
		"/bgp/peers/127.0.0.78/shutdown", "/bgp/peers/127.0.0.78/refresh", "/bgp/peers/::ffff:127.0.0.78/reset", "/bgp/peers/x/enable", "/bgp/peers//", "*", "//ping",
		"/looking-glass/..%2f", "/looking-glass/%00%ff", "/bgp/peers/127.0.0.78/enable/", "/.json", "/looking-glass/../attach_localport", "", "x",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodConnect, http.MethodOptions, ""} {
			f.Add(method, path, `{"message":"x"}`)
		}
	}
	for _, m := range []members{evpnBody(), ipvpnBody(), {"families": []string{"l2vpn/evpn"}}, nil} {
		f.Add(http.MethodPost, "/attach_localport", string(mustJSON(m)))
		f.Add(http.MethodPost, "/detach_localport", string(mustJSON(m)))
		f.Add(http.MethodPost, "/bgp/peers/127.0.0.78/refresh", string(mustJSON(m)))
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		target, err := url.ParseRequestURI(path)
		if err != nil {
			target = &url.URL{Path: path} // what net/http does not let through must do no harm either
		}
		s := newServerWith(t, func(c *speaker.Config) {
			c.Peers = []speaker.PeerConfig{{Addr: addr(livePeer), Passive: true}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = s.Speaker.Run(ctx) }()
		s.post("/attach_localport", evpnBody())
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, target, path
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		switch codes := []int{400, 404, 405, 409}; {
		case w.Code == http.StatusServiceUnavailable && strings.HasPrefix(r.URL.Path, "/readyz"):
		case w.Code == http.StatusTemporaryRedirect || w.Code == http.StatusMovedPermanently: // to the path without .. and //
		case slices.Contains(codes, w.Code):
			wantFailure(t, w, w.Code)
			if w.Code == 405 && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		case w.Code != http.StatusOK:
			t.Errorf("%q %q: %d %s", method, path, w.Code, w.Body)
		}
		for _, rec := range s.Logs.Records("") {
			if strings.Contains(rec.Message, "panic") {
				t.Errorf("%q %q: %s", method, path, rec.Message)
			}
		}
		if b := s.plane.Breaches(); len(b) > 0 {
			t.Fatalf("contract of the driver broken: %v", b)
		}
		s.tree()
		if code := s.post("/attach_localport", evpnBody().with("vpn_instance_id", "after").with("local_port", "tap9")).Code; code != http.StatusOK {
			t.Errorf("attach after %q %q: %d", method, path, code)
		}
	})
}
