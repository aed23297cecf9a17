// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/bagpipe-vpn/bagpipe/internal/store"
)

// pingRecord is the record of the number that /ping answers.
const pingRecord = "ping"

// pingNumber returns the number of the last run if all that agents attached then is there, else a
// new one, at which they attach all ports again: a number in 1..2^63-1, since 0 means "never seen" to them.
func (d *Daemon) pingNumber() uint64 {
	if d.manager.Kept() {
		if n, err := strconv.ParseUint(string(d.store.Get(pingRecord)), 10, 63); err == nil && n > 0 {
			return n
		}
	}
	n := 1 + rand.Uint64N(math.MaxInt64)
	if d.store != nil {
		d.store.Stage(store.Change{Name: pingRecord, Value: strconv.AppendUint(nil, n, 10)})
	}
	return n
}
