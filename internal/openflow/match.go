// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Match is a canonical list of field values that a packet must have. Two that
// match the same are equal.
type Match string

// Cond is one condition of a match.
type Cond struct {
	field Field
	tlv   []byte
}

// Is matches packets whose field has a value.
func Is(f Field, v uint64) Cond { return Cond{f, f.value(nil, v)} }

// Masked matches packets whose field has a value in the bits of a mask; all, when it is 0.
func Masked(f Field, v, mask uint64) Cond {
	n := int(fields[f].size)
	value, bits := be.AppendUint64(nil, v&mask)[8-n:], be.AppendUint64(nil, mask)[8-n:]
	if mask == 0 {
		return Cond{field: f}
	}
	return Cond{f, unmask(f, value, bits)}
}

// IsMAC matches an Ethernet address.
func IsMAC(f Field, m ethernet.MAC) Cond {
	return Cond{f, append(f.oxm(nil, false, 6), m[:]...)}
}

// IsAddr matches an IP address; the field decides the family.
func IsAddr(f Field, a netip.Addr) Cond {
	v := a.AsSlice()
	return Cond{f, append(f.oxm(nil, false, len(v)), v...)}
}

// In matches addresses in a prefix; all, when it has length 0.
func In(f Field, p netip.Prefix) Cond {
	p = p.Masked()
	switch p.Bits() {
	case 0:
		return Cond{field: f}
	case p.Addr().BitLen():
		return IsAddr(f, p.Addr())
	}
	v := p.Addr().AsSlice()
	b := append(f.oxm(nil, true, 2*len(v)), v...)
	return Cond{f, append(b, maskOf(len(v), p.Bits())...)}
}

// vlanPresent is the bit of the VLAN field that says that there is a tag (OFPVID_PRESENT).
const vlanPresent = 0x1000

// Untagged matches packets without VLAN tag, Tagged those with one.
func Untagged() Cond { return Is(VLAN, 0) }

// Tagged matches packets of a VLAN.
func Tagged(vid uint16) Cond { return Is(VLAN, uint64(vlanPresent|vid&0xfff)) }

// NewMatch returns the match of all conditions, each about another field.
func NewMatch(conds ...Cond) Match {
	// Few elements: insertion is faster than a general sort.
	for i := 1; i < len(conds); i++ {
		for j := i; j > 0 && conds[j].field < conds[j-1].field; j-- {
			conds[j], conds[j-1] = conds[j-1], conds[j]
		}
	}
	n := 0
	for _, c := range conds {
		n += len(c.tlv)
	}
	b := make([]byte, 0, n)
	for _, c := range conds {
		b = append(b, c.tlv...)
	}
	return Match(b)
}

// Value returns the value of a field of up to 8 octets that must be matched exactly.
func (m Match) Value(f Field) (v uint64, ok bool) {
	for b := []byte(m); len(b) > 0; {
		tlv, rest, err := cutOXM(b)
		if err != nil {
			return 0, false
		}
		b = rest
		if fieldOf(tlv) != f || tlv[2]&1 != 0 || len(tlv) > 12 {
			continue
		}
		for _, o := range tlv[4:] {
			v = v<<8 | uint64(o)
		}
		return v, true
	}
	return 0, false
}

// append appends an ofp_match.
func (m Match) append(b []byte) []byte {
	start := len(b)
	b = be.AppendUint16(b, 1) // OFPMT_OXM
	b = be.AppendUint16(b, uint16(4+len(m)))
	return pad(append(b, m...), start)
}

var errShort = errors.New("message ends too early")

// parseMatch reads an ofp_match and returns what follows it.
func parseMatch(b []byte) (Match, []byte, error) {
	if len(b) < 4 {
		return "", nil, errShort
	}
	n := int(be.Uint16(b[2:]))
	if be.Uint16(b) != 1 || n < 4 || padded(n) > len(b) {
		return "", nil, fmt.Errorf("match of type %d, length %d is not valid", be.Uint16(b), n)
	}
	m, err := canonical(b[4:n])
	return m, b[padded(n):], err
}

// canonical sorts fields and drops masks that are all ones. Fields that are
// not known come last, as they are.
func canonical(b []byte) (Match, error) {
	var conds []Cond
	for len(b) > 0 {
		tlv, rest, err := cutOXM(b)
		if err != nil {
			return "", err
		}
		b = rest
		if halves, ok := splitRegister(tlv); ok {
			conds = append(conds, halves...)
			continue
		}
		f := fieldOf(tlv)
		if f < numFields && tlv[2]&1 != 0 {
			half := (len(tlv) - 4) / 2
			tlv = unmask(f, tlv[4:4+half], tlv[4+half:])
		}
		conds = append(conds, Cond{f, tlv})
	}
	slices.SortStableFunc(conds, func(a, b Cond) int { return int(a.field) - int(b.field) })
	return NewMatch(conds...), nil
}

// unmask returns a field with a mask, without one that is all ones.
func unmask(f Field, v, mask []byte) []byte {
	if bytes.Count(mask, []byte{0xff}) == len(mask) {
		return append(f.oxm(nil, false, len(v)), v...)
	}
	return append(append(f.oxm(nil, true, 2*len(v)), v...), mask...)
}

// splitRegister splits a packet register, as which the switch lists two of its
// registers of 32 bits.
func splitRegister(tlv []byte) (halves []Cond, ok bool) {
	first := Reg0 + Field(tlv[2]>>1)*2
	if be.Uint16(tlv) != 0x8001 || first > Reg2 || tlv[2]>>1 > 1 || len(tlv) != 12 && len(tlv) != 20 {
		return nil, false
	}
	for i := range 2 {
		v, mask := tlv[4+4*i:8+4*i], []byte{0xff, 0xff, 0xff, 0xff}
		if len(tlv) == 20 {
			mask = tlv[12+4*i : 16+4*i]
		}
		if be.Uint32(mask) != 0 {
			f := first + Field(i)
			halves = append(halves, Cond{f, unmask(f, v, mask)})
		}
	}
	return halves, true
}

// cutOXM cuts the first field off.
func cutOXM(b []byte) (tlv, rest []byte, err error) {
	if len(b) < 4 || len(b) < 4+int(b[3]) {
		return nil, nil, errShort
	}
	n := 4 + int(b[3])
	return b[:n:n], b[n:], nil
}

// fieldOf returns the field of a TLV with a value of the right size, or numFields.
func fieldOf(tlv []byte) Field {
	f, ok := byWire[uint32(be.Uint16(tlv))<<8|uint32(tlv[2]>>1)]
	if !ok {
		return numFields
	}
	size := int(fields[f].size)
	if tlv[2]&1 != 0 {
		size *= 2
	}
	if len(tlv) != 4+size {
		return numFields
	}
	return f
}

// String returns the match as ovs-ofctl writes it, e.g. "ip,in_port=2,nw_src=192.0.2.0/24".
func (m Match) String() string {
	var words []string
	b := []byte(m)
	for len(b) > 0 {
		tlv, rest, err := cutOXM(b)
		if err != nil {
			words = append(words, fmt.Sprintf("%#x", b))
			break
		}
		b = rest
		words = append(words, fieldText(tlv))
	}
	return strings.Join(shorten(words), ",")
}

func fieldText(tlv []byte) string {
	f := fieldOf(tlv)
	v := tlv[4:]
	switch {
	case f == numFields:
		return fmt.Sprintf("oxm:%x", tlv)
	case tlv[2]&1 != 0:
		return f.String() + "=" + f.formatMasked(v[:len(v)/2], v[len(v)/2:])
	case f == VLAN && be.Uint16(v) == 0:
		return "vlan_tci=0x0000/0x1fff"
	case f == VLAN:
		return fmt.Sprintf("dl_vlan=%d", be.Uint16(v)&0xfff)
	}
	return f.String() + "=" + f.format(v)
}

// protocols are the short forms of Ethernet types and IP protocols.
var protocols = []struct{ ethType, proto, name string }{
	{"dl_type=0x800", "nw_proto=1", "icmp"},
	{"dl_type=0x800", "nw_proto=6", "tcp"},
	{"dl_type=0x800", "nw_proto=17", "udp"},
	{"dl_type=0x800", "", "ip"},
	{"dl_type=0x86dd", "nw_proto=58", "icmp6"},
	{"dl_type=0x86dd", "nw_proto=6", "tcp6"},
	{"dl_type=0x86dd", "nw_proto=17", "udp6"},
	{"dl_type=0x86dd", "", "ipv6"},
	{"dl_type=0x806", "", "arp"},
	{"dl_type=0x8847", "", "mpls"},
}

func shorten(words []string) []string {
	for _, p := range protocols {
		if !slices.Contains(words, p.ethType) || p.proto != "" && !slices.Contains(words, p.proto) {
			continue
		}
		out := []string{p.name}
		for _, w := range words {
			if w != p.ethType && (p.proto == "" || w != p.proto) {
				out = append(out, w)
			}
		}
		return out
	}
	return words
}
