// SPDX-License-Identifier: Apache-2.0

package wire

// FlowSpec component types (RFC 8955 §4.2.2, RFC 8956 §3).
const (
	flowDestination     = 1
	flowSource          = 2
	flowProtocol        = 3
	flowPort            = 4
	flowDestinationPort = 5
	flowSourcePort      = 6
	flowFragment        = 12 // the last for IPv4
	flowLabel           = 13 // IPv6 only
)

// Operator octet of a component (RFC 8955 §4.2.1).
const (
	flowEndOfList   = 0x80
	flowAnd         = 0x40
	flowLT          = 0x04
	flowGT          = 0x02
	flowEQ          = 0x01
	flowLengthShift = 4
	flowLengthMask  = 0x3
)

// validFlow tells whether b is one or more components of known types in strictly
// ascending order, each whole (RFC 8955 §4.2, RFC 8956 §3).
func validFlow(b []byte, ipv6 bool) bool {
	last := byte(flowFragment)
	if ipv6 {
		last = flowLabel
	}
	ok := len(b) > 0
	for previous := byte(0); ok && len(b) > 0; {
		typ := b[0]
		if typ <= previous || typ > last {
			return false
		}
		previous = typ
		_, _, b, ok = splitComponent(b, ipv6)
	}
	return ok
}

// skipPrefix skips <length, prefix> of IPv4 (RFC 8955 §4.2.2.1).
func skipPrefix(b []byte) (rest []byte, ok bool) {
	if len(b) < 1 || b[0] > 32 || len(b) < 1+(int(b[0])+7)/8 {
		return nil, false
	}
	return b[1+(int(b[0])+7)/8:], true
}

// skipPattern skips <length, offset, pattern> of IPv6; the offset is below the
// length unless both are 0 (RFC 8956 §3.1).
func skipPattern(b []byte) (rest []byte, ok bool) {
	if len(b) < 2 || b[0] > 128 || b[1] >= b[0] && (b[0] != 0 || b[1] != 0) {
		return nil, false
	}
	end := 2 + (int(b[0])-int(b[1])+7)/8
	if len(b) < end {
		return nil, false
	}
	return b[end:], true
}

// skipOperators skips <operator, value> pairs up to the one with the
// end-of-list bit; the operator has the length of its value.
func skipOperators(b []byte) (rest []byte, ok bool) {
	for len(b) > 0 {
		op := b[0]
		end := 1 + 1<<(op>>flowLengthShift&flowLengthMask)
		if len(b) < end {
			return nil, false
		}
		if b = b[end:]; op&flowEndOfList != 0 {
			return b, true
		}
	}
	return nil, false
}
