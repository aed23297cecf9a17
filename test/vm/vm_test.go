// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestUnderUML runs the tests of a package in a guest each, one after the other: a
// guest has one CPU.
func TestUnderUML(t *testing.T) {
	for _, tt := range []struct {
		name string
		// dir is the package's directory, run the pattern of its tests.
		dir, run string
		modules  []string
	}{
		{
			// The oldest kernel that the programs are made for: no tcx, no type
			// information, no just-in-time compiler.
			"eBPF on Linux 6.1", "internal/dataplane/ebpf",
			"TestTrafficBetweenNodes/MPLS|TestVRFsAreApart|TestGatewayAnswers|TestTTLExceeded|TestTooBig/VXLAN|TestRestart|TestSeveralNextHops|TestLayer3VNI|TestBridgeAsPort|TestDrift",
			[]string{"ipv6", "veth", "bridge", "cls_bpf", "sch_ingress", "sch_netem", "tun"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, err := filepath.Abs(filepath.Join("..", ".."))
			if err != nil {
				t.Fatal(err)
			}
			g := guest{dir: filepath.Join(root, tt.dir), modules: tt.modules, timeout: 8 * time.Minute}
			binary := build(t, g.dir)
			start := time.Now()
			out, status, err := g.run(binary, "-test.v", "-test.run", tt.run, "-test.parallel", "2", "-test.failfast")
			t.Logf("guest ran for %v", time.Since(start).Round(time.Second))
			if err != nil || status != 0 {
				t.Fatalf("exit status %d, %v; the guest said:\n%s", status, err, tail(out))
			}
			if passed := count(out, "--- PASS: "); passed == 0 {
				t.Fatalf("no test ran in the guest:\n%s", tail(out))
			}
		})
	}
}

// build makes the test binary of a package, where guests see it.
func build(t *testing.T, dir string) string {
	t.Helper()
	// Not t.TempDir: a guest has a /tmp of its own.
	to, err := os.MkdirTemp("/var/tmp", "bagpipe-vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	binary := filepath.Join(to, "package.test")
	cmd := exec.Command("go", "test", "-c", "-o", binary, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the race detector cannot map its memory there
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", dir, err, out)
	}
	return binary
}
