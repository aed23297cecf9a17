// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
)

// brq returns an instance on existing bridge brq0, with VNI 100.
func brq(id string) dataplane.Instance {
	i := instance(id, 100)
	i.Bridge = "brq0"
	return i
}

// neutron makes bridge brq0 with ports p1 and p2 as Neutron's agent would, and p3 outside.
func neutron(t *testing.T, label string) *host {
	t.Helper()
	host := newHost(t, label)
	host.ports("p1", "p2", "p3")
	host.ip("link add brq0 up type bridge")
	host.ip("link set brq0 addrgenmode none")
	host.ip("link set p1 master brq0 up")
	host.ip("link set p2 master brq0 up")
	// What others have there: a static MAC, a neighbour.
	host.bridge("fdb add %s dev p2 master static", mac(90))
	host.ip("neigh add 198.51.100.90 lladdr %s dev brq0 nud permanent", mac(90))
	host.ip("neigh add 198.51.100.91 lladdr %s dev brq0 nud noarp extern_learn", mac(91))
	return host
}

func existingBridgeSample() []dataplane.Entry {
	return []dataplane.Entry{
		localPort("p1"), localMAC(1, "p1"), remoteMAC(11, "192.0.2.9", 100), remoteMAC(12, "192.0.2.8", 200),
		neighbour("198.51.100.11", 11), neighbour("2001:db8:1::11", 11), flood("192.0.2.9", 100),
	}
}

func TestExistingBridgeWithOurVXLAN(t *testing.T) {
	t.Parallel()
	host := neutron(t, "linuxbr")
	before := host.state()
	d := host.driver(local4)
	h := mustOpen(t, d, brq("red"))
	mustApply(t, h, add(existingBridgeSample()...)...)
	wantInstalled(t, h, existingBridgeSample()...)
	if h.bridgeName != "brq0" {
		t.Errorf("bridge is %s", h.bridgeName)
	}
	wantSame(t, "state of others", before, host.state(h.vxlanName, "extern_learn master", "proto 19"))

	again := mustOpen(t, host.driver(local4), brq("red"))
	wantInstalled(t, again, existingBridgeSample()...)
	errs := again.Apply(t.Context(), add(localPort("p3"), localPort("p2")))
	wantErr(t, errs[0], "p3 is not in bridge brq0")
	if errs[1] != nil {
		t.Error(errs[1])
	}
	mustApply(t, again, del(localPort("p2"), localPort("p1"))...)
	if out := host.ip("link show p1"); !strings.Contains(out, "master brq0") {
		t.Errorf("port was taken out of a bridge of others: %s", out)
	}
	if err := again.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "state after Remove", before, host.state())
}

func TestExistingBridgeServesOneInstance(t *testing.T) {
	t.Parallel()
	host := neutron(t, "shared")
	d := host.driver(local4)
	h := mustOpen(t, d, brq("red"))
	_, err := d.Open(t.Context(), brq("blue"))
	wantErr(t, err, "brq0", "red")
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, d, brq("blue"))
}

func TestExistingBridgeWithVXLANOfOthers(t *testing.T) {
	t.Parallel()
	host := neutron(t, "borrow")
	host.ip("link add vxlan-100 up master brq0 type vxlan id 100 local %s dstport 4789 nolearning", local4)
	host.ip("link set vxlan-100 addrgenmode none")
	host.bridge("fdb append 00:00:00:00:00:00 dev vxlan-100 dst 192.0.2.50 self permanent")
	host.bridge("fdb add %s dev vxlan-100 dst 192.0.2.50 self static", mac(50))
	before := host.state()
	h := mustOpen(t, host.driver(local4), brq("red"))
	wantInstalled(t, h)
	mustApply(t, h, add(existingBridgeSample()...)...)
	wantInstalled(t, h, existingBridgeSample()...)
	if h.vxlanName != "vxlan-100" || host.exists(devname.Candidate(vxlanPrefix, vxlanDigits, "red", 0)) {
		t.Errorf("VXLAN device is %s, want that of others only", h.vxlanName)
	}
	out := host.ip("-d link show vxlan-100")
	if !strings.Contains(out, "learning off") || !strings.Contains(out, "neigh_suppress on") {
		t.Errorf("port flags: %s", out)
	}
	// Deleting what others have, or what is not there, touches nothing.
	foreign := host.state()
	mustApply(t, h, del(remoteMAC(50, "192.0.2.50", 100), flood("192.0.2.50", 100), neighbour("198.51.100.90", 90),
		neighbour("198.51.100.91", 91), localMAC(90, "p2"), remoteMAC(77, "192.0.2.9", 100))...)
	wantSame(t, "state after deleting what is not ours", foreign, host.state())

	mustApply(t, h, del(remoteMAC(12, "192.0.2.8", 200), neighbour("198.51.100.11", 11))...)
	mustApply(t, h, add(remoteMAC(12, "192.0.2.8", 200))...)
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "state after Remove", before, host.state())
}

// After a restart the far ends of a list that others began are ours again when
// they are applied again.
func TestFloodListOfOthersAfterRestart(t *testing.T) {
	t.Parallel()
	host := neutron(t, "floodlist")
	host.ip("link add vxlan-100 up master brq0 type vxlan id 100 local %s dstport 4789 nolearning", local4)
	host.bridge("fdb append 00:00:00:00:00:00 dev vxlan-100 dst 192.0.2.50 self permanent")
	before := host.state("vxlan-100:") // port flags change
	mustApply(t, mustOpen(t, host.driver(local4), brq("red")), add(flood("192.0.2.9", 100))...)
	h := mustOpen(t, host.driver(local4), brq("red"))
	wantInstalled(t, h)
	mustApply(t, h, add(flood("192.0.2.9", 100))...)
	host.bridge("fdb append 00:00:00:00:00:00 dev vxlan-100 dst 192.0.2.51 self permanent")
	wantInstalled(t, h, flood("192.0.2.9", 100))
	mustApply(t, h, del(flood("192.0.2.9", 100), flood("192.0.2.50", 100))...)
	host.bridge("fdb del 00:00:00:00:00:00 dev vxlan-100 dst 192.0.2.51 self")
	wantSame(t, "state", before, host.state("vxlan-100:"))
}

func TestVXLANGroupOfOthersIsKept(t *testing.T) {
	t.Parallel()
	host := neutron(t, "group")
	host.ports("eth0")
	host.ip("link set eth0 up")
	host.ip("link add vxlan-100 up master brq0 type vxlan id 100 group 239.0.0.1 dev eth0 dstport 4789")
	h := mustOpen(t, host.driver(local4), brq("red"))
	mustApply(t, h, add(flood("192.0.2.9", 100))...)
	wantInstalled(t, h, flood("192.0.2.9", 100))
	again := mustOpen(t, host.driver(local4), brq("red"))
	wantInstalled(t, again, flood("192.0.2.9", 100))
	if err := again.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fdb := host.bridge("fdb show dev vxlan-100"); !strings.Contains(fdb, "239.0.0.1") || strings.Contains(fdb, "192.0.2.9") {
		t.Errorf("flood list: %s", fdb)
	}
}

// An instance that used its own bridge comes back with an existing one, and back again.
func TestBridgeChoiceChanges(t *testing.T) {
	t.Parallel()
	host := neutron(t, "choice")
	before := host.state()
	own := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, own, add(localPort("p3"), localMAC(3, "p3"), remoteMAC(11, "192.0.2.9", 100))...)
	theirs := mustOpen(t, host.driver(local4), brq("red"))
	if host.exists(own.bridgeName) {
		t.Error("own bridge is left")
	}
	if theirs.vxlan != own.vxlan {
		t.Error("VXLAN device was not taken along")
	}
	mustApply(t, theirs, add(existingBridgeSample()...)...)
	wantInstalled(t, theirs, existingBridgeSample()...)
	back := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, back, add(localPort("p3"))...)
	if err := back.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	// p3 was brought up; local MACs of before are found only with their bridge.
	host.ip("link set p3 down")
	host.bridge("fdb del %s dev p1 master", mac(1))
	wantSame(t, "state after Remove", before, host.state("proto 19"))
}

func TestBridgeOfOthersVanishes(t *testing.T) {
	t.Parallel()
	host := neutron(t, "bridgegone")
	h := mustOpen(t, host.driver(local4), brq("red"))
	mustApply(t, h, add(existingBridgeSample()...)...)
	host.ip("link del brq0")
	if err := h.Remove(t.Context()); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if host.exists(h.vxlanName) {
		t.Error("VXLAN device is left")
	}
}
