// SPDX-License-Identifier: Apache-2.0

package e2e

import "testing"

// TestVNIOfFirstLabel has an E-VPN with a VNI that would be the label of an endpoint of
// a VRF on the same node, whose packets come in VXLAN, too.
func TestVNIOfFirstLabel(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.ebpfNode("a", 11), f.ebpfNode("b", 12)
	low := network{id: "low", vni: 17, imports: "64512:17", exports: "64512:17"}
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	a2, b2 := a.routed("a2", 2, 1500), b.routed("b2", 3, 1500)
	a1.attach(low)
	b1.attach(low)
	a2.join(blue)
	b2.join(blue)
	a2.reaches(b2)
	b1.reaches(a1)
	a1.reaches(b1)
	b2.reaches(a2)
}
