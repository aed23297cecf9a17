// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// receiverLoads are the loads of BenchmarkReceivers, each for VPNv4 and EVPN.
var receiverLoads = []struct {
	name string
	load load
}{
	{"100k in groups of 1..100", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100}},
	{"100k in groups of 1000", load{Routes: 100_000, Targets: 100, Instances: 100, Group: 1000, Exact: true}},
	{"500k in groups of 1..100", load{Routes: 500_000, Targets: 100, Instances: 100, Group: 100}},
}

// reception is what a receiver needed for a load.
type reception struct {
	load, withdraw time.Duration // CPU
	wall           time.Duration // of the load
	peak           float64       // MiB, after the load
	routes         int
}

// perRoute returns microseconds.
func (r reception) perRoute(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1000 / float64(r.routes)
}

// lab2 is two connected namespaces, of receiver and sender.
type lab2 struct{ receiver, sender *nstest.NS }

func newLab2(b *testing.B) lab2 {
	b.Helper()
	l := lab2{nstest.New(b, "receiver"), nstest.New(b, "sender")}
	nstest.Connect(l.receiver, "eth0", l.sender, "eth0")
	l.receiver.Run("ip", "addr", "add", receiverAddr+"/24", "dev", "eth0")
	l.sender.Run("ip", "addr", "add", senderAddr+"/24", "dev", "eth0")
	return l
}

// establish starts a receiver and a sender with a load ready to go.
func establish(b *testing.B, net lab2, bin string, d daemon, l load) (running, *sender) {
	b.Helper()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	wrap := []string{"ip", "netns", "exec", net.sender.Name}
	env := []string{"BENCH_SENDER=" + receiverAddr + ":179", "BENCH_SENDER_FROM=" + senderAddr}
	if d.dials {
		env = []string{"BENCH_SENDER=" + senderAddr + ":179", "BENCH_SENDER_WAITS=1", "BENCH_SENDER_HOLD=90", "BENCH_SENDER_GENTLE=1"}
	}
	r := d.start(place{b: b, ns: net.receiver, dir: dir, bin: bin, load: l})
	s := launchSender(b, env, wrap...)
	s.expect("ready")
	s.prepare(l)
	r.quiet()
	return r, s
}

// receive runs one load through one receiver.
func receive(b *testing.B, net lab2, bin string, d daemon, l load) reception {
	b.Helper()
	l = d.limited(l)
	r, s := establish(b, net, bin, d, l)
	defer r.stop()
	defer s.close()
	before, _ := r.used()
	start := time.Now()
	s.send()
	cpu, busy := r.settle(s, l.Routes)
	out := reception{load: cpu - before, wall: busy.Sub(start), peak: memory(b, r.pid, "VmHWM"), routes: l.Routes}
	r.quiet() // the question has been answered
	before, _ = r.used()
	s.do("withdraw")
	cpu, _ = r.settle(s, 0)
	out.withdraw = cpu - before
	return out
}

// settle waits until the sender has sent and the receiver is done, which then must
// have that many routes. The CPU time is that before it was asked.
func (r running) settle(s *sender, want int) (cpu time.Duration, busy time.Time) {
	r.b.Helper()
	s.sent()
	for range 20 {
		cpu, busy = r.quiet()
		n, err := r.routes()
		if err == nil && n == want {
			return cpu, busy
		}
		r.b.Logf("not done: %d routes of %d, %v", n, want, err)
	}
	r.b.Fatalf("the receiver does not come to %d routes", want)
	return 0, busy
}

// BenchmarkReceivers gives the same routes to our daemon and to others, over TCP
// between two namespaces, and takes them back. Others only store them; ours also
// imports them into instances in its first mode.
func BenchmarkReceivers(b *testing.B) {
	bin := binaries(b)
	net := newLab2(b)
	var t table
	t.row("load", "receiver", "routes", "load us/route", "ratio", "withdraw us/route", "ratio", "peak MiB", "wall s")
	for _, rl := range receiverLoads {
		for _, m := range []mix{onlyVPNv4, onlyEVPN} {
			l := rl.load
			l.Mix = m
			if limit, err := strconv.Atoi(os.Getenv("BENCH_MOST")); err == nil && l.Routes > limit {
				continue
			}
			var ours reception
			for i, d := range daemons {
				if !d.takes(m) {
					continue
				}
				var r reception
				b.Run(strings.Join([]string{m.String(), rl.name, d.name}, "/"), func(b *testing.B) { r = receive(b, net, bin, d, l) })
				if i == 0 {
					ours = r
				}
				if r.routes == 0 {
					continue // failed, and said so
				}
				load, withdraw := r.perRoute(r.load), r.perRoute(r.withdraw)
				t.row(m.String()+" "+rl.name, d.name, fmt.Sprint(r.routes), fmt.Sprintf("%.2f", load), ratio(load, ours.perRoute(ours.load)),
					fmt.Sprintf("%.2f", withdraw), ratio(withdraw, ours.perRoute(ours.withdraw)), fmt.Sprintf("%.0f", r.peak), fmt.Sprintf("%.2f", r.wall.Seconds()))
			}
		}
	}
	t.print("receivers (ratio: to ours with 100 instances)")
}

// ratio is a quotient as text, "-" where there is none.
func ratio(a, b float64) string {
	if !(b > 0) {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// table is printed at the end of a benchmark as Markdown.
type table struct{ rows []string }

func (t *table) row(cells ...string) {
	t.rows = append(t.rows, "| "+strings.Join(cells, " | ")+" |")
	if len(t.rows) == 1 {
		t.rows = append(t.rows, strings.Repeat("|---", len(cells))+"|")
	}
}

func (t *table) print(title string) {
	fmt.Printf("\n%s\n\n%s\n\n", title, strings.Join(t.rows, "\n"))
}
