// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// serve answers at a free port of loopback, and elsewhere if a says so, until
// stop is called or the test ends. stop returns when Serve has.
func (s *server) serve(t *testing.T, a config.API) (stop func()) {
	t.Helper()
	a.Host = "127.0.0.1"
	if err := s.Listen(a); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// dial connects to the server's port.
func (s *server) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// sent is text to the server and the reply on the same connection.
func sent(t *testing.T, c net.Conn, text string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("reply to %q: %v", text, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const getPing = "GET /ping HTTP/1.1\r\nHost: node.example\r\n\r\n"

// attachText is an attach request as it goes over the wire.
func attachText(m members) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("POST /attach_localport HTTP/1.1\r\nHost: node.example\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
}

// A client that does not send its request in time is cut off.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, begins string
		header, read time.Duration
		want         string // "" is none
	}{
		{"no request", "", 50 * time.Millisecond, time.Minute, ""},
		{"half a header", "GET /ping HTTP/1.1\r\nHost: node", 50 * time.Millisecond, time.Minute, ""},
		{"half a body", attachText(evpnBody())[:150], time.Minute, 50 * time.Millisecond, "408 Request Timeout"},
		{"header too large", "GET /ping HTTP/1.1\r\nHost: node.example\r\nX: " + strings.Repeat("x", 32<<10), time.Minute, time.Minute,
			"431 Request Header Fields Too Large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.SetTimes(tt.header, tt.read, time.Minute)
			s.serve(t, config.API{})
			before := s.tree()
			c := s.dial(t)
			if _, err := io.WriteString(c, tt.begins); err != nil {
				t.Fatal(err)
			}
			reply, err := io.ReadAll(c)
			if err != nil {
				t.Fatalf("not cut off: %v", err)
			}
			if got, _, _ := strings.Cut(strings.TrimPrefix(string(reply), "HTTP/1.1 "), "\r\n"); got != tt.want {
				t.Errorf("reply %q, want %q", reply, tt.want)
			}
			s.wantTree(before)
		})
	}
}

// Beyond the bound of connections, probes are answered and all else is not; the
// next connections wait until one ends.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.SetCounts(3, 1, 8, 8)
	s.serve(t, config.API{})
	held := []net.Conn{s.dial(t), s.dial(t), s.dial(t)}
	for _, c := range held {
		if resp, _ := sent(t, c, getPing); resp.StatusCode != 200 {
			t.Fatalf("within the bound: %s", resp.Status)
		}
	}
	for _, path := range []string{"/ping", "/healthz", "/readyz", "/metrics"} {
		resp, _ := sent(t, s.dial(t), "GET "+path+" HTTP/1.1\r\nHost: node.example\r\n\r\n")
		if resp.StatusCode != 200 || !resp.Close {
			t.Errorf("%s by a crowded connection: %s, closed %v, want 200 and an end", path, resp.Status, resp.Close)
		}
	}
	for _, text := range []string{attachText(evpnBody()), "GET /looking-glass HTTP/1.1\r\nHost: node.example\r\n\r\n"} {
		resp, body := sent(t, s.dial(t), text)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !resp.Close || !strings.Contains(body, "more than 3 connections") {
			t.Errorf("crowded: %s %v %s, want 503, Retry-After and an end", resp.Status, resp.Header, body)
		}
	}
	if resp, _ := sent(t, held[0], attachText(evpnBody())); resp.StatusCode != 200 {
		t.Errorf("attach by a connection within the bound: %s", resp.Status)
	}

	// One that takes the spare place keeps the next out, until it goes.
	spare, next := s.dial(t), s.dial(t)
	if _, err := io.WriteString(next, getPing); err != nil {
		t.Fatal(err)
	}
	_ = next.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := next.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d octets beyond all bounds, want none", n)
	}
	_ = spare.Close()
	_ = next.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := next.Read(make([]byte, 1)); err != nil {
		t.Errorf("after a place became free: %v", err)
	}
	for _, c := range held {
		_ = c.Close()
	}
	eventually(t, "attach by a new connection", func() bool {
		resp, _ := sent(t, s.dial(t), attachText(evpnBody()))
		return resp.StatusCode == 200
	})
}

// With all places taken, changes and pages are turned away and leave no trace;
// probes are answered.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := newServer(t, "10.77.0.254")
	s.SetTimes(time.Minute, time.Minute, 10*time.Millisecond)
	before := s.tree()
	free := s.Fill()
	for _, path := range []string{"/attach_localport", "/detach_localport", "/bgp/peers/10.77.0.254/shutdown"} {
		body := any(evpnBody())
		if strings.HasPrefix(path, "/bgp") {
			body = ""
		}
		w := s.post(path, body)
		if f := wantFailure(t, w, 503); w.Header().Get("Retry-After") != "1" || !strings.Contains(f.Description, "requests are worked on") {
			t.Errorf("%s: %v %s", path, w.Header(), f.Description)
		}
	}
	wantFailure(t, s.get("/looking-glass/summary"), 503)
	for path, want := range map[string]int{"/ping": 200, "/healthz": 200, "/readyz": 503, "/metrics": 200, "/": 200, "/attach_localport": 200} {
		if w := s.get(path); w.Code != want || w.Header().Get("Retry-After") != "" {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
	wantFailure(t, s.post("/attach_localport", "{}x"), 400)
	free()
	s.wantTree(before)
}

// A client that gives up before its change has a place leaves no trace.
func TestClientThatGivesUpWaiting(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before := s.tree()
	free := s.Fill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/attach_localport", strings.NewReader(string(mustJSON(evpnBody()))))
	s.ServeHTTP(httptest.NewRecorder(), r)
	free()
	for range 20 { // with a place free, too
		r.Body = io.NopCloser(strings.NewReader(string(mustJSON(evpnBody()))))
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	s.wantTree(before)
}

func mustJSON(m members) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// A change that has begun is finished: when its client goes away, and when the
// daemon stops, which waits for it.
func TestChangeIsNeverHalfDone(t *testing.T) {
	t.Parallel()
	whole := newServer(t)
	whole.post("/attach_localport", evpnBody())
	want := whole.plane.String()

	s := newServer(t)
	s.SetStopLimit(time.Millisecond)
	stop := s.serve(t, config.API{})
	begun, gate := make(chan struct{}, 1), make(chan struct{})
	s.plane.Fail(fake.Forever, func(fake.Op) bool {
		select {
		case begun <- struct{}{}:
		default:
		}
		<-gate
		return false
	})
	c := s.dial(t)
	if _, err := io.WriteString(c, attachText(evpnBody())); err != nil {
		t.Fatal(err)
	}
	<-begun
	_ = c.Close()
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	eventually(t, "the port's end", func() bool {
		c, err := net.DialTimeout("tcp", s.Addr().String(), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Error("Serve has returned with a change half done")
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	<-stopped
	if got := s.plane.String(); got != want {
		t.Errorf("forwarding:\n%s\nwant\n%s", got, want)
	}
}

// bigPage is larger than what sockets hold, after fill.
const bigPage = "vpns/instances/red/ports"

func (s *server) fill(t *testing.T) {
	t.Helper()
	for i := range 12 {
		m := evpnBody().with("mac_address", fmt.Sprintf("02:00:00:00:01:%02x", i)).with("ip_address", nil)
		if w := s.post("/attach_localport", m.with("local_port", fmt.Sprint("p", i)).with("description", strings.Repeat("x", 900<<10))); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

// Readers that stall hold places of the looking glass, not of changes.
func TestStalledReadersDoNotStopChanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.SetCounts(100, 4, 2, 2)
	s.SetTimes(time.Minute, time.Minute, 10*time.Millisecond)
	s.serve(t, config.API{})
	s.fill(t)
	for range 2 {
		stall(t, s.Addr().String(), bigPage)
	}
	wantFailure(t, s.get("/looking-glass/summary"), 503)
	if w := s.post("/attach_localport", evpnBody()); w.Code != 200 {
		t.Errorf("attach beside stalled readers: %d %s", w.Code, w.Body)
	}
}

// A reader that trickles is cut off by the bound of a whole reply.
func TestTricklingReaderIsCutOff(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.SetReplyLimit(200 * time.Millisecond)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.fill(t)
	for range 8 {
		stall(t, srv.Listener.Addr().String(), bigPage)
	}
	eventually(t, "the requests' end", func() bool {
		all, _ := scrape(t, s)
		return value(all[api.MetricRequests], "code=200", "resource=/looking-glass") == "8"
	})
}

// Clients without number attach and detach; what is left is what one client
// alone would have left.
func TestManyClients(t *testing.T) {
	t.Parallel()
	const clients, rounds = 500, 4
	endpoint := func(n int) members {
		m := ipvpnBody().with("ip_address", fmt.Sprintf("192.0.%d.%d", n/250, n%250+1))
		if n%2 == 0 {
			m = evpnBody().with("ip_address", fmt.Sprintf("198.51.%d.%d", n/250, n%250+1))
		}
		return m.with("mac_address", fmt.Sprintf("02:00:00:00:%02x:%02x", n/256, n%256)).
			with("local_port", fmt.Sprint("tap", n)).with("vpn_instance_id", fmt.Sprint(m["vpn_type"], n%7))
	}
	s := newServer(t)
	s.serve(t, config.API{})
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer c.CloseIdleConnections()
			for round := range rounds {
				for _, path := range []string{"/attach_localport", "/detach_localport"} {
					if round == rounds-1 && path == "/detach_localport" && n%3 == 0 {
						continue // stays
					}
					resp, err := c.Post("http://"+s.Addr().String()+path, "application/json", strings.NewReader(string(mustJSON(endpoint(n)))))
					if err != nil {
						t.Error(err)
						return
					}
					b, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode != 200 {
						t.Errorf("%s: %s %s", path, resp.Status, b)
					}
				}
			}
		})
	}
	wg.Wait()
	alone := newServer(t)
	for n := 0; n < clients; n += 3 {
		if w := alone.post("/attach_localport", endpoint(n)); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	for _, typ := range []string{"evpn", "ipvpn"} {
		for i := range 7 {
			id := fmt.Sprint(typ, i)
			want, got := alone.endpoints(t, id), s.endpoints(t, id)
			if len(want) == 0 || fmt.Sprint(want) != fmt.Sprint(got) {
				t.Errorf("endpoints of %s: %v, want %v", id, got, want)
			}
		}
	}
	// Instances hear of each other's routes in the background.
	eventually(t, "the sizes of a node with one client alone", func() bool { return s.sizes() == alone.sizes() })
	if b := s.plane.Breaches(); len(b) > 0 {
		t.Errorf("contract of the driver broken: %v", b)
	}
}

// endpoints lists the endpoints of an instance, without what depends on the order
// in which they came.
func (s *server) endpoints(t *testing.T, id string) (list []string) {
	t.Helper()
	i := s.Manager.Instance(id)
	if i == nil {
		t.Fatalf("no instance %s", id)
	}
	for _, e := range i.Snapshot().Endpoints {
		list = append(list, fmt.Sprint(e.MAC, e.IP, e.Port))
	}
	return list
}

// sizes are those of all parts of the node.
func (s *server) sizes() string {
	_, routes := s.RIB.Counts()
	return fmt.Sprint(len(s.Manager.Labels()), " labels, ", len(s.Manager.RDs()), " RDs, ", s.Manager.Count(), " instances, ",
		strings.Count(s.plane.String(), "\n"), " lines of forwarding state, ", routes, " local routes")
}
