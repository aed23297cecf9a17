// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// chunk is the number of octets from which on messages are written.
const chunk = 64 << 10

// outbox gathers messages and writes them to a station. After an error it takes
// messages and drops them; flush tells.
type outbox struct {
	ctx     context.Context
	conn    net.Conn
	station *station
	buf     []byte
	err     error
	last    func() time.Time // when it is over once we are to stop

	messages, routes uint64 // since the last write
}

func newOutbox(ctx context.Context, conn net.Conn, s *station) *outbox {
	return &outbox{
		ctx: ctx, conn: conn, station: s,
		last: sync.OnceValue(func() time.Time { return time.Now().Add(closeTimeout) }),
	}
}

// message adds a message.
func (o *outbox) message(m message) {
	o.messages++
	if o.buf = m.append(o.buf); len(o.buf) >= chunk {
		_ = o.flush()
	}
}

// flush writes what there is. The error is that of the first write that failed.
func (o *outbox) flush() error {
	if o.err == nil && len(o.buf) > 0 {
		o.err = o.write()
		o.station.update(func(st *Status) {
			if o.err == nil {
				st.Messages += o.messages
				st.Bytes += uint64(len(o.buf))
				st.Routes += o.routes
			}
		})
	}
	o.buf, o.messages, o.routes = o.buf[:0], 0, 0
	return o.err
}

// write gives the station time as long as it takes octets at all, and little once
// we are to stop.
func (o *outbox) write() error {
	for rest := o.buf; ; {
		_ = o.conn.SetWriteDeadline(time.Now().Add(stuckAfter))
		if o.ctx.Err() != nil {
			o.limit()
		}
		n, err := o.conn.Write(rest)
		rest = rest[n:]
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("write to BMP station: %w", err)
		case o.ctx.Err() != nil:
			return errors.New("the station did not take the rest in time")
		case n == 0:
			return fmt.Errorf("the station has not read for %s", stuckAfter)
		}
	}
}

// limit lets writes go on for the time that is left when we are to stop. It may be
// called while a write is under way.
func (o *outbox) limit() { _ = o.conn.SetWriteDeadline(o.last()) }
