// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// loadedEngine is an engine with a load, and what that took.
type loadedEngine struct {
	*engine
	sender *sender
	load   load
	cpu    time.Duration
	base   uint64 // heap before the routes
}

// loaded starts an engine and loads it.
func loaded(b *testing.B, l load, irrelevant speaker.Irrelevant) *loadedEngine {
	b.Helper()
	local := netip.MustParseAddr("127.0.0.1")
	r := &loadedEngine{load: l, engine: startEngine(b, l, nil, nil, local, irrelevant)}
	r.sender = startSender(b, fmt.Sprintf("127.0.0.1:%d", enginePort), "127.0.0.2")
	r.sender.prepare(l)
	changes := r.reconciler.Changes()
	r.base = heap()
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // begins VmHWM anew
	start := cpuTime(b)
	r.sender.send()
	await(b, "routes in the dataplane", func() bool { return r.settled(l, r.sender, changes) })
	r.cpu = cpuTime(b) - start
	return r
}

// heapPerRoute returns the live heap for each route of the load, in octets.
func (r *loadedEngine) heapPerRoute() float64 {
	n := float64(heap()-r.base) / float64(r.load.Routes)
	runtime.KeepAlive(r)
	return n
}

func (r *loadedEngine) end() {
	r.sender.close()
	r.stop()
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
			r := loaded(b, load{Routes: 1_000_000, Targets: tt.targets, Instances: 1_000, Group: 100}, tt.irrelevant)
			defer r.end()
			b.ReportMetric(memory(b, os.Getpid(), "VmHWM"), "peak-MiB")
			b.ReportMetric(r.cpu.Seconds(), "cpu-s")
			b.ReportMetric(r.heapPerRoute(), "heap-B/route")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkImport makes a table import one more route target, of about 1,000
// routes among a million, while a session's routes go on: the longest of these is
// the pause that the session sees.
func BenchmarkImport(b *testing.B) {
	const last = 999 // the VPN without an instance
	r := loaded(b, load{Routes: 1_000_000, Targets: last + 1, Instances: last, Group: 100}, speaker.Keep)
	defer r.end()
	var took, pause []time.Duration
	for range 10 {
		t, p, routes := r.importOne(b, instanceRT(last))
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
	r := loaded(b, load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100}, speaker.DropIfAsked)
	defer r.end()
	before := r.rib.Stats()
	cpu, start := cpuTime(b), time.Now()
	r.sender.do(fmt.Sprintf("churn %d %d", rate, seconds))
	r.sender.sent() // of the load
	r.sender.sent()
	await(b, "changes in the RIB", func() bool { return r.rib.Stats().Announced-before.Announced >= uint64(rate*seconds)*98/100 })
	wall := time.Since(start)
	b.ReportMetric(100*(cpuTime(b)-cpu).Seconds()/wall.Seconds(), "percent-of-a-core")
	b.ReportMetric(float64(rate*seconds)/wall.Seconds(), "routes/s")
	b.ReportMetric(0, "ns/op")
}
