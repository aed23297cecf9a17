// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// maxSegment is the number of ASes that a segment can hold.
const maxSegment = 255

// ExternalAttrs returns the attributes, as raw octets, to send a route of ours to
// a peer in another AS: localAS is prepended to AS_PATH, which is in four-octet
// form in a. For a peer without four-octet ASes (as4 false), AS numbers above
// 65535 are AS_TRANS there, and AS4_PATH has them (RFC 6793 §4.2.2). LOCAL_PREF,
// MULTI_EXIT_DISC, which is for the AS that it came to, and all else that stays
// inside an AS is left out (RFC 4271 §5.1.4, §5.1.5, RFC 4456 §8), and so are
// attributes that name an aggregator, which routes of ours have not.
func ExternalAttrs(a *Attrs, localAS uint32, as4 bool) []byte {
	b := make([]byte, 0, len(a.Raw)+16)
	var path []byte
	wide := false // AS4_PATH is due
	for rest := a.Raw; len(rest) > 0; {
		flags, typ, value, size, ok := splitAttr(rest)
		if !ok {
			break
		}
		if wide && typ > attrAS4Path {
			b, wide = appendAttr(b, transitive, attrAS4Path, path), false
		}
		switch {
		case typ == attrASPath:
			if checkPath(value, 4, true) != nil { // not in four-octet form
				value = nil
			}
			path = prependAS(value, localAS)
			if as4 {
				b = appendAttr(b, wellKnown, attrASPath, path)
				break
			}
			var narrow []byte
			narrow, wide = narrowPath(path)
			b = appendAttr(b, wellKnown, attrASPath, narrow)
		case typ == attrExtComms:
			if value = crossingCommunities(value); len(value) > 0 {
				b = appendAttr(b, transitive, attrExtComms, value)
			}
		case crossesAS(flags, typ):
			b = append(b, rest[:size]...)
		}
		rest = rest[size:]
	}
	if wide {
		b = appendAttr(b, transitive, attrAS4Path, path)
	}
	return b
}

// crossesAS tells whether an attribute of a local route goes to other ASes as it is.
func crossesAS(flags, typ byte) bool {
	switch typ {
	case attrLocalPref, attrNextHop, attrAggregator, attrAS4Path, attrAS4Aggregator, attrPrefixSID:
		return false
	}
	return flags&flagTransitive != 0
}

// crossingCommunities returns the extended communities that are transitive
// across ASes (RFC 4360 §6).
func crossingCommunities(v []byte) []byte {
	var out []byte
	for ; len(v) >= 8; v = v[8:] {
		if v[0]&flagNonTransitiveCommunity == 0 {
			out = append(out, v[:8]...)
		}
	}
	return out
}

// flagNonTransitiveCommunity is the T bit of an extended community's type (RFC
// 4360 §2).
const flagNonTransitiveCommunity = 0x40

// prependAS puts an AS before a four-octet path: into its first segment, if that
// is a sequence with room, else into a new one (RFC 4271 §5.1.2 b).
// Confederation segments are removed (RFC 5065 §4 c).
func prependAS(v []byte, as uint32) []byte {
	path := binary.BigEndian.AppendUint32([]byte{segSequence, 1}, as)
	for first := true; len(v) > 0; {
		typ, ases, rest := cutSegment(v, 4)
		count := v[1]
		v = rest
		if typ == segConfedSequence || typ == segConfedSet {
			continue
		}
		if first && typ == segSequence && count < maxSegment {
			path[1] += count
		} else {
			path = append(path, typ, count)
		}
		path = append(path, ases...)
		first = false
	}
	return path
}

// narrowPath returns a four-octet path in two-octet form, and whether an AS
// number did not fit.
func narrowPath(v []byte) (path []byte, wide bool) {
	for len(v) > 0 {
		typ, ases, rest := cutSegment(v, 4)
		path = append(path, typ, v[1])
		for ; len(ases) > 0; ases = ases[4:] {
			as := binary.BigEndian.Uint32(ases)
			if as > 65535 {
				as, wide = asTrans, true
			}
			path = binary.BigEndian.AppendUint16(path, uint16(as))
		}
		v = rest
	}
	return path, wide
}
