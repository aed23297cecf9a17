// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Path attribute type codes used here (IANA "BGP Path Attributes").
const (
	attrOrigin          = 1
	attrASPath          = 2
	attrNextHop         = 3
	attrMED             = 4
	attrLocalPref       = 5
	attrAtomicAggregate = 6
	attrAggregator      = 7
	attrCommunities     = 8
	attrOriginatorID    = 9
	attrClusterList     = 10
	attrMPReach         = 14
	attrMPUnreach       = 15
	attrExtComms        = 16
	attrAS4Path         = 17
	attrAS4Aggregator   = 18
	attrPMSI            = 22
	attrTunnelEncap     = 23
	attrIPv6ExtComms    = 25
	attrAIGP            = 26
	attrLargeComms      = 32
	attrPrefixSID       = 40
	attrSet             = 128
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
//
// With an error of class DisableFamily, one multiprotocol attribute is of no use
// and left out of the Update, and the rest of it is to be used all the same.
// With a SessionReset nothing is.
func ParseUpdate(body, scratch []byte) (Update, *Error) {
	attrs, unicast, err := updateFields(body)
	if err != nil {
		return Update{}, err
	}
	u := Update{Attrs: scratch[:0]}
	var seen attrTypes
	var disabled *Error
	for len(attrs) > 0 {
		flags, typ, value, size, ok := splitAttr(attrs)
		if !ok {
			u.Withdraw = attrCutOff(attrs)
			if !seen.has(attrMPReach) && !unicast {
				// RFC 7606 §5.2: what was lost may have been MP_REACH_NLRI.
				return Update{}, newError(SessionReset, CodeUpdate, updMalformedList, nil, "%s, without any routes before", u.Withdraw.Text)
			}
			break
		}
		switch dup := seen.add(typ); {
		case typ == attrMPReach || typ == attrMPUnreach:
			if dup { // RFC 7606 §3 g
				return Update{}, newError(SessionReset, CodeUpdate, updMalformedList, nil, "%s appears twice: want once", attrName(typ))
			}
			err := u.parseMP(flags, typ, value)
			if err != nil && (err.Class == SessionReset || disabled != nil && disabled.Family != err.Family) {
				err.Class = SessionReset
				return Update{}, err
			}
			disabled = stronger(disabled, err)
		case dup: // RFC 7606 §3 g: all but the first are discarded
		default:
			u.Attrs = append(u.Attrs, attrs[:size]...)
		}
		attrs = attrs[size:]
	}
	if u.Reach.Present && u.Withdraw == nil {
		u.Withdraw = seen.missing()
	}
	return u, disabled
}

// attrTypes is a set of attribute types.
type attrTypes [4]uint64

func (s *attrTypes) has(typ byte) bool { return s[typ/64]&(1<<(typ%64)) != 0 }

// add adds a type and tells whether it was there before.
func (s *attrTypes) add(typ byte) bool {
	dup := s.has(typ)
	s[typ/64] |= 1 << (typ % 64)
	return dup
}

// missing returns the error of a well-known attribute that announced routes must
// have (RFC 7606 §3 d). NEXT_HOP is in MP_REACH_NLRI; LOCAL_PREF has a default.
func (s *attrTypes) missing() *Error {
	for _, typ := range []byte{attrOrigin, attrASPath} {
		if !s.has(typ) {
			return newError(TreatAsWithdraw, CodeUpdate, updMissingAttr, []byte{typ}, "%s is missing", attrName(typ))
		}
	}
	return nil
}

// updateFields returns the path attributes of an UPDATE body, and whether there
// are IPv4 unicast routes behind them (RFC 4271 §4.3; errors RFC 7606 §3 b).
func updateFields(body []byte) (attrs []byte, unicast bool, err *Error) {
	rest, ok := body, false
	if _, rest, ok = cutField(rest); !ok {
		return nil, false, newError(SessionReset, CodeUpdate, updMalformedList, nil, "Withdrawn Routes Length exceeds the UPDATE of %d octets", len(body))
	}
	if attrs, rest, ok = cutField(rest); !ok {
		return nil, false, newError(SessionReset, CodeUpdate, updMalformedList, nil, "Total Path Attribute Length exceeds the UPDATE of %d octets", len(body))
	}
	return attrs, len(rest) > 0, nil
}

// cutField splits a field with a 16-bit length before it off b.
func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < end {
		return nil, nil, false
	}
	return b[2:end], b[end:], true
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

// parseMP reads MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760 §3, §4). Once the
// family is known, a fault concerns that family only (RFC 7606 §5.3, §7.11).
func (u *Update) parseMP(flags, typ byte, v []byte) *Error {
	if len(v) < 3 {
		return newError(SessionReset, CodeUpdate, updOptionalAttr, nil, "%s of %d octets: want at least 3", attrName(typ), len(v))
	}
	f := Family{binary.BigEndian.Uint16(v), v[2]}
	if flags&transitive != nonTransitive {
		return disable(f, "%s of %s with flags %#02x: want %#02x in %#02x", attrName(typ), f, flags, byte(nonTransitive), byte(transitive))
	}
	if typ == attrMPUnreach {
		u.Unreach = MPNLRI{true, f, v[3:]}
		return nil
	}
	if len(v) < 5 || len(v) < 5+int(v[3]) {
		return disable(f, "MP_REACH_NLRI of %s cut off: %d octets", f, len(v))
	}
	nh, ok := parseNextHop(f, v[4:4+int(v[3])])
	if !ok && slices.Contains(Families, f) {
		return disable(f, "MP_REACH_NLRI of %s with a next hop of %d octets: want %s", f, v[3], nextHopSizes(f))
	}
	u.NextHop = nh
	u.Reach = MPNLRI{true, f, v[5+int(v[3]):]}
	return nil
}

// nextHopSizes lists the lengths that parseNextHop takes.
func nextHopSizes(f Family) string {
	switch f.SAFI {
	case 128:
		return "4, 12, 16, 24, 32 or 48"
	case 134:
		return "0, 4, 16 or 32"
	}
	return "4, 16 or 32"
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

// RouteRefresh adds a ROUTE-REFRESH message (RFC 2918, RFC 7313), behind what was
// added before.
func (p *Packer) RouteRefresh(f Family, subtype uint8) {
	p.closeMessage()
	p.buf = appendRefresh(p.buf, f, subtype)
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
