// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipe returns the two ends of a connection with the given room for octets
// under way in each direction, as TCP has. Unlike net.Pipe a write does not wait
// for the reader, and unlike TCP it works with the fake time of synctest.
func pipe(room int) (a, b *end) {
	ab, ba := newHalf(room), newHalf(room)
	return &end{in: ba, out: ab}, &end{in: ab, out: ba}
}

// half is one direction.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond
	room    int
	buf     []byte
	eof     bool // the writer has closed
	broken  bool // the reader has closed
	// most bounds what one Read returns; 0: everything at hand.
	most int
}

func newHalf(room int) *half {
	h := &half{room: room}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// end is one end of a pipe; it implements net.Conn.
type end struct {
	in, out      *half
	rline, wline deadline // guarded by in.mu and out.mu
}

// deadline is one of the two deadlines of an end.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set is called with the lock of h held.
func (d *deadline) set(at time.Time, h *half) {
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.at = at; !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), h.changed.Broadcast)
	}
	h.changed.Broadcast()
}

func (e *end) Read(b []byte) (int, error) {
	h := e.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case len(h.buf) > 0:
			n := len(b)
			if h.most > 0 {
				n = min(n, h.most)
			}
			n = copy(b[:n], h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		case e.rline.passed():
			return 0, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
}

func (e *end) Write(b []byte) (int, error) {
	h := e.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := 0; ; {
		switch {
		case h.eof, h.broken:
			return n, net.ErrClosed
		case e.wline.passed():
			return n, os.ErrDeadlineExceeded
		}
		k := max(0, min(len(b)-n, h.room-len(h.buf)))
		h.buf = append(h.buf, b[n:n+k]...)
		if n += k; k > 0 {
			h.changed.Broadcast()
		}
		if n == len(b) {
			return n, nil
		}
		h.changed.Wait()
	}
}

func (e *end) Close() error {
	e.in.mu.Lock()
	e.in.broken = true
	e.rline.set(time.Time{}, e.in)
	e.in.mu.Unlock()
	e.out.mu.Lock()
	e.out.eof = true
	e.wline.set(time.Time{}, e.out)
	e.out.mu.Unlock()
	return nil
}

func (e *end) SetReadDeadline(at time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.rline.set(at, e.in)
	return nil
}

func (e *end) SetWriteDeadline(at time.Time) error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.wline.set(at, e.out)
	return nil
}

func (e *end) SetDeadline(at time.Time) error {
	return errors.Join(e.SetReadDeadline(at), e.SetWriteDeadline(at))
}

func (e *end) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (e *end) RemoteAddr() net.Addr { return &net.TCPAddr{} }
