// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// consumer makes flows that note what happens to them.
type consumer struct {
	t *testing.T

	// Set before the session comes up.
	onUp     func()
	onUpdate func(*flow, []byte) *wire.Error
	fill     func(*flow, *wire.Packer) bool

	mu    sync.Mutex
	flows []*flow
}

// flow implements Flow. Reading and writing are counters without a lock: the
// race detector sees when two goroutines call at a time.
type flow struct {
	loss Loss
	c    *consumer
	deal Negotiated
	wake chan struct{}

	reading, writing int

	mu    sync.Mutex
	calls []string
}

// Up implements Consumer.
func (c *consumer) Up(n Negotiated) Flow {
	if c.onUp != nil {
		c.onUp()
	}
	f := &flow{c: c, deal: n, wake: make(chan struct{}, 1), calls: []string{"up"}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows = append(c.flows, f)
	return f
}

// last returns the latest flow.
func (c *consumer) last() *flow {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.flows) == 0 {
		c.t.Fatal("there was no session")
	}
	return c.flows[len(c.flows)-1]
}

// sessions counts the flows made.
func (c *consumer) sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.flows)
}

// checkFlows checks the contract of Flow once all sessions are over.
func (c *consumer) checkFlows() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.flows {
		calls := f.log()
		if first, last := calls[0], calls[len(calls)-1]; first != "up" || last != "down" {
			c.t.Errorf("session %d: first call %q, last call %q: want up and down", i, first, last)
		}
		if n := len(slices.DeleteFunc(calls, func(s string) bool { return s != "down" })); n != 1 {
			c.t.Errorf("session %d: Down was called %d times", i, n)
		}
	}
}

func (f *flow) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// log returns the calls so far.
func (f *flow) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Update implements Flow.
func (f *flow) Update(body []byte) *wire.Error {
	f.reading++
	f.note("update %d of %d", body[0], len(body)+wire.HeaderLen)
	for _, b := range body {
		if b != body[0] {
			f.c.t.Errorf("UPDATE %d holds octets of another one", body[0])
			break
		}
	}
	if f.c.onUpdate != nil {
		return f.c.onUpdate(f, body)
	}
	return nil
}

// Flush implements Flow.
func (f *flow) Flush() *wire.Error {
	f.reading++
	f.note("flush")
	return nil
}

// Refresh implements Flow.
func (f *flow) Refresh(fam wire.Family, subtype uint8) {
	f.reading++
	f.note("refresh %s %d", fam, subtype)
}

// Fill implements Flow.
func (f *flow) Fill(p *wire.Packer) bool {
	f.writing++
	return f.c.fill != nil && f.c.fill(f, p)
}

// Wake implements Flow.
func (f *flow) Wake() <-chan struct{} { return f.wake }

// Down implements Flow: it comes behind all other calls.
func (f *flow) Down(l Loss) {
	f.loss = l
	f.reading++
	f.writing++
	f.note("down")
}

// updates returns the calls of Update.
func (f *flow) updates() []string {
	return slices.DeleteFunc(f.log(), func(s string) bool { return s[0:2] != "up" || s == "up" })
}
