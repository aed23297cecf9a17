// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// A restart gives a port to the dataplane once, however many endpoints it has, and again when
// it has changed by one of them.
func TestRestorePlugsPortsOnce(t *testing.T) {
	for _, tt := range []struct {
		name  string
		last  dataplane.Direction // of the last endpoint
		plugs int
	}{
		{"the same", dataplane.Both, 1},
		{"another direction", dataplane.FromPort, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{store: t.TempDir()})
				first := dataplane.Both
				if tt.plugs > 1 {
					first = dataplane.ToPort
				}
				n.attach(vrf(1, "192.0.2.5", onPort("tap1"), direction(first)), vrf(2, "192.0.2.6", onPort("tap1"), direction(first)),
					vrf(3, "192.0.2.7", onPort("tap1"), direction(tt.last)))
				plane := n.plane.String()
				n = n.restarted()
				var mu sync.Mutex
				plugs := 0
				n.plane.Fail(fake.Forever, func(o fake.Op) bool {
					mu.Lock()
					defer mu.Unlock()
					if o.Verb == "apply" && o.Change.Entry.Kind == dataplane.LocalPort {
						plugs++
					}
					return false
				})
				n.Restore(t.Context())
				n.plane.Heal()
				if plugs != tt.plugs {
					t.Errorf("the port was given %d times, want %d", plugs, tt.plugs)
				}
				if got := n.plane.String(); got != plane {
					t.Errorf("plane:\n%s\nwant\n%s", got, plane)
				}
			})
		})
	}
}
