// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"strconv"
)

// attrSpec says how a path attribute is read.
type attrSpec struct {
	name  string
	flags byte // Optional and Transitive bits it must have
	// malformed is the class of any fault; wrongFlags that of wrong flags, when
	// it is another one.
	malformed, wrongFlags Class
	// internal: from an external peer it is discarded unread.
	internal bool
	// read checks and enters the value. It returns an error without class, whose
	// text begins behind the attribute's name.
	read func(d *attrDecoder, value []byte) *Error
}

// Optional and Transitive bits of the kinds of attributes (RFC 4271 §5).
const (
	wellKnown     = flagTransitive
	transitive    = flagOptional | flagTransitive
	nonTransitive = flagOptional
)

// attrSpecs has the path attributes that we know the form of, by type code.
// Where RFC 7606 §7 or the attribute's own RFC does not say otherwise, wrong
// flags mean treat-as-withdraw (RFC 7606 §3 c).
var attrSpecs = [256]*attrSpec{
	attrOrigin: {name: "ORIGIN", flags: wellKnown, malformed: TreatAsWithdraw, read: (*attrDecoder).origin},  // RFC 7606 §7.1
	attrASPath: {name: "AS_PATH", flags: wellKnown, malformed: TreatAsWithdraw, read: (*attrDecoder).asPath}, // §7.2
	// Meaningless beside MP_REACH_NLRI, to be ignored there (RFC 4760 §3).
	attrNextHop:   {name: "NEXT_HOP", flags: wellKnown, malformed: AttributeDiscard, read: fixed(4)},
	attrMED:       {name: "MULTI_EXIT_DISC", flags: nonTransitive, malformed: TreatAsWithdraw, read: fixed(4)},                        // RFC 7606 §7.4
	attrLocalPref: {name: "LOCAL_PREF", flags: wellKnown, malformed: TreatAsWithdraw, internal: true, read: (*attrDecoder).localPref}, // §7.5
	// RFC 7606 §3 f: discard also for wrong flags.
	attrAtomicAggregate: {name: "ATOMIC_AGGREGATE", flags: wellKnown, malformed: AttributeDiscard, read: fixed(0)},                                      // §7.6
	attrAggregator:      {name: "AGGREGATOR", flags: transitive, malformed: AttributeDiscard, read: (*attrDecoder).aggregator},                          // §7.7
	attrCommunities:     {name: "COMMUNITIES", flags: transitive, malformed: TreatAsWithdraw, read: (*attrDecoder).communities},                         // §7.8
	attrOriginatorID:    {name: "ORIGINATOR_ID", flags: nonTransitive, malformed: TreatAsWithdraw, internal: true, read: (*attrDecoder).originatorID},   // §7.9
	attrClusterList:     {name: "CLUSTER_LIST", flags: nonTransitive, malformed: TreatAsWithdraw, internal: true, read: multiple(4)},                    // §7.10
	attrExtComms:        {name: "EXTENDED COMMUNITIES", flags: transitive, malformed: TreatAsWithdraw, read: (*attrDecoder).extCommunities},             // §7.14
	attrAS4Path:         {name: "AS4_PATH", flags: transitive, malformed: AttributeDiscard, read: (*attrDecoder).as4Path},                               // RFC 6793 §6
	attrAS4Aggregator:   {name: "AS4_AGGREGATOR", flags: transitive, malformed: AttributeDiscard, read: (*attrDecoder).as4Aggregator},                   // RFC 6793 §6
	attrPMSI:            {name: "PMSI_TUNNEL", flags: transitive, malformed: TreatAsWithdraw, read: (*attrDecoder).pmsi},                                // RFC 6514 §5
	attrTunnelEncap:     {name: "TUNNEL_ENCAPSULATION", flags: transitive, malformed: TreatAsWithdraw, wrongFlags: AttributeDiscard, read: tunnelEncap}, // RFC 9012 §13
	attrIPv6ExtComms:    {name: "IPv6 ADDRESS SPECIFIC EXTENDED COMMUNITY", flags: transitive, malformed: TreatAsWithdraw, read: multiple(20)},          // RFC 7606 §7.15
	attrAIGP:            {name: "AIGP", flags: nonTransitive, malformed: AttributeDiscard, internal: true, read: aigp},                                  // RFC 7311 §3
	attrLargeComms:      {name: "LARGE_COMMUNITY", flags: transitive, malformed: TreatAsWithdraw, read: multiple(12)},                                   // RFC 8092 §6
	attrPrefixSID:       {name: "BGP PREFIX-SID", flags: transitive, malformed: AttributeDiscard, internal: true, read: prefixSID},                      // RFC 8669 §6
	attrSet:             {name: "ATTR_SET", flags: transitive, malformed: TreatAsWithdraw, read: attributeSet},                                          // RFC 7606 §7.16
}

// attrName returns the RFC's name of an attribute, or "attribute 99".
func attrName(typ byte) string {
	switch {
	case typ == attrMPReach:
		return "MP_REACH_NLRI"
	case typ == attrMPUnreach:
		return "MP_UNREACH_NLRI"
	case attrSpecs[typ] != nil:
		return attrSpecs[typ].name
	}
	return "attribute " + strconv.Itoa(int(typ))
}

// attrCutOff is the error of an attribute that b has only the beginning of (RFC
// 7606 §4).
func attrCutOff(b []byte) *Error {
	if len(b) < 2 {
		return newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "path attribute cut off in its header")
	}
	return newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "%s cut off: %d octets left", attrName(b[1]), len(b))
}

// attrDecoder is the state of DecodeAttrs.
type attrDecoder struct {
	*Attrs
	rules Rules
	path  []byte // value of AS_PATH
	path4 []byte // value of AS4_PATH, of a session with two-octet ASes
	// The ASes of AGGREGATOR and AS4_AGGREGATOR, 0 without.
	aggregatorAS, aggregatorAS4 uint32
}

// decode reads one attribute and tells whether it stays in Raw.
func (d *attrDecoder) decode(flags, typ byte, value []byte) (keep bool, err *Error) {
	spec := attrSpecs[typ]
	switch {
	case spec == nil:
		return unknownAttr(flags, typ)
	case spec.internal && d.rules.External:
		return false, newError(AttributeDiscard, CodeUpdate, updAttrFlags, nil, "%s from an external peer", spec.name)
	case flags&transitive != spec.flags:
		class := spec.malformed
		if spec.wrongFlags != 0 {
			class = spec.wrongFlags
		}
		return false, newError(class, CodeUpdate, updAttrFlags, nil, "%s with flags %#02x: want %#02x in %#02x", spec.name, flags, spec.flags, byte(transitive))
	}
	if err = spec.read(d, value); err != nil {
		err.Class, err.Text = spec.malformed, spec.name+" "+err.Text
		return false, err
	}
	return d.rules.keeps(typ), nil
}

// unknownAttr decides about an attribute that we do not know: RFC 4271 §6.3 and
// §9. RFC 7606 leaves only the reset for a well-known one.
func unknownAttr(flags, typ byte) (keep bool, err *Error) {
	switch {
	case typ == attrMPReach || typ == attrMPUnreach: // not among Update.Attrs
		return false, nil
	case flags&flagOptional == 0:
		return false, newError(SessionReset, CodeUpdate, updUnknownAttr, nil, "unknown well-known attribute %d with flags %#02x: want %#02x, optional, or a known type", typ, flags, byte(flagOptional))
	}
	return flags&flagTransitive != 0, nil
}

// keeps tells whether a good attribute stays: a speaker with four-octet ASes
// does not send AS4_PATH and AS4_AGGREGATOR (RFC 6793 §4.1).
func (r Rules) keeps(typ byte) bool {
	return !r.FourOctetAS || typ != attrAS4Path && typ != attrAS4Aggregator
}

// badValue is an error in the value of an attribute, for attrSpec.read.
func badValue(subcode uint8, format string, args ...any) *Error {
	return newError(0, CodeUpdate, subcode, nil, format, args...)
}

// fixed checks that a value has n octets.
func fixed(n int) func(*attrDecoder, []byte) *Error {
	return func(_ *attrDecoder, v []byte) *Error {
		if len(v) != n {
			return badValue(updAttrLength, "of %d octets: want %d", len(v), n)
		}
		return nil
	}
}

// multiple checks that a value has one or more times n octets.
func multiple(n int) func(*attrDecoder, []byte) *Error {
	return func(_ *attrDecoder, v []byte) *Error {
		if len(v) == 0 || len(v)%n != 0 {
			return badValue(updAttrLength, "of %d octets: want a multiple of %d, not 0", len(v), n)
		}
		return nil
	}
}

// aigp checks <type, length, value> elements; the length counts all three (RFC
// 7311 §3).
func aigp(_ *attrDecoder, v []byte) *Error {
	if len(v) == 0 {
		return badValue(updAttrLength, "of 0 octets: want at least 3")
	}
	for len(v) > 0 {
		if len(v) < 3 {
			return badValue(updOptionalAttr, "with %d octets behind the last element: want 0", len(v))
		}
		length := int(binary.BigEndian.Uint16(v[1:]))
		if length < 3 || length > len(v) {
			return badValue(updOptionalAttr, "element %d of %d octets: want 3 to %d", v[0], length, len(v))
		}
		if v[0] == 1 && length != 11 {
			return badValue(updOptionalAttr, "metric element of %d octets: want 11", length)
		}
		v = v[length:]
	}
	return nil
}

// prefixSID checks <type, length, value> elements (RFC 8669 §3).
func prefixSID(_ *attrDecoder, v []byte) *Error {
	if len(v) == 0 {
		return badValue(updAttrLength, "of 0 octets: want at least 3")
	}
	for len(v) > 0 {
		if len(v) < 3 {
			return badValue(updOptionalAttr, "with %d octets behind the last TLV: want 0", len(v))
		}
		length := int(binary.BigEndian.Uint16(v[1:]))
		if length > len(v)-3 {
			return badValue(updOptionalAttr, "TLV %d of %d octets: want at most %d", v[0], length, len(v)-3)
		}
		v = v[3+length:]
	}
	return nil
}

// tunnelEncap checks <16-bit type, length, sub-TLVs> elements; a TLV must end
// where its last sub-TLV ends (RFC 9012 §2, §13).
func tunnelEncap(_ *attrDecoder, v []byte) *Error {
	for len(v) > 0 {
		if len(v) < 4 || len(v) < 4+int(binary.BigEndian.Uint16(v[2:])) {
			return badValue(updOptionalAttr, "TLV cut off: %d octets left", len(v))
		}
		typ, sub := binary.BigEndian.Uint16(v), v[4:4+int(binary.BigEndian.Uint16(v[2:]))]
		v = v[4+len(sub):]
		for len(sub) > 0 {
			size, ok := subTLV(sub)
			if !ok {
				return badValue(updOptionalAttr, "TLV of tunnel type %d with sub-TLV %d cut off: %d octets left", typ, sub[0], len(sub))
			}
			sub = sub[size:]
		}
	}
	return nil
}

// subTLV returns the size of the first sub-TLV of b: from type 128 on the length
// has two octets (RFC 9012 §2).
func subTLV(b []byte) (size int, ok bool) {
	switch {
	case len(b) < 2:
		return 0, false
	case b[0] < 128:
		size = 2 + int(b[1])
	case len(b) < 3:
		return 0, false
	default:
		size = 3 + int(binary.BigEndian.Uint16(b[1:]))
	}
	return size, size <= len(b)
}

// attributeSet checks <origin AS, path attributes> (RFC 6368 §5).
func attributeSet(_ *attrDecoder, v []byte) *Error {
	if len(v) < 4 {
		return badValue(updAttrLength, "of %d octets: want at least 4", len(v))
	}
	for v = v[4:]; len(v) > 0; {
		_, typ, _, size, ok := splitAttr(v)
		if !ok {
			return badValue(updOptionalAttr, "with an attribute cut off: %d octets left", len(v))
		}
		if typ == attrMPReach || typ == attrMPUnreach {
			return badValue(updOptionalAttr, "with attribute %d inside: want none of the multiprotocol ones", typ)
		}
		v = v[size:]
	}
	return nil
}
