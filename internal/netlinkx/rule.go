// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Rule says in which table packets are looked up that all its selectors match. It is
// comparable. A selector that is zero matches every packet.
type Rule struct {
	// Family is AF_INET or AF_INET6.
	Family uint8
	// Priority orders the rules, the least first; of equals, the one made first.
	Priority uint32
	// Input is the name of the device that packets come from: one that forwards, or its VRF.
	Input string
	// From and To have their addresses, masked.
	From, To netip.Prefix
	// IPProtocol is their upper-layer protocol.
	IPProtocol uint8
	// SourcePorts and DestinationPorts are those of packets that are no fragments.
	SourcePorts, DestinationPorts Ports

	// Table is what packets are looked up in, 0 with another action. When there is no
	// route, the next rule follows.
	Table uint32
	// VRF is set for the rule that finds the table by the packet's VRF (l3mdev).
	VRF bool
	// Goto is the priority of the rule that follows, a greater one, or 0.
	Goto uint32
	// Unreachable is set when packets have no route.
	Unreachable bool
	// Protocol tells who made it.
	Protocol uint8
}

// Ports are those from First to Last, of 1 to 65534: the kernel takes no others. With a
// Mask, from Linux 6.15 on, they are those that have the bits of First under it; kernels
// before ignore it.
type Ports struct{ First, Last, Mask uint16 }

// String returns the ports in the words of ip-rule(8).
func (p Ports) String() string {
	switch {
	case p.Mask != 0:
		return fmt.Sprintf("%d/0x%x", p.First, p.Mask)
	case p.First == p.Last:
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
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
	version := 4
	if r.Family == unix.AF_INET6 {
		version = 6
	}
	return fmt.Sprintf("rule -%d %s %s", version, op, r.Rule)
}

// String returns the rule in the words of ip-rule(8), without the IP version.
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "priority %d", r.Priority)
	if r.From.IsValid() {
		fmt.Fprintf(&b, " from %s", r.From)
	}
	if r.To.IsValid() {
		fmt.Fprintf(&b, " to %s", r.To)
	}
	if r.Input != "" {
		fmt.Fprintf(&b, " iif %s", r.Input)
	}
	if r.IPProtocol != 0 {
		fmt.Fprintf(&b, " ipproto %d", r.IPProtocol)
	}
	if r.SourcePorts != (Ports{}) {
		fmt.Fprintf(&b, " sport %s", r.SourcePorts)
	}
	if r.DestinationPorts != (Ports{}) {
		fmt.Fprintf(&b, " dport %s", r.DestinationPorts)
	}
	switch {
	case r.VRF:
		b.WriteString(" l3mdev")
	case r.Goto != 0:
		fmt.Fprintf(&b, " goto %d", r.Goto)
	case r.Unreachable:
		b.WriteString(" unreachable")
	default:
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	return b.String()
}

// Attributes and actions of rules (linux/fib_rules.h).
const (
	sizeofRuleHdr  = 12
	fraDst         = 1
	fraSrc         = 2
	fraIifname     = 3
	fraGoto        = 4
	fraPriority    = 6
	fraSuppressLen = 14
	fraTable       = 15
	fraPad         = 18
	fraL3mdev      = 19
	fraProtocol    = 21
	fraIPProto     = 22
	fraSportRange  = 23
	fraDportRange  = 24
	fraSportMask   = 28
	fraDportMask   = 29

	toTable     = 1 // FR_ACT_TO_TBL
	toRule      = 2 // FR_ACT_GOTO
	unreachable = 7 // FR_ACT_UNREACHABLE

	ruleInvert = 2 // FIB_RULE_INVERT
	allBits    = 0xffff
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
	b = append(b, r.Family, prefixLen(r.To), prefixLen(r.From), 0, 0, 0, 0, r.action(), 0, 0, 0, 0)
	b = appendAttr32(b, fraPriority, r.Priority)
	b = r.appendSelectors(b)
	switch {
	case r.VRF:
		b = appendAttr8(b, fraL3mdev, 1)
	case r.Goto != 0:
		b = appendAttr32(b, fraGoto, r.Goto)
	case r.Table != 0:
		b = appendAttr32(b, fraTable, r.Table)
	}
	if r.Protocol != 0 {
		b = appendAttr8(b, fraProtocol, r.Protocol)
	}
	return endMessage(b, start)
}

func (r Rule) action() byte {
	switch {
	case r.Goto != 0:
		return toRule
	case r.Unreachable:
		return unreachable
	}
	return toTable
}

func prefixLen(p netip.Prefix) byte {
	if !p.IsValid() {
		return 0
	}
	return byte(p.Bits())
}

func (r Rule) appendSelectors(b []byte) []byte {
	if r.To.IsValid() {
		b = appendAttr(b, fraDst, r.To.Addr().AsSlice())
	}
	if r.From.IsValid() {
		b = appendAttr(b, fraSrc, r.From.Addr().AsSlice())
	}
	if r.Input != "" {
		b = appendAttrString(b, fraIifname, r.Input)
	}
	if r.IPProtocol != 0 {
		b = appendAttr8(b, fraIPProto, r.IPProtocol)
	}
	b = appendPorts(b, fraSportRange, fraSportMask, r.SourcePorts)
	return appendPorts(b, fraDportRange, fraDportMask, r.DestinationPorts)
}

func appendPorts(b []byte, rangeType, maskType uint16, p Ports) []byte {
	if p == (Ports{}) {
		return b
	}
	b = appendAttr(b, rangeType, native.AppendUint16(native.AppendUint16(nil, p.First), p.Last))
	if p.Mask != 0 {
		b = appendAttr(b, maskType, native.AppendUint16(nil, p.Mask))
	}
	return b
}

// Rules lists the rules of a family that a Rule can tell.
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
// selectors or an action that a Rule cannot tell.
func parseRule(b []byte) (r Rule, plain bool, err error) {
	if len(b) < sizeofRuleHdr {
		return r, false, errShort
	}
	r = Rule{Family: b[0], Table: uint32(b[4]), Unreachable: b[7] == unreachable}
	plain = b[3] == 0 && (b[7] == toTable || b[7] == toRule || b[7] == unreachable) && native.Uint32(b[8:])&ruleInvert == 0
	a := attrs{b: b[sizeofRuleHdr:]}
	for a.next() {
		switch a.typ {
		case fraPriority:
			r.Priority = a.uint32()
		case fraDst:
			r.To = netip.PrefixFrom(a.addr(), int(b[1]))
		case fraSrc:
			r.From = netip.PrefixFrom(a.addr(), int(b[2]))
		case fraIifname:
			r.Input = a.string()
		case fraIPProto:
			r.IPProtocol = a.uint8()
		case fraSportRange, fraDportRange, fraSportMask, fraDportMask:
			r.setPorts(a.typ, a.data)
		case fraGoto:
			r.Goto = a.uint32()
		case fraTable:
			r.Table = a.uint32()
		case fraL3mdev:
			r.VRF = a.uint8() != 0
		case fraProtocol:
			r.Protocol = a.uint8()
		case fraSuppressLen:
			plain = plain && int32(a.uint32()) < 0
		case fraPad:
		default:
			plain = false
		}
	}
	if r.VRF || r.action() != toTable {
		r.Table = 0
	}
	return r, plain, a.err
}

// setPorts takes an attribute about ports into a rule. The kernel shows a mask of all bits
// with a single port.
func (r *Rule) setPorts(typ uint16, data []byte) {
	p := &r.SourcePorts
	if typ == fraDportRange || typ == fraDportMask {
		p = &r.DestinationPorts
	}
	switch {
	case len(data) >= 4 && (typ == fraSportRange || typ == fraDportRange):
		p.First, p.Last = native.Uint16(data), native.Uint16(data[2:])
	case len(data) >= 2 && native.Uint16(data) != allBits:
		p.Mask = native.Uint16(data)
	}
}
