// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// stopTimeout is how long a program may take to end when asked.
const stopTimeout = 5 * time.Second

// process is a program that runs in a namespace, with its output in a file. It
// ends with the test, and its output is shown when the test has failed.
type process struct {
	t    testing.TB
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set when done is closed
	// show is called before the process ends at the end of a test that has failed.
	show func()
}

// startProcess starts a program in a namespace. "ip netns exec" becomes the
// program, so that its process id is the program's.
func startProcess(t testing.TB, ns *nstest.NS, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: filepath.Join(t.TempDir(), name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", ns.Name}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.cleanUp)
	return p
}

// cleanUp ends the process at the end of the test.
func (p *process) cleanUp() {
	if !p.exited() {
		if p.t.Failed() && p.show != nil {
			p.show()
		}
		p.end(syscall.SIGTERM)
	}
	if p.t.Failed() {
		text, _ := os.ReadFile(p.log)
		p.t.Logf("output of %s, last part:\n%s", p.name, text[max(0, len(text)-6<<10):])
	}
}

// end sends a signal and waits until the process has ended; a process that
// does not end when asked is an error.
func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v to %s: %v", sig, p.name, err)
	}
	select {
	case <-p.done:
		if sig == syscall.SIGTERM && p.err != nil {
			p.t.Errorf("%s ended with %v when asked to", p.name, p.err)
		}
		return
	case <-time.After(stopTimeout):
		p.t.Errorf("%s does not end within %v of %v", p.name, stopTimeout, sig)
	}
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

// ready waits until check succeeds, and fails at once when the process ends.
func (p *process) ready(check func() error) {
	p.t.Helper()
	eventually(p.t, startTimeout, func() error {
		if p.exited() {
			text, _ := os.ReadFile(p.log)
			p.t.Fatalf("%s ended while starting: %v\n%s", p.name, p.err, text)
		}
		return check()
	})
}

// logged returns an error until the process has said something.
func (p *process) logged(text string) error {
	out, err := os.ReadFile(p.log)
	if err == nil && !bytes.Contains(out, []byte(text)) {
		err = fmt.Errorf("%s has not said %q yet", p.name, text)
	}
	return err
}
