// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linux"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// inside tells a benchmark that it runs in the namespace made for it.
const inside = "BENCH_INSIDE"

// inNamespace runs the benchmark of this name again in a process of its own
// inside a namespace, and reports that one's metrics. It returns false when it
// is that process.
func inNamespace(b *testing.B, name string) bool {
	b.Helper()
	if os.Getenv(inside) != "" {
		return false
	}
	ns := nstest.New(b, "bench")
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	pattern := "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	cmd := ns.Command(context.Background(), os.Args[0], "-test.run=^$", "-test.bench="+pattern, "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	b.ReportMetric(0, "ns/op")
	for sc := bufio.NewScanner(strings.NewReader(string(out))); sc.Scan(); {
		if f := strings.Fields(sc.Text()); len(f) > 2 && strings.HasPrefix(f[0], name) {
			for i := 2; i+1 < len(f); i += 2 {
				if v, err := strconv.ParseFloat(f[i], 64); err == nil && f[i+1] != "ns/op" {
					b.ReportMetric(v, f[i+1])
				}
			}
		}
	}
	return true
}

// BenchmarkWireToKernel measures from the first octet of 100k EVPN MAC routes
// on TCP to the last FDB entry in the kernel, in 100 instances, and compares it
// with the same entries by prepared netlink messages alone.
func BenchmarkWireToKernel(b *testing.B) {
	if inNamespace(b, "BenchmarkWireToKernel") {
		return
	}
	l := load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyMACs}
	makePorts(b, l.Instances)
	local := netip.MustParseAddr("192.0.2.1")
	d, err := linux.New(linux.Config{LocalAddr: local, VXLANPort: 4789}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	e := startEngine(b, l, d, nil, local, speaker.DropIfAsked)
	defer e.stop()
	againstFloor(b, e, l, func() time.Duration { return netlinkFloor(b, l) }, func() { checkKernel(b, l) })
}

// againstFloor loads the engine round by round, each beside a floor that is measured
// then, and reports the medians.
func againstFloor(b *testing.B, e *engine, l load, floor func() time.Duration, check func()) {
	b.Helper()
	var floors, walls, cpus, ratios []float64
	for range rounds {
		least := floor()
		wall, cpu := loadKernel(b, e, l, check)
		floors, walls, cpus = append(floors, least.Seconds()), append(walls, wall.Seconds()), append(cpus, cpu.Seconds())
		ratios = append(ratios, wall.Seconds()/least.Seconds())
	}
	b.ReportMetric(percentile(floors, 50), "floor-s")
	b.ReportMetric(percentile(walls, 50), "wire-to-kernel-s")
	b.ReportMetric(percentile(cpus, 50), "cpu-s")
	b.ReportMetric(percentile(ratios, 50), "ratio")
}

// makePorts makes the local devices of the instances.
func makePorts(b *testing.B, n int) {
	b.Helper()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "link add p%d type veth peer name q%d\n", i, i)
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("make ports: %v: %s", err, out)
	}
}

func dialNetlink(b *testing.B) *netlinkx.Conn {
	b.Helper()
	c, err := netlinkx.Dial()
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// netlinkFloor adds as many remote MACs as the load has to the instances'
// devices and takes them away again; it returns the time of adding.
func netlinkFloor(b *testing.B, l load) time.Duration {
	b.Helper()
	c := dialNetlink(b)
	defer func() { _ = c.Close() }()
	links, err := c.Links(0)
	if err != nil {
		b.Fatal(err)
	}
	var devices []int
	for _, link := range links {
		if link.Kind == "vxlan" {
			devices = append(devices, link.Index)
		}
	}
	msgs, errs := make([]netlinkx.Message, l.Routes), make([]error, l.Routes)
	for i := range msgs {
		msgs[i] = netlinkx.Message{Op: netlinkx.Replace, Neigh: netlinkx.Neigh{
			Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF | unix.NTF_MASTER | unix.NTF_EXT_LEARNED, State: unix.NUD_NOARP | unix.NUD_PERMANENT,
			Index: devices[i*len(devices)/l.Routes], MAC: ethernet.MAC{2, 1, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}, Addr: peAddr(i % remotePEs),
		}}
	}
	start := time.Now()
	c.Exec(msgs, errs)
	elapsed := time.Since(start)
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range msgs {
		msgs[i].Op = netlinkx.Delete
		msgs[i].Flags &^= unix.NTF_EXT_LEARNED
	}
	c.Exec(msgs, errs)
	return elapsed
}

// loadKernel sends the load and waits until the kernel has it.
func loadKernel(b *testing.B, e *engine, l load, check func()) (wall, cpu time.Duration) {
	b.Helper()
	s := startSender(b, fmt.Sprintf("127.0.0.1:%d", enginePort), "127.0.0.2")
	defer s.close()
	s.prepare(l)
	changes := e.reconciler.Changes()
	cpuStart, start := cpuTime(b), time.Now()
	s.send()
	await(b, "routes in the kernel", func() bool { return e.settled(l, s, changes) })
	wall, cpu = time.Since(start), cpuTime(b)-cpuStart
	if p := e.reconciler.Problems(); len(p) > 0 {
		b.Fatalf("%d entries not installed: %v", len(p), p[0])
	}
	check()
	s.close()
	await(b, "withdrawal", func() bool {
		return e.rib.Stats().Paths < l.Routes/2 && e.reconciler.Changes()-changes >= uint64(2*l.Routes)
	})
	return wall, cpu
}

// checkKernel counts the MACs in the kernel.
func checkKernel(b *testing.B, l load) {
	b.Helper()
	c := dialNetlink(b)
	defer func() { _ = c.Close() }()
	fdb, err := c.FDB(0)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for _, e := range fdb {
		if e.Addr.IsValid() && !e.MAC.IsZero() {
			n++
		}
	}
	if n != l.Routes {
		b.Fatalf("the kernel has %d remote MACs: want %d", n, l.Routes)
	}
}
