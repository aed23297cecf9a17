// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"sync"
)

// pool runs instances that have something to do, each by one worker at a time.
type pool struct {
	mu    sync.Mutex
	queue []*Instance
	ready *sync.Cond
	done  bool
}

func newPool() *pool {
	p := &pool{}
	p.ready = sync.NewCond(&p.mu)
	return p
}

// add queues an instance unless it is queued already.
func (p *pool) add(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.queued {
		return
	}
	i.queued = true
	p.queue = append(p.queue, i)
	p.ready.Signal()
}

// next waits for an instance; nil means that the pool has ended.
func (p *pool) next() *Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.done {
		p.ready.Wait()
	}
	if p.done {
		return nil
	}
	i := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	i.queued = false
	return i
}

// run serves instances with n workers until ctx ends.
func (p *pool) run(ctx context.Context, n int) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done = true
		p.ready.Broadcast()
	})
	defer stop()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			w := worker{ctx: ctx}
			for i := p.next(); i != nil; i = p.next() {
				w.serve(i)
			}
		})
	}
	wg.Wait()
}
