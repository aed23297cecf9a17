// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// readBuffer holds at least one message of the largest size behind another.
const readBuffer = 2 * (wire.MaxExtMessage + 1)

// defaultWriteTimeout applies where no hold time was negotiated.
const defaultWriteTimeout = 3 * time.Minute

// conn is one TCP connection with its reader and, once established, its writer.
type conn struct {
	p     *Peer
	track *track
	nc    net.Conn
	flow  Flow // set by the peer's goroutine in establish

	done      chan struct{} // closed by close
	closeOnce sync.Once
	ended     sync.WaitGroup        // reader and writer
	keepalive chan struct{}         // asks the writer for a KEEPALIVE
	made      time.Time             // when the connection was taken over
	heard     atomic.Int64          // nanoseconds from made to the last message
	unsent    atomic.Pointer[error] // why a message could not be written

	turn chan struct{} // held, by sending to it, by who writes; first come, first served
}

// newConn takes a TCP connection over and starts its reader.
func (p *Peer) newConn(t *track, nc net.Conn) *conn {
	c := &conn{p: p, track: t, nc: nc, done: make(chan struct{}), keepalive: make(chan struct{}, 1), turn: make(chan struct{}, 1), made: time.Now()}
	c.goroutine(c.read)
	return c
}

// goroutine runs f such that both the connection and the peer wait for it.
func (c *conn) goroutine(f func()) {
	c.ended.Add(1)
	c.p.wg.Add(1)
	go func() {
		defer c.p.wg.Done()
		defer c.ended.Done()
		f()
	}()
}

// lastHeard returns when the last message came, on the monotonic clock as made is:
// a hold time does not depend on who sets the clock of the host.
func (c *conn) lastHeard() time.Time { return c.made.Add(time.Duration(c.heard.Load())) }

func (c *conn) close() {
	c.closeOnce.Do(func() {
		close(c.done)
		_ = c.nc.Close()
	})
}

// establish starts the writer of a session.
func (c *conn) establish(f Flow) {
	c.flow = f
	c.goroutine(c.write)
}

// send writes a message of the peer's goroutine. Once there is a writer, only
// KEEPALIVEs come this way and the writer sends them, so that a peer that does
// not read cannot block the FSM.
func (c *conn) send(msg []byte) {
	if c.flow != nil {
		select {
		case c.keepalive <- struct{}{}:
		default:
		}
		return
	}
	c.output(msg, time.Second)
}

// sendLast sends a NOTIFICATION, cutting short a write that is stuck. It waits
// closeTimeout at most for its turn, also when the writer has just begun another
// write: the FSM must not depend on a peer that does not read.
func (c *conn) sendLast(n wire.Notification) {
	_ = c.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
		c.put(n.Message(), closeTimeout)
	case <-time.After(closeTimeout):
	}
}

// output writes whole messages when it is its turn.
func (c *conn) output(b []byte, timeout time.Duration) bool {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return c.put(b, timeout)
}

// put writes whole messages. After an error the connection is of no use:
// closing it ends the reader, which tells the FSM.
func (c *conn) put(b []byte, timeout time.Duration) bool {
	_ = c.nc.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.nc.Write(b); err != nil {
		c.unsent.CompareAndSwap(nil, &err)
		_ = c.nc.Close()
		return false
	}
	c.p.counters.sent(b)
	return true
}

// write is the writer: it sends what the flow has until the connection ends.
func (c *conn) write() {
	defer func() {
		if r := recover(); r != nil {
			c.p.Log.Error("panic while writing to the peer: session is reset", "panic", r, "stack", string(debug.Stack()))
			_ = c.nc.Close() // the reader tells the FSM
		}
	}()
	timeout := c.track.deal.HoldTime
	if timeout == 0 {
		timeout = defaultWriteTimeout
	}
	packer := wire.NewPacker(c.track.deal.MaxMessage())
	for {
		select {
		case <-c.done:
			return
		case <-c.keepalive:
			if !c.output(wire.Keepalive(), timeout) {
				return
			}
		case <-c.flow.Wake():
			if !c.drain(packer, timeout) {
				return
			}
		}
	}
}

// drain sends until the flow has nothing more, with KEEPALIVEs in between.
func (c *conn) drain(packer *wire.Packer, timeout time.Duration) bool {
	for more := true; more; {
		more = c.flow.Fill(packer)
		if b := packer.Flush(); len(b) > 0 && !c.output(b, timeout) {
			return false
		}
		select {
		case <-c.done:
			return false
		case <-c.keepalive:
			if !c.output(wire.Keepalive(), timeout) {
				return false
			}
		default:
		}
	}
	return true
}

// read is the reader: it frames messages in one buffer and hands them on.
func (c *conn) read() {
	defer func() {
		if r := recover(); r != nil {
			c.p.Log.Error("panic while reading from the peer: session is reset", "panic", r, "stack", string(debug.Stack()))
			c.tell(incident{ev: evBadMessage, err: fmt.Errorf("panic: %v", r),
				bad: wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseOutOfResources}})
		}
	}()
	r := reader{c: c, buf: make([]byte, wire.MaxMessage), max: wire.MaxMessage}
	err := r.run()
	if cause := c.unsent.Load(); cause != nil && errors.Is(err, net.ErrClosed) {
		err = *cause
	}
	i := incident{ev: evClosed, err: err}
	var we *wire.Error
	if errors.As(err, &we) {
		i = incident{ev: evBadMessage, err: err, bad: we.Notification()}
	}
	c.tell(i)
}

// tell reports an event to the peer's goroutine and waits until it was
// handled. It returns the flow once the session is established.
func (c *conn) tell(i incident) Flow {
	reply := make(chan Flow, 1)
	i.conn, i.reply = c, reply
	select {
	case c.p.events <- i:
	case <-c.done:
		return nil
	}
	select {
	case f := <-reply:
		return f
	case <-c.done:
		return nil
	}
}

// reader is the state of a connection's reader.
type reader struct {
	c        *conn
	buf      []byte
	from, to int // unread part of buf
	max      int
	flow     Flow // set once established
}

var errEnded = errors.New("session ended")

// run reads until the connection ends or a message is bad.
func (r *reader) run() error {
	for {
		n, err := r.c.nc.Read(r.buf[r.to:])
		r.to += n
		if n > 0 {
			if err := r.messages(time.Now()); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return errors.New("connection closed by peer")
		}
		if err != nil {
			return err
		}
	}
}

// messages handles all complete messages in the buffer, of which the last
// octets came at now, and moves the rest to its front. Part of a message says
// nothing about the peer's health (RFC 4271 §8.2.2).
func (r *reader) messages(now time.Time) error {
	for r.to-r.from >= wire.HeaderLen {
		typ, length, err := wire.ParseHeader(r.buf[r.from:r.to], r.max)
		if err != nil {
			_ = r.flush()
			return err
		}
		if r.to-r.from < length {
			break
		}
		if r.from == 0 {
			r.c.heard.Store(int64(now.Sub(r.c.made)))
		}
		body := r.buf[r.from+wire.HeaderLen : r.from+length]
		r.from += length
		if err := r.message(typ, body); err != nil {
			_ = r.flush()
			return err
		}
	}
	if err := r.flush(); err != nil { // the flow may hold references into the buffer until now
		return err
	}
	r.to = copy(r.buf, r.buf[r.from:r.to])
	r.from = 0
	return nil
}

// flush returns an error of type *wire.Error, or nil.
func (r *reader) flush() error {
	if r.flow != nil {
		if err := r.flow.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// message handles one message. The returned error is nil, errEnded, or of
// type *wire.Error.
func (r *reader) message(typ wire.MsgType, body []byte) error {
	r.c.p.counters.received(typ)
	if r.flow != nil {
		switch typ {
		case wire.MsgUpdate:
			if err := r.flow.Update(body); err != nil {
				return err
			}
			return nil
		case wire.MsgKeepalive: // messages noted the time
			return nil
		case wire.MsgRouteRefresh:
			f, sub, err := wire.ParseRouteRefresh(body)
			if err != nil {
				return err
			}
			r.flow.Refresh(f, sub)
			return nil
		}
	}
	i, err := incidentOf(typ, body)
	if err != nil {
		return err
	}
	flow := r.c.tell(i)
	select {
	case <-r.c.done:
		return errEnded
	default:
	}
	if flow != nil && r.flow == nil {
		r.established(flow)
	}
	return nil
}

// established switches to the large buffer. We offered extended messages, so the
// peer may send them whether it can receive them or not (RFC 8654 §4).
func (r *reader) established(f Flow) {
	r.flow = f
	r.max = wire.MaxExtMessage
	big := make([]byte, readBuffer)
	copy(big, r.buf[:r.to])
	r.buf = big
}

func incidentOf(typ wire.MsgType, body []byte) (incident, error) {
	switch typ {
	case wire.MsgOpen:
		o, err := wire.ParseOpen(body)
		if err != nil {
			return incident{}, err
		}
		return incident{ev: evOpen, open: o, raw: append(wire.AppendHeader(nil, typ, len(body)), body...)}, nil
	case wire.MsgNotification:
		n, err := wire.ParseNotification(body)
		if err != nil {
			return incident{}, err
		}
		return incident{ev: evNotification, bad: n, err: fmt.Errorf("NOTIFICATION %s received", n)}, nil
	case wire.MsgKeepalive:
		return incident{ev: evKeepalive}, nil
	}
	return incident{ev: evUpdate}, nil
}
