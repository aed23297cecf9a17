// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"context"
	"fmt"
)

// Multipart types.
const (
	multipartAggregate = 2
	multipartFlows     = 1
	multipartGroupDesc = 7
	multipartPortDesc  = 13
)

// multipart sends a request and returns the body of its reply, whose parts are
// joined: entries are never split over parts.
func (c *Conn) multipart(ctx context.Context, typ uint16, request []byte, each func(part []byte) error) error {
	c.call.Lock()
	defer c.call.Unlock()
	ctx, cancel, err := c.begin(ctx)
	defer cancel()
	if err != nil {
		return c.fail(err)
	}
	c.xid++
	own := c.xid
	var failure error
	total := 0
	c.expect(func(got uint8, xid uint32, body []byte) bool {
		switch {
		case xid != own:
			return false
		case got == typeError && len(body) >= 4:
			failure = &Error{Type: be.Uint16(body), Code: be.Uint16(body[2:]), XID: xid}
			return true
		case got != typeMultipartReply:
			return false
		case len(body) < 8 || be.Uint16(body) != typ:
			failure = fmt.Errorf("reply of another kind: want multipart type %d", typ)
			return true
		}
		if total += len(body); total > maxReply && failure == nil {
			failure = fmt.Errorf("reply is longer than %d octets", maxReply)
		}
		if failure == nil {
			failure = each(body[8:])
		}
		return be.Uint16(body[2:])&1 == 0 // OFPMPF_REPLY_MORE
	})
	defer c.end()
	b := header(nil, typeMultipartRequest, own)
	b = be.AppendUint16(b, typ)
	b = append(append(b, 0, 0, 0, 0, 0, 0), request...)
	if _, err := c.c.Write(finish(b, 0)); err != nil {
		return c.fail(err)
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	return failure
}

// Flows lists the flows that a filter chooses.
func (c *Conn) Flows(ctx context.Context, f Filter) (out []FlowStats, err error) {
	err = c.multipart(ctx, multipartFlows, flowRequest(f), func(part []byte) (err error) {
		out, err = parseFlows(part, out)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list flows: %w", err)
	}
	return out, nil
}

// CountFlows counts the flows that a filter chooses.
func (c *Conn) CountFlows(ctx context.Context, f Filter) (n uint64, err error) {
	err = c.multipart(ctx, multipartAggregate, flowRequest(f), func(part []byte) (err error) {
		s, _, err := parseStats(part)
		n = s.flows
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count flows: %w", err)
	}
	return n, nil
}

// Groups lists all groups.
func (c *Conn) Groups(ctx context.Context) (out []Group, err error) {
	request := append(be.AppendUint32(nil, everyOne), 0, 0, 0, 0)
	err = c.multipart(ctx, multipartGroupDesc, request, func(part []byte) (err error) {
		out, err = parseGroups(part, out)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	return out, nil
}

// Ports lists the ports of the bridge.
func (c *Conn) Ports(ctx context.Context) (out []Port, err error) {
	request := append(be.AppendUint32(nil, PortAny), 0, 0, 0, 0)
	err = c.multipart(ctx, multipartPortDesc, request, func(part []byte) (err error) {
		out, err = parsePorts(part, out)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	return out, nil
}
