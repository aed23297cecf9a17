// SPDX-License-Identifier: Apache-2.0

//go:build vm

package interop

import "testing"

var (
	ebpfUDP   = forwarder{name: "eBPF UDP", section: "dataplane_driver = ebpf\nencapsulations = mpls-udp\n"}
	linuxGRE  = forwarder{name: "linux", section: "dataplane_driver = linux\n"}
	linuxMPLS = forwarder{name: "linux MPLS", section: "dataplane_driver = linux\nmpls_interface = eth0\n"}
	linuxUDP  = forwarder{name: "linux UDP", section: "dataplane_driver = linux\nencapsulations = mpls-udp\n"}
)

// TestKernelNetworkInVRF is TestNetworkInVRF with the driver linux.
func TestKernelNetworkInVRF(t *testing.T) { networkInVRF(t, linuxGRE) }

// TestKernelMPLSTogether is TestDataplanesTogether with the driver linux: test/vm runs
// it under kernels that have VRFs and MPLS, and FOU for MPLS over UDP.
func TestKernelMPLSTogether(t *testing.T) {
	for _, tt := range []struct{ a, b forwarder }{
		{ebpfGRE, linuxGRE}, {linuxMPLS, linuxMPLS}, {linuxGRE, ovsOurs}, {ebpfUDP, linuxUDP},
	} {
		t.Run(tt.a.name+" and "+tt.b.name, func(t *testing.T) { together(t, tt.a, tt.b) })
	}
}
