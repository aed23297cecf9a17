// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
)

// twoHosts is two hosts with a machine each, whose traffic passes.
type twoHosts struct {
	nodes   [2]*node
	vms     [2]*vm
	drivers [2]*Driver
	handles [2]*handle
	change  func(*Config)
}

func newPair(t *testing.T, e encap.Type, change func(*Config)) *twoHosts {
	t.Helper()
	p := &twoHosts{nodes: newNodes(t), change: change}
	for i, n := range p.nodes {
		p.vms[i] = newVM(n, i+1, "tap0", 0)
		p.drivers[i] = n.driver(change)
		p.handles[i] = mustOpen(t, p.drivers[i], instance("red"))
	}
	for i := range p.nodes {
		mustApply(t, p.handles[i], add(p.entries(i, e)...)...)
	}
	return p
}

// entries are all of one host.
func (p *twoHosts) entries(i int, e encap.Type) []dataplane.Entry {
	out := p.vms[i].entries()
	for k := range p.vms {
		out = append(out, p.vms[k].routes(p.nodes[k], e)...)
	}
	return out
}

func (p *twoHosts) wantTraffic(t *testing.T) {
	t.Helper()
	wantPing(t, p.vms[0].NS, p.vms[1].ip4)
	wantPing(t, p.vms[1].NS, p.vms[0].ip6)
}

// repaired does what the reconciler does about drift, and tells whether there was any.
func repaired(t *testing.T, d *Driver, h *handle, want []dataplane.Entry) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	drifts, err := d.Drifted(ctx)
	if err != nil || len(drifts) == 0 {
		return false
	}
	if !drifts[0].Whole {
		t.Errorf("drift %+v, want all of the instance", drifts)
	}
	if ok, err := h.Repair(ctx); err != nil || !ok {
		t.Logf("repair: %v, %v", ok, err)
		return false
	}
	left, err := h.Installed(ctx)
	if err != nil {
		t.Logf("installed: %v", err)
		return false
	}
	have := texts(left)
	var changes []dataplane.Change
	for _, e := range want {
		if !strings.Contains(strings.Join(have, "\n"), e.String()) {
			changes = append(changes, dataplane.Change{Entry: e})
		}
	}
	return errors.Join(h.Apply(ctx, changes)...) == nil
}

// A new process finds what the one before left, changes nothing, and traffic goes on.
func TestAdoption(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		encap  encap.Type
		change func(*Config)
	}{
		{encap.GRE, nil},
		{encap.MPLS, func(c *Config) { c.MPLSInterface = bare }},
	} {
		t.Run(tt.encap.String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, tt.encap, tt.change)
			p.wantTraffic(t)
			n, want := p.nodes[0], p.entries(0, tt.encap)
			several := route4("203.0.113.0/24",
				dataplane.NextHop{Addr: p.handles[1].d.cfg.LocalAddr, Label: 500, Encap: tt.encap, Order: 5},
				dataplane.NextHop{Addr: p.handles[1].d.cfg.LocalAddr, Label: 501, Encap: tt.encap, Order: 5},
				dataplane.NextHop{Addr: p.handles[1].d.cfg.LocalAddr, Label: 502, Encap: tt.encap})
			want = append(want, several)
			mustApply(t, p.handles[0], add(several)...)
			wantInstalled(t, p.handles[0], want...)
			before := n.state()
			mustApply(t, p.handles[0], add(want...)...)
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("applying again changed (-before +after):\n%s", diff)
			}
			if err := p.drivers[0].Close(); err != nil {
				t.Error(err)
			}
			d := n.driver(tt.change)
			if ids, err := d.Orphans(t.Context()); err != nil || !cmp.Equal(ids, []string{"red"}) {
				t.Errorf("orphans %q, %v", ids, err)
			}
			other := mustOpen(t, d, instance("another")) // gets a number of its own
			inst := instance("red")
			inst.Number = 77
			h := mustOpen(t, d, inst)
			wantInstalled(t, h, want...)
			if err := other.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("adoption changed (-before +after):\n%s", diff)
			}
			p.wantTraffic(t)
			if err := d.RemoveOrphan(t.Context(), "red"); !errors.Is(err, dataplane.ErrOpen) {
				t.Errorf("removing an open instance: %v", err)
			}
			if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
				t.Errorf("drift %v, %v", drifts, err)
			}
			mustApply(t, h, del(want...)...)
			wantInstalled(t, h)
			_ = d.Close()
			d = n.driver(tt.change)
			if err := d.RemoveOrphan(t.Context(), "red"); err != nil {
				t.Error(err)
			}
			if ids, err := d.Orphans(t.Context()); err != nil || len(ids) != 0 {
				t.Errorf("orphans %q, %v", ids, err)
			}
		})
	}
}

// state returns flows and groups of br-mpls without what counts.
func (n *node) state() []string {
	n.t.Helper()
	text := n.Ofctl("--no-stats", "--sort", "dump-flows", "br-mpls") + n.Ofctl("dump-groups", "br-mpls")
	return strings.Split(text, "\n")[1:]
}

// ovs-vswitchd is killed under traffic and starts without flows; another time others
// take all flows away, or the tunnel port.
func TestRecovery(t *testing.T) {
	t.Parallel()
	p := newPair(t, encap.GRE, nil)
	p.wantTraffic(t)
	n, d, h := p.nodes[0], p.drivers[0], p.handles[0]
	want := p.entries(0, encap.GRE)
	for _, step := range []struct {
		name string
		hit  func()
	}{
		{"all flows deleted", func() { n.Ofctl("del-flows", "br-mpls") }},
		{"groups deleted", func() { n.Ofctl("del-groups", "br-mpls") }},
		{"tunnel port deleted", func() { n.Vsctl("del-port", "br-mpls", "mpls_gre") }},
		{"ovs-vswitchd killed", func() { n.Stop("ovs-vswitchd"); n.StartSwitch() }},
		{"ovsdb-server and ovs-vswitchd killed", func() {
			n.Stop("ovs-vswitchd")
			n.Stop("ovsdb-server")
			n.StartDB()
			n.StartSwitch()
		}},
	} {
		step.hit()
		began := time.Now()
		nstest.Eventually(t, 40*time.Second, func() bool { return repaired(t, d, h, want) }, func() string { return step.name })
		wantInstalled(t, h, want...)
		p.wantTraffic(t)
		t.Logf("%s: traffic again after %v", step.name, time.Since(began).Round(10*time.Millisecond))
		if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
			t.Errorf("%s: drift after repair: %v, %v", step.name, drifts, err)
		}
	}
}

// A call while the switch is away fails in time and says why, and what was lost
// meanwhile is reported although the call after it succeeds.
func TestApplyWithoutSwitch(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d := n.driver(nil)
	h := mustOpen(t, d, instance("red"))
	first, second := route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.GRE)), route4("198.51.100.0/24", hop("192.0.2.9", 78, encap.GRE))
	mustApply(t, h, add(first)...)
	n.Stop("ovs-vswitchd")
	for _, err := range h.Apply(t.Context(), add(second)) {
		wantErr(t, err, "198.51.100.0/24", "OVS bridge br-mpls")
	}
	n.StartSwitch()
	nstest.Eventually(t, 20*time.Second, func() bool { return errors.Join(h.Apply(t.Context(), add(second))...) == nil },
		func() string { return "apply after a restart" })
	if !repaired(t, d, h, []dataplane.Entry{first, second}) {
		t.Error("what a restart took away was not noticed")
	}
	wantInstalled(t, h, first, second)
}

// The MAC of a next hop changes, and is followed.
func TestNextHopMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.Vsctl("add-port", "br-mpls", bare, "--", "set", "interface", bare, "type=internal")
	n.Run("ip", "link", "set", "br-mpls", "up")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "br-mpls")
	h := mustOpen(t, n.driver(func(c *Config) { c.MPLSInterface = bare }), instance("red"))
	e := route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.MPLS))
	for _, err := range h.Apply(t.Context(), add(e)) {
		wantErr(t, err, "MAC address of next hop 192.0.2.9 is not known yet")
	}
	for _, mac := range []string{"00:00:5e:00:53:99", "00:00:5e:00:53:98"} {
		n.Run("ip", "neigh", "replace", "192.0.2.9", "lladdr", mac, "dev", "br-mpls", "nud", "permanent")
		nstest.Eventually(t, 10*time.Second, func() bool {
			_ = h.Apply(t.Context(), add(e)) // as the reconciler retries
			return strings.Contains(n.Ofctl("dump-flows", "br-mpls"), "set_field:"+mac+"->eth_dst")
		}, func() string { return n.Ofctl("dump-flows", "br-mpls") })
		wantInstalled(t, h, e)
	}
	// And without being asked.
	n.Run("ip", "neigh", "replace", "192.0.2.9", "lladdr", "00:00:5e:00:53:97", "dev", "br-mpls", "nud", "permanent")
	nstest.Eventually(t, 10*time.Second, func() bool {
		return strings.Contains(n.Ofctl("dump-flows", "br-mpls"), "set_field:00:00:5e:00:53:97->eth_dst")
	}, func() string { return n.Ofctl("dump-flows", "br-mpls") })
}

// A new process knows the MACs of the next hops of groups before the kernel does.
func TestNextHopMACsOfGroups(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.Vsctl("add-port", "br-mpls", bare, "--", "set", "interface", bare, "type=internal")
	n.Run("ip", "link", "set", "br-mpls", "up")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "br-mpls")
	bareMPLS := func(c *Config) { c.MPLSInterface = bare }
	d := n.driver(bareMPLS)
	h := mustOpen(t, d, instance("red"))
	var hops []dataplane.NextHop
	for i := range 3 {
		addr := fmt.Sprintf("192.0.2.%d", 7+i)
		n.Run("ip", "neigh", "replace", addr, "lladdr", vmMAC(i).String(), "dev", "br-mpls", "nud", "permanent")
		hops = append(hops, hop(addr, uint32(77+i), encap.MPLS))
	}
	ordered := []dataplane.NextHop{hops[1], hops[2]}
	ordered[0].Order, ordered[1].Order = 1, 2
	// Each of the second and the third is in one group only.
	entries := []dataplane.Entry{route4("203.0.113.0/24", hops[0], hops[1]), route4("198.51.100.0/24", ordered...)}
	mustApply(t, h, add(entries...)...)
	before := n.state()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	n.Run("ip", "neigh", "flush", "dev", "br-mpls", "nud", "all")
	h = mustOpen(t, n.driver(bareMPLS), instance("red"))
	wantInstalled(t, h, entries...)
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("a new process changed (-before +after):\n%s", diff)
	}
}

// Flows go over all next hops of a group.
func TestECMP(t *testing.T) {
	t.Parallel()
	p := newPair(t, encap.GRE, func(c *Config) { c.HashMethod, c.HashFields = "hash", []string{"ip_src", "ip_dst"} })
	p.wantTraffic(t)
	// Three labels of the far host lead to its machine; each counts.
	far, target := p.handles[1], p.vms[1]
	for i := range 3 {
		e := target.entries()[1]
		e.Label = uint32(3000 + i)
		mustApply(t, far, add(e)...)
	}
	var hops []dataplane.NextHop
	for i := range 3 {
		hops = append(hops, dataplane.NextHop{Addr: p.drivers[1].cfg.LocalAddr, Label: uint32(3000 + i), Encap: encap.GRE, Order: uint32(i)})
	}
	mustApply(t, p.handles[0], add(route4("198.51.100.34/32", hops...))...)
	// The machine answers for many addresses of the prefix behind it.
	wide := target.entries()[1]
	wide.Label, wide.Prefix = 3000, prefix("203.0.113.0/24")
	mustApply(t, p.handles[0], add(route4("203.0.113.0/24", hops...))...)
	for i := range 40 {
		addr := fmt.Sprintf("203.0.113.%d", i+1)
		target.Run("ip", "addr", "add", addr+"/32", "dev", "eth0")
	}
	for i := range 3 {
		e := target.entries()[1]
		e.Label, e.Prefix = uint32(3000+i), prefix("203.0.113.0/24")
		mustApply(t, far, add(e)...)
	}
	for i := range 40 {
		wantPing(t, p.vms[0].NS, fmt.Sprintf("203.0.113.%d", i+1))
	}
	for i := range 3 {
		out := p.nodes[1].Ofctl("dump-flows", "br-mpls", fmt.Sprintf("table=1,mpls,mpls_label=%d", 3000+i))
		if strings.Contains(out, "n_packets=0,") || !strings.Contains(out, "n_packets=") {
			t.Errorf("label %d had no traffic: %s", 3000+i, out)
		}
	}
}
