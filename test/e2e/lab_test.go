// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bagpipe-vpn/bagpipe/internal/lab"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// labRun is a lab as "bagpipe lab" makes it, taken down at the end of the test.
type labRun struct {
	t    *testing.T
	name string
}

func newLab(t *testing.T, label string) *labRun {
	t.Helper()
	nstest.RequireRoot(t)
	l := &labRun{t: t, name: runID + label}
	t.Cleanup(func() { _, _, _ = l.try("down") })
	return l
}

// try runs "bagpipe lab" and returns its output and exit status.
func (l *labRun) try(verb string, args ...string) (stdout, stderr string, status int) {
	l.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program("bagpipe"), append([]string{"lab", verb, "--name", l.name}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// run is try that fails the test unless the status is the one wanted, and
// checks that the output has some texts. Blanks of any number are one.
func (l *labRun) run(want int, texts []string, verb string, args ...string) string {
	l.t.Helper()
	stdout, stderr, status := l.try(verb, args...)
	if status != want {
		l.t.Fatalf("bagpipe lab %s: exit status %d, want %d\n%s%s", verb, status, want, stdout, stderr)
	}
	all := strings.Join(strings.Fields(stdout+stderr), " ")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			l.t.Errorf("bagpipe lab %s does not say %q:\n%s%s", verb, text, stdout, stderr)
		}
	}
	return stdout
}

// report returns what "status" says as JSON.
func (l *labRun) report(status int) lab.Report {
	l.t.Helper()
	var r lab.Report
	out := l.run(status, nil, "status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		l.t.Fatalf("%v in\n%s", err, out)
	}
	return r
}

// hostDevices lists the network devices of the host's own namespace.
func hostDevices(t *testing.T) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		names = append(names, fmt.Sprintf("%d %s", link.Attrs().Index, link.Attrs().Name))
	}
	return names
}

// wantNoTrace checks that nothing of a lab is left.
func (l *labRun) wantNoTrace(r lab.Report, devices []string) {
	l.t.Helper()
	for _, ns := range r.Namespaces {
		if netspace.Exists(ns) {
			l.t.Errorf("namespace %s is left", ns)
		}
	}
	for _, p := range r.Processes {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID)); err == nil && filepath.Dir(exe) == programs {
			l.t.Errorf("%s, process %d, is left", p.Name, p.PID)
		}
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
		l.t.Errorf("%s is left: %v", r.Dir, err)
	}
	for _, f := range filesLeft("/run", 3) {
		if strings.Contains(f, l.name) {
			l.t.Errorf("%s is left", f)
		}
	}
	eventually(l.t, 10*time.Second, func() error {
		for _, d := range hostDevices(l.t) {
			if !slices.Contains(devices, d) {
				return fmt.Errorf("device %q of the host's own namespace is new", d)
			}
		}
		return nil
	})
}

// TestLab is the demo as a user runs it, over each IP version.
func TestLab(t *testing.T) {
	t.Parallel()
	for underlay, reflector := range map[string]string{"4": "192.0.2.1", "6": "2001:db8:ffff::1"} {
		t.Run("IPv"+underlay+" underlay", func(t *testing.T) {
			t.Parallel()
			devices := hostDevices(t)
			l := newLab(t, "u"+underlay)
			start := time.Now()
			l.run(0, []string{
				"lab " + l.name + " is up", "traffic: 14 of 14 checks passed", ": Established lab 5 3 linux: flood 1,",
				"ok: TCP transfer " + l.name + "-vm-a1 -> " + l.name + "-vm-b1 198.51.100.21, 4 MiB: same content",
				"ok: TCP transfer " + l.name + "-vm-a1 -> " + l.name + "-vm-b1 2001:db8:1::21, 4 MiB: same content",
			}, "up", "--underlay", underlay)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("up took %v", took)
			}
			l.run(0, []string{"is up already", "traffic: 14 of 14 checks passed"}, "up", "--underlay", underlay)
			l.run(0, []string{"node-a " + reflector + ": Established", "node-b " + reflector + ": Established", "running", "traffic: 12 of 12 checks passed"}, "status")
			r := l.report(0)
			if !r.OK || len(r.Processes) != 3 || len(r.Namespaces) != 6 || len(r.Checks) != 12 {
				t.Errorf("report: %+v", r)
			}
			for _, c := range r.Checks {
				if !c.OK {
					t.Errorf("check: %+v", c)
				}
			}
			l.run(0, []string{"ending 3 processes, removing 6 namespaces", "is down"}, "down")
			l.wantNoTrace(r, devices)
			l.run(1, []string{"is not up"}, "status")
			l.run(0, []string{"is not up"}, "down")
		})
	}
}

// TestLabStatusNamesWhatFails ends one daemon of a lab.
func TestLabStatusNamesWhatFails(t *testing.T) {
	t.Parallel()
	devices := hostDevices(t)
	l := newLab(t, "broken")
	l.run(0, nil, "up")
	r := l.report(0)
	i := slices.IndexFunc(r.Processes, func(p lab.ProcessInfo) bool { return p.Name == "node-b" })
	if i < 0 {
		t.Fatalf("no node-b in %+v", r.Processes)
	}
	if err := syscall.Kill(r.Processes[i].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The other node hears of it by BGP, a moment later.
	eventually(t, routeTimeout, func() error {
		for _, c := range l.report(1).Checks {
			if strings.HasPrefix(c.Check, "ping "+l.name+"-vm-a1 -> "+l.name+"-vm-b1 ") && c.OK {
				return errors.New("a machine of the node that failed is still reached")
			}
		}
		return nil
	})
	l.run(1, []string{
		"GONE", "no answer: ", "not everything in the lab works", "traffic: 4 of 12 checks passed",
		"FAIL: ping " + l.name + "-vm-a1 -> " + l.name + "-vm-b1 198.51.100.21",
		"FAIL: ping " + l.name + "-vm-a2 -> " + l.name + "-vm-b1 2001:db8:1::21",
	}, "status")
	if out, errs, status := l.try("up"); status != 1 || !strings.Contains(out+errs, "node-b does not run any more") {
		t.Errorf("up of a broken lab: status %d\n%s%s", status, out, errs)
	}
	l.run(0, []string{"is down"}, "down")
	l.wantNoTrace(r, devices)
}

// TestLabTakesItsOptions refuses what is wrong before it makes anything.
func TestLabTakesItsOptions(t *testing.T) {
	t.Parallel()
	devices := hostDevices(t)
	l := newLab(t, "refused")
	l.run(2, []string{"underlay 5"}, "up", "--underlay", "5")
	l.run(2, []string{"dataplane"}, "up", "--dataplane", "ovs")
	l.run(1, []string{"find the daemon"}, "up", "--bagpipe-bgp", filepath.Join(t.TempDir(), "none"))
	l.wantNoTrace(lab.Report{Dir: filepath.Join(lab.DefaultRunDir, l.name)}, devices)
}
