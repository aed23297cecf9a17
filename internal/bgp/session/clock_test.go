// SPDX-License-Identifier: Apache-2.0

package session

import (
	"strings"
	"testing"
	"time"
)

// The hold time is counted on the monotonic clock: "m=" is how a time.Time shows
// that it has a reading of it.
func TestHoldTimeIsMonotonic(t *testing.T) {
	t.Parallel()
	c := conn{made: time.Now()}
	c.heard.Store(int64(2 * time.Second))
	if heard := c.lastHeard(); !strings.Contains(heard.String(), " m=") || heard.Sub(c.made) != 2*time.Second {
		t.Errorf("last message at %v of a connection made at %v: want 2 s later, on the monotonic clock", heard, c.made)
	}
}
