// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// bounded is a listener with a bound of open connections: those beyond wait in
// the kernel. Connections after the first limit ones are crowded.
type bounded struct {
	net.Listener
	limit  int
	places places
	closed chan struct{}
	close  func()
}

func newBounded(l net.Listener, limit, spare int) *bounded {
	b := &bounded{Listener: l, limit: limit, places: make(places, limit+spare), closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		b.places.leave()
		return nil, err
	}
	return &boundedConn{Conn: c, crowded: len(b.places) > b.limit, leave: sync.OnceFunc(b.places.leave)}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.close()
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	crowded bool
	leave   func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite lets the other side read a last reply: net/http looks for it.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type crowdedKey struct{}

// noteCrowded marks the context of a crowded connection.
func noteCrowded(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if b, ok := c.(*boundedConn); ok && b.crowded {
		return context.WithValue(ctx, crowdedKey{}, true)
	}
	return ctx
}

func crowded(ctx context.Context) bool { return ctx.Value(crowdedKey{}) != nil }
