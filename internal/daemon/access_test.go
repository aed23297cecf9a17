// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// The options of [API] reach the server: the socket is there while the daemon
// runs, and the port wants a token.
func TestAccessIsConfigured(t *testing.T) {
	dir := t.TempDir()
	socket, token := filepath.Join(dir, "sock"), filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _, err := newDaemon(load(t, "[API]\nport = 0\nunix_socket = "+socket+"\ntoken_file = "+token+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	base := client.WithBaseURL("http://" + d.Addr().String())
	ask := func(opts ...client.Option) error {
		c, err := client.New(opts...)
		if err == nil {
			_, err = c.LookingGlass(t.Context(), "summary")
		}
		return err
	}
	runFor(t, d, func() {
		if err := ask(base, client.WithToken(client.TokenFile(token))); err != nil {
			t.Errorf("with token: %v", err)
		}
		if err := ask(client.WithUnixSocket(socket)); err != nil {
			t.Errorf("through the socket: %v", err)
		}
		var refused *client.Error
		if err := ask(base); !errors.As(err, &refused) || refused.Code != 401 {
			t.Errorf("without token: %v, want 401", err)
		}
	})
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after the end: %v, want none", err)
	}
}
