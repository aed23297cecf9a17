// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
)

// Path attribute type codes used here (IANA "BGP Path Attributes").
const (
	attrOrigin       = 1
	attrASPath       = 2
	attrNextHop      = 3
	attrMED          = 4
	attrLocalPref    = 5
	attrCommunities  = 8
	attrOriginatorID = 9
	attrClusterList  = 10
	attrMPReach      = 14
	attrMPUnreach    = 15
	attrExtComms     = 16
	attrPMSI         = 22
)

// Attribute flags (RFC 4271 §4.3).
const (
	flagOptional   = 0x80
	flagTransitive = 0x40
	flagExtLen     = 0x10
)

// Update is an UPDATE message split into its parts. All slices point into the
// message, except Attrs, which points into the scratch buffer given.
type Update struct {
	// Attrs holds all path attributes but MP_REACH_NLRI and MP_UNREACH_NLRI, in
	// the order received.
	Attrs []byte
	// Reach and Unreach are the multiprotocol parts; Present tells whether they are there.
	Reach, Unreach MPNLRI
	// NextHop is the next hop of Reach; invalid for families without (FlowSpec).
	NextHop netip.Addr
	// Withdraw is set when an attribute is malformed such that all routes of
	// the message count as withdrawn (RFC 7606 §2).
	Withdraw *Error
}

// MPNLRI is the NLRI part of a multiprotocol attribute (RFC 4760).
type MPNLRI struct {
	Present bool
	Family  Family
	NLRI    []byte
}

// EndOfRIB returns the family of an End-of-RIB marker (RFC 4724 §2), if u is one.
func (u Update) EndOfRIB() (Family, bool) {
	if u.Unreach.Present && len(u.Unreach.NLRI) == 0 && !u.Reach.Present && len(u.Attrs) == 0 {
		return u.Unreach.Family, true
	}
	return Family{}, false
}

// ParseUpdate splits the body of an UPDATE message. IPv4 unicast routes outside
// of the multiprotocol attributes are ignored: that family is never negotiated.
// Scratch is a buffer to be reused for Update.Attrs.
func ParseUpdate(body, scratch []byte) (Update, *Error) {
	attrs, err := attributeField(body)
	if err != nil {
		return Update{}, err
	}
	u := Update{Attrs: scratch[:0]}
	var seen [4]uint64
	for len(attrs) > 0 {
		_, typ, value, size, ok := splitAttr(attrs)
		if !ok {
			// RFC 7606 §4: the rest is lost, but MP_REACH may be in it only if it
			// was not first; with neither seen there is nothing to withdraw.
			if !u.Reach.Present && !u.Unreach.Present {
				return u, newError(SessionReset, CodeUpdate, updMalformedList, nil, "path attributes cut off")
			}
			u.Withdraw = newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "path attribute cut off")
			return u, nil
		}
		dup := seen[typ/64]&(1<<(typ%64)) != 0
		seen[typ/64] |= 1 << (typ % 64)
		switch {
		case dup && (typ == attrMPReach || typ == attrMPUnreach):
			return u, newError(SessionReset, CodeUpdate, updMalformedList, nil, "attribute %d appears twice", typ)
		case dup: // RFC 7606 §3 g: all but the first are discarded
		case typ == attrMPReach:
			err = u.parseReach(value)
		case typ == attrMPUnreach:
			err = u.parseUnreach(value)
		default:
			u.Attrs = append(u.Attrs, attrs[:size]...)
		}
		if err != nil {
			return u, err
		}
		attrs = attrs[size:]
	}
	return u, nil
}

// attributeField returns the path attributes of an UPDATE body.
func attributeField(body []byte) ([]byte, *Error) {
	if len(body) >= 2 {
		if withdrawn := 2 + int(binary.BigEndian.Uint16(body)); len(body) >= withdrawn+2 {
			total := withdrawn + 2 + int(binary.BigEndian.Uint16(body[withdrawn:]))
			if len(body) >= total {
				return body[withdrawn+2 : total], nil
			}
		}
	}
	return nil, newError(SessionReset, CodeUpdate, updMalformedList, nil, "lengths in UPDATE exceed the message")
}

// splitAttr splits the first attribute off b; size is its length with header.
func splitAttr(b []byte) (flags, typ byte, value []byte, size int, ok bool) {
	if len(b) < 3 {
		return 0, 0, nil, 0, false
	}
	head, length := 3, int(b[2])
	if b[0]&flagExtLen != 0 {
		if len(b) < 4 {
			return 0, 0, nil, 0, false
		}
		head, length = 4, int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < head+length {
		return 0, 0, nil, 0, false
	}
	return b[0], b[1], b[head : head+length], head + length, true
}

func (u *Update) parseReach(v []byte) *Error {
	if len(v) < 5 || len(v) < 5+int(v[3]) {
		return newError(SessionReset, CodeUpdate, updOptionalAttr, nil, "MP_REACH_NLRI of %d octets is cut off", len(v))
	}
	f := Family{binary.BigEndian.Uint16(v), v[2]}
	nh, ok := parseNextHop(f, v[4:4+int(v[3])])
	if !ok {
		return newError(SessionReset, CodeUpdate, updOptionalAttr, nil, "MP_REACH_NLRI of %s with a next hop of %d octets", f, v[3])
	}
	u.NextHop = nh
	u.Reach = MPNLRI{true, f, v[5+int(v[3]):]}
	return nil
}

func (u *Update) parseUnreach(v []byte) *Error {
	if len(v) < 3 {
		return newError(SessionReset, CodeUpdate, updOptionalAttr, nil, "MP_UNREACH_NLRI of %d octets", len(v))
	}
	u.Unreach = MPNLRI{true, Family{binary.BigEndian.Uint16(v), v[2]}, v[3:]}
	return nil
}

// parseNextHop reads a next hop of any family: with or without a leading RD
// (RFC 4364 §4.3.2, RFC 4659 §3.2.1), with or without a link-local address
// behind the global one (RFC 2545 §3). An IPv4-mapped address (RFC 4659
// §3.2.1.2) comes back as IPv4, so that one router has one next hop. An empty
// next hop is that of FlowSpec (RFC 8955 §4).
func parseNextHop(f Family, b []byte) (netip.Addr, bool) {
	if f.SAFI == 128 {
		switch len(b) {
		case 12, 24:
			b = b[8:]
		case 48:
			b = b[8:24]
		}
	}
	switch len(b) {
	case 0:
		return netip.Addr{}, f.SAFI == 134
	case 4:
		return netip.AddrFrom4([4]byte(b)), true
	case 16, 32:
		return netip.AddrFrom16([16]byte(b[:16])).Unmap(), true
	}
	return netip.Addr{}, false
}

// appendNextHop appends the length and octets of a next hop in the form that
// the family asks for.
func appendNextHop(b []byte, f Family, nh netip.Addr) []byte {
	if f.SAFI == 134 || !nh.IsValid() {
		return append(b, 0)
	}
	addr := nh.AsSlice()
	if f == VPNv6 && nh.Is4() {
		mapped := nh.As16()
		addr = mapped[:]
	}
	if f.SAFI == 128 {
		b = append(b, byte(8+len(addr)))
		b = append(b, make([]byte, 8)...)
		return append(b, addr...)
	}
	return append(append(b, byte(len(addr))), addr...)
}

// EndOfRIBMessage returns the End-of-RIB marker of a family (RFC 4724 §2).
func EndOfRIBMessage(f Family) []byte {
	b := AppendHeader(nil, MsgUpdate, 4+6)
	b = append(b, 0, 0, 0, 6, flagOptional, attrMPUnreach, 3)
	b = binary.BigEndian.AppendUint16(b, f.AFI)
	return append(b, f.SAFI)
}

// Packer builds UPDATE messages that carry as many routes as fit. Add routes
// that share family, attributes and direction; then call Flush.
type Packer struct {
	max int
	buf []byte

	start  int // of the message being built, or -1
	lenAt  int // of the 16-bit length of the MP attribute
	attrs  []byte
	family Family
	nh     netip.Addr
	down   bool
	nlri   []byte
}

// NewPacker returns a packer for messages of at most maxLen octets (MaxMessage
// or MaxExtMessage).
func NewPacker(maxLen int) *Packer { return &Packer{max: maxLen, start: -1} }

// Announce begins a run of announced routes with the given attributes (as
// Attrs.Raw) and next hop.
func (p *Packer) Announce(f Family, attrs []byte, nh netip.Addr) {
	p.closeMessage()
	p.family, p.attrs, p.nh, p.down = f, attrs, nh, false
}

// Withdraw begins a run of withdrawn routes.
func (p *Packer) Withdraw(f Family) {
	p.closeMessage()
	p.family, p.attrs, p.nh, p.down = f, nil, netip.Addr{}, true
}

// Add adds a route to the current run. A route that does not fit an empty
// message is not added; Add then returns false.
func (p *Packer) Add(r Route) bool {
	p.nlri = AppendNLRI(p.nlri[:0], r, p.down)
	for try := 0; try < 2; try++ {
		if p.start < 0 {
			p.openMessage()
		}
		if len(p.buf)-p.start+len(p.nlri)+len(p.attrs) <= p.max {
			p.buf = append(p.buf, p.nlri...)
			return true
		}
		p.closeMessage()
	}
	return false
}

// openMessage writes header and the beginning of the MP attribute, which comes
// first (RFC 7606 §5.1).
func (p *Packer) openMessage() {
	p.start = len(p.buf)
	p.buf = AppendHeader(p.buf, MsgUpdate, 0)
	typ := byte(attrMPReach)
	if p.down {
		typ = attrMPUnreach
	}
	p.buf = append(p.buf, 0, 0, 0, 0, flagOptional|flagExtLen, typ)
	p.lenAt = len(p.buf)
	p.buf = append(p.buf, 0, 0)
	p.buf = binary.BigEndian.AppendUint16(p.buf, p.family.AFI)
	p.buf = append(p.buf, p.family.SAFI)
	if !p.down {
		p.buf = appendNextHop(p.buf, p.family, p.nh)
		p.buf = append(p.buf, 0)
	}
}

// closeMessage fills in the lengths. A message without routes is dropped.
func (p *Packer) closeMessage() {
	if p.start < 0 {
		return
	}
	empty := p.lenAt + 2 + 3
	if !p.down {
		empty += 2 + int(p.buf[empty])
	}
	if len(p.buf) == empty {
		p.buf, p.start = p.buf[:p.start], -1
		return
	}
	binary.BigEndian.PutUint16(p.buf[p.lenAt:], uint16(len(p.buf)-p.lenAt-2))
	p.buf = append(p.buf, p.attrs...)
	binary.BigEndian.PutUint16(p.buf[p.start+16:], uint16(len(p.buf)-p.start))
	binary.BigEndian.PutUint16(p.buf[p.start+HeaderLen+2:], uint16(len(p.buf)-p.start-HeaderLen-4))
	p.start = -1
}

// EndOfRIB adds the End-of-RIB marker of a family.
func (p *Packer) EndOfRIB(f Family) {
	p.closeMessage()
	p.buf = append(p.buf, EndOfRIBMessage(f)...)
}

// Flush returns the messages built so far and forgets them; the slice is valid
// until the next call on p.
func (p *Packer) Flush() []byte {
	p.closeMessage()
	b := p.buf
	p.buf = p.buf[:0]
	return b
}

// Len returns the number of octets waiting for Flush.
func (p *Packer) Len() int { return len(p.buf) }
