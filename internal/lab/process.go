// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

const (
	// stopTimeout is how long a process may take to end by itself.
	stopTimeout = 5 * time.Second
	pollEvery   = 20 * time.Millisecond
	// tailLines is how much of a log is shown when something failed.
	tailLines = 15
)

// poll calls check until it returns nil, and returns its last error when that
// takes too long or ctx ends.
func poll(ctx context.Context, within time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", within, err)
		case <-ticker.C:
		}
	}
}

// started is a process that this program has started and will reap.
type started struct {
	Process
	pid int
	// exited is closed when the process has ended; err is set before.
	exited chan struct{}
	err    error
}

// start runs the process in its namespace, detached from our terminal, so that
// it lives on and an interrupt does not reach it.
func (p Process) start() (*started, error) {
	if p.Config != "" {
		if err := os.WriteFile(p.Config, []byte(p.ConfigText), 0o644); err != nil {
			return nil, fmt.Errorf("write configuration of %s: %w", p.Name, err)
		}
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", p.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("ip", append([]string{"netns", "exec", p.Namespace}, p.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if len(p.Env) > 0 {
		cmd.Env = append(os.Environ(), p.Env...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	// "ip netns exec" becomes the program: its process is the program's.
	s := &started{Process: p, pid: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		s.err = cmd.Wait()
		close(s.exited)
	}()
	return s, s.entered()
}

// entered waits until the process is in its namespace, by which all others
// recognise it, or has ended already.
func (s *started) entered() error {
	return poll(context.Background(), stopTimeout, func() error {
		if s.alive() != nil || netspace.Contains(s.Namespace, s.pid) {
			return nil
		}
		return fmt.Errorf("%s is not in its namespace", s.Name)
	})
}

// alive returns an error when the process has ended.
func (s *started) alive() error {
	select {
	case <-s.exited:
		return &endedError{name: s.Name, err: s.err, last: lastWords(s.Log)}
	default:
		return nil
	}
}

// endedError tells that a process that must keep running has ended.
type endedError struct {
	name string
	err  error
	// last is what it logged last: mostly the reason.
	last string
}

// Error implements error.
func (e *endedError) Error() string {
	text := e.name + " has ended"
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	if e.last != "" {
		text += ": " + e.last
	}
	return text
}

func (s *started) record() running {
	return running{Name: s.Name, PID: s.pid, Namespace: s.Namespace, Log: s.Log, Config: s.Config}
}

// alive tells whether a recorded process still runs: its number may belong to
// another one by now, but not inside the lab's namespace.
func (r running) alive() bool { return netspace.Contains(r.Namespace, r.PID) }

// stop ends the process and those of its group, by force if it takes too long.
func (r running) stop() error {
	if !r.alive() {
		return nil
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// It leads a group of its own, since it was started in a new session.
		if err := syscall.Kill(-r.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s, process %d: %w", r.Name, r.PID, err)
		}
		err := poll(context.Background(), stopTimeout, func() error {
			if r.alive() {
				return fmt.Errorf("process %d still runs", r.PID)
			}
			return nil
		})
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("end %s: process %d does not go away", r.Name, r.PID)
}

// logged returns an error until a log has a text in it.
func logged(log, text string) error {
	content, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	if !strings.Contains(string(content), text) {
		return fmt.Errorf("%s does not say %q", log, text)
	}
	return nil
}

// lines returns the lines of a log.
func lines(log string) ([]string, error) {
	text, err := os.ReadFile(log)
	return strings.Split(strings.TrimRight(string(text), "\n"), "\n"), err
}

// lastWords returns the error in the last line of a log, or else that line.
func lastWords(log string) string {
	all, _ := lines(log)
	last := strings.TrimSpace(all[len(all)-1])
	if _, attr, found := strings.Cut(last, " err="); found {
		if quoted, err := strconv.QuotedPrefix(attr); err == nil {
			if text, err := strconv.Unquote(quoted); err == nil {
				return text
			}
		}
		last, _, _ = strings.Cut(attr, " ")
	}
	return last
}

// tail returns the last lines of a log, indented, under its name.
func tail(log string) string {
	lines, err := lines(log)
	if err != nil {
		return fmt.Sprintf("%s: %v\n", log, err)
	}
	lines = lines[max(0, len(lines)-tailLines):]
	if slices.Equal(lines, []string{""}) {
		return log + " is empty\n"
	}
	return "last lines of " + log + ":\n    " + strings.Join(lines, "\n    ") + "\n"
}
