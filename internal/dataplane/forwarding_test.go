// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

func TestSyncHandsOnlyDifferencesToTheDriver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before []dataplane.Change
		in     []dataplane.Change
		want   []string
	}{
		{"new entry", nil, add(remoteMAC(1, 1)), []string{"red: + mac 02:00:00:00:00:01 via 192.0.2.1/100/VXLAN"}},
		{"same entry again", add(remoteMAC(1, 1), neighbour(1, 1), flood(1)), add(remoteMAC(1, 1), neighbour(1, 1), flood(1)), nil},
		{"other next hop", add(remoteMAC(1, 1)), add(remoteMAC(1, 2)), []string{"red: + mac 02:00:00:00:00:01 via 192.0.2.2/100/VXLAN"}},
		{"other MAC of a neighbour", add(neighbour(1, 1)), add(neighbour(1, 2)), []string{"red: + neigh 02:00:00:00:00:02 ip 198.51.100.1"}},
		{"withdrawal of what is not there", nil, del(remoteMAC(1, 1), flood(1)), nil},
		{"withdrawal", add(flood(1), flood(2)), del(flood(1)), []string{"red: - flood via 192.0.2.1/100/VXLAN"}},
		{"second withdrawal", append(add(flood(1)), del(flood(1))...), del(flood(1)), nil},
		{
			"withdrawn and announced", add(remoteMAC(1, 1)), append(del(remoteMAC(1, 1)), add(remoteMAC(1, 1))...),
			[]string{"red: - mac 02:00:00:00:00:01 via 192.0.2.1/100/VXLAN", "red: + mac 02:00:00:00:00:01 via 192.0.2.1/100/VXLAN"},
		},
		{
			"announced and withdrawn", nil, append(add(flood(1)), del(flood(1))...),
			[]string{"red: + flood via 192.0.2.1/100/VXLAN", "red: - flood via 192.0.2.1/100/VXLAN"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(fake.NewPlane())
			f := n.open(t, red)
			f.Sync(t.Context(), tt.before)
			n.plane.Log()
			f.Sync(t.Context(), tt.in)
			wantLog(t, n.plane, tt.want...)
			wantNoBreach(t, n.plane)
		})
	}
}

func TestSyncComparesAllNextHops(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	vrf := dataplane.Instance{Number: 1, ID: "blue", Type: dataplane.IPVPN, VNI: 16}
	f := n.open(t, vrf)
	hops := prefix(1, 1, 2)
	f.Sync(t.Context(), add(hops))
	hops.NextHops[1] = hop(9) // the caller uses its buffer again
	n.plane.Log()
	f.Sync(t.Context(), add(prefix(1, 1, 2)))
	wantLog(t, n.plane)
	f.Sync(t.Context(), add(prefix(1, 1, 3)))
	wantLog(t, n.plane, "blue: + prefix 203.0.1.0/24 via 192.0.2.1/100/MPLS via 192.0.2.3/100/MPLS")
	f.Sync(t.Context(), add(prefix(1, 1)))
	wantLog(t, n.plane, "blue: + prefix 203.0.1.0/24 via 192.0.2.1/100/MPLS")
	wantPlane(t, n.plane, "ipvpn blue vni 16\n  prefix 203.0.1.0/24 via 192.0.2.1/100/MPLS\n")
	if got := n.Changes(); got != 3 {
		t.Errorf("Changes() = %d, want 3", got)
	}
}

func TestDoIsAllOrNothing(t *testing.T) {
	t.Parallel()
	const before = "evpn red vni 100\n  local-mac dev tap1 02:00:00:00:00:01\n  port dev tap1\n"
	moved := append(add(port(2), localMAC(1, 2)), del(port(1))...)
	for _, tt := range []struct {
		name string
		in   []dataplane.Change
		fail string
	}{
		{"first of two", add(port(2), localMAC(2, 2)), "red: + port dev tap2"},
		{"second of two", add(port(2), localMAC(2, 2)), "red: + local-mac dev tap2 02:00:00:00:00:02"},
		{"after a repetition", add(port(1), localMAC(2, 1)), "red: + local-mac dev tap1 02:00:00:00:00:02"},
		{"a repetition", add(port(1)), "red: + port dev tap1"},
		{"after a replacement", moved, "red: - port dev tap1"},
		{"after a removal", append(del(localMAC(1, 1)), add(port(2))...), "red: + port dev tap2"},
		{"after removal of what is not there", append(del(port(3)), add(port(2))...), "red: + port dev tap2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(fake.NewPlane())
			f := n.open(t, red)
			do(t, f, add(port(1), localMAC(1, 1)))
			n.plane.Fail(1, refuse(tt.fail))
			if err := f.Do(t.Context(), tt.in); err == nil {
				t.Fatal("Do succeeded")
			}
			wantPlane(t, n.plane, before)
			wantEntries(t, f, port(1), localMAC(1, 1))
			if p := f.Problems(); len(p) != 0 {
				t.Errorf("Problems() = %v after everything was undone", p)
			}
			do(t, f, tt.in)
		})
	}
}

func TestDoUndoesInReverse(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	n.plane.Log()
	n.plane.Fail(1, refuse("red: + local-mac dev tap1 02:00:00:00:00:02"))
	if err := f.Do(t.Context(), add(port(1), localMAC(1, 1), localMAC(2, 1))); err == nil {
		t.Fatal("Do succeeded")
	}
	wantLog(t, n.plane, "red: + port dev tap1", "red: + local-mac dev tap1 02:00:00:00:00:01",
		"! red: + local-mac dev tap1 02:00:00:00:00:02", "red: - local-mac dev tap1 02:00:00:00:00:01", "red: - port dev tap1")
}

func TestFailedChangeKeepsItsNextHops(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	e := remoteMAC(1, 1)
	n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "apply" })
	f.Sync(t.Context(), add(e))
	e.NextHops[0] = hop(9) // the caller uses its buffer again
	n.RetryAt(t.Context(), later())
	wantPlane(t, n.plane, "evpn red vni 100\n  mac 02:00:00:00:00:01 via 192.0.2.1/100/VXLAN\n")
}

func TestDoRepeatsWhatIsThere(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	do(t, f, add(port(1)))
	n.plane.Log()
	do(t, f, add(port(1)))
	wantLog(t, n.plane, "red: + port dev tap1")
}

func TestFailedUndoIsRetried(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	n.plane.Fail(fake.Forever, refuse("red: - port dev tap1"))
	n.plane.Fail(1, refuse("red: + local-mac dev tap1 02:00:00:00:00:01"))
	if err := f.Do(t.Context(), add(port(1), localMAC(1, 1))); err == nil {
		t.Fatal("Do succeeded")
	}
	wantEntries(t, f)
	wantPlane(t, n.plane, "evpn red vni 100\n  port dev tap1\n")
	if diff := cmp.Diff([]string{"red - port dev tap1 (1)"}, problems(n)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	n.plane.Heal()
	n.RetryAt(t.Context(), later())
	wantPlane(t, n.plane, "evpn red vni 100\n")
	if p := problems(n); len(p) > 0 {
		t.Errorf("problems stay: %v", p)
	}
}

func TestReleaseRetries(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	do(t, f, add(port(1), localMAC(1, 1)))
	n.plane.Fail(2, refuse("red: - local-mac dev tap1 02:00:00:00:00:01"))
	f.Release(t.Context(), del(localMAC(1, 1), port(1)))
	wantEntries(t, f)
	wantPlane(t, n.plane, "evpn red vni 100\n  local-mac dev tap1 02:00:00:00:00:01\n")
	n.RetryAt(t.Context(), later())
	if diff := cmp.Diff([]string{"red - local-mac dev tap1 02:00:00:00:00:01 (2)"}, problems(n)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	n.RetryAt(t.Context(), later())
	wantPlane(t, n.plane, "evpn red vni 100\n")
	f.Release(t.Context(), nil)
	wantNoBreach(t, n.plane)
}

func TestFailedRemovalGivesWayToNewDesire(t *testing.T) {
	t.Parallel()
	n := newNode(fake.NewPlane())
	f := n.open(t, red)
	do(t, f, add(port(1)))
	f.Sync(t.Context(), add(flood(1)))
	n.plane.Fail(fake.Forever, func(o fake.Op) bool { return o.Change.Delete })
	f.Release(t.Context(), del(port(1)))
	f.Sync(t.Context(), del(flood(1)))
	do(t, f, add(port(1)))
	f.Sync(t.Context(), add(flood(1)))
	n.plane.Heal()
	n.RetryAt(t.Context(), later())
	wantPlane(t, n.plane, "evpn red vni 100\n  flood via 192.0.2.1/100/VXLAN\n  port dev tap1\n")
	wantEntries(t, f, port(1), flood(1))
}

func TestDesiredCountsByKind(t *testing.T) {
	t.Parallel()
	f := newNode(fake.NewPlane()).open(t, red)
	do(t, f, add(port(1), localMAC(1, 1), localMAC(2, 1)))
	f.Sync(t.Context(), add(remoteMAC(3, 1), flood(1), flood(2), neighbour(1, 3)))
	want := map[dataplane.Kind]int{
		dataplane.LocalPort: 1, dataplane.LocalMAC: 2, dataplane.RemoteMAC: 1, dataplane.Flood: 2, dataplane.Neighbour: 1,
	}
	if diff := cmp.Diff(want, f.Desired()); diff != "" {
		t.Errorf("Desired() (-want +got):\n%s", diff)
	}
}
