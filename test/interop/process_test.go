// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// Ends of waiting: a peer's program, Python among them, starts on a machine
// with two busy cores.
const (
	startTimeout = 90 * time.Second
	routeTimeout = 20 * time.Second
	stopTimeout  = 4 * time.Second
)

// A process is a program that runs in a namespace, with its output in a file.
// It is stopped by its process id when the test ends, and its output is shown
// if the test failed.
type process struct {
	t    testing.TB
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	// abrupt kills at the end of the test without asking first; clean makes it
	// an error not to end with status 0 when asked.
	abrupt, clean bool
}

// workDir makes a directory that other users can enter (FRR's zebra changes to
// a user of its own), removed when the test ends.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bpi-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// writeFile writes a configuration file and returns its path.
func writeFile(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// startProcess starts a program in a namespace; env is added to our own.
func startProcess(t testing.TB, ns *nstest.NS, dir, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = ns.Command(context.Background(), args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	_ = out.Close()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if p.abrupt && !p.exited() {
			p.kill()
		}
		if asked := p.stop(); p.clean && (!asked || p.err != nil) {
			t.Errorf("%s in %s: ended when asked: %t, %v", name, ns.Name, asked, p.err)
		}
		if t.Failed() {
			t.Logf("output of %s in %s, last part:\n%s", name, ns.Name, tail(p.log, 12<<10))
		}
	})
	return p
}

// signal sends a signal to the process, and only to that one.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v to %s: %v", sig, p.name, err)
	}
}

// stop asks the process to end, kills its process group if it does not within
// stopTimeout, and waits for it. It reports whether the process ended when asked.
func (p *process) stop() bool {
	if p.exited() {
		return true
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return true
	case <-time.After(stopTimeout):
	}
	p.kill()
	return false
}

// kill ends the process and what it started without warning.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ready waits until check succeeds and fails at once when the process ends.
func (p *process) ready(check func() error) {
	p.t.Helper()
	var last error
	nstest.Eventually(p.t, startTimeout, func() bool {
		if p.exited() {
			p.t.Fatalf("%s ended while starting: %v", p.name, p.err)
		}
		last = check()
		return last == nil
	}, func() string { return p.name + " is not ready: " + errText(last) })
}

// noteSlow returns a function that logs what was waited for if it took long.
func noteSlow(t testing.TB, what string) func() {
	start := time.Now()
	return func() {
		if took := time.Since(start); took > 2*time.Second {
			t.Logf("slow: %s: %v", what, took.Round(time.Millisecond))
		}
	}
}

func errText(err error) string {
	if err == nil {
		return "(no error)"
	}
	return strings.TrimSpace(err.Error())
}

// tail returns the last bytes of a file.
func tail(path string, size int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-size), io.SeekStart)
	}
	out, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(out)
}
