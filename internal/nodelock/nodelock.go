// SPDX-License-Identifier: Apache-2.0

// Package nodelock keeps two daemons from one forwarding plane.
//
// What two daemons would fight over is the forwarding state of a network namespace.
// So the lock is an abstract unix socket, which is of a network namespace, too: it
// holds between containers that share the namespace and no files, and many daemons
// can run in namespaces of one machine. The kernel frees it when the process ends,
// however that ends, and tells who has it.
package nodelock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// name is that of the socket.
const name = "@bagpipe-bgp/node"

// Lock is held until Close. Make it with Take.
type Lock struct {
	listener *net.UnixListener
	done     chan struct{}
}

// Take takes the lock of the network namespace of the calling thread. The error
// names the process that has it.
func Take() (*Lock, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("the forwarding plane of this network namespace belongs to a running bagpipe-bgp: %s", holder())
	case err != nil:
		return nil, fmt.Errorf("lock of the network namespace: %w", err)
	}
	lock := &Lock{listener: l, done: make(chan struct{})}
	go lock.serve()
	return lock, nil
}

// serve takes the connections of those who ask whose the lock is.
func (l *Lock) serve() {
	defer close(l.done)
	for {
		c, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, say: do not spin
			time.Sleep(100 * time.Millisecond)
			continue
		}
		_ = c.Close()
	}
}

// Close frees the lock.
func (l *Lock) Close() error {
	err := l.listener.Close()
	<-l.done
	return err
}

// holder says in words which process has the lock.
func holder() string {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return fmt.Sprintf("which one is not known (%v)", err)
	}
	defer func() { _ = c.Close() }()
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Sprintf("which one is not known (%v)", err)
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return fmt.Sprintf("which one is not known (%v)", errors.Join(cerr, err))
	}
	if cred.Pid == 0 {
		return fmt.Sprintf("a process of user %d in another PID namespace", cred.Uid)
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cred.Pid))
	if err != nil || len(command) == 0 {
		return fmt.Sprintf("process %d of user %d", cred.Pid, cred.Uid)
	}
	return fmt.Sprintf("process %d of user %d (%s)", cred.Pid, cred.Uid, strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
}
