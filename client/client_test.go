// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve answers every request with one status and body, and records the last request.
func serve(t *testing.T, status int, body string) (c *Client, last func() (method, uri, sent string)) {
	t.Helper()
	var method, uri, sent string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		method, uri, sent = r.Method, r.RequestURI, string(b)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	c, err := New(WithBaseURL(srv.URL + "/"))
	if err != nil {
		t.Fatal(err)
	}
	return c, func() (string, string, string) { return method, uri, sent }
}

func TestAttachAndDetachSendTheRequest(t *testing.T) {
	t.Parallel()
	c, last := serve(t, 200, "null\n")
	req := AttachRequest{
		VPNType: EVPN, VPNInstanceID: "evi-red", MACAddress: "00:00:5e:00:53:01",
		IPAddress: "192.0.2.5", LocalPort: LocalPort{LinuxIF: "tap1"}, ImportRT: []string{"64512:1"},
	}
	if err := c.Attach(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	method, uri, sent := last()
	want := `{"vpn_type":"evpn","vpn_instance_id":"evi-red","mac_address":"00:00:5e:00:53:01","ip_address":"192.0.2.5",` +
		`"local_port":{"linuxif":"tap1"},"import_rt":["64512:1"],"export_rt":[]}`
	if diff := cmp.Diff([]string{"POST", "/attach_localport", want}, []string{method, uri, sent}); diff != "" {
		t.Errorf("attach (-want +got):\n%s", diff)
	}

	if err := c.Detach(t.Context(), req.Detach()); err != nil {
		t.Fatal(err)
	}
	method, uri, sent = last()
	want = `{"vpn_type":"evpn","vpn_instance_id":"evi-red","mac_address":"00:00:5e:00:53:01","ip_address":"192.0.2.5",` +
		`"local_port":{"linuxif":"tap1"}}`
	if diff := cmp.Diff([]string{"POST", "/detach_localport", want}, []string{method, uri, sent}); diff != "" {
		t.Errorf("detach (-want +got):\n%s", diff)
	}
}

func TestErrorsOfTheDaemon(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		status     int
		want       Error
		text       string
	}{
		{
			name: "form of the API", status: 400,
			body: `{"code": 400, "title": "Bad Request", "description": "API error: missing instance_type"}`,
			want: Error{Code: 400, Title: "Bad Request", Description: "API error: missing instance_type"},
			text: "400 Bad Request: API error: missing instance_type",
		},
		{
			name: "no description", status: 405,
			body: `{"code": 405, "title": "Method Not Allowed", "description": ""}`,
			want: Error{Code: 405, Title: "Method Not Allowed"},
			text: "405 Method Not Allowed",
		},
		{
			name: "another server", status: 502, body: "<b>no</b>\n",
			want: Error{Code: 502, Title: "Bad Gateway", Description: "<b>no</b>"},
			text: "502 Bad Gateway: <b>no</b>",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _ := serve(t, tt.status, tt.body)
			var got *Error
			if err := c.Attach(t.Context(), AttachRequest{}); !errors.As(err, &got) {
				t.Fatalf("got %v, want an *Error", err)
			}
			tt.want.Body = []byte(tt.body)
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got.Error() != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
		})
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	const number = "137410817540416754872255995048881941345"
	c, _ := serve(t, 200, number+"\n")
	n, err := c.Ping(t.Context())
	if err != nil || n.String() != number {
		t.Errorf("got %v, %v", n, err)
	}
	c, _ = serve(t, 200, `"pong"`)
	if n, err := c.Ping(t.Context()); err == nil {
		t.Errorf("got %v for a reply that is no integer", n)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		status     int
		want       Readiness
		err        bool
	}{
		{name: "ready", status: 200, body: `{"ready":true}`, want: Readiness{Ready: true}},
		{
			name: "not ready", status: 503,
			body: `{"ready":false,"not_ready":[{"name":"peer 192.0.2.1","reason":"Connect"}]}`,
			want: Readiness{NotReady: []Condition{{Name: "peer 192.0.2.1", Reason: "Connect"}}},
		},
		{name: "another server's 503", status: 503, body: "down", err: true},
		{name: "no such path", status: 404, body: `{"code":404}`, err: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _ := serve(t, tt.status, tt.body)
			got, err := c.Ready(t.Context())
			if (err != nil) != tt.err {
				t.Fatalf("error %v, want one: %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("readiness (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLookingGlassEscapesIDs(t *testing.T) {
	t.Parallel()
	c, last := serve(t, 200, `{"b": 1, "a": 2}`)
	got, err := c.LookingGlass(t.Context(), "vpns", "instances", "net/blue 1?")
	if err != nil {
		t.Fatal(err)
	}
	if _, uri, _ := last(); uri != "/looking-glass/vpns/instances/net%2Fblue%201%3F" {
		t.Errorf("asked for %s", uri)
	}
	if o, ok := got.(Object); !ok || len(o) != 2 || o[0].Name != "b" {
		t.Errorf("got %#v", got)
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	base := srv.URL
	srv.Close()
	c, err := New(WithBaseURL(base))
	if err != nil {
		t.Fatal(err)
	}
	var op *net.OpError
	if _, err := c.Ping(t.Context()); !errors.As(err, &op) {
		t.Errorf("got %v, want the error of the network", err)
	}
}

func TestBaseURLIsChecked(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "localhost", "ftp://192.0.2.1", "http://", "http://[::1"} {
		if _, err := New(WithBaseURL(base)); err == nil {
			t.Errorf("%q was accepted", base)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "7") })}}
	srv.Start()
	defer srv.Close()
	c, err := New(WithUnixSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Ping(t.Context()); err != nil || n.Int64() != 7 {
		t.Errorf("got %v, %v", n, err)
	}
}
