// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/dummy"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// loaded starts an engine, loads it, and returns both and the CPU time it took.
func loaded(b *testing.B, l load, irrelevant speaker.Irrelevant) (e *engine, s *sender, cpu time.Duration) {
	b.Helper()
	local := netip.MustParseAddr("127.0.0.1")
	e = startEngine(b, l, dummy.New(dataplane.EVPN, local), local, irrelevant)
	s = startSender(b, fmt.Sprintf("127.0.0.1:%d", enginePort), "127.0.0.2")
	s.prepare(l)
	changes := e.reconciler.Changes()
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // begins VmHWM anew
	start := cpuTime(b)
	s.send()
	await(b, "routes in the dataplane", func() bool { return e.settled(l, s, changes) })
	return e, s, cpuTime(b) - start
}

// BenchmarkMillion loads a million routes of 1,000 VPNs, or of 10,000, into 1,000
// instances: all matter, or one in ten.
func BenchmarkMillion(b *testing.B) {
	for _, tt := range []struct {
		name       string
		targets    int
		irrelevant speaker.Irrelevant
	}{
		{"100-percent", 1_000, speaker.DropIfAsked},
		{"10-percent", 10_000, speaker.Keep},
		{"10-percent,rest-dropped", 10_000, speaker.DropIfAsked},
	} {
		b.Run(tt.name, func(b *testing.B) {
			base := heap()
			e, s, cpu := loaded(b, load{Routes: 1_000_000, Targets: tt.targets, Instances: 1_000, Group: 100}, tt.irrelevant)
			defer e.stop()
			defer s.close()
			b.ReportMetric(memory(b, os.Getpid(), "VmHWM"), "peak-MiB")
			b.ReportMetric(cpu.Seconds(), "cpu-s")
			b.ReportMetric(float64(heap()-base)/1e6, "heap-B/route")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkImport makes a table import one more route target, of about 1,000
// routes among a million, while a session's routes go on: the longest of these is
// the pause that the session sees.
func BenchmarkImport(b *testing.B) {
	const last = 999 // the VPN without an instance
	e, s, _ := loaded(b, load{Routes: 1_000_000, Targets: last + 1, Instances: last, Group: 100}, speaker.Keep)
	defer e.stop()
	defer s.close()
	var took, pause []time.Duration
	for range 10 {
		t, p, routes := e.importOne(b, instanceRT(last))
		if routes < 500 {
			b.Fatalf("%d routes imported", routes)
		}
		took, pause = append(took, t), append(pause, p)
	}
	b.ReportMetric(percentile(took, 50).Seconds()*1000, "import-ms")
	b.ReportMetric(percentile(pause, 50).Seconds()*1000, "pause-ms")
	b.ReportMetric(0, "ns/op")
}

// importOne imports a route target into a new table and returns how long that
// took, the longest time that a single route of a session took meanwhile, and the
// number of entries.
func (e *engine) importOne(b *testing.B, rt wire.RT) (took, pause time.Duration, entries int) {
	b.Helper()
	src, err := e.rib.AddSource("bench", rib.Peer)
	if err != nil {
		b.Fatal(err)
	}
	var stop atomic.Bool
	longest, busy := make(chan time.Duration), make(chan struct{})
	go func() {
		var most time.Duration
		for n := 0; !stop.Load(); n++ {
			start := time.Now()
			e.oneRoute(src, n)
			if most = max(most, time.Since(start)); n == 100 {
				most = 0
				close(busy)
			}
		}
		longest <- most
	}()
	<-busy
	var tables []*rib.Table
	start := time.Now()
	for _, v := range []rib.View{rib.EVI, rib.VRF} {
		t := e.rib.NewTable(rib.TableConfig{View: v, Source: src})
		t.SetImports([]wire.RT{rt})
		tables = append(tables, t)
	}
	took = time.Since(start)
	stop.Store(true)
	pause = <-longest
	for _, t := range tables {
		var out rib.Selections
		for more := true; more; {
			more = t.Take(1000, &out)
			entries += len(out.Items)
		}
		t.Close()
	}
	e.rib.RemoveSource(src)
	return took, pause, entries
}

// oneRoute announces a route of a session that nobody imports.
func (e *engine) oneRoute(src rib.SourceID, n int) {
	set := e.rib.NewInterner().InternLocal(wire.LocalAttrs{NextHop: peAddr(1), RTs: []wire.RT{instanceRT(50_000 + n%2)}}.Build())
	var batch rib.Batch
	batch.Hold(set)
	batch.Announce(wire.Route{NLRI: wire.VPNRoute(wire.MakeRD(peAddr(1), 1), netip.MustParsePrefix("203.0.113.0/24")), Label: 0x11}, set)
	e.rib.Apply(src, &batch)
}

// churnSeconds is how long BenchmarkChurn goes on; BENCH_CHURN_SECONDS sets it.
func churnSeconds(b *testing.B) int {
	b.Helper()
	text := os.Getenv("BENCH_CHURN_SECONDS")
	if text == "" {
		return 10
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("BENCH_CHURN_SECONDS %q: want a whole number from 1", text)
	}
	return n
}

// BenchmarkChurn changes 10,000 routes of 100,000 a second, one per UPDATE, for a
// while, and tells the part of a core that takes.
func BenchmarkChurn(b *testing.B) {
	const rate = 10_000
	seconds := churnSeconds(b)
	e, s, _ := loaded(b, load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100}, speaker.DropIfAsked)
	defer e.stop()
	defer s.close()
	before := e.rib.Stats()
	cpu, start := cpuTime(b), time.Now()
	s.do(fmt.Sprintf("churn %d %d", rate, seconds))
	s.sent() // of the load
	s.sent()
	await(b, "changes in the RIB", func() bool { return e.rib.Stats().Announced-before.Announced >= uint64(rate*seconds)*98/100 })
	wall := time.Since(start)
	b.ReportMetric(100*(cpuTime(b)-cpu).Seconds()/wall.Seconds(), "percent-of-a-core")
	b.ReportMetric(float64(rate*seconds)/wall.Seconds(), "routes/s")
	b.ReportMetric(0, "ns/op")
}
