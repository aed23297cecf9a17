// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// resources is what a node holds on to, and the test with it.
type resources struct {
	heap            int64 // octets in use behind a garbage collection
	goroutines, fds int
	sets, interned  int // attribute sets that have paths, and all that are interned
	targets         int // route targets known
}

func (r resources) String() string {
	return fmt.Sprintf("heap %.1f MB, %d goroutines, %d fds, %d sets (%d interned), %d targets",
		float64(r.heap)/1e6, r.goroutines, r.fds, r.sets, r.interned, r.targets)
}

// resourcesOf measures a node that is quiet.
func resourcesOf(tb testing.TB, n *node) resources {
	tb.Helper()
	var r resources
	r.goroutines = runtime.NumGoroutine()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	r.fds = len(fds)
	r.sets, r.interned, r.targets = ribSizes(n.rib)
	r.heap = heap()
	return r
}

// quiet measures once goroutines that are ending have ended: it waits until there
// have not been fewer for a while.
func (n *node) quiet() resources {
	n.tb.Helper()
	least, same := runtime.NumGoroutine(), 0
	eventually(n.tb, "a quiet node", func() bool {
		if now := runtime.NumGoroutine(); now < least {
			least, same = now, 0
		} else if now == least {
			same++
		}
		return same > 100
	})
	return resourcesOf(n.tb, n)
}

// ribSizes returns the number of attribute sets that have paths, of all that are
// interned, and of route targets.
func ribSizes(r *rib.RIB) (sets, interned, targets int) {
	// What the RIB does not tell is read from its maps. Both calls take the locks
	// that guard them, so that the reads come after all writes.
	var b rib.Batch
	b.Hold(r.NewInterner().InternLocal(load{}.attrs(0, 0).Build()))
	r.Apply(0, &b)
	sets = r.Stats().Sets
	inside := reflect.ValueOf(r).Elem()
	return sets, inside.FieldByName("sets").FieldByName("byKey").Len(), inside.FieldByName("byRT").Len()
}

// heap returns the octets in use after a full collection. A second one frees
// what finalizers and pools held on to.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// slope fits a line through values by least squares and returns its rise from
// the first value to the last.
func slope(values []int64) float64 {
	n, mx, my := float64(len(values)), float64(len(values)-1)/2, 0.0
	for _, v := range values {
		my += float64(v) / n
	}
	var sxy, sxx float64
	for x, v := range values {
		dx := float64(x) - mx
		sxy += dx * (float64(v) - my)
		sxx += dx * dx
	}
	return sxy / sxx * (n - 1)
}

func TestSlope(t *testing.T) {
	for _, tt := range []struct {
		in   []int64
		want float64
	}{{[]int64{5, 5, 5}, 0}, {[]int64{0, 10, 20, 30}, 30}, {[]int64{1, 3, 1, 3, 1}, 0}, {[]int64{4, 2, 0}, -4}} {
		if got := slope(tt.in); got != tt.want {
			t.Errorf("slope(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}
