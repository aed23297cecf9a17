// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
)

// StopLimit is how long the parts of a daemon may take to stop. The slowest that we know of,
// closing sessions and requests under way, takes 2 s.
const StopLimit = 15 * time.Second

// CleanupLimit is how long the removal of all forwarding state may take then (cleanup_on_stop).
const CleanupLimit = time.Minute

// crew is the parts of the daemon at work. The first that fails stops all.
type crew struct {
	ctx   context.Context
	stop  context.CancelCauseFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	busy  []string // names of parts that have not ended
	err   error    // the first
	limit time.Duration
	log   *slog.Logger
}

func newCrew(ctx context.Context, limit time.Duration, log *slog.Logger) *crew {
	c := &crew{limit: limit, log: log}
	c.ctx, c.stop = context.WithCancelCause(ctx)
	return c
}

// start runs a part. What it returns, unless nil, stops all others.
func (c *crew) start(name string, run func(context.Context) error) {
	c.mu.Lock()
	c.busy = append(c.busy, name)
	c.mu.Unlock()
	c.wg.Go(func() {
		err := run(c.ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy = slices.Delete(c.busy, slices.Index(c.busy, name), slices.Index(c.busy, name)+1)
		if err != nil && c.err == nil {
			c.err = err
			c.stop(err)
		}
	})
}

// wait waits until the parts have ended, and then for last, which is a part, too.
// The error is the first of a part, or tells which parts hang when they take longer
// than the limit after the end of ctx: then they still run.
func (c *crew) wait(last string, do func() error) error {
	defer c.stop(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.wg.Wait()
		c.start(last, func(context.Context) error { return do() })
		c.wg.Wait()
	}()
	select {
	case <-done:
		return c.failure()
	case <-c.ctx.Done():
	}
	timer := time.NewTimer(c.limit)
	defer timer.Stop()
	select {
	case <-done:
		return c.failure()
	case <-timer.C:
		return errors.Join(c.failure(), c.hung())
	}
}

func (c *crew) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// hung logs what all goroutines do and names the parts that hang.
func (c *crew) hung() error {
	c.mu.Lock()
	names := strings.Join(c.busy, ", ")
	c.mu.Unlock()
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	c.log.Error("stop hangs", "parts", names, "goroutines", stacks.String())
	return fmt.Errorf("stop hangs: not ended after %v: %s", c.limit, names)
}
