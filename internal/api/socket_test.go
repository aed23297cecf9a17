// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

// throughSocket returns a client that connects to a unix socket.
func throughSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

// deadSocket leaves a socket as a killed daemon does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, token := filepath.Join(dir, "api.sock"), filepath.Join(dir, "token")
	put(t, token, rightToken, time.Now())
	deadSocket(t, path) // is replaced
	s := newServer(t)
	stop := s.serve(t, config.API{UnixSocket: path, TokenFile: token})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("socket %v %v, want mode 0660", info, err)
	}
	// Its mode is the permission: no token is needed.
	if resp := s.ask(t, throughSocket(path), "http://node/looking-glass", ""); resp.StatusCode != 200 {
		t.Errorf("without token through the socket: %s", resp.Status)
	}
	if resp := s.ask(t, http.DefaultClient, "http://"+s.Addr().String()+"/looking-glass", ""); resp.StatusCode != 401 {
		t.Errorf("without token by the port: %s", resp.Status)
	}

	// A second daemon does not take it away, and holds nothing.
	second := newServer(t)
	if err := second.Listen(config.API{Host: "127.0.0.1", UnixSocket: path}); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("socket of a living daemon: %v, want that it is in use", err)
	}
	if c, err := net.Dial("tcp", second.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the port of a daemon that cannot start is open")
	}
	if resp := s.ask(t, throughSocket(path), "http://node/ping", ""); resp.StatusCode != 200 {
		t.Errorf("after a second daemon: %s", resp.Status)
	}
	stop()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v, want the token only", left, err)
	}
}

// What has come to the socket's place stays when the daemon stops.
func TestSocketOfAnotherStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "api.sock")
	s := newServer(t)
	stop := s.serve(t, config.API{UnixSocket: path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	deadSocket(t, path)
	stop()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the socket of another is gone")
	}
}

func TestSocketThatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	put(t, file, "precious", time.Now())
	for path, want := range map[string]string{
		file:                            "no socket",
		dir:                             "no socket",
		filepath.Join(dir, "none", "s"): "no such file or directory",
	} {
		err := newServer(t).Listen(config.API{Host: "127.0.0.1", UnixSocket: path})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "API.unix_socket") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way: %q %v", text, err)
	}
}
