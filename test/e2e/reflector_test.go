// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
)

// TestReflectorRestart ends the reflector under traffic. Remote traffic stops
// with it, since there is no graceful restart yet, and comes back with it; what
// is local to a node goes on.
func TestReflectorRestart(t *testing.T) {
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
			local, remote := startPing(t, a2, a1.v4.Addr()), startPing(t, b1, a1.v4.Addr())
			local.flows(10)
			remote.flows(10)
			f.rr.end(sig)
			a.forwards(red, forwarding{})
			b.forwards(red, forwarding{})
			if status, body := a.get("/readyz"); status != 503 {
				t.Errorf("/readyz without any session: %d %s", status, body)
			}
			f.startReflector()
			a.forwards(red, forwarding{}.behind(b.addr, b1))
			b.forwards(red, forwarding{}.behind(a.addr, a1, a2))
			remote.flows(40)
			b1.reaches(a1, a2)
			if status, body := a.get("/readyz"); status != 200 {
				t.Errorf("/readyz with a session: %d %s", status, body)
			}
			local.noLoss(0)
			remote.stop(0)
		})
	}
}

// TestPeersWithoutReflector joins nodes that peer with each other.
func TestPeersWithoutReflector(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		family int
		// a and b make the settings of the nodes for the other's address.
		a, b func(f *fabric, other netip.Addr) settings
	}{
		{"one waits for any", 4, dials, waitsForAny},
		{"one waits for any, IPv6", 6, dials, waitsForAny},
		{"one waits for the other", 4, dials, waitsFor},
		{"both dial and listen", 4, dialsAndListens, dialsAndListens},
		{"both dial, listen and take any", 6, dialsAndListensForAny, dialsAndListensForAny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := bareFabric(t, tt.family, enoughMTU)
			a := f.nodeWith("a", 11, tt.a(f, f.addr(12)))
			b := f.nodeWith("b", 12, tt.b(f, f.addr(11)))
			a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
			a1.attach(red)
			b1.attach(red)
			a.established(b.addr)
			b.established(a.addr)
			a.forwards(red, forwarding{}.behind(b.addr, b1))
			b.forwards(red, forwarding{}.behind(a.addr, a1))
			a1.reaches(b1)
			b1.reaches(a1)

			// The one that waits forgets a peer that is gone, and takes it again.
			a.proc.end(syscall.SIGKILL)
			b.forwards(red, forwarding{})
			a.start()
			a1.attach(red)
			b.forwards(red, forwarding{}.behind(a.addr, a1))
			b1.reaches(a1)
		})
	}
}

func dials(_ *fabric, other netip.Addr) settings { return settings{peers: []netip.Addr{other}} }

func waitsForAny(f *fabric, _ netip.Addr) settings {
	return settings{bgp: []string{"listen = true", fmt.Sprintf("dynamic_neighbors = %s", f.prefix(0).Masked())}}
}

func waitsFor(_ *fabric, other netip.Addr) settings {
	return settings{peers: []netip.Addr{other}, bgp: []string{"listen = true", "passive_peers = " + other.String()}}
}

func dialsAndListens(_ *fabric, other netip.Addr) settings {
	return settings{peers: []netip.Addr{other}, bgp: []string{"listen = true"}}
}

func dialsAndListensForAny(f *fabric, other netip.Addr) settings {
	s := waitsForAny(f, other)
	s.peers = []netip.Addr{other}
	return s
}
