// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func mustLink(t *testing.T, c *Conn, name string) Link {
	t.Helper()
	l, ok, err := c.LinkByName(name)
	if err != nil || !ok {
		t.Fatalf("device %s: %v, %v", name, ok, err)
	}
	return l
}

func TestLinkRequestMakesWhatItSays(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "link")
	c := dial(t, ns)
	group, alias := uint32(77), "an alias"
	if err := c.Link(&LinkRequest{Name: "b0", Kind: "bridge", Bridge: &BridgeOptions{}}); err != nil {
		t.Fatal(err)
	}
	bridge := mustLink(t, c, "b0")
	if bridge.Kind != "bridge" || bridge.Bridge != (BridgeOptions{}) {
		t.Errorf("bridge = %+v", bridge)
	}
	options := VXLANOptions{VNI: 5, Local: netip.MustParseAddr("2001:db8::1"), Port: 4789, ZeroChecksum6: true}
	if err := c.Link(&LinkRequest{Name: "v0", Kind: "vxlan", VXLAN: &options, MTU: 1600, Master: &bridge.Index, Group: &group}); err != nil {
		t.Fatal(err)
	}
	v := mustLink(t, c, "v0")
	flags := PortFlags{NeighSuppress: true}
	err := c.Link(&LinkRequest{
		Index: v.Index, Alias: &alias, Group: new(uint32), Port: &flags, Up: true, NoAddrGen: true,
		IPv4: map[uint16]uint32{8: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Link{
		Index: v.Index, Master: bridge.Index, MTU: 1600, Up: true, Carrier: true, Ethernet: true, Name: "v0", Alias: alias,
		Kind: "vxlan", SlaveKind: "bridge", NoAddrGen: true, VXLAN: options, Port: flags,
	}
	got := mustLink(t, c, "v0")
	if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
		t.Errorf("device (-want +got):\n%s", diff)
	}
	if rp := strings.TrimSpace(ns.Run("cat", "/proc/sys/net/ipv4/conf/v0/rp_filter")); rp != "1" {
		t.Errorf("rp_filter = %s, want 1", rp)
	}
	ports, err := c.Links(bridge.Index)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Link{got}, ports, cmpAddr); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}

func TestLinkErrors(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t, "linkerr"))
	if _, ok, err := c.LinkByName("none"); ok || err != nil {
		t.Errorf("LinkByName of none = %v, %v", ok, err)
	}
	if _, ok, err := c.LinkByName("a-name-that-is-too-long"); ok || err != nil {
		t.Errorf("LinkByName of a long name = %v, %v", ok, err)
	}
	if _, ok, err := c.LinkByIndex(1 << 20); ok || err != nil {
		t.Errorf("LinkByIndex of none = %v, %v", ok, err)
	}
	if err := c.DeleteLink(1 << 20); !errors.Is(err, unix.ENODEV) {
		t.Errorf("DeleteLink of none: %v, want ENODEV", err)
	}
	err := c.Link(&LinkRequest{Name: "x0", Kind: "no-such-kind"})
	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "x0") {
		t.Errorf("unknown kind: %v, want EOPNOTSUPP and the name", err)
	}
	lo := mustLink(t, c, "lo")
	if !lo.Loopback || !lo.Up {
		t.Errorf("lo = %+v", lo)
	}
}
