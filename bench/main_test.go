// SPDX-License-Identifier: Apache-2.0

// Package bench measures the node as a whole, each figure beside a baseline or
// a peer measured in the same run. `make bench` runs it; docs/benchmarks.md has
// the results.
package bench

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the entry of the processes that benchmarks start: senders of
// routes, whose CPU must not count.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_SENDER") != "" {
		if err := runSender(); err != nil {
			fmt.Fprintln(os.Stderr, "sender:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// cpuTime returns the CPU time of this process so far, user and system.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// percentile returns the value below which p percent of the samples lie.
func percentile[T cmp.Ordered](samples []T, p int) T {
	s := slices.Clone(samples)
	slices.Sort(s)
	return s[min(len(s)-1, len(s)*p/100)]
}

// await polls until done, or fails after a minute.
func await(b *testing.B, what string, done func() bool) {
	b.Helper()
	awaitEvery(b, 2*time.Millisecond, what, done)
}

// awaitEvery is await for conditions that are not cheap to ask for.
func awaitEvery(b *testing.B, pause time.Duration, what string, done func() bool) {
	b.Helper()
	for end := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(end) {
			b.Fatalf("%s: not reached within a minute", what)
		}
		time.Sleep(pause)
	}
}
