// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/losstable"
	"github.com/bagpipe-vpn/bagpipe/internal/oldversion"
)

var update = flag.Bool("update", false, "write the figures into docs/reliability.md")

// TestUnderUML runs the tests of a package in a guest each, one after the other: a
// guest has one CPU.
func TestUnderUML(t *testing.T) {
	for _, tt := range []struct {
		name string
		// dir is the package's directory, run the pattern of its tests, skip of those not to run.
		dir, run, skip string
		modules        []string
	}{
		{
			// The oldest kernel that the programs are made for: no tcx, no type
			// information, no just-in-time compiler.
			"eBPF on Linux 6.1", "internal/dataplane/ebpf",
			"TestTrafficBetweenNodes/MPLS|TestVRFsAreApart|TestGatewayAnswers|TestTTLExceeded|TestTooBig/VXLAN|TestRestart|TestSeveralNextHops|TestLayer3VNI|TestBridgeAsPort|TestDrift", "",
			[]string{"cls_bpf", "sch_ingress", "sch_netem", "tun"},
		},
		{
			"VRF devices and kernel MPLS", "internal/dataplane/linuxvrf",
			"TestKernel", "/MPLS-in-UDP", []string{"mpls_router"},
		},
		{
			// The daemon with the driver linux, and others, with routes from BGP.
			"kernel MPLS with others", "test/interop",
			"TestKernelMPLSTogether|TestKernelNetwork", "/eBPF_UDP", []string{"tun"},
		},
		{
			"Open vSwitch in the kernel", "internal/dataplane/ovs", "TestTraffic|TestOneHost", "",
			[]string{"openvswitch", "vport_gre", "vport_vxlan", "mpls_gso", "mpls_router", "ip_gre", "tun"},
		},
		{
			"FRR's VRF", "test/interop", "TestKernelFRR", "",
			[]string{"vrf", "mpls_router", "mpls_iptunnel", "ip_gre", "vxlan", "cls_bpf", "sch_ingress"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := guest{dir: directory(t, tt.dir), modules: append(tt.modules, "ipv6", "veth", "bridge"), timeout: 8 * time.Minute}
			switch {
			case strings.HasPrefix(tt.dir, "test/"):
				g.env = append(g.env, "BAGPIPE_TEST_DAEMON="+buildProgram(t, "bagpipe-bgp"))
			case strings.HasSuffix(tt.dir, "/ovs"):
				g.env = append(g.env, "BAGPIPE_OVS_DATAPATH=system")
			}
			out := mustRun(t, g, buildTest(t, g.dir), "-test.v", "-test.run", tt.run, "-test.skip", tt.skip, "-test.parallel", "2", "-test.failfast")
			if count(out, "--- PASS: ") == 0 || count(out, "--- SKIP: ") > 0 {
				t.Fatalf("no test ran in the guest, or one was skipped:\n%s", tail(out))
			}
		})
	}
}

// TestLabUnderUML is the lab as a user has it, with the driver linux for its IP VPN.
func TestLabUnderUML(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"two machines", []string{"--vpn", "ipvpn"}, "linux: local-prefix 4, port 2, prefix 6"},
		{"redirection", []string{"--scenario", "chain-traffic-redirect"}, "traffic: 4 of 4 checks passed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := guest{dir: "/", modules: []string{"ipv6", "veth", "bridge"}, timeout: 4 * time.Minute}
			args := append([]string{buildProgram(t, "bagpipe"), "lab", "up", "--dataplane", "linux", "--bagpipe-bgp", buildProgram(t, "bagpipe-bgp")}, tt.args...)
			if out := mustRun(t, g, args...); !strings.Contains(out, tt.want) {
				t.Errorf("no %q in what the lab said:\n%s", tt.want, tail(out))
			}
		})
	}
}

// TestHitlessUnderUML restarts nodes with the driver linux for IP VPNs, and writes what it cost
// into docs/reliability.md.
func TestHitlessUnderUML(t *testing.T) {
	const mark = "loss: "
	programs := buildPrograms(t)
	g := guest{
		dir: directory(t, "test/e2e"), modules: []string{"ipv6", "veth", "bridge", "vrf", "mpls_router", "mpls_iptunnel", "ip_gre", "vxlan"},
		env: []string{"BAGPIPE_TEST_PROGRAMS=" + programs, "BAGPIPE_TEST_LOSSES=" + mark}, timeout: 8 * time.Minute,
	}
	out := mustRun(t, g, buildTest(t, g.dir), "-test.v", "-test.run", "TestKernelHitless", "-test.failfast")
	var table losstable.Table
	for line := range strings.Lines(out) {
		if row, ok := strings.CutPrefix(line, mark); ok {
			if err := table.AddLine(strings.TrimSpace(row)); err != nil {
				t.Error(err)
			}
		}
	}
	check := table.Check
	if *update {
		check = table.Update
	}
	if err := check(directory(t, "docs/reliability.md"), "Linux 6.1", true); err != nil {
		t.Error(err)
	}
}

// buildPrograms makes the daemon, and that of the version that an upgrade starts from.
func buildPrograms(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Dir(buildProgram(t, "bagpipe-bgp"))
	if _, err := oldversion.Build(directory(t, "."), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// BenchmarkUnderUML runs the benchmarks that need such a kernel, and shows what they say.
func BenchmarkUnderUML(b *testing.B) {
	g := guest{dir: "/", modules: []string{"ipv6", "veth"}, timeout: 8 * time.Minute}
	out := mustRun(b, g, buildTest(b, directory(b, "bench")), "-test.run", "^$", "-test.bench", "BenchmarkWireToLinux", "-test.benchtime", "1x")
	b.ReportMetric(0, "ns/op")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Benchmark") {
			b.Log(strings.TrimSpace(line))
		}
	}
}

// mustRun runs a program in a guest and fails the test unless it ends well.
func mustRun(t testing.TB, g guest, args ...string) string {
	t.Helper()
	start := time.Now()
	out, status, err := g.run(args...)
	t.Logf("guest ran for %v", time.Since(start).Round(time.Second))
	if err != nil || status != 0 {
		t.Fatalf("exit status %d, %v; the guest said:\n%s", status, err, tail(out))
	}
	return out
}

// directory returns the path of a directory of the module.
func directory(t testing.TB, dir string) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", dir))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// buildTest makes the test binary of a package, with the tests that only a guest can run.
func buildTest(t testing.TB, dir string) string {
	t.Helper()
	return build(t, dir, "package.test", "test", "-tags", "vm", "-c", ".")
}

// buildProgram makes a program of the module.
func buildProgram(t testing.TB, name string) string {
	t.Helper()
	return build(t, directory(t, "."), name, "build", "./cmd/"+name)
}

// build runs the go command and returns the path of what it made, where guests see it.
func build(t testing.TB, dir, name, verb string, args ...string) string {
	t.Helper()
	// Not t.TempDir: a guest has a /tmp of its own, and a /var/tmp.
	to, err := os.MkdirTemp("/var/cache", "bagpipe-vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	binary := filepath.Join(to, name)
	cmd := exec.Command("go", slices.Concat([]string{verb, "-o", binary}, args)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the race detector cannot map its memory there
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s in %s: %v: %s", name, dir, err, out)
	}
	return binary
}
