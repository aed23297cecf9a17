// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// slowKind is a client of the API that takes its time: it sends start, then drip
// every now and then, and reads nothing.
type slowKind struct {
	name, start, drip string
	number            int
}

// slowClients are more than there are places for changes, and fewer readers than there
// are pages made at once (docs/rest-api.md). Each reader asks for more than sockets hold.
func slowClients(page string) []slowKind {
	return []slowKind{
		{"header", "GET /ping HTTP/1.1\r\nX: ", "x", 80},
		{"attach body", "POST /attach_localport HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", " ", 80},
		{"detach body", "POST /detach_localport HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "1\r\n \r\n", 80},
		{"reader", manyGets(page, 200), "\r\n", 8},
	}
}

func manyGets(page string, number int) (text string) {
	for range number {
		text += "GET /looking-glass/" + page + " HTTP/1.1\r\nHost: x\r\n\r\n"
	}
	return text
}

// slowness is a crowd of slow clients that runs until it is stopped. Those that are cut
// off come again.
type slowness struct {
	kinds []slowKind
	drips []atomic.Int64
	stop  func()
}

func (n *node) slowClients(page string) *slowness {
	s := &slowness{kinds: slowClients(page)}
	s.drips = make([]atomic.Int64, len(s.kinds))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	s.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.t.Cleanup(s.stop)
	dial := netspace.Dialer(n.Name)
	for i, k := range s.kinds {
		for range k.number {
			wg.Go(func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for ctx.Err() == nil {
					if c, err := dial(ctx, "tcp", "127.0.0.1:8082"); err == nil {
						k.run(ctx, c, tick, &s.drips[i])
					} else {
						pause(ctx, tick)
					}
				}
			})
		}
	}
	return s
}

// run sends until the connection or ctx ends.
func (k slowKind) run(ctx context.Context, c net.Conn, tick *time.Ticker, drips *atomic.Int64) {
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // a write may hang
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	for text := k.start; ctx.Err() == nil; text = k.drip {
		if _, err := c.Write([]byte(text)); err != nil {
			return
		}
		drips.Add(1)
		pause(ctx, tick)
	}
}

// pause waits for the next tick, or the end of ctx.
func pause(ctx context.Context, tick *time.Ticker) {
	select {
	case <-ctx.Done():
	case <-tick.C:
	}
}

// tookPart checks that all kinds were connected while the test ran.
func (s *slowness) tookPart(t testing.TB) {
	t.Helper()
	for i, k := range s.kinds {
		if got := s.drips[i].Load(); got < int64(2*k.number) {
			t.Errorf("%d slow clients (%s) have written %d times", k.number, k.name, got)
		}
	}
}
