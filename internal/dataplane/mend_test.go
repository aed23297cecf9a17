// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

const whole = "evpn red vni 100\n  flood via 192.0.2.1/100/VXLAN\n  local-mac dev tap1 02:00:00:00:00:01\n" +
	"  mac 02:00:00:00:00:02 via 192.0.2.1/100/VXLAN\n  port dev tap1\n"

// filled is a node with an instance that has some of everything.
func filled(t *testing.T) (*node, *dataplane.Forwarding) {
	t.Helper()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	do(t, f, add(port(1), localMAC(1, 1)))
	f.Sync(t.Context(), add(remoteMAC(2, 1), flood(1)))
	wantPlane(t, n.plane, whole)
	n.plane.Log()
	return n, f
}

// Nobody asks for anything: the reconciler finds by itself what is gone.
func TestLostInstanceIsMadeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, _ := filled(t)
		n.run(t)
		n.plane.Lose(dataplane.EVPN, "red")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		wantPlane(t, n.plane, whole)
		n.plane.Log()
		time.Sleep(time.Minute)
		synctest.Wait()
		wantLog(t, n.plane) // and then leaves it alone
	})
}

// Each call that reaches the driver finds it too, and succeeds.
func TestLostInstanceIsMadeAgainByCalls(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, *dataplane.Forwarding) error{
		"do": func(ctx context.Context, f *dataplane.Forwarding) error {
			return f.Do(ctx, add(port(1), localMAC(1, 1)))
		},
		"sync": func(ctx context.Context, f *dataplane.Forwarding) error {
			f.Sync(ctx, add(flood(3)))
			f.Sync(ctx, del(flood(3)))
			return nil
		},
		"release": func(ctx context.Context, f *dataplane.Forwarding) error { f.Release(ctx, del(port(3))); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, f := filled(t)
			n.plane.Lose(dataplane.EVPN, "red")
			if err := call(t.Context(), f); err != nil {
				t.Error(err)
			}
			wantPlane(t, n.plane, whole)
			if p := problems(n); len(p) > 0 {
				t.Errorf("problems stay: %v", p)
			}
		})
	}
}

func TestInstanceThatCannotBeRepairedIsOneProblem(t *testing.T) {
	t.Parallel()
	n, f := filled(t)
	n.plane.Fail(fake.Forever, refuse("red: repair"))
	n.plane.Lose(dataplane.EVPN, "red")
	var more []dataplane.Entry
	for i := range 100 {
		more = append(more, remoteMAC(3+i, 2))
	}
	f.Sync(t.Context(), add(more...))
	f.Sync(t.Context(), del(remoteMAC(2, 1)))
	if err := f.Do(t.Context(), add(localMAC(1, 1), port(2))); err == nil {
		t.Error("Do succeeded")
	}
	f.Release(t.Context(), del(localMAC(1, 1)))
	if diff := cmp.Diff([]string{"red + instance (2)"}, problems(n)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	n.plane.Heal()
	n.plane.Fail(1, refuse("red: installed"))
	n.RetryAt(t.Context(), later())
	if diff := cmp.Diff([]string{"red + instance (3)"}, problems(n)); diff != "" {
		t.Errorf("problems when it cannot be read (-want +got):\n%s", diff)
	}
	n.RetryAt(t.Context(), later())
	if p := problems(n); len(p) > 0 {
		t.Errorf("problems stay: %v", p)
	}
	want := append(more, flood(1), port(1))
	if diff := cmp.Diff(texts(want), n.plane.Entries(dataplane.EVPN, "red")); diff != "" {
		t.Errorf("plane (-want +got):\n%s", diff)
	}
	wantEntries(t, f, want...)
}

// What an earlier run left and is still there is kept for the sweep.
func TestRepairKeepsLeftovers(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	f.Sync(t.Context(), add(flood(3)))
	n.plane.Fail(1, refuse("red: + flood via 192.0.2.4/100/VXLAN"))
	f.Sync(t.Context(), add(flood(4))) // looks, and finds that all is there
	n.plane.Lose(dataplane.EVPN, "red")
	n.Check(t.Context())
	wantEntries(t, f, flood(3), flood(4))
	if removed := f.Sweep(t.Context()); removed != 0 {
		t.Errorf("Sweep() = %d after the leftovers were lost, want 0", removed)
	}
}

func TestUnpluggedPortIsPluggedAgain(t *testing.T) {
	t.Parallel()
	n, f := filled(t)
	do(t, f, add(port(2), localMAC(3, 2)))
	n.plane.Log()
	n.plane.Unplug(dataplane.EVPN, "red", "tap2")
	n.Check(t.Context())
	wantLog(t, n.plane, "red: + port dev tap2", "red: + local-mac dev tap2 02:00:00:00:00:03")
	n.plane.Unplug(dataplane.EVPN, "red", "tap2")
	n.plane.Fail(1, refuse("red: + port dev tap2"))
	n.Check(t.Context())
	n.Check(t.Context()) // left to the retry
	if diff := cmp.Diff([]string{"red + port dev tap2 (1)"}, problems(n)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	n.RetryAt(t.Context(), later())
	n.Check(t.Context())
	n.plane.Log()
	n.Check(t.Context())
	wantLog(t, n.plane)
}

// An attach that comes first brings back one MAC, the others are found later.
func TestAttachBeforeUnpluggedPortIsFound(t *testing.T) {
	t.Parallel()
	n, f := filled(t)
	do(t, f, add(localMAC(3, 1)))
	n.plane.Unplug(dataplane.EVPN, "red", "tap1")
	do(t, f, add(port(1), localMAC(1, 1)))
	n.Check(t.Context())
	if diff := cmp.Diff(texts(f.Entries()), n.plane.Entries(dataplane.EVPN, "red")); diff != "" {
		t.Errorf("plane (-desired +plane):\n%s", diff)
	}
}

// A port that is gone is no problem of ours: it is plugged when it comes back.
func TestMissingPortIsNoProblem(t *testing.T) {
	t.Parallel()
	n, _ := filled(t)
	n.plane.FailWith(&dataplane.InputError{Field: "local_port", Text: "tap1 does not exist", Missing: true}, fake.Forever,
		func(o fake.Op) bool { return o.Change.Entry.Port == "tap1" })
	n.plane.Lose(dataplane.EVPN, "red")
	n.Check(t.Context())
	if p := problems(n); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	wantPlane(t, n.plane, "evpn red vni 100\n  flood via 192.0.2.1/100/VXLAN\n  mac 02:00:00:00:00:02 via 192.0.2.1/100/VXLAN\n")
	n.plane.Heal()
	n.plane.Unplug(dataplane.EVPN, "red", "tap1")
	n.Check(t.Context())
	wantPlane(t, n.plane, whole)
}

func TestProblemsAreOnePerInstance(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	plane := fake.NewPlane()
	d := plane.Drivers()
	n := &node{dataplane.NewReconciler(d, slog.New(slog.NewTextHandler(&log, nil))), plane, d}
	f := n.open(t, red)
	plane.Fail(fake.Forever, func(o fake.Op) bool { return o.Verb == "apply" })
	var many []dataplane.Entry
	for i := range 200 {
		many = append(many, remoteMAC(i, 1))
	}
	f.Sync(t.Context(), add(many...))
	f.Sync(t.Context(), add(many[:7]...))
	got := n.Problems()
	if len(got) != 1 {
		t.Fatalf("%d problems, want 1", len(got))
	}
	p := got[0]
	if p.Count != 200 || p.Attempts != 2 || !p.Change.Entry.Equal(many[0]) || !strings.Contains(p.Err.Error(), many[6].String()) {
		t.Errorf("problem %+v, want 200 changes, the first of them, and the last error", p)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 {
		t.Errorf("%d log lines, want one:\n%s", lines, log.String())
	}
	f.Sync(t.Context(), del(many[0]))
	plane.Heal()
	f.Sync(t.Context(), add(many[3:200]...))
	if p := n.Problems(); len(p) != 1 || p[0].Count != 3 || p[0].Attempts != 3 {
		t.Errorf("problems %+v, want one of three changes", p)
	}
}

func TestFailingRemovalIsAProblem(t *testing.T) {
	t.Parallel()
	n, f := filled(t)
	n.plane.Fail(2, func(o fake.Op) bool { return o.Verb == "remove" || o.Verb == "apply" })
	f.Sync(t.Context(), add(flood(9)))
	f.Remove(t.Context())
	if diff := cmp.Diff([]string{"red - instance (1)"}, problems(n)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	n.Check(t.Context())
	n.RetryAt(t.Context(), later())
	if p := problems(n); len(p) > 0 {
		t.Errorf("problems stay: %v", p)
	}
	wantPlane(t, n.plane, "")
}

// lateDriver lists as an orphan what was opened since.
type lateDriver struct{ *fake.Driver }

func (lateDriver) Orphans(context.Context) ([]string, error) { return []string{"red"}, nil }

func TestOrphanOpenedMeanwhileIsNoNews(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	plane := fake.NewPlane()
	r := dataplane.NewReconciler(map[dataplane.VPNType]dataplane.Driver{
		dataplane.EVPN: lateDriver{plane.Driver(dataplane.EVPN)},
	}, slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := r.Open(t.Context(), red); err != nil {
		t.Fatal(err)
	}
	if removed := r.Sweep(t.Context()); len(removed) > 0 || log.Len() > 0 {
		t.Errorf("Sweep() = %v, log: %s", removed, log.String())
	}
	wantPlane(t, plane, "evpn red vni 100\n")
}

func TestInputError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("apply: %w", &dataplane.InputError{Field: "local_port", Text: "tap1 does not exist"})
	var in *dataplane.InputError
	if !errors.As(err, &in) || err.Error() != "apply: local_port: tap1 does not exist" {
		t.Errorf("error %q", err)
	}
}
