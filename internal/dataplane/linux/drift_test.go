// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

func wantDrift(t *testing.T, d *Driver, want ...dataplane.Drift) {
	t.Helper()
	got, err := d.Drifted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
}

// forwarding opens an instance on a reconciler and fills it with sample().
func forwarding(t *testing.T, d *Driver, inst dataplane.Instance, entries []dataplane.Entry) (*dataplane.Reconciler, *dataplane.Forwarding) {
	t.Helper()
	r := dataplane.NewReconciler(map[dataplane.VPNType]dataplane.Driver{dataplane.EVPN: d}, slog.New(slog.DiscardHandler))
	f, err := r.Open(t.Context(), inst)
	if err != nil {
		t.Fatal(err)
	}
	var local, remote []dataplane.Change
	for _, c := range add(entries...) {
		if c.Entry.Kind == dataplane.LocalPort || c.Entry.Kind == dataplane.LocalMAC {
			local = append(local, c)
		} else {
			remote = append(remote, c)
		}
	}
	if err := f.Do(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	f.Sync(t.Context(), remote)
	return r, f
}

// opened returns the driver's handle of an instance.
func opened(d *Driver, id string) *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[listedID(id)]
}

// Whatever others take from an instance is found and made again.
func TestRepair(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		breakIt string // bridge, VXLAN device
	}{
		{"VXLAN device deleted", "link del %[2]s"},
		{"bridge deleted", "link del %[1]s"},
		{"VXLAN device taken out", "link set %[2]s nomaster"},
		{"VXLAN device down", "link set %[2]s down"},
		{"bridge down", "link set %[1]s down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "repair")
			host.ports("p1", "p2")
			d := host.driver(local4)
			_, f := forwarding(t, d, instance("red", 100), sample())
			h := opened(d, "red")
			wantInstalled(t, h, sample()...)
			wantDrift(t, d)
			host.ip(tt.breakIt, h.bridgeName, h.vxlanName)
			wantDrift(t, d, dataplane.Drift{Instance: "red", Whole: true})
			// What reaches the kernel and fails is mended on the way.
			f.Sync(t.Context(), add(neighbour("198.51.100.12", 12), flood("192.0.2.77", 100)))
			if err := f.Do(t.Context(), add(localPort("p1"), localMAC(1, "p1"))); err != nil {
				t.Error(err)
			}
			if _, err := h.Repair(t.Context()); err != nil {
				t.Error(err)
			}
			wantDrift(t, d)
			if again, err := h.Repair(t.Context()); again || err != nil {
				t.Errorf("second Repair() = %v, %v", again, err)
			}
			f.Remove(t.Context())
			if host.exists(h.bridgeName) || host.exists(h.vxlanName) || len(d.found) > 0 {
				t.Errorf("left after Remove: %v", d.found)
			}
		})
	}
}

// An attach after the loss of a device succeeds, and brings all entries back.
func TestAttachAfterLossOfDevices(t *testing.T) {
	t.Parallel()
	for _, device := range []string{"bridge", "VXLAN"} {
		t.Run(device, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "reattach")
			host.ports("p1", "p2")
			d := host.driver(local4)
			r, f := forwarding(t, d, instance("red", 100), sample())
			h := opened(d, "red")
			name := map[string]string{"bridge": h.bridgeName, "VXLAN": h.vxlanName}[device]
			host.ip("link del %s", name)
			if err := f.Do(t.Context(), add(localPort("p1"), localMAC(1, "p1"))); err != nil {
				t.Error(err)
			}
			f.Sync(t.Context(), append(del(flood("192.0.2.9", 100)), add(flood("192.0.2.9", 101))...))
			want := append(sample(), flood("192.0.2.9", 101))
			want = append(want[:8:8], want[9:]...)
			wantInstalled(t, h, want...)
			if p := r.Problems(); len(p) > 0 {
				t.Errorf("problems: %v", p)
			}
		})
	}
}

// Nobody attaches anything: the reconciler looks by itself.
func TestReconcilerFindsLostDevices(t *testing.T) {
	t.Parallel()
	host := newHost(t, "watch")
	host.ports("p1", "p2")
	d := host.driver(local4)
	r, _ := forwarding(t, d, instance("red", 100), sample())
	bridge, name := opened(d, "red").bridgeName, opened(d, "red").vxlanName
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	host.ip("link del %s", name)
	host.ip("link del p2")
	host.ports("p2")
	nstest.Eventually(t, 25*time.Second, func() bool {
		out, err := host.Try("bridge", "fdb", "show", "br", bridge)
		return err == nil && contains(out, mac(2).String()+" dev p2") &&
			contains(out, mac(11).String()+" dev "+name+" dst 192.0.2.9") && contains(out, "dst 192.0.2.8 vni 200")
	}, func() string { return host.bridge("fdb show") })
}

func TestUnpluggedPortIsListed(t *testing.T) {
	t.Parallel()
	host := newHost(t, "unplugged")
	host.ports("p1", "p2")
	d := host.driver(local4)
	h := mustOpen(t, d, instance("red", 100))
	mustApply(t, h, add(localPort("p1"), localMAC(1, "p1"), localPort("p2"))...)
	drift := dataplane.Drift{Instance: "red", Ports: []string{"p1"}}
	host.ip("link set p1 nomaster")
	wantDrift(t, d, drift)
	mustApply(t, h, add(localPort("p1"))...)
	wantDrift(t, d)
	host.ip("link del p1")
	wantDrift(t, d) // not ours to make
	host.ports("p1")
	wantDrift(t, d, drift)
	// An attach of one MAC plugs it, the others are still to be found.
	mustApply(t, h, add(localPort("p1"))...)
	wantDrift(t, d, drift)
	wantDrift(t, d)
	host.ip("link del p1")
	mustApply(t, h, del(localMAC(1, "p1"), localPort("p1"))...)
	host.ports("p1")
	wantDrift(t, d)
}

// Bridge and ports of others are theirs to make: we follow.
func TestRepairOnExistingBridge(t *testing.T) {
	t.Parallel()
	for _, borrowed := range []bool{false, true} {
		t.Run(fmt.Sprintf("VXLAN of others %v", borrowed), func(t *testing.T) {
			t.Parallel()
			host := neutron(t, "follow")
			if borrowed {
				host.ip("link add theirs up master brq0 type vxlan id 100 local %s dstport 4789 nolearning", local4)
			}
			d := host.driver(local4)
			r, f := forwarding(t, d, brq("red"), existingBridgeSample())
			h := opened(d, "red")
			host.ip("link del brq0")
			wantDrift(t, d, dataplane.Drift{Instance: "red", Whole: true})
			err := f.Do(t.Context(), add(localPort("p1"), localMAC(1, "p1")))
			wantInput(t, err, "linuxbr", "brq0")
			if p := r.Problems(); len(p) != 1 || p[0].Change.Entry.Kind != dataplane.Whole {
				t.Errorf("problems %v, want the instance", p)
			}
			host.ip("link add brq0 up type bridge")
			host.ip("link set p1 master brq0 up")
			if borrowed {
				host.ip("link set theirs master brq0")
			}
			if err := f.Do(t.Context(), add(localPort("p1"), localMAC(1, "p1"))); err != nil {
				t.Error(err)
			}
			wantInstalled(t, h, existingBridgeSample()...)
			f.Remove(t.Context())
			if out := host.bridge("fdb show"); contains(out, "extern_learn") {
				t.Errorf("left after Remove: %s", out)
			}
		})
	}
}

// BenchmarkDrifted is the look at 1,000 instances with a port each.
func BenchmarkDrifted(b *testing.B) {
	host := newHost(b, "benchdrift")
	d := host.driver(local4)
	for n := range 1000 {
		host.ip("link add p%d type veth peer name x%d", n, n)
		h := mustOpen(b, d, instance(fmt.Sprintf("red %d", n), uint32(n+1)))
		mustApply(b, h, add(localPort(fmt.Sprintf("p%d", n)))...)
	}
	for b.Loop() {
		if drift, err := d.Drifted(b.Context()); len(drift) > 0 || err != nil {
			b.Fatal(drift, err)
		}
	}
}
