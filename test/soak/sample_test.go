// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Slack of what need not be exactly as large at the end: how far the median of the last
// third of the samples may be above that of the first.
const (
	heapSlack = 2 << 20 // octets; the daemon's heap is about 5 MiB when it has no routes
	// Resident memory, in octets, with and without what the Go runtime keeps for the next burst:
	// it moves by 20 MiB between samples of a node with eBPF.
	rssSlack    = 16 << 20
	fewSlack    = 32 << 20 // the same with fewer samples than enough
	enough      = 30
	threadSlack = 8
	fileSlack   = 128 << 10 // octets of the state on disk, whose free pages are used again
)

// sample is what node and kernel hold between two cycles.
type sample struct {
	// exact are counts that must always be the same.
	exact map[string]int64
	// loose are measures that have a slack.
	loose map[string]int64
}

var slack = map[string]int64{"heap": heapSlack, "RSS in use": rssSlack, "RSS": rssSlack, "threads": threadSlack, "state file": fileSlack}

func (s sample) String() string {
	return fmt.Sprintf("heap %.1f MiB, RSS %.1f MiB (%.1f in use), %d threads, state file %d KiB; %s", float64(s.loose["heap"])/(1<<20),
		float64(s.loose["RSS"])/(1<<20), float64(s.loose["RSS in use"])/(1<<20), s.loose["threads"], s.loose["state file"]>>10, counts(s.exact))
}

func counts(m map[string]int64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(list, ", ")
}

// counted are metrics that are counted exactly.
var counted = map[string]string{
	"go_goroutines": "goroutines", "process_open_fds": "open files", "bagpipe_rib_paths": "paths", "bagpipe_rib_attribute_sets": "attribute sets",
	"bagpipe_dataplane_problems": "problems",
}

// look counts what there is now.
func (n *node) look(more func() map[string]int64) (sample, error) {
	m, err := n.metrics()
	if err != nil {
		return sample{}, err
	}
	s := sample{exact: map[string]int64{}, loose: map[string]int64{}}
	for metric, name := range counted {
		s.exact[name] = int64(m[metric])
	}
	s.exact["series of metrics"] = int64(len(m)) - n.transient(m)
	s.loose["heap"], s.loose["RSS"] = int64(m["go_memstats_heap_alloc_bytes"]), int64(m["process_resident_memory_bytes"])
	s.loose["RSS in use"] = s.loose["RSS"] - int64(m["go_memstats_heap_idle_bytes"]-m["go_memstats_heap_released_bytes"])
	s.loose["threads"] = int64(m["go_threads"])
	if info, err := os.Stat(filepath.Join(n.dir, "state", "state.db")); err == nil {
		s.loose["state file"] = info.Size()
	}
	objects, err := kernelObjects(n.Name, n.proc.cmd.Process.Pid)
	maps.Copy(s.exact, objects)
	if more != nil {
		maps.Copy(s.exact, more())
	}
	return s, err
}

// transient counts the series of what has happened, which stay when they are there once.
func (n *node) transient(m map[string]float64) (count int64) {
	for name := range m {
		if strings.Contains(name, `code="`) || strings.Contains(name, `reason="`) {
			count++
		}
	}
	return count
}

// settle waits until what is counted is as in base, or if that is nil until it has not
// changed for a second, and returns the sample with the live heap.
func (n *node) settle(base *sample, more func() map[string]int64) sample {
	n.t.Helper()
	var last, now sample
	var err error
	since := time.Now()
	for deadline := time.Now().Add(patience / 3); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if now, err = n.look(more); err != nil {
			n.t.Fatal(err)
		}
		if base != nil && maps.Equal(now.exact, base.exact) {
			break
		}
		if !maps.Equal(now.exact, last.exact) {
			since = time.Now()
		}
		if last = now; base == nil && time.Since(since) > time.Second {
			break
		}
	}
	if base != nil && !maps.Equal(now.exact, base.exact) {
		n.t.Errorf("not as it was (-before +now):\n%s", cmp.Diff(base.exact, now.exact))
	}
	now.loose["heap"] = n.liveHeap()
	return now
}

// liveHeap returns the octets that are in use behind a garbage collection: questions go on
// until there have been two.
func (n *node) liveHeap() int64 {
	n.t.Helper()
	var first, least float64
	n.eventually("two garbage collections", func() error {
		m, err := n.metrics()
		if err != nil {
			return err
		}
		gcs, heap := m["go_gc_duration_seconds_count"], m["go_memstats_heap_alloc_bytes"]
		if first == 0 {
			first = gcs
		}
		if gcs > first && (least == 0 || heap < least) {
			least = heap
		}
		if gcs < first+2 {
			return fmt.Errorf("%v", gcs-first)
		}
		return nil
	})
	return int64(least)
}

// level fails the test when a loose measure of the last third of the samples is above that
// of the first third by more than its slack.
func level(t *testing.T, samples []sample) {
	t.Helper()
	for name, most := range slack {
		var values []int64
		if most == rssSlack && len(samples) < enough {
			most = fewSlack
		}
		for _, s := range samples {
			values = append(values, s.loose[name])
		}
		first, last := thirds(values)
		t.Logf("%s: median of the first third %d, of the last %d, of %d samples", name, first, last, len(values))
		if last > first+most {
			t.Errorf("%s grows from %d to %d, by more than %d: %v", name, first, last, most, values)
		}
	}
}

// thirds returns the medians of the first and the last third of values.
func thirds(values []int64) (first, last int64) {
	n := max(1, len(values)/3)
	return median(values[:n]), median(values[len(values)-n:])
}

func median(values []int64) int64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

func TestThirds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in          []int64
		first, last int64
	}{
		{[]int64{5}, 5, 5}, {[]int64{1, 2}, 1, 2}, {[]int64{1, 9, 2, 0, 0, 0, 7, 3, 8}, 2, 7}, {[]int64{4, 4, 9, 9, 1, 1, 1}, 4, 1},
	} {
		if first, last := thirds(tt.in); first != tt.first || last != tt.last {
			t.Errorf("thirds(%v) = %d, %d, want %d, %d", tt.in, first, last, tt.first, tt.last)
		}
	}
}
