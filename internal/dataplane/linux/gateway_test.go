// SPDX-License-Identifier: Apache-2.0

package linux

import "testing"

// A VRF may meet an instance at its bridge device: a MAC there is the bridge's own,
// so that frames for it go up.
func TestBridgeAsPort(t *testing.T) {
	t.Parallel()
	host := newHost(t, "gateway")
	host.ports("p1")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	bridge, mtu := h.Bridge()
	if bridge == "" || mtu == 0 {
		t.Fatalf("Bridge() = %q, %d", bridge, mtu)
	}
	gateway := add(localPort(bridge), localMAC(7, bridge))
	mustApply(t, h, add(localPort("p1"), localMAC(1, "p1"))...)
	mustApply(t, h, gateway...)
	wantInstalled(t, h, localPort("p1"), localMAC(1, "p1"), localPort(bridge), localMAC(7, bridge))
	before := host.state()
	mustApply(t, h, gateway...)
	again := mustOpen(t, host.driver(local4), instance("red", 100))
	wantSame(t, "state after a restart", before, host.state())
	wantInstalled(t, again, localPort("p1"), localMAC(1, "p1"), localPort(bridge), localMAC(7, bridge))
	mustApply(t, again, del(localMAC(7, bridge), localPort(bridge))...)
	mustApply(t, again, del(localMAC(7, bridge), localPort(bridge))...)
	wantInstalled(t, again, localPort("p1"), localMAC(1, "p1"))
}
