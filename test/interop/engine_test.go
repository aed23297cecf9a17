// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// A child is this test program once more, in a namespace, with another entry: it
// answers each line of JSON with one.
type child struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
	cmd *exec.Cmd
	log string
}

// startChild starts the entry that variable names, with a setup.
func startChild(h *host, name, variable string, setup any) *child {
	h.t.Helper()
	text, err := json.Marshal(setup)
	if err != nil {
		h.t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	c := &child{t: h.t, log: filepath.Join(workDir(h.t), name+".log")}
	c.cmd = h.Command(context.Background(), program)
	c.cmd.Env = append(os.Environ(), variable+"="+string(text))
	log, err := os.Create(c.log)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	c.cmd.Stderr = log
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	c.out.Buffer(nil, 1<<20)
	if err := c.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		c.stop()
		if h.t.Failed() {
			h.t.Logf("output of %s in %s, last part:\n%s", name, h.Name, tail(c.log, 12<<10))
		}
	})
	return c
}

// stop closes the process's input, which ends it.
func (c *child) stop() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("%s: %v", c.log, err)
	}
}

// kill ends the process without warning.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// ask sends a command and decodes the answer into reply.
func (c *child) ask(t testing.TB, command, reply any) {
	t.Helper()
	line, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		t.Fatalf("%v\n%s", err, tail(c.log, 4<<10))
	}
	if !c.out.Scan() {
		t.Fatalf("the process ended:\n%s", tail(c.log, 4<<10))
	}
	if err := json.Unmarshal(c.out.Bytes(), reply); err != nil {
		t.Fatal(err)
	}
}

// An engineNode is an engine process in the namespace of a host.
type engineNode struct {
	*host
	*child
	setup engineSetup
}

// newEngineNode starts an engine on a host.
func newEngineNode(h *host, s engineSetup) *engineNode {
	h.t.Helper()
	return &engineNode{host: h, child: startChild(h, "engine", engineVariable, s), setup: s}
}

// do sends a command and returns the state after it.
func (n *engineNode) do(t testing.TB, c engineCommand) engineState {
	t.Helper()
	var r engineReply
	n.ask(t, c, &r)
	if r.Error != "" {
		t.Fatalf("engine: %s: %s", c.Do, r.Error)
	}
	return r.engineState
}

func (n *engineNode) announce(t testing.TB, routes ...vpnRoute) {
	t.Helper()
	n.do(t, engineCommand{Do: "announce", Routes: routes})
}

func (n *engineNode) withdraw(t testing.TB, routes ...vpnRoute) {
	t.Helper()
	n.do(t, engineCommand{Do: "withdraw", Routes: routes})
}

func (n *engineNode) imports(t testing.TB, rts ...string) {
	t.Helper()
	n.do(t, engineCommand{Do: "imports", RTs: rts})
}

// until waits until the state satisfies check.
func (n *engineNode) until(t testing.TB, what string, check func(engineState) bool) engineState {
	t.Helper()
	defer noteSlow(t, what)()
	var s engineState
	nstest.Eventually(t, startTimeout, func() bool {
		s = n.do(t, engineCommand{Do: "state"})
		return check(s)
	}, func() string { return fmt.Sprintf("%s: engine has %+v", what, s) })
	return s
}

// established waits until the session is up.
func (n *engineNode) established(t testing.TB) engineState {
	t.Helper()
	return n.until(t, "session up", func(s engineState) bool { return s.State == "established" })
}

// lost waits until the session is not up.
func (n *engineNode) lost(t testing.TB) {
	t.Helper()
	n.until(t, "session down", func(s engineState) bool { return s.State != "established" })
}

// received returns the routes of one family that the engine has from the peer.
func (n *engineNode) received(t testing.TB, family string) func() ([]vpnRoute, error) {
	return func() ([]vpnRoute, error) {
		s := n.do(t, engineCommand{Do: "state"})
		return slices.DeleteFunc(s.Routes, func(r vpnRoute) bool { return r.Family != family }), nil
	}
}

// wantVPNRoutes waits until get returns exactly the wanted routes.
func wantVPNRoutes(t testing.TB, what string, get func() ([]vpnRoute, error), want []vpnRoute) {
	t.Helper()
	defer noteSlow(t, what)()
	want = tidy(want)
	var got []vpnRoute
	var err error
	nstest.Eventually(t, routeTimeout, func() bool {
		got, err = get()
		got = tidy(got)
		return err == nil && cmp.Equal(want, got, cmpopts.EquateEmpty())
	}, func() string {
		if err != nil {
			return what + ": " + err.Error()
		}
		return what + ": (-want +got)\n" + cmp.Diff(want, got, cmpopts.EquateEmpty())
	})
}
