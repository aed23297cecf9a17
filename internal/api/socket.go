// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// socketMode is that of the unix socket: owner and group may connect.
const socketMode = 0o660

// socket is a listener at a unix socket that takes its own file away when it is
// closed, and no other one that has come to its place.
type socket struct {
	net.Listener
	remove func()
}

// listenUnix listens at a path. A socket there that nobody listens at any more is
// replaced; one that is in use, or a file that is no socket, is an error.
func listenUnix(path string) (net.Listener, error) {
	if err := unused(path); err != nil {
		return nil, fmt.Errorf("API.unix_socket: %w", err)
	}
	l, info, err := placeSocket(path)
	if err != nil {
		return nil, fmt.Errorf("API.unix_socket: listen at %s: %w", path, err)
	}
	return &socket{Listener: l, remove: sync.OnceFunc(func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(info, now) {
			_ = os.Remove(path)
		}
	})}, nil
}

// Close implements net.Listener.
func (s *socket) Close() error {
	s.remove()
	return s.Listener.Close()
}

// unused returns an error when there is something at a path that must stay.
func unused(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and no socket: want a path of a socket, or of nothing", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_ = c.Close()
		err = errors.New("somebody answers")
	}
	return fmt.Errorf("%s is in use: %w", path, err)
}

// placeSocket makes a socket out of others' sight, so that it has its mode before
// its path, and puts it in place of what is there.
func placeSocket(path string) (_ net.Listener, _ fs.FileInfo, err error) {
	hidden, err := os.MkdirTemp(filepath.Dir(path), ".")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.RemoveAll(hidden) }()
	temporary := filepath.Join(hidden, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	if err = os.Chmod(temporary, socketMode); err != nil {
		return nil, nil, err
	}
	info, err := os.Lstat(temporary)
	if err != nil {
		return nil, nil, err
	}
	return l, info, os.Rename(temporary, path)
}
