// SPDX-License-Identifier: Apache-2.0

// Package nstest gives tests network namespaces of their own: it makes them,
// runs functions and commands inside, and takes them away by name when the
// test ends. Only tests import it.
package nstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// NS is a named network namespace ("ip netns") that belongs to one test.
type NS struct {
	// Name is the name under /run/netns.
	Name string
	t    testing.TB
}

// RequireRoot ends the test as failed when it does not run as root. Set
// BAGPIPE_TEST_UNPRIVILEGED=1 to skip such tests on a developer's machine; CI
// never does.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BAGPIPE_TEST_UNPRIVILEGED") == "1" {
		t.Skip("needs root: skipped because BAGPIPE_TEST_UNPRIVILEGED=1")
	}
	t.Fatal("needs root (network namespaces); set BAGPIPE_TEST_UNPRIVILEGED=1 to skip such tests")
}

// New makes a namespace with loopback up, named after label and a random
// suffix, and removes it with every process in it when the test ends.
func New(t testing.TB, label string) *NS {
	t.Helper()
	RequireRoot(t)
	var suffix [4]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		t.Fatal(err)
	}
	ns := &NS{Name: "bpt-" + label + "-" + hex.EncodeToString(suffix[:]), t: t}
	ns.host("ip", "netns", "add", ns.Name)
	t.Cleanup(ns.remove)
	ns.Run("ip", "link", "set", "lo", "up")
	return ns
}

// Existing returns a namespace that something else made and takes away.
func Existing(t testing.TB, name string) *NS { return &NS{Name: name, t: t} }

func (n *NS) remove() {
	out, _ := exec.Command("ip", "netns", "pids", n.Name).Output()
	for _, pid := range strings.Fields(string(out)) {
		_ = exec.Command("kill", "-9", pid).Run()
	}
	if out, err := exec.Command("ip", "netns", "del", n.Name).CombinedOutput(); err != nil {
		n.t.Errorf("remove namespace %s: %v: %s", n.Name, err, out)
	}
}

// Connect joins two namespaces by a veth pair; both ends are up.
func Connect(a *NS, ifA string, b *NS, ifB string) {
	a.t.Helper()
	a.host("ip", "link", "add", ifA, "netns", a.Name, "type", "veth", "peer", "name", ifB, "netns", b.Name)
	a.Run("ip", "link", "set", ifA, "up")
	b.Run("ip", "link", "set", ifB, "up")
}

func (n *NS) host(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Command returns a command that will run inside the namespace. Its name is
// looked up on PATH as usual.
func (n *NS) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

// Try runs a command inside and returns its combined output and error.
func (n *NS) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := n.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Run runs a command inside, fails the test when it fails, and returns its output.
func (n *NS) Run(args ...string) string {
	n.t.Helper()
	out, err := n.Try(args...)
	if err != nil {
		n.t.Fatalf("in %s: %s: %v: %s", n.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Do calls f on a thread that is inside the namespace. Sockets that f opens
// stay in the namespace; goroutines that f starts do not enter it.
func (n *NS) Do(f func()) {
	n.t.Helper()
	if err := netspace.Do(n.Name, func() error { f(); return nil }); err != nil {
		n.t.Fatal(err)
	}
}

// Eventually polls check every 20 ms until it returns true, and fails the test
// with what describe says when it does not within the deadline.
func Eventually(t testing.TB, within time.Duration, check func() bool, describe func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("not reached within %v: %s", within, describe())
		}
		time.Sleep(20 * time.Millisecond)
	}
}
