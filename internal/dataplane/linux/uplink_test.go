// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// The device that the tunnels use is no port: as one it would take the node off the network.
func TestUplinkIsNoPort(t *testing.T) {
	t.Parallel()
	for label, local := range map[string]string{"up4": local4, "up6": "2001:db8::1"} {
		host := newHost(t, label)
		host.ports("p0", "p1")
		host.ip("address add %s dev p0", local)
		d := host.driver(local)
		red := mustOpen(t, d, instance("red", 100))
		wantInput(t, d.Check(t.Context(), instance("new", 200), dataplane.Port{Name: "p0"}), "local_port", "device p0 is where packets of other nodes come in")
		wantInput(t, red.Apply(t.Context(), add(localPort("p0")))[0], "local_port", "device p0")
		mustApply(t, red, add(localPort("p1"))...)
	}
}
