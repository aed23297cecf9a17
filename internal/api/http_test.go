// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	for _, tt := range []struct {
		name     string
		in       string
		want     int
		wantBody string // "" is any, or an error's
	}{
		{"index", get + " /", 200, "{}"},
		{"index HEAD", http.MethodHead + " /", 200, "{}"},
		{"index POST", post + " /", 405, ""},
		{"index DELETE", del + " /", 405, ""},
		{"attach GET", get + " /attach_localport", 200, "{}"},
		{"attach GET with slash", get + " /attach_localport/", 200, "{}"},
		{"attach GET json", get + " /attach_localport.json", 200, "{}"},
		{"attach PUT", put + " /attach_localport", 405, ""},
		{"attach DELETE", del + " /attach_localport", 405, ""},
		{"detach GET", get + " /detach_localport", 200, "{}"},
		{"detach PUT", put + " /detach_localport", 405, ""},
		{"looking glass POST", post + " /looking-glass", 405, ""},
		{"looking glass PUT below", put + " /looking-glass/summary", 405, ""},
		{"looking glass DELETE of nothing", del + " /looking-glass/none", 405, ""},
		{"looking glass json", get + " /looking-glass/summary.json", 200, ""},
		{"looking glass slash", get + " /looking-glass/summary/", 200, ""},
		{"looking glass root slash", get + " /looking-glass/", 200, ""},
		{"no such resource", get + " /none", 404, ""},
		{"no such resource POST", post + " /attach", 404, ""},
		{"no such resource below", get + " /ping/pong", 404, ""},
		{"beside the looking glass", get + " /looking-glasses", 404, ""},
		{"health", get + " /healthz", 200, `"ok"`},
		{"ready", get + " /readyz", 200, `{"ready":true,"not_ready":[]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				method, path, _ := strings.Cut(tt.in, " ")
				w := newServer(t).call(method, path, nil)
				switch {
				case tt.want != 200:
					f := wantFailure(t, w, tt.want)
					if tt.want == 405 && (f.Description != "" || w.Header().Get("Allow") == "") {
						t.Errorf("405 with description %q and Allow %q, want none and some", f.Description, w.Header().Get("Allow"))
					}
				case w.Code != 200 || tt.wantBody != "" && w.Body.String() != tt.wantBody:
					t.Errorf("%d %s, want 200 %s", w.Code, w.Body, tt.wantBody)
				}
			})
		})
	}
}

// A body is read up to 1 MiB and no further, whatever its length claims.
func TestBodyLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		fits := strings.Repeat(" ", 1<<20-2) + "{}"
		if f := wantFailure(t, s.post("/attach_localport", fits), 400); !strings.Contains(f.Description, "vpn_type") {
			t.Errorf("description %q: the body of 1 MiB was not read whole", f.Description)
		}
		if f := wantFailure(t, s.post("/attach_localport", " "+fits), 400); !strings.Contains(f.Description, "too large") {
			t.Errorf("description %q, want that the body is too large", f.Description)
		}
		endless := &counting{}
		wantFailure(t, s.call(http.MethodPost, "/attach_localport", endless), 400)
		if endless.read > 2<<20 {
			t.Errorf("%d octets of an endless body were read", endless.read)
		}
		wantFailure(t, s.call(http.MethodPost, "/attach_localport", broken{}), 400)
	})
}

// counting is a body of blanks without end.
type counting struct{ read int }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	c.read += len(b)
	return len(b), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

// A panic is answered with 500 and logged; the server goes on.
func TestPanicIs500(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		f := wantFailure(t, s.call(http.MethodPost, "/attach_localport", panicking{}), 500)
		if f.Description != "internal error" {
			t.Errorf("description %q, want nothing of the inside", f.Description)
		}
		if got := s.Logs.Records(""); len(got) != 1 || !strings.Contains(got[0].Message, "in a reader") {
			t.Errorf("log %v, want the panic", got)
		}
		if w := s.get("/healthz"); w.Code != 200 {
			t.Errorf("/healthz after the panic: %d", w.Code)
		}
	})
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("in a reader") }

func TestReadiness(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t, "10.77.0.254", "10.77.0.253")
		w := s.get("/readyz")
		want := `{"ready":false,"not_ready":[{"name":"bgp peer 10.77.0.253","reason":"session is Idle"},{"name":"bgp peer 10.77.0.254","reason":"session is Idle"}]}`
		if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != http.StatusServiceUnavailable {
			t.Errorf("%d, want 503 (-want +got):\n%s", w.Code, diff)
		}
	})
}

func TestReadinessNamesDataplaneProblems(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", evpnBody())
		s.plane.Fail(fake.Forever, func(o fake.Op) bool { return o.Change.Delete })
		s.accept("/attach_localport", evpnBody().with("mac_address", "02:00:00:00:00:02").with("ip_address", nil))
		s.accept("/detach_localport", evpnBody())
		if w := s.get("/readyz"); w.Code != 200 {
			t.Errorf("/readyz just after a failure: %d %s", w.Code, w.Body)
		}
		time.Sleep(2 * time.Second)
		want := `{"ready":false,"not_ready":[{"name":"dataplane of instance red","reason":"- local-mac dev tap1 02:00:00:00:00:01: fake: refused red: - local-mac dev tap1 02:00:00:00:00:01"}]}`
		if w := s.get("/readyz"); w.Code != http.StatusServiceUnavailable || w.Body.String() != want {
			t.Errorf("%d %s, want 503 %s", w.Code, w.Body, want)
		}
		problems := wantJSON[[]map[string]any](t, s.get("/looking-glass/vpns/dataplane/problems"))
		if len(problems) != 1 || problems[0]["instance"] != "red" || problems[0]["attempts"] != 1.0 {
			t.Errorf("problems %v, want one of instance red", problems)
		}
	})
}

// The API is served on a listener until its context ends.
func TestRequestOverTCP(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	resp, err := http.Post(srv.URL+"/attach_localport", "application/x-www-form-urlencoded", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s with type %q, want 400 and JSON", resp.Status, resp.Header.Get("Content-Type"))
	}
}
