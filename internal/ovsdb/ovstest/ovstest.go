// SPDX-License-Identifier: Apache-2.0

// Package ovstest gives tests an Open vSwitch of their own: ovsdb-server and
// ovs-vswitchd with the userspace datapath, in a namespace of the test, with a
// database and a run directory of the test. Only tests import it.
package ovstest

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const schema = "/usr/share/openvswitch/vswitch.ovsschema"

// Switch is a running Open vSwitch.
type Switch struct {
	*nstest.NS
	// Dir has the database, its socket, the sockets of the bridges, and logs.
	Dir string
	t   testing.TB
}

// New starts a switch in a namespace. Both daemons end with the test.
func New(t testing.TB, ns *nstest.NS) *Switch {
	t.Helper()
	dir, err := os.MkdirTemp("", "bpovs") // short: socket paths have 107 octets
	if err != nil {
		t.Fatal(err)
	}
	s := &Switch{NS: ns, Dir: dir, t: t}
	t.Cleanup(func() {
		s.explain()
		s.Stop("ovs-vswitchd")
		s.Stop("ovsdb-server")
		_ = os.RemoveAll(dir)
	})
	s.run("ovsdb-tool", "create", s.path("conf.db"), schema)
	s.StartDB()
	s.Vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "ovs_version=0.0.0-test")
	s.StartSwitch()
	return s
}

// explain logs what a failed test's switch knew, for who reads the failure.
func (s *Switch) explain() {
	if !s.t.Failed() {
		return
	}
	for _, command := range []string{"tnl/neigh/show", "ovs/route/show", "tnl/ports/show", "dpctl/dump-flows"} {
		out, err := s.try("ovs-appctl", "-t", s.path("vswitchd.ctl"), command)
		s.t.Logf("%s: %s: %s (%v)", s.Name, command, out, err)
	}
	s.t.Logf("%s: log: %s", s.Name, s.Log())
}

func (s *Switch) path(name string) string { return filepath.Join(s.Dir, name) }

// DB returns the address of the database, as a configuration has it.
func (s *Switch) DB() string { return "unix:" + s.path("db.sock") }

// StartDB starts the database server.
func (s *Switch) StartDB() {
	s.t.Helper()
	s.run("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.path("db.sock"), "--detach", "--no-chdir",
		"--pidfile="+s.path("ovsdb-server.pid"), "--log-file="+s.path("db.log"), "-vconsole:off", "--unixctl="+s.path("db.ctl"))
}

// StartSwitch starts ovs-vswitchd.
func (s *Switch) StartSwitch() {
	s.t.Helper()
	s.run("ovs-vswitchd", s.DB(), "--detach", "--no-chdir",
		"--pidfile="+s.path("ovs-vswitchd.pid"), "--log-file="+s.path("vswitchd.log"), "-vconsole:off", "--unixctl="+s.path("vswitchd.ctl"))
}

// Stop kills "ovs-vswitchd" or "ovsdb-server" and waits for its end.
func (s *Switch) Stop(daemon string) {
	b, err := os.ReadFile(s.path(daemon + ".pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && syscall.Kill(pid, 0) == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	_ = os.Remove(s.path(daemon + ".pid"))
}

func (s *Switch) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", s.Name}, args...)...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.Dir)
	out, err := os.CreateTemp(s.Dir, "out") // a file: detached daemons would keep a pipe open
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	b, _ := os.ReadFile(out.Name())
	return string(b), err
}

func (s *Switch) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// Vsctl runs ovs-vsctl.
func (s *Switch) Vsctl(args ...string) string {
	s.t.Helper()
	return s.run(append([]string{"ovs-vsctl", "--timeout=20", "--db=" + s.DB()}, args...)...)
}

// Ofctl runs ovs-ofctl with OpenFlow 1.5.
func (s *Switch) Ofctl(args ...string) string {
	s.t.Helper()
	return s.run(append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
}

// Appctl runs ovs-appctl on ovs-vswitchd.
func (s *Switch) Appctl(args ...string) string {
	s.t.Helper()
	return s.run(append([]string{"ovs-appctl", "-t", s.path("vswitchd.ctl")}, args...)...)
}

// Log returns the end of the log of ovs-vswitchd.
func (s *Switch) Log() string {
	b, _ := os.ReadFile(s.path("vswitchd.log"))
	return string(b[max(0, len(b)-4000):])
}

// Datapath is the datapath_type of the tests' bridges: netdev, in user space, unless
// BAGPIPE_OVS_DATAPATH names another, for which a guest's kernel has the module.
func Datapath() string { return cmp.Or(os.Getenv("BAGPIPE_OVS_DATAPATH"), "netdev") }

// AddBridge makes a bridge.
func (s *Switch) AddBridge(name string, more ...string) {
	s.t.Helper()
	s.Vsctl(append([]string{"add-br", name, "--", "set", "bridge", name, "datapath_type=" + Datapath(), "fail-mode=secure"}, more...)...)
}

// Socket returns the path of a bridge's management socket.
func (s *Switch) Socket(bridge string) string { return s.path(bridge + ".mgmt") }
