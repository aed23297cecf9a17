// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"fmt"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// BenchmarkExec adds remote MACs, 10,000 per round, each to the VXLAN device and the bridge.
func BenchmarkExec(b *testing.B) {
	ns := nstest.New(b, "bench")
	c := dial(b, ns)
	_, vxlan := tunnel(b, ns, c)
	const n = 10_000
	add := remotes(n, vxlan)
	del := remotes(n, vxlan)
	for i := range del {
		del[i].Op = Delete
	}
	errs := make([]error, n)
	b.ReportAllocs()
	for b.Loop() {
		c.Exec(add, errs)
		b.StopTimer()
		c.Exec(del, errs)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}

// BenchmarkFDB dumps 20,000 entries.
func BenchmarkFDB(b *testing.B) {
	ns := nstest.New(b, "benchdump")
	c := dial(b, ns)
	bridge, vxlan := tunnel(b, ns, c)
	const n = 10_000
	exec(b, c, remotes(n, vxlan)...)
	b.ReportAllocs()
	for b.Loop() {
		if list, err := c.FDB(bridge); err != nil || len(list) < 2*n {
			b.Fatal(fmt.Sprint(len(list), err))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*n), "ns/entry")
}
