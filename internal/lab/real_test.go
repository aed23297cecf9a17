// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/lab"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// buildDir is where build puts the programs; TestMain removes it.
var buildDir = filepath.Join(os.TempDir(), "bagpipe-lab-test-"+rand.Text()[:8])

// build compiles the tool and the daemon once and returns their directory.
var build = sync.OnceValues(func() (string, error) {
	dir := buildDir
	cmd := exec.Command("go", "build", "-o", dir+"/", "../../cmd/bagpipe", "../../cmd/bagpipe-bgp")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return dir, cmd.Run()
})

// realLab returns options for a lab of the programs as they are installed.
func realLab(t *testing.T) lab.Options {
	t.Helper()
	o := newLab(t, "unused")
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	// Links in the lab's own directory: the clean-up looks for processes by it.
	for name, path := range map[string]string{"bagpipe": o.Self, "bagpipe-bgp": filepath.Join(filepath.Dir(o.Self), "bagpipe-bgp")} {
		_ = os.Remove(path)
		if err := os.Symlink(filepath.Join(dir, name), path); err != nil {
			t.Fatal(err)
		}
	}
	for _, old := range []string{"bagpipe-rest-attach", "bagpipe-looking-glass", "bagpipe-fakerr", "bagpipe-bgp-cleanup"} {
		if err := os.Symlink("bagpipe", filepath.Join(filepath.Dir(o.Self), old)); err != nil {
			t.Fatal(err)
		}
	}
	o.Daemon = filepath.Join(filepath.Dir(o.Self), "bagpipe-bgp")
	return o
}

// runTool runs one of the installed programs in a namespace, or outside of any.
func runTool(t *testing.T, o lab.Options, namespace string, args ...string) (string, error) {
	t.Helper()
	args[0] = filepath.Join(filepath.Dir(o.Self), args[0])
	if namespace != "" {
		// Not "ip netns exec": it hides new namespaces from all others.
		args = append([]string{"nsenter", "--net=/run/netns/" + namespace}, args...)
	}
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	return string(out), err
}

// TestRealLab is the demo as a user runs it, with the daemon of this tree.
func TestRealLab(t *testing.T) {
	for name, tt := range map[string]struct {
		flags []string
		// checks are the pings of "status"; "up" has two transfers more.
		checks int
		want   []string
	}{
		"evpn over IPv4": {nil, 12, []string{": Established  lab        5             3", "linux: flood 1, "}},
		"evpn over IPv6": {[]string{"--underlay", "6"}, 12, []string{": Established  lab        5             3"}},
		"ipvpn by eBPF": {[]string{"--vpn", "ipvpn"}, 12,
			[]string{": Established  lab        4             2", "ebpf: local-prefix 4, port 2, prefix 6"}},
		"ipvpn by eBPF over IPv6": {[]string{"--vpn", "ipvpn", "--dataplane", "ebpf", "--underlay", "6"}, 12,
			[]string{"ebpf: local-prefix 2, port 1, prefix 6"}},
		"ipvpn by Open vSwitch": {[]string{"--vpn", "ipvpn", "--dataplane", "ovs"}, 14,
			[]string{"ovs: local-prefix 4, port 2, prefix 6", "node-b-ovs-vswitchd"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := realLab(t)
			flags := []string{"--name", o.Name, "--run-dir", o.RunDir}
			start := time.Now()
			out, err := runTool(t, o, "", slices.Concat([]string{"bagpipe", "lab", "up"}, tt.flags, flags)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			for _, want := range append(tt.want, fmt.Sprintf("traffic: %d of %[1]d checks passed", tt.checks+2), "node-b.conf") {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
			first := out
			out, err = runTool(t, o, "", append([]string{"bagpipe", "-o", "json", "lab", "status"}, flags...)...)
			var r lab.Report
			if err != nil || json.Unmarshal([]byte(out), &r) != nil || !r.OK || len(r.Checks) != tt.checks {
				t.Errorf("status: %v\n%s", err, out)
			}
			_, hints, _ := strings.Cut(first, "\ntry:\n")
			if !strings.Contains(hints, " lab down ") {
				t.Errorf("no hint to take it down in\n%s", first)
			}
			for hint := range strings.Lines(hints) {
				args := strings.Fields(hint)
				if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", hint, err, out)
				}
			}
			checkNothingLeft(t, o)
			if out, err := runTool(t, o, "", append([]string{"bagpipe", "lab", "down"}, flags...)...); err != nil {
				t.Errorf("down: %v\n%s", err, out)
			}
			checkNothingLeft(t, o)
		})
	}
}

// TestOldCommandsOnTheLab is the original's sample "basic" for E-VPN: a
// namespace on each node, plugged by bagpipe-rest-attach, and a ping between.
func TestOldCommandsOnTheLab(t *testing.T) {
	t.Parallel()
	o := realLab(t)
	if _, err := lab.Up(t.Context(), o, &screen{}); err != nil {
		t.Fatal(err)
	}
	guests := map[string]string{"a": "198.51.100.1", "b": "198.51.100.2"}
	attach := func(verb, node string) {
		t.Helper()
		guest := o.Name + "-" + node
		t.Cleanup(func() { _ = netspace.Delete(guest) })
		out, err := runTool(t, o, o.Name+"-node-"+node, "bagpipe-rest-attach", verb, "--network-type", "evpn", "--port", "netns:ns1",
			"--netns", guest, "--ip", guests[node], "--config-file", filepath.Join(o.RunDir, o.Name, "node-"+node+".conf"))
		if err != nil || !strings.Contains(out, "\nresponse: 200 b'null") {
			t.Errorf("%s at %s: %v\n%s", verb, node, err, out)
		}
	}
	attach("--attach", "a")
	attach("--attach", "b")
	var last string
	nstest.Eventually(t, 20*time.Second, func() bool {
		out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", o.Name+"-a", "ping", "-c", "3", "-i", "0.2", "-W", "1", "198.51.100.2").CombinedOutput()
		last = string(out)
		return err == nil && strings.Contains(last, "3 received")
	}, func() string { return last })

	glass := func(want string, words ...string) {
		t.Helper()
		out, err := runTool(t, o, o.Name+"-node-a", append([]string{"bagpipe-looking-glass"}, words...)...)
		if err != nil || out != want {
			t.Errorf("%v: %v\n%s\nwant\n%s", words, err, out, want)
		}
	}
	glass("1\n", "summary", "BGP_established_peers")
	glass("2\n", "summary", "vpn_instances_count")
	glass("* target:64512:513\n", "vpns", "instances", "evpn-bagpipe-test", "route_targets", "import")
	glass("-\n", "logs")
	attach("--detach", "a")
	attach("--detach", "b")
	glass("1\n", "summary", "vpn_instances_count")
}

// TestInterruptOfTheProgram is Ctrl-C in the middle of "lab up".
func TestInterruptOfTheProgram(t *testing.T) {
	t.Parallel()
	o := realLab(t)
	var out screen
	cmd := exec.CommandContext(t.Context(), o.Self, "lab", "up", "--name", o.Name, "--run-dir", o.RunDir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 10*time.Second, func() bool { return strings.Contains(out.String(), "starting 2 nodes") }, out.String)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("%v\n%s", err, &out)
	}
	checkNothingLeft(t, o)
}
