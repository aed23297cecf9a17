// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/oldversion"
)

// frrGap is the longest that traffic may stop when FRR has dropped routes with a session: those
// for E-VPN of a node that restarts, and all when it is itself restarted.
const frrGap = 5 * time.Second

// TestHitlessRestart ends the daemon of a node under traffic, in each way, and starts it
// again, with each dataplane and each reflector: no packet of an attached machine is lost,
// nobody attaches again and agents do not see it. Then routes change while it is down.
func TestHitlessRestart(t *testing.T) {
	t.Parallel()
	for _, p := range []plane{linuxEVPN, ebpfPlane, ovsPlane} {
		for _, h := range []helperKind{gobgpHelper, frrHelper} {
			t.Run(p.name+" with "+h.name, func(t *testing.T) {
				t.Parallel()
				hitless(t, p, h)
			})
		}
	}
}

func hitless(t *testing.T, p plane, h helperKind) {
	t.Helper()
	f := bareFabric(t, 4, 1600)
	h.start(f, f.addr(11), f.addr(12))
	s := settings{peers: f.reflectors()}
	b := f.planeNode(p, "b", 12, s)
	s.bgp = []string{"graceful_restart = full"}
	s.common = []string{"state_directory = " + t.TempDir(), "sweep_delay = 2"}
	s.daemon = oldProgram(t)
	a := f.planeNode(p, "a", 11, s)
	a1, a2, b1, b2, b3 := a.machine("a1", 1), a.machine("a2", 2), b.machine("b1", 3), b.machine("b2", 4), b.machine("b3", 5)
	for _, v := range []*vm{a1, a2} {
		a.enter(v)
	}
	for _, v := range []*vm{b1, b2} {
		b.enter(v)
	}
	if p.ovs {
		meet(a.node, b.node)
	}
	a1.reaches(a2, b1, b2)
	b1.reaches(a1, a2)
	number := a.number()
	allowed := limits{}
	if h.noEVPN && p.vpn == client.EVPN {
		allowed.to = frrGap
	}
	tr := startTraffic(t, a1, a2, b1)
	again := func(daemon string, sig syscall.Signal) {
		t.Helper()
		a.daemon = daemon
		a.restart(sig)
		tr.flows(20)
		a.established(f.addr(reflectorNumber))
		if daemon != oldProgram(t) { // which does not say so
			a.proc.ready(func() error { return a.proc.logged("sweep is done") })
		}
		tr.flows(20)
		if now := a.number(); now != number {
			t.Errorf("/ping is %s, was %s: agents attach all again", now, number)
		}
	}
	for _, way := range []struct {
		name string
		sig  syscall.Signal
	}{{"upgrade", syscall.SIGTERM}, {"restart", syscall.SIGTERM}, {"kill -9", syscall.SIGKILL}} {
		fault := tr.fault(t, way.name, p.name, h.name)
		again(program("bagpipe-bgp"), way.sig)
		fault.end(allowed)
	}
	again(oldProgram(t), syscall.SIGTERM) // it knows what a newer one has kept
	fault := tr.fault(t, "kill -9 and upgrade", p.name, h.name)
	again(program("bagpipe-bgp"), syscall.SIGKILL)
	fault.end(allowed)

	fault = tr.fault(t, "routes change while it is down", p.name, h.name)
	a.proc.end(syscall.SIGKILL)
	b.quit(b2)
	b.enter(b3)
	a.start()
	a1.reaches(b3)
	b3.reaches(a1)
	if p.vpn == client.EVPN {
		a.forwards(red, forwarding{}.behind(b.addr, b1, b3)) // what is for others is flooded
	} else {
		for _, gone := range []netip.Addr{b2.ip4(), b2.ip6()} {
			eventually(t, routeTimeout, func() error { return a.keepsBack(a1, gone) })
		}
	}
	tr.flows(20)
	fault.end(allowed)
}

// TestReflectorComesBack kills the only reflector and starts it again. No packet is lost if
// it asks its clients to keep the routes meanwhile.
func TestReflectorComesBack(t *testing.T) {
	t.Parallel()
	for _, p := range []plane{linuxEVPN, ebpfPlane} {
		for _, h := range []helperKind{gobgpHelper, frrHelper} {
			t.Run(p.name+" with "+h.name, func(t *testing.T) {
				t.Parallel()
				f := bareFabric(t, 4, 1600)
				clients := []netip.Addr{f.addr(11), f.addr(12)}
				h.start(f, clients...)
				s := settings{peers: f.reflectors()}
				a, b := f.planeNode(p, "a", 11, s), f.planeNode(p, "b", 12, s)
				a1, a2, b1 := a.machine("a1", 1), a.machine("a2", 2), b.machine("b1", 3)
				for n, machines := range map[*planeNode][]*vm{a: {a1, a2}, b: {b1}} {
					for _, v := range machines {
						n.enter(v)
					}
				}
				a1.reaches(a2, b1)
				tr := startTraffic(t, a1, a2, b1)
				fault := tr.fault(t, "reflector killed, started again at once", p.name, h.name)
				f.rr.end(syscall.SIGKILL)
				h.start(f, clients...)
				for _, n := range []*planeNode{a, b} {
					eventually(t, startTimeout, func() error { return n.hasBack(f.addr(reflectorNumber)) })
				}
				tr.flows(100)
				allowed := limits{}
				if !h.asks {
					allowed = limits{from: frrGap, to: frrGap}
				}
				fault.end(allowed)
			})
		}
	}
}

// hasBack returns an error until a session is there and no route of the peer is stale.
func (n *node) hasBack(peer netip.Addr) error {
	s, err := n.session(peer)
	stale, staleErr := n.stale(peer)
	if err = errors.Join(err, staleErr); err == nil && (s.State != "Established" || len(stale) > 0) {
		err = fmt.Errorf("%s: session with %s is %s, stale routes: %v", n.label, peer, s.State, stale)
	}
	return err
}

// keepsBack returns an error when the node sends to others what a machine sends to an address.
func (n *node) keepsBack(from *vm, to netip.Addr) error {
	n.t.Helper()
	underlay := packetSocket(n.t, n.Name, "eth0")
	seen := make(chan bool)
	source := from.ip4()
	if to.Is6() {
		source = from.ip6()
	}
	inner := append(source.AsSlice(), to.AsSlice()...) // neighbours in both versions' headers
	go func() {
		found := false
		for buf := make([]byte, 1<<16); ; {
			l, err := underlay.Read(buf)
			if err != nil {
				seen <- found
				return
			}
			found = found || bytes.Contains(buf[:l], inner)
		}
	}()
	_ = pings(n.t, from, to)
	_ = underlay.Close()
	if <-seen {
		return fmt.Errorf("%s still sends to others what goes from %s to %s", n.label, from.tap, to)
	}
	return nil
}

// oldProgram returns the daemon of the version that an upgrade starts from.
func oldProgram(t testing.TB) string {
	t.Helper()
	program, err := buildOld()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var buildOld = sync.OnceValues(func() (string, error) { return oldversion.Build(filepath.Join("..", ".."), programs) })
