// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
)

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
