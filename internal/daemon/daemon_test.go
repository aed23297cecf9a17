// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/daemon"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load returns a configuration with dummy dataplanes and more lines.
func load(t *testing.T, more string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bgp.conf")
	text := "[BGP]\nlocal_address = 127.0.0.1\nmy_as = 64512\n" + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(config.Source{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newDaemon(cfg *config.Config) (*daemon.Daemon, *logbook.Book, error) {
	book := &logbook.Book{}
	d, err := daemon.New(cfg, slog.New(book.Handler(slog.DiscardHandler)), book)
	return d, book, err
}

// freePort is a port that nobody listens on just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestNewFailsCleanlyWhenThePortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := load(t, fmt.Sprintf("[API]\nport = %d\n", l.Addr().(*net.TCPAddr).Port))
	if _, _, err := newDaemon(cfg); err == nil || !strings.Contains(err.Error(), "listen for the API") {
		t.Fatalf("New() with a port in use: %v, want an error that says so", err)
	}
	// Nothing is held: it works as soon as the port is free.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d, _, err := newDaemon(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runFor(t, d, func() {})
}

func TestNewFailsOnUnusableAddress(t *testing.T) {
	cfg := load(t, "[API]\nhost = 192.0.2.1\n")
	if _, _, err := newDaemon(cfg); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("New() with an address of others: %v, want an error that names it", err)
	}
}

// runFor runs a daemon while f works; Run must end with the context, without error.
func runFor(t *testing.T, d *daemon.Daemon, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run() = %v, want nil when the context ends", err)
	}
}

func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestRunServesAndEnds(t *testing.T) {
	cfg := load(t, fmt.Sprintf("peers = 127.0.0.9\nbgp_port = %d\n[API]\nport = 0\n[COMMON]\nsweep_delay = 0\n", freePort(t)))
	d, _, err := newDaemon(cfg)
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + d.Addr().String()
	runFor(t, d, func() {
		for _, body := range []string{
			redPort,
			`{"vpn_type":"ipvpn","vpn_instance_id":"blue","mac_address":"02:00:00:00:00:01","ip_address":"192.0.2.1","gateway_ip":null,"local_port":"tap1","import_rt":"64512:1","export_rt":"64512:1"}`,
		} {
			if code, reply := request(t, http.MethodPost, base+"/attach_localport", body); code != http.StatusOK || reply != "null" {
				t.Errorf("attach: %d %s", code, reply)
			}
		}
		if code, reply := request(t, http.MethodGet, base+"/looking-glass/summary/vpn_instances_count", ""); code != http.StatusOK || reply != "2" {
			t.Errorf("instances: %d %s, want 2", code, reply)
		}
		if code, _ := request(t, http.MethodGet, base+"/readyz", ""); code != http.StatusServiceUnavailable {
			t.Errorf("/readyz without a session: %d, want 503", code)
		}
	})
	if c, err := net.DialTimeout("tcp", d.Addr().String(), time.Second); err == nil {
		_ = c.Close()
		t.Error("the API's port is open after the end")
	}
}

const redPort = `{"vpn_type":"evpn","vpn_instance_id":"red","mac_address":"02:00:00:00:00:01","local_port":"tap1","import_rt":"64512:1","export_rt":"64512:1"}`

// The number of /ping is that of the last run when all was kept, and only then: agents attach
// their ports again when it changes.
func TestStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	file := filepath.Join(dir, "state.db")
	conf := func(dir string) string { return "[API]\nport = 0\n[COMMON]\nstate_directory = " + dir + "\n" }
	// run starts a daemon, attaches a port unless there is one, and returns what it answers.
	run := func(conf string, want string) (ping string) {
		t.Helper()
		d, _, err := newDaemon(load(t, conf))
		if err != nil {
			t.Fatal(err)
		}
		base := "http://" + d.Addr().String()
		runFor(t, d, func() {
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				_, got := request(t, http.MethodGet, base+"/looking-glass/summary/vpn_instances_count", "")
				if got == want {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("%s instances, want %s", got, want)
				}
			}
			_, ping = request(t, http.MethodGet, base+"/ping", "")
			if want == "0" {
				if code, reply := request(t, http.MethodPost, base+"/attach_localport", redPort); code != http.StatusOK {
					t.Errorf("attach: %d %s", code, reply)
				}
			}
		})
		return ping
	}
	first := run(conf(dir), "0")
	if again := run(conf(dir), "1"); again != first || first == "0" {
		t.Errorf("ping %s, then %s", first, again)
	}
	if without, other := run(conf(""), "0"), run(conf(""), "0"); without == first || without == other {
		t.Errorf("ping %s and %s of daemons that keep nothing, %s of another", without, other, first)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if damaged := run(conf(dir), "0"); damaged == first {
		t.Errorf("ping %s as before, with nothing kept", damaged)
	}
	d, _, err := newDaemon(load(t, conf(dir)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := newDaemon(load(t, conf(dir))); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two daemons with one directory: %v", err)
	}
	runFor(t, d, func() {})
	if _, _, err := newDaemon(load(t, conf("/proc/none"))); err == nil || !strings.Contains(err.Error(), "/proc/none") {
		t.Errorf("with a directory that cannot be: %v", err)
	}
}

// A part that fails ends all others, and its error comes out.
func TestRunEndsWhenBGPCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cfg := load(t, fmt.Sprintf("listen = true\nlisten_port = %d\n[API]\nport = 0\n", l.Addr().(*net.TCPAddr).Port))
	d, _, err := newDaemon(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for BGP") {
		t.Errorf("Run() = %v, want that BGP cannot listen", err)
	}
}
