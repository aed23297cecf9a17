// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"context"
	"fmt"
)

// Types of bundle control messages.
const (
	bundleOpen    = 0
	bundleCommit  = 4
	bundleDiscard = 6
)

type bundleControl struct {
	id  uint32
	typ uint16
}

// bundleFlags asks for all or nothing, in order.
const bundleFlags = 3

func (m bundleControl) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = be.AppendUint32(header(b, typeBundleControl, xid), m.id)
	b = be.AppendUint16(b, m.typ)
	return finish(be.AppendUint16(b, bundleFlags), start)
}

type bundleAdd struct {
	id uint32
	m  Message
}

func (m bundleAdd) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = be.AppendUint32(header(b, typeBundleAdd, xid), m.id)
	b = be.AppendUint16(append(b, 0, 0), bundleFlags)
	return finish(m.m.encode(b, xid), start)
}

// Bundle does all messages at once, or none. The error is a *Error when the
// switch refuses one of them, with its place in messages. A switch takes a bundle
// without the messages that it refused while they were added, so that the commit
// waits until all are known to be in.
func (c *Conn) Bundle(ctx context.Context, messages []Message) error {
	c.call.Lock()
	defer c.call.Unlock()
	id := c.xid + 1 // no other bundle is open on this connection
	all := make([]Message, 0, len(messages)+1)
	all = append(all, bundleControl{id, bundleOpen})
	for _, m := range messages {
		all = append(all, bundleAdd{id, m})
	}
	errs := make([]error, len(all))
	if err := c.exec(ctx, all, errs); err != nil {
		return err
	}
	err := errs[0]
	for i := len(messages); i > 0; i-- {
		if errs[i] != nil {
			err = fmt.Errorf("message %d of %d: %w", i, len(messages), errs[i])
		}
	}
	last := bundleControl{id, bundleCommit}
	if err != nil {
		last.typ = bundleDiscard
	}
	if lost := c.exec(ctx, []Message{last}, errs[:1]); lost != nil {
		return lost
	}
	if err == nil {
		err = errs[0]
	}
	return err
}
