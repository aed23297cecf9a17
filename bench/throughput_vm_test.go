// SPDX-License-Identifier: Apache-2.0

//go:build vm

package bench

import "testing"

// BenchmarkKernelThroughput is BenchmarkThroughput with the driver linux: test/vm runs it
// under a kernel that has VRFs and MPLS.
func BenchmarkKernelThroughput(b *testing.B) {
	dir := binaries(b)
	const l3 = "198.51.100.50"
	compare(b, []path{
		barePath(b),
		labPath(b, dir, "Linux bridge + VXLAN", "198.51.100.21"),
		labPath(b, dir, "eBPF, MPLS/UDP", l3, "--vpn", "ipvpn", "--dataplane", "ebpf"),
		labPath(b, dir, "kernel VRF, MPLS/GRE", l3, "--vpn", "ipvpn", "--dataplane", "linux"),
	})
}
