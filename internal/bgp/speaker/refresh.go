// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// askPause is the least time between two requests for the same family: a node
// that starts attaches many ports within moments.
const askPause = time.Second

// refresh is the state of route refreshes in both directions (RFC 2918, RFC
// 7313). Its mutex may be taken with the RIB's lock held, so the RIB must not be
// called under it.
type refresh struct {
	mu     sync.Mutex
	wanted []wire.Family             // by the peer, not begun
	asks   []wire.Family             // by us, not sent
	asked  map[wire.Family]time.Time // when we last did
	timer  *time.Timer
	begun  []wire.Family // by the peer: BoRR came and EoRR did not; reader only
}

func (r *refresh) init() { r.asked = map[wire.Family]time.Time{} }

func (r *refresh) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// Refresh implements session.Flow: a request of the peer, or the begin or end
// of the answer to ours.
func (f *flow) Refresh(fam wire.Family, subtype uint8) {
	r := &f.refresh
	if !slices.Contains(f.deal.Families, fam) || slices.Contains(f.disabled, fam) {
		return // RFC 2918 §4, RFC 7313 §4: ignored
	}
	routes, source := f.n.speaker.rib, f.n.source
	switch {
	case subtype == wire.RefreshRequest:
		r.mu.Lock()
		if !slices.Contains(r.wanted, fam) {
			r.wanted = append(r.wanted, fam)
		}
		r.mu.Unlock()
		f.signal()
	case !f.deal.EnhancedRefresh():
	case subtype == wire.RefreshBegin && !f.n.recovery.waitsFor(fam): // RFC 7313 §4: not before the End-of-RIB of a restart
		_ = f.Flush()
		routes.MarkStale(source, fam)
		r.begun = append(r.begun, fam)
	case subtype == wire.RefreshEnd && slices.Contains(r.begun, fam):
		_ = f.Flush()
		routes.PurgeStale(source, fam)
		r.begun = slices.DeleteFunc(r.begun, func(b wire.Family) bool { return b == fam })
	}
}

// ask queues a request for all routes of a family. It is called with the RIB's
// lock held.
func (f *flow) ask(fam wire.Family) {
	if !slices.Contains(f.deal.Families, fam) {
		return
	}
	f.refresh.mu.Lock()
	if !slices.Contains(f.refresh.asks, fam) {
		f.refresh.asks = append(f.refresh.asks, fam)
	}
	f.refresh.mu.Unlock()
	f.signal()
}

// beginRefreshes sends our requests that are due, and begins to answer those of
// the peer.
func (f *flow) beginRefreshes(p *wire.Packer) {
	r := &f.refresh
	r.mu.Lock()
	wanted, now := r.wanted, time.Now()
	r.wanted = nil
	r.asks = slices.DeleteFunc(r.asks, func(fam wire.Family) bool {
		if rest := askPause - now.Sub(r.asked[fam]); rest > 0 {
			r.later(rest, f.signal)
			return false
		}
		r.asked[fam] = now
		p.RouteRefresh(fam, wire.RefreshRequest)
		return true
	})
	r.mu.Unlock()
	for _, fam := range wanted {
		if f.deal.EnhancedRefresh() {
			p.RouteRefresh(fam, wire.RefreshBegin)
			if !slices.Contains(f.ending, fam) {
				f.ending = append(f.ending, fam)
			}
		}
		f.exporter.Resend(fam)
	}
}

// later calls wake after a while.
func (r *refresh) later(d time.Duration, wake func()) {
	if r.timer == nil {
		r.timer = time.AfterFunc(d, wake)
		return
	}
	r.timer.Reset(d)
}

// endRefreshes ends the answers when nothing more is waiting.
func (f *flow) endRefreshes(p *wire.Packer) {
	for _, fam := range f.ending {
		p.RouteRefresh(fam, wire.RefreshEnd)
	}
	f.ending = f.ending[:0]
}
