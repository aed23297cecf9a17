// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/sha256"
	"encoding/binary"
)

// NLRIReader reads the NLRIs of one MP_REACH_NLRI or MP_UNREACH_NLRI attribute.
type NLRIReader struct {
	family   Family
	withdraw bool
	rest     []byte
	skipped  int
}

// NewNLRIReader returns a reader over the NLRI octets of an attribute of the
// given family. Withdraw selects the rules for MP_UNREACH_NLRI.
func NewNLRIReader(f Family, b []byte, withdraw bool) NLRIReader {
	return NLRIReader{family: f, withdraw: withdraw, rest: b}
}

// Skipped counts routes that were ignored: EVPN routes of unknown type (RFC 7606
// §5.4), and those of any family that are malformed inside an intact frame.
func (r *NLRIReader) Skipped() int { return r.skipped }

// Next reads one NLRI into route and returns false at the end. After an error,
// which is always of class DisableFamily because the rest cannot be framed (RFC
// 7606 §5.3), the reader is at its end.
func (r *NLRIReader) Next(route *Route) (bool, *Error) {
	for len(r.rest) > 0 {
		known, err := r.one(route)
		if err != nil {
			r.rest = nil
			return false, err
		}
		if known {
			return true, nil
		}
		r.skipped++
	}
	return false, nil
}

// one reads one NLRI and tells whether it is of use.
func (r *NLRIReader) one(route *Route) (bool, *Error) {
	*route = Route{}
	switch r.family {
	case VPNv4, VPNv6:
		return r.vpn(route)
	case EVPN:
		return r.evpn(route)
	case RTC:
		return r.rtc(route)
	case FlowVPNv4, FlowVPNv6:
		return r.flow(route)
	}
	return false, disable(r.family, "NLRI of family %s: want one of %v", r.family, Families)
}

// take returns the next n octets, or an error that names what they were for.
func (r *NLRIReader) take(n int, what string) ([]byte, *Error) {
	if n < 0 || len(r.rest) < n {
		return nil, disable(r.family, "%s NLRI cut off in %s: %d octets left, %d needed", r.family, what, len(r.rest), n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

// vpn reads <length, label stack, RD, prefix> (RFC 4364 §4.3.4) and tells
// whether the route is usable. Without the capability of RFC 8277 §2.1 there is
// one label; old speakers (RFC 3107) send a stack, which ends with the
// bottom-of-stack bit. A route that makes no sense is framed by its length and
// ignored, as in evpn: SRv6 routes (RFC 9252 §4) may have no such bit.
func (r *NLRIReader) vpn(route *Route) (bool, *Error) {
	head, err := r.take(1, "length")
	if err != nil {
		return false, err
	}
	bits := int(head[0])
	b, err := r.take((bits+7)/8, "prefix")
	if err != nil {
		return false, err
	}
	labels := 0
	for {
		if len(b) < 3 || bits < 24 {
			return false, nil
		}
		field := uint24(b)
		b, bits = b[3:], bits-24
		if labels++; labels == 1 {
			route.Label = field
		}
		if field&1 == 1 || r.withdraw && (field == withdrawnLabel || field == 0) {
			break
		}
	}
	route.MultiLabel = labels > 1
	n := &route.NLRI
	n.Kind, bits = KindVPNv4, bits-64
	most := 32
	if r.family == VPNv6 {
		n.Kind, most = KindVPNv6, 128
	}
	if bits < 0 || bits > most {
		return false, nil
	}
	n.RD, n.Bits = RD(b[:8]), uint8(bits)
	copyMasked(n.Addr[:], b[8:], bits)
	return true, nil
}

// evpn reads <type, length, value> (RFC 7432 §7) and tells whether the route is
// usable. A route of unknown type, or whose value does not fit its type, is
// framed by its length, so it can be ignored without losing the others; a
// reset would come back with the same route for ever.
func (r *NLRIReader) evpn(route *Route) (bool, *Error) {
	head, err := r.take(2, "header")
	if err != nil {
		return false, err
	}
	b, err := r.take(int(head[1]), "value")
	if err != nil {
		return false, err
	}
	if head[0] < 1 || head[0] > 5 {
		return false, nil
	}
	n := &route.NLRI
	n.Kind = KindAD + Kind(head[0]-1)
	if len(b) < 8 {
		return false, nil
	}
	n.RD, b = RD(b[:8]), b[8:]
	ok := false
	switch n.Kind {
	case KindAD:
		ok = evpnAD(route, b)
	case KindMACIP:
		ok = evpnMACIP(route, b)
	case KindIMET:
		ok = evpnIMET(route, b)
	case KindES:
		ok = evpnES(route, b)
	case KindPrefix:
		ok = evpnPrefix(route, b)
	}
	return ok, nil
}

// evpnAD reads ESI, tag, label (RFC 7432 §7.1).
func evpnAD(route *Route, b []byte) bool {
	if len(b) != 17 {
		return false
	}
	copy(route.NLRI.Addr[:], b[:10])
	route.NLRI.Tag = binary.BigEndian.Uint32(b[10:])
	route.Label = uint24(b[14:])
	return true
}

// evpnMACIP reads ESI, tag, MAC, IP and one or two labels (RFC 7432 §7.2).
func evpnMACIP(route *Route, b []byte) bool {
	if len(b) < 25 || b[14] != 48 {
		return false
	}
	n := &route.NLRI
	n.Tag = binary.BigEndian.Uint32(b[10:])
	copy(n.MAC[:], b[15:21])
	n.Bits = b[21]
	b = b[22:]
	if n.Bits != 0 && n.Bits != 32 && n.Bits != 128 {
		return false
	}
	size := int(n.Bits / 8)
	if len(b) != size+3 && len(b) != size+6 {
		return false
	}
	copy(n.Addr[:], b[:size])
	route.Label = uint24(b[size:])
	return true
}

// evpnIMET reads tag and originating router's address (RFC 7432 §7.3).
func evpnIMET(route *Route, b []byte) bool {
	if len(b) < 5 {
		return false
	}
	n := &route.NLRI
	n.Tag = binary.BigEndian.Uint32(b)
	n.Bits = b[4]
	if (n.Bits != 32 && n.Bits != 128) || len(b) != 5+int(n.Bits/8) {
		return false
	}
	copy(n.Addr[:], b[5:])
	return true
}

// evpnES reads ESI and originating router's address (RFC 7432 §7.4).
func evpnES(route *Route, b []byte) bool {
	if len(b) < 11 || (b[10] != 32 && b[10] != 128) || len(b) != 11+int(b[10]/8) {
		return false
	}
	route.NLRI.Addr = digest(b)
	route.Raw = b
	return true
}

// evpnPrefix reads ESI, tag, prefix, gateway and label (RFC 9136 §3.1). ESI and
// gateway do not tell routes apart, so that a route with them replaces one without.
func evpnPrefix(route *Route, b []byte) bool {
	size := 4
	if len(b) == 10+4+1+16+16+3 {
		size = 16
	}
	n := &route.NLRI
	if len(b) != 10+4+1+size+size+3 || int(b[14]) > size*8 {
		return false
	}
	n.Tag = binary.BigEndian.Uint32(b[10:]) &^ prefixIPv6
	if size == 16 {
		n.Tag |= prefixIPv6
	}
	n.Bits = b[14]
	copyMasked(n.Addr[:], b[15:15+size], int(n.Bits))
	esi, gateway := b[:10], b[15+size:15+2*size]
	if !allZero(esi) || !allZero(gateway) {
		route.Raw = b
	}
	route.Label = uint24(b[15+2*size:])
	return true
}

// rtc reads <length, origin AS, route target prefix> (RFC 4684 §4) and tells
// whether the route is usable: the length is 0 or 32 to 96. Any other is still
// framed.
func (r *NLRIReader) rtc(route *Route) (bool, *Error) {
	head, err := r.take(1, "length")
	if err != nil {
		return false, err
	}
	bits := int(head[0])
	b, err := r.take((bits+7)/8, "prefix")
	if err != nil {
		return false, err
	}
	if bits > 96 || (bits > 0 && bits < 32) {
		return false, nil
	}
	var full [12]byte
	copyMasked(full[:], b, bits)
	route.NLRI = NLRI{Kind: KindRTC, Bits: head[0], Tag: binary.BigEndian.Uint32(full[:]), RD: RD(full[4:])}
	return true, nil
}

// flow reads <length, RD, components> (RFC 8955 §4, §8) and tells whether the
// components are well-formed; they stay raw.
func (r *NLRIReader) flow(route *Route) (bool, *Error) {
	head, err := r.take(1, "length")
	if err != nil {
		return false, err
	}
	length := int(head[0])
	if length >= 0xf0 {
		low, err := r.take(1, "length")
		if err != nil {
			return false, err
		}
		length = (length&0x0f)<<8 | int(low[0])
	}
	b, err := r.take(length, "components")
	if err != nil {
		return false, err
	}
	kind := KindFlowVPNv4
	if r.family == FlowVPNv6 {
		kind = KindFlowVPNv6
	}
	if length < 8 || !validFlow(b[8:], kind == KindFlowVPNv6) {
		return false, nil
	}
	route.NLRI = NLRI{Kind: kind, RD: RD(b[:8]), Addr: digest(b[8:])}
	route.Raw = b[8:]
	return true, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// digest stands for the octets of an opaque NLRI in its identity.
func digest(b []byte) [16]byte {
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// copyMasked copies the first bits of src to dst and clears what is beyond.
func copyMasked(dst, src []byte, bits int) {
	full := bits / 8
	copy(dst, src[:full])
	if rest := bits % 8; rest != 0 {
		dst[full] = src[full] & (0xff << (8 - rest))
	}
}
