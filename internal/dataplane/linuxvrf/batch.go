// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// flushSize bounds the requests that wait, and so the memory of a large Apply.
const flushSize = 1024

// routeKey names a route.
type routeKey struct {
	h      *handle
	prefix netip.Prefix
}

// installed is a route: its nexthop object, nil for an unreachable route, and what it
// was asked to be.
type installed struct {
	nexthop *nexthop
	hops    []dataplane.NextHop
}

// step is a route on its way into the kernel.
type step struct {
	key    routeKey
	delete bool
	now    installed
}

// batch are requests that wait, and what becomes of what is known when they are done.
type batch struct {
	d       *Driver
	results []error // by change
	owner   int     // the change that is being planned
	reqs    []netlinkx.Request
	items   []item // by request
	pending map[routeKey]bool
}

// item says what a request is about; at most one member but owner is set.
type item struct {
	owner   int
	nexthop *nexthop
	step    *step
}

func (d *Driver) newBatch(changes int) *batch {
	return &batch{d: d, results: make([]error, changes), pending: map[routeKey]bool{}}
}

func (b *batch) request(r netlinkx.Request) { b.queue(r, item{}) }

func (b *batch) nexthop(n *nexthop) { b.queue(n.request(), item{nexthop: n}) }

func (b *batch) queue(r netlinkx.Request, i item) {
	i.owner = b.owner
	b.reqs, b.items = append(b.reqs, r), append(b.items, i)
}

// fail notes the error of a change; the first one is kept.
func (b *batch) fail(owner int, err error) {
	if err != nil && owner < len(b.results) && b.results[owner] == nil {
		b.results[owner] = err
	}
}

// flush sends what waits, notes what was done, and deletes nexthop objects that are
// not used any more: not before, as the kernel deletes their routes with them.
func (b *batch) flush() {
	if len(b.reqs) > 0 {
		errs := make([]error, len(b.reqs))
		b.d.k.Do(b.reqs, errs)
		for i, it := range b.items {
			err := errs[i]
			if isDelete(b.reqs[i]) {
				err = goneIsFine(err)
			}
			switch {
			case it.nexthop != nil:
				it.nexthop.err = err
				if err != nil {
					b.d.nexthops.abandon(it.nexthop)
				}
			case it.step != nil:
				err = it.step.settle(b.d, err)
			}
			b.fail(it.owner, err)
		}
		b.reqs, b.items = b.reqs[:0], b.items[:0]
		clear(b.pending)
	}
	if reqs := b.d.nexthops.collect(); len(reqs) > 0 {
		if err := b.d.do(reqs); err != nil {
			b.d.log.Warn("nexthop objects are left over", "err", err)
		}
	}
}

// settle makes what is known about a route agree with what the kernel did, and
// returns why it refused.
func (s *step) settle(d *Driver, err error) error {
	h, t := s.key.h, &d.nexthops
	old, had := h.routes[s.key.prefix]
	if err != nil {
		t.release(s.now.nexthop)
		if n := s.now.nexthop; n != nil {
			for _, m := range slices.Concat(n.members, []*nexthop{n}) {
				if m.err != nil {
					return m.err
				}
			}
		}
		return err
	}
	if had {
		t.release(old.nexthop)
	}
	if s.delete {
		delete(h.routes, s.key.prefix)
	} else {
		h.routes[s.key.prefix] = s.now
	}
	return nil
}
