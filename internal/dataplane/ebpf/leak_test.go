// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"os"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// Nothing stays open of what comes and goes.
func TestNothingStaysOpen(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a := x.vm(1)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	round := func() {
		h := x.vrf("red", a.ends(1001), a.routes(x.hop(1001, encap.Default)))
		for range 3 {
			if drift, err := x.d.Drifted(t.Context()); err != nil || len(drift) > 0 {
				t.Fatalf("drifted %v, %v", drift, err)
			}
		}
		if repaired, err := h.Repair(t.Context()); repaired || err != nil {
			t.Fatalf("repaired %v, %v", repaired, err)
		}
		x.d.Describe()
		h.Describe()
		if err := h.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := x.d.Check(t.Context(), dataplane.Instance{ID: "x", Type: dataplane.IPVPN, VNI: 1}, dataplane.Port{Name: a.port}); err != nil {
			t.Fatal(err)
		}
	}
	round()
	before := open()
	for range 50 {
		round()
	}
	if after := open(); after > before+5 {
		t.Errorf("%d files open before, %d after 50 rounds", before, after)
	}
}
