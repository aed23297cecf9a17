// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"strings"
	"testing"
	"time"
)

// TestQuickPortMoves moves a port back and forth sooner than a route that is one ahead is taken
// for one that was learned late: no node answers the next move, so that a third node goes to each
// new place once and the numbers rise by one.
func TestQuickPortMoves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		stay time.Duration
	}{{"at once", 0}, {"half a second", time.Second / 2}, {"longer than the window", 2 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, b, c := newNode(t, setup{number: 1}), newNode(t, setup{number: 2}), newNode(t, setup{number: 3})
				defer connect(a, b, c)()
				c.attach(evpn(3, "192.0.2.3"))
				port := evpn(7, "192.0.2.7")
				a.attach(port)
				time.Sleep(time.Hour)
				c.plane.Log()
				from, to := a, b
				for move := uint32(1); move <= 6; move++ {
					to.attach(port)
					from.detach(port)
					to.wantSeq(7, move)
					changes := 0
					for _, op := range c.plane.Log() {
						if strings.Contains(op, " mac 02:00:00:00:00:07") {
							changes++
						}
					}
					if changes != 1 {
						t.Errorf("move %d: the third node's entry changed %d times", move, changes)
					}
					time.Sleep(tt.stay)
					from, to = to, from
				}
			})
		})
	}
}
