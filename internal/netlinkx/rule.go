// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Rule says in which table routes are looked up for all packets, or for those of
// VRFs in the VRF's own table.
type Rule struct {
	// Family is AF_INET or AF_INET6.
	Family uint8
	// Priority orders the rules, the least first.
	Priority uint32
	// Table is what packets are looked up in, 0 with VRF.
	Table uint32
	// VRF is set for the rule that finds the table by the packet's VRF (l3mdev).
	VRF bool
	// Protocol tells who made it.
	Protocol uint8
}

// RuleRequest makes a rule that is not there, or deletes one.
type RuleRequest struct {
	Delete bool
	Rule
}

// String returns the request in the words of ip-rule(8).
func (r RuleRequest) String() string {
	op := "add"
	if r.Delete {
		op = "del"
	}
	action := fmt.Sprintf("lookup %d", r.Table)
	if r.VRF {
		action = "l3mdev"
	}
	version := 4
	if r.Family == unix.AF_INET6 {
		version = 6
	}
	return fmt.Sprintf("rule -%d %s priority %d %s", version, op, r.Priority, action)
}

// Attributes of rules (linux/fib_rules.h).
const (
	sizeofRuleHdr = 12
	fraPriority   = 6
	fraTable      = 15
	fraL3mdev     = 19
	fraProtocol   = 21
	toTable       = 1 // FR_ACT_TO_TBL
)

// appendTo implements Request.
func (r RuleRequest) appendTo(b []byte, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWRULE), uint16(unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if r.Delete {
		typ, flags = unix.RTM_DELRULE, 0
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	b = append(b, r.Family, 0, 0, 0, 0, 0, 0, toTable, 0, 0, 0, 0)
	b = appendAttr32(b, fraPriority, r.Priority)
	if r.VRF {
		b = appendAttr8(b, fraL3mdev, 1)
	} else {
		b = appendAttr32(b, fraTable, r.Table)
	}
	if r.Protocol != 0 {
		b = appendAttr8(b, fraProtocol, r.Protocol)
	}
	return endMessage(b, start)
}

// Rules lists the rules of a family that have no selector but perhaps the VRF.
func (c *Conn) Rules(family uint8) ([]Rule, error) {
	var list []Rule
	body := make([]byte, sizeofRuleHdr)
	body[0] = family
	err := c.dump(unix.RTM_GETRULE, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		if typ != unix.RTM_NEWRULE || len(b) == 0 || b[0] != family {
			return nil
		}
		r, plain, err := parseRule(b)
		if err == nil && plain {
			list = append(list, r)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return list, nil
}

// parseRule reads the body of an RTM_NEWRULE message; plain is false when the rule has
// selectors that a Rule cannot tell.
func parseRule(b []byte) (r Rule, plain bool, err error) {
	if len(b) < sizeofRuleHdr {
		return r, false, errShort
	}
	r = Rule{Family: b[0], Table: uint32(b[4])}
	plain = b[1] == 0 && b[2] == 0 && b[7] == toTable
	a := attrs{b: b[sizeofRuleHdr:]}
	for a.next() {
		switch a.typ {
		case fraPriority:
			r.Priority = a.uint32()
		case fraTable:
			r.Table = a.uint32()
		case fraL3mdev:
			r.VRF = a.uint8() != 0
		case fraProtocol:
			r.Protocol = a.uint8()
		case unix.FRA_IIFNAME, unix.FRA_OIFNAME, unix.FRA_FWMARK, unix.FRA_UID_RANGE, unix.FRA_IP_PROTO:
			plain = false
		}
	}
	if r.VRF {
		r.Table = 0
	}
	return r, plain, a.err
}
