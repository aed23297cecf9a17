// SPDX-License-Identifier: Apache-2.0

// Package sdnotify tells the service manager how the daemon does: the protocol of
// sd_notify(3), one datagram of lines for each message.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier sends to the service manager. A nil Notifier sends nothing. Its methods
// may be called concurrently.
type Notifier struct {
	conn *net.UnixConn
	// Watchdog is the time within which the manager wants to hear that all is well;
	// 0: it does not.
	Watchdog time.Duration
}

// FromEnvironment returns what the service manager asked for in the environment of
// the process, nil when it asked for nothing. It takes the variables away, so that
// no child speaks for us. The error names the variable, or is that of the socket.
func FromEnvironment() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	period, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %q is not valid: want an absolute path, or @ and an abstract name", path)
	}
	watchdog, err := watchdog(period, pid)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return &Notifier{conn: conn, Watchdog: watchdog}, nil
}

// watchdog reads the period, in microseconds, that is meant for a process, ours if
// pid is empty.
func watchdog(period, pid string) (time.Duration, error) {
	if period == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	usec, err := strconv.ParseInt(period, 10, 64)
	if err != nil || usec <= 0 || usec > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC: %q is not valid: want microseconds, at least 1", period)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// Send sends one message, a "NAME=value" for each line.
func (n *Notifier) Send(lines ...string) error {
	if n == nil {
		return nil
	}
	_ = n.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := n.conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Reloading announces that the configuration is read again; READY=1 ends that.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	return n.Send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}
