// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// left is a plane on which a node ran that had two instances.
func left(t *testing.T) *node {
	t.Helper()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	do(t, f, add(port(1), localMAC(1, 1)))
	f.Sync(t.Context(), add(remoteMAC(2, 1), neighbour(2, 2), flood(1), flood(2)))
	b := n.open(t, dataplane.Instance{Number: 2, ID: "blue", Type: dataplane.IPVPN, VNI: 16})
	b.Sync(t.Context(), add(prefix(1, 1, 2)))
	next := n.restart(t)
	n.plane.Log()
	return next
}

func TestAdoptionOfWhatIsRightCallsNobody(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	b := n.open(t, dataplane.Instance{Number: 1, ID: "blue", Type: dataplane.IPVPN, VNI: 16})
	f.Sync(t.Context(), add(remoteMAC(2, 1), neighbour(2, 2), flood(1), flood(2)))
	b.Sync(t.Context(), add(prefix(1, 1, 2)))
	wantLog(t, n.plane, "red: open", "blue: open")
	do(t, f, add(port(1), localMAC(1, 1))) // ports may be other devices now
	if removed := n.Sweep(t.Context()); len(removed) > 0 {
		t.Errorf("Sweep() removed %v", removed)
	}
	wantLog(t, n.plane, "red: + port dev tap1", "red: + local-mac dev tap1 02:00:00:00:00:01")
	wantNoBreach(t, n.plane)
}

func TestAdoptionReplacesAndSweeps(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	f.Sync(t.Context(), add(remoteMAC(2, 3), flood(2)))
	f.Sync(t.Context(), del(neighbour(2, 2)))
	wantLog(t, n.plane, "red: open", "red: + mac 02:00:00:00:00:02 via 192.0.2.3/100/VXLAN", "red: - neigh 02:00:00:00:00:02 ip 198.51.100.2")
	removed := n.Sweep(t.Context())
	slices.Sort(removed)
	if diff := cmp.Diff([]string{"3 entries of instance red", "instance blue"}, removed); diff != "" {
		t.Errorf("Sweep() (-want +got):\n%s", diff)
	}
	wantPlane(t, n.plane, "evpn red vni 100\n  flood via 192.0.2.2/100/VXLAN\n  mac 02:00:00:00:00:02 via 192.0.2.3/100/VXLAN\n")
	if removed := n.Sweep(t.Context()); len(removed) > 0 {
		t.Errorf("second Sweep() removed %v", removed)
	}
}

// An attach that fails makes nothing of an earlier run look wanted.
func TestFailedDoDoesNotAdopt(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	before := n.plane.String()
	n.plane.Fail(1, refuse("red: + local-mac dev tap1 02:00:00:00:00:09"))
	if err := f.Do(t.Context(), add(port(1), localMAC(9, 1))); err == nil {
		t.Fatal("Do succeeded")
	}
	n.plane.Fail(1, refuse("red: + port dev tap9"))
	if err := f.Do(t.Context(), add(localMAC(1, 2), port(9))); err == nil {
		t.Fatal("Do succeeded")
	}
	wantEntries(t, f)
	wantPlane(t, n.plane, before)
	f.Sweep(t.Context())
	if got := n.plane.Entries(dataplane.EVPN, "red"); len(got) > 0 {
		t.Errorf("left after the sweep: %v", got)
	}
}

func TestAdoptionComparesAllNextHops(t *testing.T) {
	t.Parallel()
	n := left(t)
	b := n.open(t, dataplane.Instance{Number: 1, ID: "blue", Type: dataplane.IPVPN, VNI: 16})
	b.Sync(t.Context(), add(prefix(1, 1, 3)))
	wantLog(t, n.plane, "blue: open", "blue: + prefix 203.0.1.0/24 via 192.0.2.1/100/MPLS via 192.0.2.3/100/MPLS")
}

func TestSweepLeavesInstanceThatIsBeingRemoved(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	n.plane.Fail(1, refuse("red: remove"))
	f.Remove(t.Context())
	n.plane.Log()
	if removed := f.Sweep(t.Context()); removed != 0 {
		t.Errorf("Sweep() = %d, want 0", removed)
	}
	wantLog(t, n.plane)
	n.RetryAt(t.Context(), later())
	wantLog(t, n.plane, "red: remove")
}

func TestFailedSweepIsRetried(t *testing.T) {
	t.Parallel()
	n := left(t)
	f := n.open(t, red)
	n.plane.Fail(1, refuse("red: - flood via 192.0.2.1/100/VXLAN"))
	f.Sweep(t.Context())
	wantEntriesOf := []string{"flood via 192.0.2.1/100/VXLAN"}
	if diff := cmp.Diff(wantEntriesOf, n.plane.Entries(dataplane.EVPN, "red")); diff != "" {
		t.Errorf("after the sweep (-want +got):\n%s", diff)
	}
	n.RetryAt(t.Context(), later())
	if got := n.plane.Entries(dataplane.EVPN, "red"); len(got) > 0 {
		t.Errorf("after the retry: %v", got)
	}
}

func TestSweepGoesOnAfterOrphanThatStays(t *testing.T) {
	t.Parallel()
	n := left(t)
	n.plane.Fail(1, refuse("red: remove orphan"))
	n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "orphans" })
	for range 3 {
		n.Sweep(t.Context())
	}
	wantPlane(t, n.plane, "")
}
