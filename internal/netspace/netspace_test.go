// SPDX-License-Identifier: Apache-2.0

package netspace_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

func newName(t *testing.T) string {
	t.Helper()
	nstest.RequireRoot(t)
	name := "bpt-" + strings.ToLower(rand.Text()[:8])
	t.Cleanup(func() {
		if err := netspace.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestLifeOfANamespace(t *testing.T) {
	t.Parallel()
	name := newName(t)
	if netspace.Exists(name) {
		t.Fatal("there before it was made")
	}
	if err := netspace.Create(name); err != nil {
		t.Fatal(err)
	}
	if err := netspace.Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	// "ip" must know it, and its loopback must be up.
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", name, "ip", "link", "show", "lo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), ",UP") {
		t.Errorf("%v: %s", err, out)
	}
	for range 2 {
		if err := netspace.Delete(name); err != nil {
			t.Error(err)
		}
		if netspace.Exists(name) {
			t.Error("there after it was removed")
		}
	}
	if err := netspace.Do(name, func() error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("entered after it was removed: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	nstest.RequireRoot(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if err := netspace.Create(name); err == nil {
			t.Errorf("%q was made", name)
		}
	}
}

func TestDialerConnectsInside(t *testing.T) {
	t.Parallel()
	name := newName(t)
	if err := netspace.Create(name); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	err := netspace.Do(name, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := netspace.Dialer(name)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	// The same address outside is another one.
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("connected from outside")
	}
}

func TestProcessesInside(t *testing.T) {
	t.Parallel()
	name := newName(t)
	if err := netspace.Create(name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", name, "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// cat answers: by then "ip" has entered the namespace.
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pids, err := netspace.Processes(name)
	if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("got %v, %v, want %d", pids, err, cmd.Process.Pid)
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if netspace.Contains(name, cmd.Process.Pid) {
		t.Error("a process that is gone is inside")
	}
}

func TestWithActsInside(t *testing.T) {
	t.Parallel()
	name := newName(t)
	if err := netspace.Create(name); err != nil {
		t.Fatal(err)
	}
	err := netspace.With(name, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if len(links) != 1 {
			t.Errorf("%d links in a new namespace", len(links))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
