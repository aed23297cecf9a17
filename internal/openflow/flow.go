// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"fmt"
)

// Flow is a flow of a table. Table, Priority and Match are its key.
type Flow struct {
	Table    uint8
	Priority uint16
	Cookie   uint64
	Match    Match
	Actions  Actions
}

// FlowKey is what tells flows apart.
type FlowKey struct {
	Table    uint8
	Priority uint16
	Match    Match
}

// Key returns what tells the flow apart.
func (f Flow) Key() FlowKey { return FlowKey{f.Table, f.Priority, f.Match} }

// String returns the flow as "ovs-ofctl dump-flows" would, without what changes:
// "table=2, priority=36768,ip,reg0=0x1,nw_dst=198.51.100.10 actions=group:1".
func (f Flow) String() string { return fmt.Sprintf("table=%d, %s", f.Table, f.Text()) }

// Text returns the flow without its table.
func (f Flow) Text() string {
	match := f.Match.String()
	if match != "" {
		match = "," + match
	}
	return fmt.Sprintf("priority=%d%s actions=%s", f.Priority, match, f.Actions)
}

// FlowStats is a flow with its counters, as the switch tells.
type FlowStats struct {
	Flow
	Packets, Bytes uint64
}

// Message is a change for Conn.Exec: AddFlow, DeleteFlow and the like.
type Message interface {
	// encode appends the message with that transaction id.
	encode(b []byte, xid uint32) []byte
}

// Flow-mod commands.
const (
	flowAdd          = 0
	flowDelete       = 3
	flowDeleteStrict = 4
)

// AddFlow adds the flow, or replaces the one with the same key and keeps its counters.
type AddFlow Flow

// DeleteFlow deletes the flow with that key, if it has exactly that cookie.
type DeleteFlow Flow

// DeleteFlows deletes all flows of all tables whose cookie is Cookie under Mask.
type DeleteFlows struct{ Cookie, Mask uint64 }

func (f AddFlow) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = flowMod(b, xid, f.Table, flowAdd, f.Priority, f.Cookie, 0)
	b = f.Match.append(b)
	if len(f.Actions) > 0 {
		b = be.AppendUint16(b, instApply)
		b = be.AppendUint16(b, uint16(8+len(f.Actions)))
		b = append(b, 0, 0, 0, 0)
		b = append(b, f.Actions...)
	}
	return finish(b, start)
}

// instApply is the instruction "apply actions" (OFPIT_APPLY_ACTIONS).
const instApply = 4

func (f DeleteFlow) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = flowMod(b, xid, f.Table, flowDeleteStrict, f.Priority, f.Cookie, ^uint64(0))
	return finish(f.Match.append(b), start)
}

func (d DeleteFlows) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = flowMod(b, xid, allTables, flowDelete, 0, d.Cookie, d.Mask)
	return finish(Match("").append(b), start)
}

func flowMod(b []byte, xid uint32, table, command uint8, priority uint16, cookie, mask uint64) []byte {
	b = header(b, typeFlowMod, xid)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, mask)
	b = append(b, table, command, 0, 0, 0, 0)
	b = be.AppendUint16(b, priority)
	b = be.AppendUint32(b, noBuffer)
	b = be.AppendUint32(b, PortAny)
	b = be.AppendUint32(b, groupAny)
	return append(b, 0, 0, 0, 0) // flags, importance
}

// Filter chooses flows: those whose cookie is Cookie under Mask, that match at
// least what Match does, in table Table-1, or in all tables when Table is 0.
type Filter struct {
	Cookie, Mask uint64
	Match        Match
	Table        int
}

// flowRequest is a multipart request for flows or their sum.
func flowRequest(f Filter) []byte {
	table := allTables
	if f.Table > 0 {
		table = uint8(f.Table - 1)
	}
	b := []byte{table, 0, 0, 0}
	b = be.AppendUint32(b, PortAny)
	b = be.AppendUint32(b, groupAny)
	b = append(b, 0, 0, 0, 0)
	b = be.AppendUint64(b, f.Cookie)
	b = be.AppendUint64(b, f.Mask)
	return f.Match.append(b)
}

// parseFlows reads the body of a reply.
func parseFlows(b []byte, out []FlowStats) ([]FlowStats, error) {
	for len(b) > 0 {
		if len(b) < 24 {
			return out, errShort
		}
		n := int(be.Uint16(b))
		if n < 24 || n > len(b) {
			return out, fmt.Errorf("flow of %d octets is not valid: want 24 to %d", n, len(b))
		}
		f, err := parseFlow(b[:n])
		if err != nil {
			return out, err
		}
		out = append(out, f)
		b = b[n:]
	}
	return out, nil
}

func parseFlow(b []byte) (f FlowStats, err error) {
	f.Table, f.Priority, f.Cookie = b[4], be.Uint16(b[6:]), be.Uint64(b[16:])
	var rest []byte
	if f.Match, rest, err = parseMatch(b[24:]); err != nil {
		return f, err
	}
	sums, rest, err := parseStats(rest)
	if err != nil {
		return f, err
	}
	f.Packets, f.Bytes = sums.packets, sums.octets
	for len(rest) > 0 {
		if len(rest) < 8 {
			return f, errShort
		}
		n := int(be.Uint16(rest[2:]))
		if n < 8 || n > len(rest) {
			return f, fmt.Errorf("instruction of %d octets is not valid: want 8 to %d", n, len(rest))
		}
		if be.Uint16(rest) == instApply {
			if f.Actions, err = parseActions(rest[8:n]); err != nil {
				return f, err
			}
		}
		rest = rest[n:]
	}
	return f, nil
}

// sums are the counters that are in use of an ofp_stats.
type sums struct{ packets, octets, flows uint64 }

// parseStats reads an ofp_stats and returns what follows.
func parseStats(b []byte) (s sums, rest []byte, err error) {
	if len(b) < 4 {
		return s, nil, errShort
	}
	n := int(be.Uint16(b[2:]))
	if n < 4 || padded(n) > len(b) {
		return s, nil, fmt.Errorf("statistics of %d octets are not valid: want 4 to %d", n, len(b))
	}
	rest = b[padded(n):]
	for b = b[4:n]; len(b) > 0; {
		var tlv []byte
		if tlv, b, err = cutOXM(b); err != nil {
			return s, nil, err
		}
		if be.Uint16(tlv) != 0x8002 { // OFPXSC_OPENFLOW_BASIC
			continue
		}
		switch field := tlv[2] >> 1; {
		case field == 3 && len(tlv) == 8:
			s.flows = uint64(be.Uint32(tlv[4:]))
		case field == 4 && len(tlv) == 12:
			s.packets = be.Uint64(tlv[4:])
		case field == 5 && len(tlv) == 12:
			s.octets = be.Uint64(tlv[4:])
		}
	}
	return s, rest, nil
}
