// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// Segment types of AS_PATH (RFC 4271 §4.3, RFC 5065 §3).
const (
	segSet            = 1
	segSequence       = 2
	segConfedSequence = 3
	segConfedSet      = 4
)

// asSize is the number of octets of an AS number in AS_PATH and AGGREGATOR.
func (r Rules) asSize() int {
	if r.FourOctetAS {
		return 4
	}
	return 2
}

// asNumber reads an AS number of two or four octets.
func asNumber(b []byte) uint32 {
	if len(b) == 2 {
		return uint32(binary.BigEndian.Uint16(b))
	}
	return binary.BigEndian.Uint32(b)
}

// cutSegment splits the first segment off a path that checkPath found good.
func cutSegment(b []byte, size int) (typ byte, ases, rest []byte) {
	end := 2 + int(b[1])*size
	return b[0], b[2:end], b[end:]
}

// checkPath checks all segments of a path with AS numbers of size octets (RFC
// 7606 §7.2). AS 0 is malformed (RFC 7607 §2). Confederation segments are for
// members only (RFC 5065 §5).
func checkPath(v []byte, size int, member bool) *Error {
	for len(v) > 0 {
		if len(v) < 2 {
			return badValue(updMalformedASPath, "with %d octet behind the last segment: want 0", len(v))
		}
		typ, count := v[0], int(v[1])
		switch {
		case typ < segSet || typ > segConfedSet:
			return badValue(updMalformedASPath, "segment type %d: want 1 to 4", typ)
		case typ >= segConfedSequence && !member:
			return badValue(updMalformedASPath, "confederation segment type %d from an external peer: want 1 or 2", typ)
		case count == 0:
			return badValue(updMalformedASPath, "segment of 0 ASes: want at least 1")
		case len(v) < 2+count*size:
			return badValue(updMalformedASPath, "segment of %d ASes cut off: %d octets left, %d needed", count, len(v)-2, count*size)
		}
		_, ases, rest := cutSegment(v, size)
		for ; len(ases) > 0; ases = ases[size:] {
			if asNumber(ases[:size]) == 0 {
				return badValue(updMalformedASPath, "with AS 0: want any other")
			}
		}
		v = rest
	}
	return nil
}

// pathLen counts the ASes of a good path: a set is one, confederation segments
// none (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3). All is their number without regard
// to that.
func pathLen(v []byte, size int) (length, all int) {
	for len(v) > 0 {
		typ, ases, rest := cutSegment(v, size)
		switch typ {
		case segSet:
			length++
		case segSequence:
			length += len(ases) / size
		}
		all += len(ases) / size
		v = rest
	}
	return length, all
}

func (d *attrDecoder) asPath(v []byte) *Error {
	if err := checkPath(v, d.rules.asSize(), !d.rules.External); err != nil {
		return err
	}
	d.path = v
	return nil
}

// as4Path reads AS4_PATH; a speaker with four-octet ASes does not send it, and
// what it sends is not looked at (RFC 6793 §4.1).
func (d *attrDecoder) as4Path(v []byte) *Error {
	if d.rules.FourOctetAS {
		return nil
	}
	if len(v) == 0 {
		return badValue(updMalformedASPath, "of 0 octets: want at least 6")
	}
	if err := checkPath(v, 4, true); err != nil {
		return err
	}
	d.path4 = v
	return nil
}

// finishPath enters AS_PATH, merged with AS4_PATH.
func (d *attrDecoder) finishPath() {
	if len(d.path) == 0 {
		return
	}
	size := d.rules.asSize()
	length, all := pathLen(d.path, size)
	d.ASPathLen = length
	length4, all4 := pathLen(d.path4, 4)
	// Both rules: RFC 6793 §4.2.3.
	foreign := d.aggregatorAS4 != 0 && d.aggregatorAS != 0 && d.aggregatorAS != asTrans
	if d.path4 == nil || foreign || length4 > length {
		d.ASPath = appendPath(make([]uint32, 0, all), d.path, size)
		return
	}
	d.ASPath = appendLeading(make([]uint32, 0, all+all4), d.path, size, length-length4)
	d.ASPath = appendPath4(d.ASPath, d.path4)
}

// appendPath appends all ASes of a path.
func appendPath(to []uint32, v []byte, size int) []uint32 {
	for len(v) > 0 {
		_, ases, rest := cutSegment(v, size)
		to = appendASes(to, ases, size)
		v = rest
	}
	return to
}

func appendASes(to []uint32, ases []byte, size int) []uint32 {
	for ; len(ases) > 0; ases = ases[size:] {
		to = append(to, asNumber(ases[:size]))
	}
	return to
}

// appendLeading appends the first n ASes of a path, as pathLen counts them, with
// the confederation segments before and right behind them.
func appendLeading(to []uint32, v []byte, size, n int) []uint32 {
	for len(v) > 0 {
		typ, ases, rest := cutSegment(v, size)
		switch {
		case typ == segConfedSequence || typ == segConfedSet:
		case n == 0:
			return to
		case typ == segSet:
			n--
		case n < len(ases)/size:
			return appendASes(to, ases[:n*size], size)
		default:
			n -= len(ases) / size
		}
		to = appendASes(to, ases, size)
		v = rest
	}
	return to
}

// appendPath4 appends the ASes of AS4_PATH; confederation segments do not belong
// there and are ignored (RFC 6793 §6).
func appendPath4(to []uint32, v []byte) []uint32 {
	for len(v) > 0 {
		typ, ases, rest := cutSegment(v, 4)
		if typ == segSet || typ == segSequence {
			to = appendASes(to, ases, 4)
		}
		v = rest
	}
	return to
}
