// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// trial is a test whose failure is a result: a sequence of events is tried again
// with fewer of them.
type trial struct {
	testing.TB
	patience time.Duration

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// try runs f to its end or first fatal failure and returns what failed.
func try(tb testing.TB, patience time.Duration, f func(testing.TB)) (failure string) {
	tb.Helper()
	x := &trial{TB: tb, patience: patience}
	run := func(f func()) {
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		<-done
	}
	run(func() { f(x) })
	for _, c := range slices.Backward(x.cleanups) {
		run(c)
	}
	return strings.Join(x.failures, "\n")
}

func (x *trial) Helper() {}

func (x *trial) Cleanup(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cleanups = append(x.cleanups, f)
}

func (x *trial) Errorf(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failures = append(x.failures, fmt.Sprintf(format, args...))
}

func (x *trial) Error(args ...any) { x.Errorf("%s", fmt.Sprint(args...)) }

func (x *trial) Fatalf(format string, args ...any) {
	x.Errorf(format, args...)
	runtime.Goexit()
}

func (x *trial) Fatal(args ...any) { x.Fatalf("%s", fmt.Sprint(args...)) }

func (x *trial) Failed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.failures) > 0
}

// shorten removes events for as long as the rest fails, and time is left: first
// large parts, then single ones (delta debugging).
func shorten[E any](list []E, until time.Time, fails func([]E) bool) []E {
	for part := len(list) / 2; part > 0; {
		removed := false
		for from := 0; from+part <= len(list) && time.Now().Before(until); {
			less := slices.Concat(list[:from], list[from+part:])
			if fails(less) {
				list, removed = less, true
			} else {
				from += part
			}
		}
		if !removed || part > 1 {
			part /= 2
		}
	}
	return list
}

func TestShorten(t *testing.T) {
	fails := func(list []int) bool { return slices.Contains(list, 3) && slices.Contains(list, 17) }
	var list []int
	for i := range 40 {
		list = append(list, i)
	}
	if got := shorten(list, time.Now().Add(time.Minute), fails); !slices.Equal(got, []int{3, 17}) {
		t.Errorf("shorten() = %v, want [3 17]", got)
	}
}
