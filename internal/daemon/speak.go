// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
)

// deferral is how long after a restart peers are at most not told that our routes are
// complete (RFC 4724 §4.1).
const deferral = time.Minute

// speak runs the BGP speaker, once what was kept is there again. A daemon that keeps its attachments
// comes back with them: peers that keep its routes meanwhile hear of no end, and that the routes are complete
// when ours of the last run are there, and those that we announce again for others (RFC 4724 §4.1). One
// that leaves, its forwarding state being removed, tells them to keep nothing.
func (d *Daemon) speak(ctx context.Context, leaves func() bool) error {
	d.manager.Restore(ctx)
	d.restored.Store(true)
	if d.store == nil {
		return d.speaker.Run(ctx)
	}
	on, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if !leaves() {
			cause = fmt.Errorf("%w: %w", cause, session.ErrRestarting)
		}
		end(cause)
	})()
	return d.speaker.Run(on)
}
