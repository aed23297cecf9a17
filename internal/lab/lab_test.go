// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/lab"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// newLab returns options for a lab of its own with a fake daemon that behaves
// in some way, and takes the lab down at the end whatever happened.
func newLab(t *testing.T, behaviour string) lab.Options {
	t.Helper()
	nstest.RequireRoot(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	self, daemon := filepath.Join(dir, "bagpipe"), filepath.Join(dir, fakePrefix+behaviour)
	if err := errors.Join(os.Symlink(program, self), os.Symlink(program, daemon)); err != nil {
		t.Fatal(err)
	}
	o := lab.Options{
		Name: "bpt" + strings.ToLower(rand.Text()[:5]), Underlay: 4, VPN: lab.VPNEVPN, Dataplane: lab.DataplaneLinux,
		Daemon: daemon, Self: self, RunDir: filepath.Join(dir, "run"),
	}
	t.Cleanup(func() {
		if err := lab.Down(o, &bytes.Buffer{}); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, o)
	})
	return o
}

// checkNothingLeft looks for traces of a lab.
func checkNothingLeft(t *testing.T, o lab.Options) {
	t.Helper()
	p, err := lab.NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range p.Namespaces {
		if netspace.Exists(ns) {
			t.Errorf("namespace %s is left", ns)
		}
	}
	if _, err := os.Stat(o.RunDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", o.RunDir, err)
	}
	// Each process of the lab has this directory on its command line.
	out, _ := exec.Command("pgrep", "-af", filepath.Dir(o.Self)).CombinedOutput()
	if len(out) > 0 {
		t.Errorf("processes are left: %s", out)
	}
}

// screen is what a user sees, readable while it is written.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLifeOfALab(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		underlay          int
		vpn, dataplane    string
		processes, checks int
	}{
		"evpn over IPv4":    {4, lab.VPNEVPN, "", 3, 12},
		"evpn over IPv6":    {6, lab.VPNEVPN, lab.DataplaneLinux, 3, 12},
		"ipvpn over IPv4":   {4, lab.VPNIPVPN, "", 3, 12},
		"ipvpn over IPv6":   {6, lab.VPNIPVPN, lab.DataplaneEBPF, 3, 12},
		"ipvpn by a switch": {4, lab.VPNIPVPN, lab.DataplaneOVS, 7, 14},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newLab(t, "ok")
			o.Underlay, o.VPN, o.Dataplane = tt.underlay, tt.vpn, tt.dataplane
			var out screen
			start := time.Now()
			r, err := lab.Up(t.Context(), o, &out)
			if err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			t.Logf("up in %v", time.Since(start))
			if !r.OK || len(r.Checks) != tt.checks+2 || len(r.Processes) != tt.processes || len(r.Nodes) != 2 || len(r.Try) == 0 {
				t.Errorf("report: %+v", r)
			}
			if got, want := r.Nodes[1].Dataplane.String(), "fake-"+tt.vpn+": port 1, prefix 2"; got != want {
				t.Errorf("dataplane %q, want %q", got, want)
			}

			if tt.dataplane == lab.DataplaneOVS {
				checkAnswersOnce(t, o)
			}

			out = screen{}
			if _, err := lab.Up(t.Context(), o, &out); err != nil || !strings.Contains(out.String(), "is up already") {
				t.Errorf("up again: %v\n%s", err, &out)
			}
			other := o
			other.VPN, other.Dataplane = lab.VPNIPVPN, lab.DataplaneOVS
			other.Underlay = 4
			if tt.dataplane == lab.DataplaneOVS {
				other.Dataplane = lab.DataplaneEBPF
			}
			if _, err := lab.Up(t.Context(), other, &out); err == nil || !strings.Contains(err.Error(), "other options") {
				t.Errorf("up with other options: %v", err)
			}

			if r, err := lab.Status(t.Context(), o); err != nil || !r.OK || len(r.Checks) != tt.checks {
				t.Errorf("status: %v, %+v", err, r)
			}
			for range 2 {
				if err := lab.Down(o, &out); err != nil {
					t.Error(err)
				}
				checkNothingLeft(t, o)
			}
			if !strings.HasSuffix(out.String(), "lab "+o.Name+" is not up\n") {
				t.Errorf("down again: %s", &out)
			}
			if _, err := lab.Status(t.Context(), o); !errors.Is(err, lab.ErrNotUp) {
				t.Errorf("status after down: %v", err)
			}
		})
	}
}

// checkAnswersOnce checks that only the switch of a node takes what arrives, not
// the host beside it.
func checkAnswersOnce(t *testing.T, o lab.Options) {
	t.Helper()
	inside := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ip", append([]string{"netns", "exec", o.Name + "-rr"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return string(out)
	}
	inside("ping", "-n", "-c", "1", "192.0.2.11") // then node-a has no questions of its own
	inside("ip", "neigh", "flush", "dev", "underlay")
	if out := inside("ping", "-n", "-c", "2", "-i", "0.2", "192.0.2.11"); strings.Contains(out, "DUP") {
		t.Errorf("node-a answers twice:\n%s", out)
	}
	if out := inside("ip", "neigh", "show", "192.0.2.11"); !strings.Contains(out, "00:00:5e:00:53:01") {
		t.Errorf("node-a is not found behind its switch: %s", out)
	}
}

func TestLabThatDoesNotForward(t *testing.T) {
	t.Parallel()
	o := newLab(t, "deaf")
	var out screen
	r, err := lab.Up(t.Context(), o, &out)
	if !errors.Is(err, lab.ErrUnreachable) || r == nil || r.OK {
		t.Fatalf("%v, %+v\n%s", err, r, &out)
	}
	for _, want := range []string{
		"FAIL: ping " + o.Name + "-vm-a1 -> " + o.Name + "-vm-b1 198.51.100.21: not within 15s: 1 packets transmitted, 0 received",
		"last lines of " + filepath.Join(o.RunDir, o.Name, "node-b.log") + ":\n    fake daemon deaf at 192.0.2.12\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	// It stays, to be looked at.
	if r, err := lab.Status(t.Context(), o); !errors.Is(err, lab.ErrUnreachable) || r.OK {
		t.Errorf("status: %v, %+v", err, r)
	}
}

func TestLabThatCannotBeBuiltGoesAway(t *testing.T) {
	t.Parallel()
	for behaviour, want := range map[string]string{
		"exits":   "has ended: exit status 1: fake daemon gives up over ",
		"refuses": "400 Bad Request: fake refusal",
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			o := newLab(t, behaviour)
			var out screen
			_, err := lab.Up(t.Context(), o, &out)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q\n%s", err, want, &out)
			}
			if !strings.Contains(out.String(), "    fake daemon ") {
				t.Errorf("no log shown:\n%s", &out)
			}
			checkNothingLeft(t, o)
		})
	}
}

func TestInterruptedUpGoesAway(t *testing.T) {
	t.Parallel()
	o := newLab(t, "hangs")
	ctx, cancel := context.WithCancel(t.Context())
	var out screen
	done := make(chan error, 1)
	go func() {
		_, err := lab.Up(ctx, o, &out)
		done <- err
	}()
	nstest.Eventually(t, 20*time.Second, func() bool { return strings.Contains(out.String(), "attaching its machines") }, out.String)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	checkNothingLeft(t, o)
}

func TestForeignNamespaceIsLeftAlone(t *testing.T) {
	t.Parallel()
	o := newLab(t, "ok")
	foreign := o.Name + "-vm-a1"
	if err := netspace.Create(foreign); err != nil {
		t.Fatal(err)
	}
	_, err := lab.Up(t.Context(), o, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), foreign) {
		t.Errorf("got %v", err)
	}
	if err := lab.Down(o, &bytes.Buffer{}); err != nil {
		t.Error(err)
	}
	if !netspace.Exists(foreign) {
		t.Error("the foreign namespace is gone")
	}
	if err := netspace.Delete(foreign); err != nil {
		t.Error(err)
	}
	checkNothingLeft(t, o)
}

func TestDownWithADeadNodeAndAStranger(t *testing.T) {
	t.Parallel()
	o := newLab(t, "ok")
	r, err := lab.Up(t.Context(), o, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	stranger := exec.CommandContext(t.Context(), "ip", "netns", "exec", o.Name+"-vm-a1", "cat")
	stdin, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 5*time.Second, func() bool { return netspace.Contains(o.Name+"-vm-a1", stranger.Process.Pid) }, stranger.String)
	node, err := os.FindProcess(r.Processes[2].PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 5*time.Second, func() bool { return !netspace.Contains(r.Processes[2].Namespace, node.Pid) }, func() string { return "alive" })

	r, err = lab.Status(t.Context(), o)
	if !errors.Is(err, lab.ErrUnreachable) || r.Processes[2].Running || r.Nodes[1].Error == "" {
		t.Errorf("status: %v, %+v", err, r)
	}
	if _, err := lab.Up(t.Context(), o, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "node-b does not run any more") {
		t.Errorf("up: %v", err)
	}
	var out bytes.Buffer
	if err := lab.Down(o, &out); err != nil || !strings.Contains(out.String(), "left alone: cat (process ") {
		t.Errorf("down: %v\n%s", err, &out)
	}
	checkNothingLeft(t, o)
	_ = stdin.Close()
	if err := stranger.Wait(); err != nil {
		t.Errorf("the stranger was ended: %v", err)
	}
}
