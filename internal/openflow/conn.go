// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Timeout bounds a call whose context has no earlier deadline.
const Timeout = 30 * time.Second

// dialTimeout bounds connecting and greeting.
const dialTimeout = 5 * time.Second

// batch is how many octets are written at once.
const batch = 64 << 10

// maxReply bounds the octets of one multipart reply.
const maxReply = 1 << 30

// Conn is a connection with a bridge. Its methods may be called from several
// goroutines; each call is atomic. After an error other than *Error it is of no
// more use.
type Conn struct {
	c    net.Conn
	done chan struct{} // closed when the reader ends

	call sync.Mutex // one call at a time
	xid  uint32
	buf  []byte

	mu      sync.Mutex
	waiting func(typ uint8, xid uint32, body []byte) bool // true when the call is answered
	answer  chan struct{}
	packets chan PacketIn // nil until Receive
	err     error         // why the reader ended
}

// Dial connects to the management socket of a bridge, e.g.
// "/var/run/openvswitch/br-mpls.mgmt", and greets it.
func Dial(ctx context.Context, path string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	conn, err := greet(ctx, c)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("OpenFlow with %s: %w", path, err)
	}
	return conn, nil
}

// greet says hello with a bitmap of versions and wants one back that has 1.5.
func greet(ctx context.Context, c net.Conn) (*Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	hello := append(header(nil, typeHello, 1), 0, 1, 0, 8, 0, 0, 0, 1<<Version)
	if _, err := c.Write(finish(hello, 0)); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, batch)
	h, body, err := readMessage(r)
	switch {
	case err != nil:
		return nil, err
	case h[1] != typeHello || !offers(h[0], body):
		return nil, fmt.Errorf("the bridge does not speak version 1.5 (it says %d): want OpenFlow15 among its protocols", h[0])
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	conn := &Conn{c: c, done: make(chan struct{}), xid: 1}
	go conn.read(r)
	return conn, nil
}

// offers tells whether a hello of that version has ours in its bitmap, if it has one.
func offers(version uint8, body []byte) bool {
	if len(body) >= 8 && be.Uint16(body) == 1 {
		return be.Uint32(body[4:])&(1<<Version) != 0
	}
	return version >= Version
}

// readMessage reads one message: its header and the rest.
func readMessage(r io.Reader) (h [headerLen]byte, body []byte, err error) {
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return h, nil, err
	}
	n := int(be.Uint16(h[2:]))
	if n < headerLen {
		return h, nil, fmt.Errorf("message of %d octets is not valid: want at least %d", n, headerLen)
	}
	body = make([]byte, n-headerLen)
	_, err = io.ReadFull(r, body)
	return h, body, err
}

// read takes messages until the connection ends.
func (c *Conn) read(r io.Reader) {
	defer close(c.done)
	for {
		h, body, err := readMessage(r)
		if err == nil && h[0] != Version {
			err = fmt.Errorf("message of version %d: want %d", h[0], Version)
		}
		if err == nil && h[1] == typeEchoRequest {
			// A call that writes has set its own, later deadline: the last one counts for both.
			_, err = c.c.Write(finish(append(header(nil, typeEchoReply, be.Uint32(h[4:])), body...), 0))
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			_ = c.c.Close()
			return
		}
		if h[1] == typePacketIn {
			c.deliver(body)
		}
		if c.waiting != nil && c.waiting(h[1], be.Uint32(h[4:]), body) {
			c.waiting = nil
			close(c.answer)
		}
		c.mu.Unlock()
	}
}

// Close closes the connection and waits for its reader.
func (c *Conn) Close() error {
	err := c.c.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Alive tells whether the connection stands, as far as is known.
func (c *Conn) Alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// expect sets who gets the messages of this call.
func (c *Conn) expect(f func(typ uint8, xid uint32, body []byte) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.answer = f, make(chan struct{})
}

func (c *Conn) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = nil
}

// begin bounds a call in time, writes included.
func (c *Conn) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	deadline, _ := ctx.Deadline()
	err := ctx.Err()
	if err == nil {
		err = c.c.SetWriteDeadline(deadline)
	}
	return ctx, cancel, err
}

// end takes the deadline of a call back, so that echo requests can be answered between calls.
func (c *Conn) end() {
	c.forget()
	_ = c.c.SetWriteDeadline(time.Time{})
}

// fail ends the connection: what was sent may or may not have been done.
func (c *Conn) fail(err error) error {
	_ = c.c.Close()
	<-c.done
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the switch does not answer in time: %w", err)
	}
	return fmt.Errorf("connection with the switch lost: %w", err)
}

// wait waits for the answer of a call.
func (c *Conn) wait(ctx context.Context) error {
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	select {
	case <-answer:
		return nil
	case <-c.done:
		select {
		case <-answer: // it came last
			return nil
		default:
			return c.fail(c.err)
		}
	case <-ctx.Done():
		return c.fail(ctx.Err())
	}
}

// ErrTooLong is for a message that does not fit.
var ErrTooLong = errors.New("message is longer than 65535 octets: too many next hops")

// Exec sends messages and a barrier, waits until the switch has done all, and
// sets errs[i], nil or *Error, for messages[i]. The error that it returns is one
// of the connection: then some are done and others not.
func (c *Conn) Exec(ctx context.Context, messages []Message, errs []error) error {
	c.call.Lock()
	defer c.call.Unlock()
	return c.exec(ctx, messages, errs)
}

func (c *Conn) exec(ctx context.Context, messages []Message, errs []error) error {
	ctx, cancel, err := c.begin(ctx)
	defer cancel()
	if err != nil {
		return c.fail(err)
	}
	clear(errs[:len(messages)])
	first := c.xid + 1
	c.xid += uint32(len(messages)) + 1
	last := c.xid
	c.expect(func(typ uint8, xid uint32, body []byte) bool {
		if i := xid - first; typ == typeError && len(body) >= 4 && uint64(i) < uint64(len(messages)) {
			errs[i] = &Error{Type: be.Uint16(body), Code: be.Uint16(body[2:]), XID: xid}
		}
		return typ == typeBarrierReply && xid == last
	})
	defer c.end()
	long, err := c.send(messages, first)
	if err == nil {
		_, err = c.c.Write(finish(header(nil, typeBarrierRequest, last), 0))
	}
	if err != nil {
		return c.fail(err)
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	for _, i := range long {
		errs[i] = ErrTooLong
	}
	return nil
}

// send writes messages in batches and returns which are too long to be sent.
func (c *Conn) send(messages []Message, first uint32) (long []int, err error) {
	b := c.buf[:0]
	for i, m := range messages {
		start := len(b)
		b = m.encode(b, first+uint32(i))
		if len(b)-start > maxMessage {
			b, long = b[:start], append(long, i)
		}
		if len(b) >= batch {
			if _, err := c.c.Write(b); err != nil {
				return nil, err
			}
			b = b[:0]
		}
	}
	if len(b) > 0 {
		_, err = c.c.Write(b)
	}
	c.buf = b[:0]
	return long, err
}
