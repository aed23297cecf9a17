// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import "testing"

// TestKernelHitlessRestart is TestHitlessRestart with the driver linux for IP VPNs, for
// kernels that have VRFs and MPLS.
func TestKernelHitlessRestart(t *testing.T) {
	for _, h := range []helperKind{gobgpHelper, frrHelper} {
		t.Run(h.name, func(t *testing.T) { hitless(t, linuxIPVPN, h) })
	}
}
