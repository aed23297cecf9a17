// SPDX-License-Identifier: Apache-2.0

package vethpair

import (
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/vishvananda/netlink"
)

// devices returns "name alias mtu up" of the veth devices.
func devices(t *testing.T) (out []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			out = append(out, l.Attrs().Name)
		}
	}
	slices.Sort(out)
	return out
}

func wantDevices(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := devices(t); !slices.Equal(got, want) {
		t.Errorf("devices %v, want %v", got, want)
	}
}

func TestLifeOfAPair(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "veth")
	p, o := Pair{"evi 1", "vrf/1"}, Pair{"evi 1", "vrf/2"}
	ns.Do(func() {
		for range 2 { // the second time it is there
			if err := Ensure(p, 1450); err != nil {
				t.Fatal(err)
			}
			wantDevices(t, p.EVIPort(), p.VRFPort())
		}
		if err := Ensure(o, 1400); err != nil {
			t.Fatal(err)
		}
		l, err := netlink.LinkByName(p.VRFPort())
		if err != nil || l.Attrs().MTU != 1450 || l.Attrs().OperState != netlink.OperUp {
			t.Errorf("device %+v, %v: want MTU 1450, up", l, err)
		}
		if err := Ensure(p, 1300); err != nil {
			t.Fatal(err)
		}
		if l, err := netlink.LinkByName(p.EVIPort()); err != nil || l.Attrs().MTU != 1300 {
			t.Errorf("MTU is not changed to 1300: %v", err)
		}
		if removed, err := Sweep([]Pair{p}); err != nil || !slices.Equal(removed, []string{o.VRFPort()}) {
			t.Errorf("Sweep() = %v, %v", removed, err)
		}
		wantDevices(t, p.EVIPort(), p.VRFPort())
		for range 2 {
			if err := Remove(p); err != nil {
				t.Fatal(err)
			}
			wantDevices(t)
		}
	})
}

// What we left half made is made anew; what others made stays.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "veth")
	p := Pair{"a", "b"}
	ns.Do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = p.VRFPort()
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "other"}); err != nil {
			t.Fatal(err)
		}
		if err := Ensure(p, 1400); err != nil {
			t.Fatal(err)
		}
		wantDevices(t, p.EVIPort(), p.VRFPort())
		l, err := netlink.LinkByName(p.VRFPort())
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetAlias(l, "mine"); err != nil {
			t.Fatal(err)
		}
		if err := Ensure(p, 1400); err == nil || !strings.Contains(err.Error(), p.VRFPort()) {
			t.Errorf("Ensure() with a device of others: %v", err)
		}
		if err := Remove(p); err != nil {
			t.Fatal(err)
		}
		if removed, err := Sweep(nil); err != nil || len(removed) > 0 {
			t.Errorf("Sweep() = %v, %v", removed, err)
		}
		wantDevices(t, p.EVIPort(), p.VRFPort())
	})
}
