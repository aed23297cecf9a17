// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/sdnotify"
)

// manager is a service manager that keeps what it is told.
type manager struct {
	conn *net.UnixConn
	mu   sync.Mutex
	got  []string
}

func newManager(t *testing.T, watchdog string) (*manager, *sdnotify.Notifier) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m, done := &manager{conn: conn}, make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.got = append(m.got, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	n, err := sdnotify.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return m, n
}

func (m *manager) count(message string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.got {
		if g == message {
			n++
		}
	}
	return n
}

func (m *manager) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// READY=1 comes once all parts have answered, WATCHDOG=1 only while they do.
func TestWatch(t *testing.T) {
	m, n := newManager(t, "30000")
	gate := make(chan struct{})
	fail := make(chan error)
	w := newWatch([]part{
		{"quick", func(context.Context) error { return nil }},
		{"slow", func(ctx context.Context) error {
			select {
			case <-gate:
				return nil
			case err := <-fail:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}},
	}, n, slog.New(slog.DiscardHandler))
	if w.every != 10*time.Millisecond {
		t.Errorf("asks every %v, want a third of the watchdog's time", w.every)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	fail <- errors.New("out of order") // the first round, over once the part is asked again
	fail <- errors.New("out of order")
	if got := m.all(); len(got) > 0 {
		t.Errorf("told %q before all parts have answered", got)
	}
	gate <- struct{}{}
	within := 20 * time.Second
	describe := func() string { return "told " + slices.Concat(m.all(), []string{"."})[0] }
	nstest.Eventually(t, within, func() bool { return m.count("READY=1\nWATCHDOG=1") == 1 }, describe)
	for range 2 {
		gate <- struct{}{}
	}
	fail <- errors.New("out of order") // taken only in a round after the one of the last answer
	nstest.Eventually(t, within, func() bool { return m.count("WATCHDOG=1") == 2 }, describe)
	fail <- errors.New("out of order")
	if got := m.all(); len(got) != 3 {
		t.Errorf("told %q, want nothing for rounds that failed", got)
	}
	cancel()
	<-done
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for code, good := range map[int]bool{http.StatusOK: true, http.StatusUnauthorized: true, http.StatusInternalServerError: false} {
		err := probe(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }))
		if (err == nil) != good {
			t.Errorf("status %d: error %v", code, err)
		}
	}
}
