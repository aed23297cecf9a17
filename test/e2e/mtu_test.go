// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestFullSizePackets sends packets as large as the machines' MTU, with "do not
// fragment", both ways, over an underlay that has room for the tunnel's headers.
func TestFullSizePackets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                 string
		family, underlay, vm int
	}{
		{"IPv4 underlay", 4, 1550, 1500},
		{"IPv6 underlay", 6, 1570, 1500},
		{"jumbo frames", 4, 9000, 8950},
		{"machines with a smaller MTU", 4, 1500, 1450},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a1, b1 := pairOverMTU(t, tt.family, tt.underlay, tt.vm)
			seen := startCapture(t, b1.node.NS)
			for _, way := range [][2]*vm{{a1, b1}, {b1, a1}} {
				for _, to := range []netip.Addr{way[1].v4.Addr(), way[1].v6.Addr()} {
					if err := full(t, way[0], to, tt.vm); err != nil {
						t.Error(err)
					}
					if full(t, way[0], to, tt.vm+1) == nil {
						t.Errorf("a packet larger than the MTU of %d passes: the test is blind", tt.vm)
					}
				}
			}
			seen.wait("echo " + b1.v4.Addr().String())
			seen.wait("echo " + a1.v6.Addr().String())
			seen.wantNone("fragment")
		})
	}
}

// TestUnderlayTooSmall has machines whose MTU leaves no room for the tunnel's
// headers. For what may not be fragmented the sender is told the size that fits,
// and that passes. What may be crosses an IPv4 underlay in pieces; over IPv6 the
// kernel has no such thing for VXLAN, and drops it.
func TestUnderlayTooSmall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ family, fits int }{{4, 1450}, {6, 1430}} {
		t.Run(fmt.Sprintf("IPv%d underlay", tt.family), func(t *testing.T) {
			t.Parallel()
			a1, b1 := pairOverMTU(t, tt.family, 1500, 1500)
			seen := startCapture(t, b1.node.NS)
			for _, way := range [][2]*vm{{a1, b1}, {b1, a1}} {
				if tt.family == 4 {
					if err := pings(t, way[0], way[1].v4.Addr(), "-M", "dont", "-s", "1472"); err != nil {
						t.Error(err)
					}
					seen.wait("fragment")
				}
				for _, to := range []netip.Addr{way[1].v4.Addr(), way[1].v6.Addr()} {
					err := full(t, way[0], to, 1500)
					if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), " ", ""), fmt.Sprintf("mtu=%d", tt.fits)) {
						t.Errorf("the sender is not told that %d octets fit: %v", tt.fits, err)
					}
					if err := full(t, way[0], to, tt.fits); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// pairOverMTU makes two nodes with a machine each that reach each other.
func pairOverMTU(t *testing.T, family, underlay, machines int) (a1, b1 *vm) {
	t.Helper()
	f := bareFabric(t, family, underlay)
	f.startReflector()
	a, b := f.node("a", 11), f.node("b", 12)
	a1, b1 = a.vmOf("a1", 11, machines), b.vmOf("b1", 21, machines)
	a1.attach(red)
	b1.attach(red)
	a1.reaches(b1)
	return a1, b1
}

// full pings with packets of a size, headers included.
func full(t *testing.T, from *vm, to netip.Addr, size int) error {
	t.Helper()
	headers := 20 + 8
	if to.Is6() {
		headers = 40 + 8
	}
	return pings(t, from, to, "-M", "do", "-s", fmt.Sprint(size-headers))
}
