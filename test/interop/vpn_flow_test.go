// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// flowNames are the components that tests use, by type (RFC 8955 §4.2.2).
var flowNames = []string{1: "destination", 2: "source", 3: "protocol", 5: "destination-port", 6: "source-port"}

// Comparison bits of an operator octet (RFC 8955 §4.2.1.1).
var flowOperators = []struct {
	text string
	bits byte
}{{">=", 3}, {"<=", 5}, {">", 2}, {"<", 4}, {"=", 1}}

// flowRoute encodes components such as "destination 203.0.113.0/24; protocol =6;
// source-port >=1000&<=2000" as a route.
func flowRoute(f wire.Family, rd wire.RD, text string) (wire.Route, error) {
	b := append([]byte{0}, rd[:]...)
	for part := range strings.SplitSeq(text, "; ") {
		name, value, _ := strings.Cut(part, " ")
		typ := flowType(name)
		switch {
		case typ == 0:
			return wire.Route{}, fmt.Errorf("FlowSpec component %q: want one of %v", name, flowNames)
		case typ <= 2:
			p, err := netip.ParsePrefix(value)
			if err != nil {
				return wire.Route{}, err
			}
			b = append(b, typ, byte(p.Bits()))
			if p.Addr().Is6() {
				b = append(b, 0) // offset
			}
			b = append(b, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
		default:
			b = appendFlowValues(append(b, typ), value)
		}
	}
	b[0] = byte(len(b) - 1)
	reader := wire.NewNLRIReader(f, b, false)
	var r wire.Route
	if ok, err := reader.Next(&r); err != nil || !ok {
		return r, fmt.Errorf("FlowSpec route %q is not valid: %v", text, err)
	}
	return r, nil
}

func flowType(name string) byte {
	for typ, n := range flowNames {
		if n == name && n != "" {
			return byte(typ)
		}
	}
	return 0
}

// appendFlowValues encodes "=80" or ">=1000&<=2000".
func appendFlowValues(b []byte, text string) []byte {
	values := strings.Split(text, "&")
	for i, v := range values {
		for _, op := range flowOperators {
			rest, ok := strings.CutPrefix(v, op.text)
			if !ok {
				continue
			}
			bits, n := op.bits, number(rest)
			if i > 0 {
				bits |= 0x40
			}
			if i == len(values)-1 {
				bits |= 0x80
			}
			if n < 256 {
				b = append(b, bits, byte(n))
			} else {
				b = binary.BigEndian.AppendUint16(append(b, bits|0x10), uint16(n))
			}
			break
		}
	}
	return b
}

// flowText is the opposite: it renders components that the NLRI reader has
// accepted.
func flowText(b []byte, ipv6 bool) string {
	var parts []string
	for len(b) > 0 {
		typ := b[0]
		name := fmt.Sprintf("type-%d", typ)
		if int(typ) < len(flowNames) && flowNames[typ] != "" {
			name = flowNames[typ]
		}
		b = b[1:]
		var text string
		if typ <= 2 {
			text, b = flowPrefix(b, ipv6)
		} else {
			text, b = flowValues(b)
		}
		parts = append(parts, name+" "+text)
	}
	return strings.Join(parts, "; ")
}

func flowPrefix(b []byte, ipv6 bool) (string, []byte) {
	bits, size := int(b[0]), (int(b[0])+7)/8
	if !ipv6 {
		var a [4]byte
		copy(a[:], b[1:1+size])
		return netip.PrefixFrom(netip.AddrFrom4(a), bits).String(), b[1+size:]
	}
	var a [16]byte
	copy(a[:], b[2:2+size])
	text := netip.PrefixFrom(netip.AddrFrom16(a), bits).String()
	if b[1] != 0 {
		text += fmt.Sprintf(" offset %d", b[1])
	}
	return text, b[2+size:]
}

func flowValues(b []byte) (string, []byte) {
	var text strings.Builder
	for first := true; len(b) > 0; first = false {
		op, size := b[0], 1<<(b[0]>>4&3)
		if !first && op&0x40 != 0 {
			text.WriteString("&")
		} else if !first {
			text.WriteString(" ")
		}
		for _, known := range flowOperators {
			if known.bits == op&7 {
				text.WriteString(known.text)
			}
		}
		var n uint64
		for _, x := range b[1 : 1+size] {
			n = n<<8 | uint64(x)
		}
		fmt.Fprint(&text, n)
		if b = b[1+size:]; op&0x80 != 0 {
			break
		}
	}
	return text.String(), b
}
