// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/vishvananda/netlink"
)

// restartGap is the longest that traffic may stop when a daemon restarts and
// its attachments are sent again at once.
const restartGap = time.Second

// TestDaemonRestart ends the daemon of a node under traffic and starts it
// again. What the node forwards by itself is not touched. The way back from
// other nodes ends with the BGP session, since the reflector has no graceful restart
// (RFC 4724), and must be there again within a second of the loss.
func TestDaemonRestart(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			f := newFabric(t)
			a, b := f.node("a", 11), f.node("b", 12)
			a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
			for _, v := range []*vm{a1, a2, b1} {
				v.attach(red)
			}
			a1.reaches(a2, b1)
			a2.reaches(b1)
			was, number := a.mustDevices(), a.number()
			tr := startTraffic(t, a1, a2, b1)
			w := a.watch(red)

			for range 2 {
				a.restart(sig)
				a1.attach(red)
				a2.attach(red)
				tr.flows(40)
			}
			tr.within.noLoss()
			tr.from.noLoss()
			if o := tr.to.stop(); o.Longest > restartGap {
				t.Errorf("traffic to the node stopped for %v, longer than %v", o.Longest, restartGap)
			}
			w.never(gone, b1)
			a.adopted(was)
			if now := a.number(); now == number {
				t.Errorf("/ping is %s as before: agents do not see that the attachments are lost", now)
			}
			a.forwards(red, forwarding{}.behind(b.addr, b1))
			b.forwards(red, forwarding{}.behind(a.addr, a1, a2))
		})
	}
}

// TestRestartWithState is the same for a daemon that keeps its attachments, whose peer keeps its
// routes (RFC 4724): nobody attaches again, agents do not see that there was a restart, and no
// packet is lost.
func TestRestartWithState(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	b := f.nodeWith("b", 12, settings{bgp: []string{"listen = true", "dynamic_neighbors = " + f.prefix(0).String()}})
	a := f.nodeWith("a", 11, settings{
		peers: []netip.Addr{b.addr}, bgp: []string{"graceful_restart = full"},
		common: []string{"state_directory = " + t.TempDir(), "sweep_delay = 2"},
	})
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	for _, v := range []*vm{a1, a2, b1} {
		v.attach(red)
	}
	a1.reaches(a2, b1)
	a2.reaches(b1)
	was, number := a.mustDevices(), a.number()
	tr := startTraffic(t, a1, a2, b1)
	w, wb := a.watch(red), b.watch(red)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		fault := tr.fault(t, map[syscall.Signal]string{syscall.SIGTERM: "restart", syscall.SIGKILL: "kill -9"}[sig], linuxEVPN.name, "bagpipe-bgp")
		a.restart(sig)
		tr.flows(40)
		a.proc.ready(func() error { return a.proc.logged("BGP session established") })
		tr.flows(40)
		fault.end(limits{})
		if now := a.number(); now != number {
			t.Errorf("/ping after %v is %s, was %s: agents attach all again", sig, now, number)
		}
	}
	w.never(gone, b1)
	wb.never(gone, a1)
	wb.never(gone, a2)
	a.adopted(was)
	a.forwards(red, forwarding{}.behind(b.addr, b1))
	b.forwards(red, forwarding{}.behind(a.addr, a1, a2))

	a2.detach(red)
	a.restart(syscall.SIGKILL)
	b.forwards(red, forwarding{}.behind(a.addr, a1))
	a1.reaches(b1)
}

// TestForwardingWhileDaemonIsDown leaves the daemon away until all others know,
// and goes on.
func TestForwardingWhileDaemonIsDown(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	for _, v := range []*vm{a1, a2, b1} {
		v.attach(red)
	}
	a1.reaches(a2, b1)
	tr := startTraffic(t, a1, a2, b1)
	was := a.mustDevices()
	a.proc.end(syscall.SIGKILL)
	b.forwards(red, forwarding{})
	tr.within.flows(100)
	tr.from.flows(100)
	a.forwards(red, forwarding{}.behind(b.addr, b1))
	a.start()
	a1.attach(red)
	a2.attach(red)
	tr.flows(40)
	tr.within.noLoss()
	tr.from.noLoss()
	tr.to.stop()
	a.adopted(was)
}

// TestRestartOnExistingBridge is the same for a bridge of somebody else's, where
// only the tunnel is ours.
func TestRestartOnExistingBridge(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	ip(t, a.NS, "link add brq0 type bridge forward_delay 0", "link set brq0 up",
		"link set "+a1.tap+" master brq0", "link set "+a2.tap+" master brq0")
	attach := func() {
		for _, v := range []*vm{a1, a2} {
			for _, r := range v.requests(red) {
				r.LinuxBridge = "brq0"
				a.attach(r)
			}
		}
	}
	attach()
	b1.attach(red)
	a1.reaches(a2, b1)
	tr := startTraffic(t, a1, a2, b1)
	a.restart(syscall.SIGKILL)
	attach()
	tr.flows(40)
	tr.within.noLoss()
	tr.from.noLoss()
	if o := tr.to.stop(); o.Longest > restartGap {
		t.Errorf("traffic to the node stopped for %v, longer than %v", o.Longest, restartGap)
	}
	a.forwardsInBridge("brq0", forwarding{}.behind(b.addr, b1))
}

// TestSweep restarts a daemon and attaches only some of what was there again.
// The rest is kept for the sweep delay and then removed.
func TestSweep(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a := f.nodeWith("a", 11, settings{peers: f.reflectors(), common: []string{"sweep_delay = 2"}})
	b := f.node("b", 12)
	green := network{id: "green", vni: 300, imports: "64512:300", exports: "64512:300"}
	kept, left, b1 := a.vm("kept", 11), a.vm("left", 12), b.vm("b1", 21)
	alone, b2 := a.vm("alone", 13), b.vm("b2", 22)
	kept.attach(red)
	left.attach(red)
	b1.attach(red)
	alone.attach(green)
	b2.attach(green)
	kept.reaches(left, b1)
	alone.reaches(b2)
	was, orphan := a.mustDevices(), a.bridgeOf(alone.tap)

	local, outward := startEcho(t, left, kept.ip4(), kept), startStream(t, kept, b1, b1.ip4())
	a.restart(syscall.SIGKILL)
	kept.attach(red)
	local.flows(20)
	if got := a.bridgeOf(alone.tap); got != orphan || got == "" {
		t.Errorf("%s is in bridge %q before the sweep, was in %q", alone.tap, got, orphan)
	}
	w := a.watch(red)
	round := startEcho(t, b1, kept.ip4(), kept)
	round.flows(20)
	settled := round.count()

	eventually(t, routeTimeout, func() error {
		if links := a.Run("ip", "-br", "link"); a.bridgeOf(left.tap)+a.bridgeOf(alone.tap) != "" || strings.Contains(links, orphan) {
			return fmt.Errorf("not swept: ports in %q and %q; links:\n%s", a.bridgeOf(left.tap), a.bridgeOf(alone.tap), links)
		}
		return nil
	})
	if fdb := a.Run("bridge", "fdb"); strings.Contains(fdb, left.mac) || strings.Contains(fdb, alone.mac) || !strings.Contains(fdb, kept.mac) {
		t.Errorf("bridge entries after the sweep:\n%s", fdb)
	}
	a.proc.ready(func() error { return a.proc.logged("removed forwarding state of an earlier run") })
	outward.flows(20)
	outward.noLoss(0)
	round.noLoss(settled)
	w.never(gone, b1)
	a.adopted(was)
	kept.reaches(b1)
}

// mustDevices returns the devices of red.
func (n *node) mustDevices() devices {
	n.t.Helper()
	d, err := n.devices(red)
	if err != nil || d.bridge == 0 || d.vxlan == 0 {
		n.t.Fatalf("devices of red at %s: %+v, %v", n.label, d, err)
	}
	return d
}

// adopted checks that the devices of red are still those of before.
func (n *node) adopted(was devices) {
	n.t.Helper()
	if now := n.mustDevices(); now != was {
		n.t.Errorf("interface indexes of red at %s are %+v, were %+v: made anew", n.label, now, was)
	}
}

// number returns what /ping says.
func (n *node) number() string {
	n.t.Helper()
	_, body := n.get("/ping")
	return body
}

// bridgeOf returns the name of the bridge that a port is in, "" for none.
func (n *node) bridgeOf(port string) (name string) {
	n.t.Helper()
	err := netspace.With(n.Name, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == port })
		for _, l := range links {
			if l.Attrs().Index == links[i].Attrs().MasterIndex {
				name = l.Attrs().Name
			}
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return name
}
