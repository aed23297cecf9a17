// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// screen is output that a test reads while it is written.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestReflectorCommands runs the reflector under both names until it is told
// to end.
func TestReflectorCommands(t *testing.T) {
	for _, command := range []string{"bagpipe-fakerr", "bagpipe rr", "bagpipe -o json rr"} {
		t.Run(command, func(t *testing.T) { // one after the other: GoBGP has globals
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			_ = l.Close()
			var out screen
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan int, 1)
			args := append(strings.Fields(command), "--listen", address, "--router-id", "192.0.2.254", "--client-prefix", "127.0.0.0/8")
			go func() { done <- Run(ctx, Env{Stderr: &out}, args) }()
			nstest.Eventually(t, 10*time.Second, func() bool { return strings.Contains(out.String(), rr.ListeningMessage) }, out.String)
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			cancel()
			if status := <-done; status != 0 || !strings.Contains(out.String(), "reflector has stopped") {
				t.Errorf("status %d: %s", status, &out)
			}
			if asJSON := strings.HasPrefix(out.String(), "{"); asJSON != strings.Contains(command, "json") {
				t.Errorf("log is in JSON: %v", asJSON)
			}
		})
	}
}

func TestReflectorNeedsARouterID(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "noaddr")
	// A namespace with nothing but loopback has no address to choose.
	var got outcome
	inNamespace(t, ns.Name, func() { got = call(t, Env{}, "bagpipe", "rr", "--listen", "127.0.0.1:1790") })
	if got.status != 1 || !strings.Contains(got.stderr, "use --router-id") {
		t.Errorf("got %+v", got)
	}
}

func TestLabCommands(t *testing.T) {
	t.Parallel()
	nstest.RequireRoot(t)
	dir := t.TempDir() + "/run"
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"lab down --run-dir " + dir, 0, "the lab is not up\n"},
		{"-o json lab down --name x --run-dir " + dir, 0, "{\n  \"down\": true\n}\n"},
		{"lab status --name x --run-dir " + dir, 1, "bagpipe: lab x is not up\n"},
		{"lab status --name ../x --run-dir " + dir, 1, "is not one"},
		{"lab up --underlay 5 --run-dir " + dir, 2, "underlay 5: must be 4 or 6"},
		{"lab up --bagpipe-bgp /nonexistent --run-dir " + dir, 1, "find the daemon: "},
		{"lab receive", 2, "--listen: "},
		{"lab send --to x", 2, "--to: "},
	} {
		got := call(t, Env{}, append([]string{"bagpipe"}, strings.Fields(tt.args)...)...)
		if got.status != tt.status || !strings.Contains(got.stdout+got.stderr, tt.want) {
			t.Errorf("%s: got %+v", tt.args, got)
		}
	}
}
