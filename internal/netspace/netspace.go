// SPDX-License-Identifier: Apache-2.0

// Package netspace makes, enters and removes network namespaces by the names
// that "ip netns" knows them by.
//
// Code that enters a namespace runs on an operating system thread of its own,
// which ends with it. So no goroutine ever continues in the wrong namespace.
// Sockets that are opened inside stay inside.
package netspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dir is where named namespaces are mounted.
const dir = "/run/netns"

// Create makes a namespace with its loopback interface up. The error is
// fs.ErrExist when there is one of that name.
func Create(name string) error {
	if name == "" || name != filepath.Base(name) || name[0] == '.' {
		return fmt.Errorf("make network namespace: bad name %q", name)
	}
	err := OnThread(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		return ns.Close()
	})
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			_ = os.Remove(filepath.Join(dir, name)) // a file that nothing got mounted on
		}
		return fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return With(name, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find loopback of %s: %w", name, err)
		}
		return h.LinkSetUp(lo)
	})
}

// Delete removes a namespace. It is no error when there is none. Processes
// inside keep the namespace without its name.
func Delete(name string) error {
	path := filepath.Join(dir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: a file, nothing mounted
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Exists tells whether there is a namespace of that name.
func Exists(name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// With calls f with a netlink handle for a namespace.
func With(name string, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket in %s: %w", name, err)
	}
	defer h.Close()
	return f(h)
}

// Do calls f on a thread inside a namespace. Goroutines that f starts are not
// inside.
func Do(name string, f func() error) error {
	return OnThread(func() error {
		ns, err := netns.GetFromName(name)
		if err != nil {
			return fmt.Errorf("open network namespace %s: %w", name, err)
		}
		err = netns.Set(ns)
		_ = ns.Close()
		if err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return f()
	})
}

// In calls f on a thread inside the namespace of an open file.
func In(ns *os.File, f func() error) error {
	return OnThread(func() error {
		same, err := sameFile(ns, "/proc/thread-self/ns/net")
		if err == nil && !same {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

func sameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}

// OnThread runs f on a thread that ends with it, so that f may enter another
// namespace and leave it at that: a goroutine that ends locked takes its thread
// along. That does not hold for the main thread, which would stay in the
// namespace and show the whole process as inside: it only waits here, held,
// while another thread does the work.
func OnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := errEndedGoroutine
		defer func() { done <- err }()
		if unix.Gettid() == unix.Getpid() {
			err = OnThread(f)
			runtime.UnlockOSThread()
			return
		}
		err = f()
	}()
	return <-done
}

// errEndedGoroutine is the outcome of a function that calls runtime.Goexit, as
// testing.T.Fatal does.
var errEndedGoroutine = errors.New("function ended its goroutine")

// Dialer returns a function that connects from inside a namespace, for use in
// a net/http.Transport. The address must be numeric: a name would be looked up
// outside.
func Dialer(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = Do(name, func() error {
			conn, err = d.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// Contains tells whether a process is in a namespace. A process that is gone
// is in none.
func Contains(name string, pid int) bool {
	var ns, proc unix.Stat_t
	if unix.Stat(filepath.Join(dir, name), &ns) != nil ||
		unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &proc) != nil {
		return false
	}
	return ns.Dev == proc.Dev && ns.Ino == proc.Ino
}

// Processes lists the processes in a namespace.
func Processes(name string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && Contains(name, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
