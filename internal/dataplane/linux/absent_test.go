// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// What was refused when it was to be installed is deleted without an error: or else a
// route that is gone would be a problem for ever.
func TestDeleteOfWhatCannotBeThere(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]dataplane.Entry{
		"flood of another IP version": flood("2001:db8::9", 1),
		"flood without VNI":           flood("192.0.2.9", 0),
		"neighbour":                   neighbour("0.0.0.0", 1),
		"remote MAC":                  {Kind: dataplane.RemoteMAC, MAC: ethernet.MAC{1}},
	} {
		p := planner{bridge: 10, vxlan: 11, local: netip.MustParseAddr("192.0.2.1")}
		if _, err := p.plan(nil, dataplane.Change{Entry: e}, 12); err == nil {
			t.Errorf("%s: added", name)
		}
		if msgs, err := p.plan(nil, dataplane.Change{Entry: e, Delete: true}, 12); err != nil || len(msgs) != 0 {
			t.Errorf("%s: delete: %v, %v; want nothing", name, msgs, err)
		}
	}
}
