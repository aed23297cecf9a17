// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
)

func wantOrphans(t *testing.T, d *Driver, want ...string) {
	t.Helper()
	got, err := d.Orphans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("orphans (-want +got):\n%s", diff)
	}
}

func TestOrphansAreRemovedAndOthersKept(t *testing.T) {
	t.Parallel()
	host := neutron(t, "orphans")
	host.ip("link add evpn-0123456789 up type bridge")
	host.ip("link add vxlan-77 up master evpn-0123456789 type vxlan id 77 dstport 4789")
	host.bridge("fdb add %s dev vxlan-77 dst 192.0.2.9 self extern_learn", mac(1))
	host.ip("link set brq0 alias bagpipe_evpn_x")
	before := host.state()
	long := strings.Repeat("long ", 60)

	old := host.driver(local4)
	mustOpen(t, old, instance("kept", 101))
	gone := mustOpen(t, old, instance("gone", 102))
	mustOpen(t, old, instance(long, 103))
	onTheirs := mustOpen(t, old, brq("on theirs"))
	mustApply(t, gone, add(localPort("p3"), localMAC(3, "p3"))...)
	mustApply(t, onTheirs, add(existingBridgeSample()...)...)
	wantOrphans(t, old)

	d := host.driver(local4)
	wantOrphans(t, d, "gone", "kept", "on theirs", listedID(long))
	kept := mustOpen(t, d, instance("kept", 101))
	wantOrphans(t, d, "gone", "on theirs", listedID(long))
	// A port of an orphan may be taken.
	mustApply(t, kept, add(localPort("p3"))...)
	for _, id := range []string{"gone", "on theirs", listedID(long), "never there"} {
		if err := d.RemoveOrphan(t.Context(), id); err != nil {
			t.Errorf("RemoveOrphan(%q): %v", id, err)
		}
	}
	wantOrphans(t, d)
	wantErr(t, d.RemoveOrphan(t.Context(), "kept"), "kept", "open")
	if err := kept.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	host.ip("link set p3 down")
	wantSame(t, "state of others", before, host.state())
}

// The orphan's bridge serves another instance by now, whose entries must stay.
func TestOrphanOnBridgeInUse(t *testing.T) {
	t.Parallel()
	host := neutron(t, "inuse")
	old := brq("old")
	old.VNI = 99
	mustOpen(t, host.driver(local4), old)
	d := host.driver(local4)
	h := mustOpen(t, d, brq("new"))
	mustApply(t, h, add(existingBridgeSample()...)...)
	wantOrphans(t, d, "old")
	if err := d.RemoveOrphan(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	wantOrphans(t, d)
	wantInstalled(t, h, existingBridgeSample()...)
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	host := neutron(t, "cleanup")
	host.ip("link add vxlan-300 up master brq0 type vxlan id 300 dstport 4789")
	host.ip("link set vxlan-300 addrgenmode none")
	host.ip("link add evpn-0123456789 type bridge")
	before := host.state()
	d := host.driver(local4)
	red := mustOpen(t, d, instance("red", 100))
	mustApply(t, red, add(localPort("p3"))...)
	borrowed := brq("borrowed")
	borrowed.VNI = 300
	b := mustOpen(t, d, borrowed)
	mustApply(t, b, add(existingBridgeSample()...)...)
	// The original's, with ports and a second form of the name.
	host.ip("link add evpn---abcdefg up type bridge")
	host.ip("link add vxlan--abcdefg up master evpn---abcdefg type vxlan id 500 dstport 4789")
	host.ip("link add half type bridge")
	host.ip("link set half group %d", devname.HalfMade)

	var removed []string
	var err error
	host.Do(func() { removed, err = Cleanup(t.Context(), nil) })
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{
		`device ` + red.bridgeName + ` of instance "red"`, `device ` + red.vxlanName + ` of instance "red"`,
		"device evpn---abcdefg", "device vxlan--abcdefg", "device half", "entries in bridge brq0",
	} {
		if !strings.Contains(strings.Join(removed, "\n"), what) {
			t.Errorf("removed %q, does not contain %q", removed, what)
		}
	}
	host.ip("link set p3 down")
	host.ip("link set vxlan-300 type bridge_slave learning on neigh_suppress off") // not known to Cleanup
	wantSame(t, "state of others", before, host.state())
	host.Do(func() { removed, err = Cleanup(t.Context(), nil) })
	if err != nil || len(removed) != 0 {
		t.Errorf("second Cleanup removed %q (%v)", removed, err)
	}
}

// Whichever comes first, an instance that is opened while orphans are removed
// has its devices.
func TestOpenWhileOrphansAreRemoved(t *testing.T) {
	t.Parallel()
	host := newHost(t, "sweeprace")
	const instances = 30
	ids := make([]string, instances)
	old := host.driver(local4)
	for n := range ids {
		ids[n] = fmt.Sprintf("red %d", n)
		mustOpen(t, old, instance(ids[n], uint32(100+n)))
	}
	d := host.driver(local4)
	conn := host.conn()
	opened := make([]dataplane.Handle, instances)
	var wg sync.WaitGroup
	for n, id := range ids {
		wg.Go(func() {
			if err := d.RemoveOrphan(t.Context(), id); err != nil && !errors.Is(err, dataplane.ErrOpen) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var err error
			if opened[n], err = d.Open(t.Context(), instance(id, uint32(100+n))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantOrphans(t, d)
	for n, o := range opened {
		h := o.(*handle)
		for _, index := range []int{h.bridge, h.vxlan} {
			if _, ok, err := conn.LinkByIndex(index); !ok || err != nil {
				t.Errorf("%s: device #%d is gone (%v)", ids[n], index, err)
			}
		}
	}
}
