// SPDX-License-Identifier: Apache-2.0

package vethpair

import (
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// The end in the E-VPN instance finishes checksums and cuts segments; the other is as it was.
func TestFinishChecksums(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "veth")
	p := Pair{"evi", "vrf"}
	ns.Do(func() {
		if err := FinishChecksums(p); err == nil || !strings.Contains(err.Error(), p.EVIPort()) {
			t.Errorf("without devices: %v", err)
		}
		if err := Ensure(p, 1450); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := FinishChecksums(p); err != nil {
				t.Fatal(err)
			}
		}
	})
	for device, want := range map[string]string{p.EVIPort(): "off", p.VRFPort(): "on"} {
		out := ns.Run("ethtool", "-k", device)
		for _, feature := range []string{"tx-checksumming", "tx-tcp-segmentation"} {
			if !strings.Contains(out, feature+": "+want) {
				t.Errorf("%s of %s is not %s:\n%s", feature, device, want, out)
			}
		}
	}
}
