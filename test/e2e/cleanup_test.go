// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// TestCleanupOnStop has a node with E-VPN and IP VPN (ebpf) whose peer would keep its routes for
// long (RFC 4724). SIGTERM takes all forwarding away if a reload has asked for that, and the peer
// drops the routes at once; SIGKILL takes nothing. Either way the next start needs no agent.
func TestCleanupOnStop(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	b := f.nodeWith("b", 12, settings{
		bgp: []string{"listen = true", "dynamic_neighbors = " + f.prefix(0).String()}, ipvpn: []string{"dataplane_driver = ebpf"},
	})
	a := f.idleNode("a", 11)
	conf := settings{
		peers: []netip.Addr{b.addr}, bgp: []string{"graceful_restart = full", "restart_time = 4000"},
		common: []string{"state_directory = " + t.TempDir()}, ipvpn: []string{"dataplane_driver = ebpf"},
	}
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	a2, b2 := a.routed("a2", 2, 1500), b.routed("b2", 3, 1500)
	before, hooks := a.stableDump(), a.hooks(a2)
	a.configure(conf)
	a.start()
	for _, v := range []*vm{a1, b1} {
		v.attach(red)
	}
	for _, v := range []*vm{a2, b2} {
		v.join(blue)
	}
	a1.reaches(b1)
	a2.reaches(b2)
	number, was, wasHooks := a.number(), a.mustDevices(), a.hooks(a2)
	if slices.Equal(hooks, wasHooks) {
		t.Fatalf("no programs at %s: %q", a2.tap, hooks)
	}

	conf.common = append(conf.common, "cleanup_on_stop = true")
	a.configure(conf)
	if err := a.proc.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	a.proc.ready(func() error { return a.proc.logged("configuration reloaded") })
	a.restart(syscall.SIGKILL)
	a.adopted(was)
	a1.reaches(b1)

	for range 2 {
		a.proc.end(syscall.SIGTERM)
		a.looksUntouched(before)
		if now := a.hooks(a2); !slices.Equal(now, hooks) {
			t.Errorf("programs after the stop: %q, before the start: %q", now, hooks)
		}
		if out := a.Run(program("bagpipe"), "cleanup", "--config-file", a.conf); strings.TrimSpace(out) != "nothing to remove" {
			t.Errorf("bagpipe cleanup finds more:\n%s", out)
		}
		b.forwards(red, forwarding{})
		b.hasNothingFrom(a)
		a.start()
		a1.reaches(b1)
		a2.reaches(b2)
		if now := a.number(); now != number {
			t.Errorf("/ping is %s, was %s: what was attached is there again", now, number)
		}
	}
}

// hooks lists the programs at the machine's port and at the underlay.
func (n *node) hooks(v *vm) (list []string) {
	n.t.Helper()
	for _, dev := range []string{v.tap, "eth0"} {
		for line := range strings.Lines(n.Run("tc", "filter", "show", "dev", dev, "ingress")) {
			list = append(list, dev+": "+line)
		}
	}
	return list
}

// ovsNode adds a node with the driver ovs and a switch with the bridge br-mpls, in the userspace
// datapath.
func (f *fabric) ovsNode(label string, number int, s settings) (*node, *ovstest.Switch) {
	f.t.Helper()
	n := f.idleNode(label, number)
	sw := ovstest.New(f.t, n.NS)
	sw.AddBridge("br-mpls")
	s.ipvpn = append(s.ipvpn, "dataplane_driver = ovs", "mpls_interface = *gre*", "arp_responder = true",
		"[OVS]", "ovsdb_connection = "+sw.DB(), "run_dir = "+sw.Dir)
	n.configure(s)
	n.start()
	return n, sw
}

// joinOVS attaches a machine to a VRF by a port that the driver puts into the bridge.
func (v *vm) joinOVS(to vrf) {
	v.node.t.Helper()
	for _, r := range v.vrfRequests(to) {
		v.node.attach(plugged(r, v))
	}
}

func plugged(r client.AttachRequest, v *vm) client.AttachRequest {
	r.LocalPort.OVS = &client.OVSPort{PortName: v.tap}
	return r
}

// flows returns the flows and groups of the bridge, without counters, in order, as options of
// ovs-ofctl say.
func flows(sw *ovstest.Switch, options ...string) []string {
	var list []string
	for _, dump := range [][]string{{"--no-stats", "dump-flows", "br-mpls"}, {"dump-groups", "br-mpls"}} {
		for line := range strings.Lines(sw.Ofctl(append(options, dump...)...)) {
			if line = strings.TrimSpace(line); strings.Contains(line, "actions=") || strings.HasPrefix(line, "group_id") {
				list = append(list, line)
			}
		}
	}
	slices.Sort(list)
	return list
}

// TestCleanupOnStopOfOpenVSwitch is the same for the flows, groups and ports of a bridge. Flows of
// others stay.
func TestCleanupOnStopOfOpenVSwitch(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	state := t.TempDir()
	a, sw := f.ovsNode("a", 11, settings{
		peers: f.reflectors(), bgp: []string{"graceful_restart = full"},
		common: []string{"state_directory = " + state, "cleanup_on_stop = true"},
	})
	sw.Ofctl("add-flow", "br-mpls", "table=9,priority=7,actions=drop")
	a1, a2 := a.routed("a1", 1, 1500), a.routed("a2", 2, 1500)
	a1.joinOVS(blue)
	a2.joinOVS(blue)
	was := flows(sw)
	if len(was) < 10 {
		t.Fatalf("flows:\n%s", strings.Join(was, "\n"))
	}
	a.proc.end(syscall.SIGTERM)
	if left := flows(sw); len(left) != 1 || !strings.Contains(left[0], "priority=7") {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	if ports := strings.Fields(sw.Vsctl("list-ports", "br-mpls")); len(ports) != 0 {
		t.Errorf("ports left in the bridge: %q", ports)
	}
	a.start()
	eventually(t, routeTimeout, func() error { // with other numbers of ports
		if now := flows(sw); len(now) != len(was) {
			return sameLines(was, now)
		}
		return nil
	})
	a.proc.end(syscall.SIGTERM)
	if _, err := os.Stat(filepath.Join(state, "state.db")); err != nil {
		t.Errorf("what is attached is lost: %v", err)
	}
}

// sameLines tells how lists of lines differ.
func sameLines(want, got []string) error {
	if slices.Equal(want, got) {
		return nil
	}
	return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
}
