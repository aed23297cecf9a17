// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // golden files have times
	flag.Parse()
	os.Exit(m.Run())
}

// inBubble runs a test with fake time.
func inBubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// server is a node with an API and no network.
type server struct {
	*api.Server
	tb    testing.TB
	plane *fake.Plane
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// newServer returns a server; with peers, it has neighbours that never connect.
func newServer(tb testing.TB, peers ...string) *server {
	tb.Helper()
	return newServerWith(tb, nil, peers...)
}

// newServerWith is newServer with another configuration of the speaker.
func newServerWith(tb testing.TB, change func(*speaker.Config), peers ...string) *server {
	tb.Helper()
	book := &logbook.Book{}
	n := api.Node{
		RIB: rib.New(), Logs: book, Log: slog.New(book.Handler(slog.DiscardHandler)), Version: "1.2.3", Started: time.Now(), Ping: math.MaxInt64,
		Settings: func() []config.Section {
			return []config.Section{
				{Name: "COMMON", Options: []config.Setting{{Name: "root_helper", Value: "sudo"}}},
				{Name: "BGP", Options: []config.Setting{{Name: "my_as", Value: int64(64512)}, {Name: "peers", Value: peers}}},
				{Name: "DATAPLANE_DRIVER_EVPN", Options: []config.Setting{{Name: "dataplane_driver", Value: "fake"}}},
			}
		},
	}
	s := &server{tb: tb, plane: fake.NewPlane()}
	n.Reconciler = dataplane.NewReconciler(s.plane.Drivers(), n.Log)
	local := addr("10.77.0.1")
	var err error
	n.Manager, err = vpn.NewManager(vpn.Config{
		AS: 64512, RouterID: local, Local: local, RTC: true, Log: n.Log,
		Tunnel: map[dataplane.VPNType]netip.Addr{dataplane.EVPN: local, dataplane.IPVPN: local},
	}, n.RIB, n.Reconciler)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := speaker.Config{
		AS: 64512, RouterID: local, Local: local, Log: n.Log, Settings: speaker.Settings{HoldTime: 90, Families: wire.Families},
	}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, speaker.PeerConfig{Addr: addr(p), Port: 179})
	}
	if change != nil {
		change(&cfg)
	}
	if n.Speaker, err = speaker.New(cfg, n.RIB); err != nil {
		tb.Fatal(err)
	}
	if s.Server, err = api.New(n); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Manager.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
	return s
}

// overVXLAN has the driver of VRFs route packets that come in VXLAN. It is called
// before there are any.
func (s *server) overVXLAN() {
	caps := &s.Reconciler.Driver(dataplane.IPVPN).(*fake.Driver).Caps
	caps.Encaps, caps.RouterMAC = append(caps.Encaps, encap.VXLAN), ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1}
}

// call makes a request without a network.
func (s *server) call(method, path string, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://node.example:8082"+path, body)
	s.ServeHTTP(w, r)
	return w
}

func (s *server) get(path string) *httptest.ResponseRecorder {
	return s.call(http.MethodGet, path, nil)
}

func (s *server) post(path string, body any) *httptest.ResponseRecorder {
	s.tb.Helper()
	raw, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		if err != nil {
			s.tb.Fatal(err)
		}
		raw = string(b)
	}
	return s.call(http.MethodPost, path, strings.NewReader(raw))
}

// members is a request body.
type members map[string]any

// with returns a copy with members set or, for absent, taken out.
func (m members) with(name string, value any) members {
	c := maps.Clone(m)
	if c[name] = value; value == absent {
		delete(c, name)
	}
	return c
}

type missing struct{}

// absent, as a value, takes a member out.
var absent = missing{}

func evpnBody() members {
	return members{
		"vpn_type": "evpn", "vpn_instance_id": "red", "mac_address": "02:00:00:00:00:01", "ip_address": "198.51.100.10",
		"local_port": "tap1", "import_rt": []string{"64512:300"}, "export_rt": []string{"64512:300"},
	}
}

func ipvpnBody() members {
	return members{
		"vpn_type": "ipvpn", "vpn_instance_id": "blue", "mac_address": "02:00:00:00:00:02", "ip_address": "192.0.2.10", "gateway_ip": nil,
		"local_port": map[string]any{"linuxif": "tap2"}, "import_rt": "64512:100", "export_rt": "64512:100",
	}
}

// accept makes a request that must succeed with null.
func (s *server) accept(path string, body any) {
	s.tb.Helper()
	w := s.post(path, body)
	if w.Code != http.StatusOK || w.Body.String() != "null" {
		s.tb.Fatalf("POST %s %v: %d %s", path, body, w.Code, w.Body)
	}
	settle()
}

func settle() { synctest.Wait() }

// failure is the body of an error.
type failure struct {
	Code        int    `json:"code"`
	Title       string `json:"title"`
	Description string `json:"description"`
}

// wantFailure checks code, form and type of an error reply.
func wantFailure(tb testing.TB, w *httptest.ResponseRecorder, code int) failure {
	tb.Helper()
	var f failure
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		tb.Fatalf("reply %d %q: %v", w.Code, w.Body, err)
	}
	if w.Code != code || f.Code != code || f.Title != http.StatusText(code) {
		tb.Fatalf("reply %d %s, want %d %s", w.Code, w.Body, code, http.StatusText(code))
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		tb.Errorf("content type %q, want JSON", got)
	}
	return f
}

// wantJSON decodes a reply.
func wantJSON[T any](tb testing.TB, w *httptest.ResponseRecorder) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK {
		tb.Fatalf("reply %d %q: %v", w.Code, w.Body, err)
	}
	return v
}

// tree returns the whole looking glass as text, a line for each page. The logs
// are left out: a refusal may be logged.
func (s *server) tree() string {
	s.tb.Helper()
	pages := map[string]string{}
	var visit func(path string)
	visit = func(path string) {
		if pages[path] != "" {
			return
		}
		w := s.get(path)
		pages[path] = fmt.Sprintf("%s %s\n", path, w.Body)
		if w.Code != http.StatusOK {
			s.tb.Errorf("GET %s: %d %s", path, w.Code, w.Body)
			return
		}
		for _, href := range hrefs(wantJSON[any](s.tb, w)) {
			if !strings.HasSuffix(href, "/logs") {
				visit(strings.TrimPrefix(href, "http://node.example:8082"))
			}
		}
	}
	visit("/looking-glass")
	return strings.Join(slices.Sorted(maps.Values(pages)), "")
}

// hrefs returns the links of a decoded reply in no order.
func hrefs(v any) []string {
	var out []string
	switch t := v.(type) {
	case map[string]any:
		for k, m := range t {
			if href, ok := m.(string); ok && k == "href" {
				out = append(out, href)
				continue
			}
			out = append(out, hrefs(m)...)
		}
	case []any:
		for _, m := range t {
			out = append(out, hrefs(m)...)
		}
	}
	return out
}

func (s *server) wantTree(want string) {
	s.tb.Helper()
	if diff := cmp.Diff(want, s.tree()); diff != "" {
		s.tb.Errorf("looking glass (-before +after):\n%s", diff)
	}
}
