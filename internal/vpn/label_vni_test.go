// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// Where packets with labels come in VXLAN, no number is the label of a VRF's endpoint and
// the VNI of an E-VPN at once: packets of the one would go to the other.
func TestLabelIsNoVNI(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup setup
		want  string // field that an E-VPN with VNI 17 after a VRF is refused by
		label uint32 // of a VRF's endpoint after an E-VPN with VNI 17
	}{
		{"VXLAN", setup{ipvpnCaps: overVXLAN}, "vni", 18},
		{"MPLS only", setup{}, "", 17},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				tt.setup.store = t.TempDir()
				n := newNode(t, tt.setup)
				red, blue := evpn(1, "192.0.2.1", vni(17)), vrf(2, "192.0.2.2")
				n.attach(blue) // 16 is the instance's number, 17 the label
				err := n.Attach(context.Background(), red)
				wantRefused(t, err, tt.want)
				if err == nil {
					n.detach(red)
				}
				n.detach(blue)

				n = newNode(t, setup{ipvpnCaps: tt.setup.ipvpnCaps, store: t.TempDir()})
				n.attach(red, blue)
				wantLabel := func(when string, m *vpn.Manager) {
					t.Helper()
					if e := m.Instance("blue").Snapshot().Endpoints; len(e) != 1 || e[0].Label != tt.label {
						t.Errorf("%s: endpoints %+v, want the label %d", when, e, tt.label)
					}
				}
				wantLabel("at first", n.Manager)
				n.detach(blue)
				n = n.restarted()
				n.attach(red, blue)
				if e := n.Instance("blue").Snapshot().Endpoints; tt.want != "" && (len(e) != 1 || e[0].Label == 17) {
					t.Errorf("after a restart: endpoints %+v", e)
				}
				n.detach(red, blue)
				if left := n.Labels(); len(left) > 0 {
					t.Errorf("labels left: %v", slices.Sorted(maps.Keys(left)))
				}
			})
		})
	}
}

// A VRF that no packets come to by its VNI leaves the number to an E-VPN, also over a restart.
func TestNumberOfVRFIsNoVNI(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{store: t.TempDir()})
		blue, red := vrf(2, "192.0.2.2"), evpn(1, "192.0.2.1", vni(16))
		n.attach(blue, red)
		for range 2 {
			if b, r := n.Instance("blue").VNI, n.Instance("red").VNI; b != 16 || r != 16 {
				t.Errorf("VNIs of blue and red: %d and %d, want 16 both", b, r)
			}
			n = n.restarted()
			n.attach(blue, red)
		}
		n.detach(blue)
		wantRefused(t, n.Attach(context.Background(), evpn(3, "192.0.2.3", vni(16), named("green"))), "vni")
		n.detach(red)
	})
}
