// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A dependency is a program the tests start and the Debian package it is in.
type dependency struct{ path, pkg string }

// Programs that the harness starts, by the peer that needs them.
var (
	needNet    = []dependency{{"ip", "iproute2"}, {"bridge", "iproute2"}, {"ping", "iputils-ping"}}
	needFRR    = []dependency{{frrBGPD, "frr"}, {frrZebra, "frr"}, {"vtysh", "frr"}}
	needGoBGP  = []dependency{{"gobgpd", "gobgpd"}, {"gobgp", "gobgpd"}}
	needOrigin = []dependency{
		{originalProgram, "python3-networking-bagpipe"}, {"privsep-helper", "python3-oslo.privsep"},
		{"brctl", "bridge-utils"}, {"ip", "iproute2"}, {"bridge", "iproute2"},
	}
)

// need fails the test, naming what to install, unless all programs are there.
func need(t testing.TB, lists ...[]dependency) {
	t.Helper()
	missing := map[string]bool{}
	for _, list := range lists {
		for _, d := range list {
			if _, err := exec.LookPath(d.path); err != nil {
				missing[d.pkg] = true
			}
		}
	}
	if len(missing) == 0 {
		return
	}
	t.Fatalf("programs the tests need are missing; as root: apt-get install -y --no-install-recommends %s",
		strings.Join(slices.Sorted(maps.Keys(missing)), " "))
}

// built is the daemon under test, built once for all tests.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// daemonProgram builds our bagpipe-bgp the first time it is called and returns
// its path. BAGPIPE_TEST_DAEMON names a program to take instead.
func daemonProgram(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("BAGPIPE_TEST_DAEMON"); path != "" {
		return path
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "bagpipe-interop-"); built.err != nil {
			return
		}
		args := append([]string{"build"}, buildFlags...)
		cmd := exec.Command("go", append(args, "-o", filepath.Join(built.dir, "bagpipe-bgp"), "./cmd/bagpipe-bgp")...)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build the daemon: %v", built.err)
	}
	return filepath.Join(built.dir, "bagpipe-bgp")
}

// TestMain is also the entry of the processes that tests start.
func TestMain(m *testing.M) {
	for variable, run := range map[string]func(setup string) error{engineVariable: runEngine, gobgp4Variable: runGobgp4} {
		if setup := os.Getenv(variable); setup != "" {
			if err := run(setup); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", variable, err)
				os.Exit(1)
			}
			return
		}
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}
