// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Range is a closed interval of protocol or port numbers.
type Range struct{ First, Last uint16 }

// Flow is a class of packets (RFC 8955 §4.2.2, RFC 8956 §3): the components that
// forwarding can match. Nil ranges and invalid prefixes match all.
type Flow struct {
	IPv6                bool
	Destination, Source netip.Prefix
	Protocols           []Range // upper-layer protocol, 0 to 255
	Ports               []Range // source or destination
	DestinationPorts    []Range
	SourcePorts         []Range
}

// flowNames are the texts of the looking glass, by component type.
var flowNames = [...]string{
	flowDestination: "destination", flowSource: "source", flowProtocol: "protocol", flowPort: "port",
	flowDestinationPort: "destination-port", flowSourcePort: "source-port", 7: "icmp-type", 8: "icmp-code",
	9: "tcp-flags", 10: "packet-length", 11: "dscp", flowFragment: "fragment", flowLabel: "flow-label",
}

// FlowRoute returns the VPN FlowSpec route of a flow (RFC 8955 §8).
func FlowRoute(rd RD, f Flow) Route { return RawFlowRoute(rd, f.append(nil), f.IPv6) }

// RawFlowRoute returns a VPN FlowSpec route with components as of Route.Raw.
func RawFlowRoute(rd RD, components []byte, ipv6 bool) Route {
	kind := KindFlowVPNv4
	if ipv6 {
		kind = KindFlowVPNv6
	}
	return Route{NLRI: NLRI{Kind: kind, RD: rd, Addr: digest(components)}, Raw: components}
}

// append encodes the components in the order of their types.
func (f Flow) append(b []byte) []byte {
	for _, p := range []struct {
		typ    byte
		prefix netip.Prefix
	}{{flowDestination, f.Destination}, {flowSource, f.Source}} {
		if !p.prefix.IsValid() {
			continue
		}
		bits := p.prefix.Bits()
		b = append(b, p.typ, byte(bits))
		if f.IPv6 {
			b = append(b, 0) // offset (RFC 8956 §3.1)
		}
		b = append(b, p.prefix.Masked().Addr().AsSlice()[:(bits+7)/8]...)
	}
	b = appendRanges(b, flowProtocol, f.Protocols)
	b = appendRanges(b, flowPort, f.Ports)
	b = appendRanges(b, flowDestinationPort, f.DestinationPorts)
	return appendRanges(b, flowSourcePort, f.SourcePorts)
}

// appendRanges encodes ranges as operators and values (RFC 8955 §4.2.1.1).
func appendRanges(b []byte, typ byte, ranges []Range) []byte {
	if len(ranges) == 0 {
		return b
	}
	b = append(b, typ)
	last := 0
	add := func(op byte, v uint16) {
		last = len(b)
		if v < 256 {
			b = append(b, op, byte(v))
			return
		}
		b = binary.BigEndian.AppendUint16(append(b, op|1<<flowLengthShift), v)
	}
	for _, r := range ranges {
		switch {
		case r.First == r.Last:
			add(flowEQ, r.First)
		case r.First == 0:
			add(flowLT|flowEQ, r.Last)
		case r.Last == 65535:
			add(flowGT|flowEQ, r.First)
		default:
			add(flowGT|flowEQ, r.First)
			add(flowAnd|flowLT|flowEQ, r.Last)
		}
	}
	b[last] |= flowEndOfList
	return b
}

// ParseFlow decodes the components of a FlowSpec route, which the decoder of NLRI has
// found well-formed. The error names what forwarding cannot match: the route must not be
// used then, as it would apply to more than it says.
func ParseFlow(components []byte, ipv6 bool) (Flow, error) {
	f := Flow{IPv6: ipv6}
	for b := components; len(b) > 0; {
		typ, value, rest, ok := splitComponent(b, ipv6)
		if !ok {
			return f, errors.New("FlowSpec components are malformed")
		}
		b = rest
		var err error
		switch typ {
		case flowDestination:
			f.Destination, err = flowPrefix(value, ipv6)
		case flowSource:
			f.Source, err = flowPrefix(value, ipv6)
		case flowProtocol:
			f.Protocols, err = flowRanges(value, 255)
		case flowPort:
			f.Ports, err = flowRanges(value, 65535)
		case flowDestinationPort:
			f.DestinationPorts, err = flowRanges(value, 65535)
		case flowSourcePort:
			f.SourcePorts, err = flowRanges(value, 65535)
		default:
			err = errors.New("is not supported: want destination, source, protocol, port, destination-port and source-port only")
		}
		if err != nil {
			return f, fmt.Errorf("FlowSpec component %s (type %d) %w", flowNames[typ], typ, err)
		}
	}
	return f, nil
}

// splitComponent splits off the first component of b.
func splitComponent(b []byte, ipv6 bool) (typ byte, value, rest []byte, ok bool) {
	if len(b) == 0 || int(b[0]) >= len(flowNames) || flowNames[b[0]] == "" {
		return 0, nil, nil, false
	}
	typ, b = b[0], b[1:]
	switch {
	case typ > flowSource:
		rest, ok = skipOperators(b)
	case ipv6:
		rest, ok = skipPattern(b)
	default:
		rest, ok = skipPrefix(b)
	}
	return typ, b[:len(b)-len(rest)], rest, ok
}

// flowPrefix decodes a prefix component.
func flowPrefix(v []byte, ipv6 bool) (netip.Prefix, error) {
	var full [16]byte
	bits := int(v[0])
	if !ipv6 {
		copyMasked(full[:], v[1:], bits)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(full[:4])), bits), nil
	}
	if v[1] != 0 {
		return netip.Prefix{}, fmt.Errorf("has an offset of %d: want 0", v[1])
	}
	copyMasked(full[:], v[2:], bits)
	return netip.PrefixFrom(netip.AddrFrom16(full), bits), nil
}

// flowRanges returns the numbers from 0 to most that a list of operators and values
// matches, as disjoint ranges in ascending order: a disjunction of conjunctions
// (RFC 8955 §4.2.1.1). A list that matches nothing is an error.
func flowRanges(v []byte, most uint16) ([]Range, error) {
	var all, group []Range
	for first := true; len(v) > 0; first = false {
		op, size := v[0], 1<<(v[0]>>flowLengthShift&flowLengthMask)
		term := flowTerm(op, flowValue(v[1:1+size]), most)
		if op&flowAnd != 0 && !first {
			group = Intersect(group, term)
		} else {
			all, group = append(all, group...), term
		}
		v = v[1+size:]
	}
	all = union(append(all, group...))
	if len(all) == 0 {
		return nil, errors.New("matches nothing")
	}
	return all, nil
}

func flowValue(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// flowTerm returns what one operator with its value matches.
func flowTerm(op byte, v uint64, most uint16) (out []Range) {
	if op&flowLT != 0 && v > 0 {
		out = append(out, Range{0, uint16(min(v-1, uint64(most)))})
	}
	if op&flowEQ != 0 && v <= uint64(most) {
		out = append(out, Range{uint16(v), uint16(v)})
	}
	if op&flowGT != 0 && v < uint64(most) {
		out = append(out, Range{uint16(v + 1), most})
	}
	return union(out)
}

// union sorts ranges and joins those that overlap or touch.
func union(list []Range) (out []Range) {
	slices.SortFunc(list, func(a, b Range) int { return int(a.First) - int(b.First) })
	for _, r := range list {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Intersect returns what both lists have.
func Intersect(a, b []Range) (out []Range) {
	for _, x := range a {
		for _, y := range b {
			if r := (Range{max(x.First, y.First), min(x.Last, y.Last)}); r.First <= r.Last {
				out = append(out, r)
			}
		}
	}
	return out
}

// FlowText returns the components of a FlowSpec route as the looking glass of the
// original shows them, e.g. "destination-ipv4 203.0.113.0/24 protocol =tcp".
func FlowText(components []byte, ipv6 bool) string {
	var words []string
	for b := components; len(b) > 0; {
		typ, value, rest, ok := splitComponent(b, ipv6)
		if !ok {
			return strings.Join(append(words, fmt.Sprintf("0x%x", b)), " ")
		}
		b = rest
		name := flowNames[typ]
		if typ > flowSource {
			words = append(words, name, operatorsText(typ, value))
			continue
		}
		version := "ipv4"
		if ipv6 {
			version = "ipv6"
		}
		text := fmt.Sprintf("0x%x", value)
		if p, err := flowPrefix(value, ipv6); err == nil {
			text = p.String()
		}
		words = append(words, name+"-"+version, text)
	}
	return strings.Join(words, " ")
}

// operatorsText renders a list of operators and values, e.g. "[ >=1000&<=2000 ]".
func operatorsText(typ byte, v []byte) string {
	var s strings.Builder
	terms := 0
	for ; len(v) > 0; terms++ {
		op, size := v[0], 1<<(v[0]>>flowLengthShift&flowLengthMask)
		n := flowValue(v[1 : 1+size])
		v = v[1+size:]
		switch {
		case terms > 0 && op&flowAnd != 0:
			s.WriteByte('&')
		case terms > 0:
			s.WriteByte(' ')
		}
		name, known := protocolNames[n]
		switch {
		case typ == 9 || typ == flowFragment: // bit masks (RFC 8955 §4.2.1.2)
			fmt.Fprintf(&s, "%s0x%x", [4]string{"", "=", "!", "!="}[op&3], n)
		case typ == flowProtocol && known:
			s.WriteString(operatorNames[op&7] + name)
		default:
			fmt.Fprintf(&s, "%s%d", operatorNames[op&7], n)
		}
	}
	if terms == 1 {
		return s.String()
	}
	return "[ " + s.String() + " ]"
}

// operatorNames are the texts of the comparison bits.
var operatorNames = [8]string{"false ", "=", ">", ">=", "<", "<=", "!=", "true "}

// HasPorts tells whether packets of a protocol have ports: TCP, UDP, SCTP.
func HasPorts(protocol uint16) bool { return protocol == 6 || protocol == 17 || protocol == 132 }

// protocolNames are the protocols that have a name in texts.
var protocolNames = map[uint64]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 89: "ospf", 103: "pim", 132: "sctp"}

// ProtocolNumber returns the number of a protocol by name.
func ProtocolNumber(name string) (uint8, bool) {
	for n, s := range protocolNames {
		if s == strings.ToLower(name) {
			return uint8(n), true
		}
	}
	return 0, false
}
