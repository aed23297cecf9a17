// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// later is when all pauses have ended.
func later() time.Time { return time.Now().Add(time.Hour) }

// problems lists what is not installed, as "instance change (attempts)".
func problems(n *node) []string {
	out := []string{}
	for _, p := range n.Problems() {
		out = append(out, fmt.Sprintf("%s %s (%d)", p.Instance, p.Change, p.Attempts))
	}
	slices.Sort(out)
	return out
}

// run runs the reconciler until the end of the test, in a bubble.
func (n *node) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestFailedSyncIsRetriedWithBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(fake.NewPlane())
		n.run(t)
		f := n.open(t, red)
		start := time.Now()
		var at []time.Duration
		n.plane.Fail(fake.Forever, func(o fake.Op) bool {
			if o.Verb == "apply" {
				at = append(at, time.Since(start))
			}
			return o.Verb == "apply" && len(at) < 12
		})
		f.Sync(t.Context(), add(flood(1)))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want := []time.Duration{0}
		for _, pause := range []float64{.25, .5, 1, 2, 4, 8, 16, 30, 30, 30, 30} {
			want = append(want, want[len(want)-1]+time.Duration(pause*float64(time.Second)))
		}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		wantPlane(t, n.plane, "evpn red vni 100\n  flood via 192.0.2.1/100/VXLAN\n")
		if p := problems(n); len(p) > 0 {
			t.Errorf("problems stay: %v", p)
		}
	})
}

func TestRetryEndsWhenNoLongerDesired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(fake.NewPlane())
		n.run(t)
		f := n.open(t, red)
		n.plane.Fail(fake.Forever, refuse("red: + flood via 192.0.2.1/100/VXLAN"))
		f.Sync(t.Context(), add(flood(1), flood(2)))
		time.Sleep(time.Second)
		f.Sync(t.Context(), del(flood(1)))
		n.plane.Log()
		time.Sleep(time.Hour)
		synctest.Wait()
		wantLog(t, n.plane)
		wantPlane(t, n.plane, "evpn red vni 100\n  flood via 192.0.2.2/100/VXLAN\n")
	})
}

func TestRetryUsesTheNewestDesire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(fake.NewPlane())
		n.run(t)
		f := n.open(t, red)
		f.Sync(t.Context(), add(remoteMAC(1, 1)))
		n.plane.Fail(2, func(o fake.Op) bool { return o.Verb == "apply" })
		f.Sync(t.Context(), add(remoteMAC(1, 2)))
		f.Sync(t.Context(), add(remoteMAC(1, 3)))
		if diff := cmp.Diff([]string{"red + mac 02:00:00:00:00:01 via 192.0.2.3/100/VXLAN (2)"}, problems(n)); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		wantPlane(t, n.plane, "evpn red vni 100\n  mac 02:00:00:00:00:01 via 192.0.2.3/100/VXLAN\n")
	})
}

func TestFailedRemoveIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(fake.NewPlane())
		n.run(t)
		f := n.open(t, red)
		do(t, f, add(port(1)))
		n.plane.Fail(2, refuse("red: remove"))
		f.Remove(t.Context())
		f.Remove(t.Context()) // no second attempt
		f.Sync(t.Context(), add(flood(1)))
		wantPlane(t, n.plane, "evpn red vni 100\n  port dev tap1\n")
		time.Sleep(time.Hour)
		synctest.Wait()
		wantPlane(t, n.plane, "")
		wantLog(t, n.plane, "red: open", "red: + port dev tap1", "! red: remove", "! red: remove", "red: remove")
	})
}

func TestOpenFinishesEarlierRemoval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(fake.NewPlane())
		n.run(t)
		f := n.open(t, red)
		do(t, f, add(port(1)))
		n.plane.Fail(2, refuse("red: remove"))
		f.Remove(t.Context())
		if _, err := n.Open(t.Context(), red); err == nil {
			t.Fatal("Open succeeded although the instance could not be removed")
		}
		f = n.open(t, red)
		do(t, f, add(port(2)))
		time.Sleep(time.Hour) // the retry of the removal must not hit the new instance
		synctest.Wait()
		wantPlane(t, n.plane, "evpn red vni 100\n  port dev tap2\n")
	})
}

func TestOpenThatCannotReadIsUndone(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	n.plane.Fail(1, refuse("red: installed"))
	n.plane.Fail(1, refuse("red: remove"))
	if _, err := n.Open(t.Context(), red); err == nil {
		t.Fatal("Open succeeded")
	}
	n.RetryAt(t.Context(), later())
	wantPlane(t, n.plane, "")
	n.open(t, red)
	wantPlane(t, n.plane, "evpn red vni 100\n")
}

func TestOpenWithoutDriver(t *testing.T) {
	t.Parallel()
	r := dataplane.NewReconciler(nil, slog.New(slog.DiscardHandler))
	if _, err := r.Open(t.Context(), red); err == nil {
		t.Error("Open succeeded without a driver")
	}
	if d := r.Driver(dataplane.EVPN); d != nil {
		t.Errorf("Driver() = %v, want none", d)
	}
}

// A driver sees one call at a time for an instance, whoever asks.
func TestCallsForOneInstanceNeverOverlap(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	n.plane.Fail(50, func(o fake.Op) bool { return o.Verb == "apply" })
	done := make(chan struct{})
	for g := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 50 {
				_ = f.Do(t.Context(), add(port(g), localMAC(i, g)))
				f.Sync(t.Context(), add(remoteMAC(i, g+1), flood(g+1)))
				f.Release(t.Context(), del(localMAC(i, g), port(g)))
				n.RetryAt(t.Context(), later())
				f.Sweep(t.Context())
			}
		}()
	}
	for range 4 {
		<-done
	}
	n.RetryAt(t.Context(), later())
	wantNoBreach(t, n.plane)
	if diff := cmp.Diff(texts(f.Entries()), n.plane.Entries(dataplane.EVPN, "red")); diff != "" {
		t.Errorf("plane differs from what is desired (-desired +plane):\n%s", diff)
	}
}
