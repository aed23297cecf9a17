// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goodUpdate has the attributes of a good announcement of one VPNv4 route, in
// the order sent.
var goodUpdate = []byte{attrMPReach, attrOrigin, attrASPath, attrLocalPref}

// goodAttr returns one of goodUpdate.
func goodAttr(typ byte, external bool) []byte {
	switch typ {
	case attrMPReach:
		return attr(0x80, attrMPReach, mpReach(VPNv4, make12(192, 0, 2, 1), goodVPN)...)
	case attrOrigin:
		return attr(0x40, attrOrigin, 0)
	case attrASPath:
		if external {
			return attr(0x40, attrASPath, 2, 1, 0, 0, 0xfc, 0)
		}
		return attr(0x40, attrASPath)
	}
	if external {
		return nil
	}
	return attr(0x40, attrLocalPref, 0, 0, 0, 100)
}

// make12 returns a VPNv4 next hop.
func make12(a, b, c, d byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d} }

// goodVPN is one VPNv4 NLRI, 192.0.2.10/32.
var goodVPN = []byte{120, 0, 1, 0x11, 0, 1, 192, 0, 2, 1, 0, 5, 192, 0, 2, 10}

// faulty makes the body of an UPDATE in which bad attributes take the place of
// the good ones of the same type, or come last.
func faulty(external bool, bad ...[]byte) []byte {
	var all [][]byte
	replaced := map[byte]bool{}
	for _, typ := range goodUpdate {
		one := goodAttr(typ, external)
		for _, b := range bad {
			if len(b) > 1 && b[1] == typ {
				one = nil
			}
		}
		all = append(all, one)
		for _, b := range bad {
			if len(b) > 1 && b[1] == typ {
				all = append(all, b)
				replaced[typ] = true
			}
		}
	}
	for _, b := range bad {
		if len(b) < 2 || !replaced[b[1]] {
			all = append(all, b)
		}
	}
	return updateBody(all...)
}

// without makes the body of a good UPDATE without one of its attributes.
func without(typ byte) []byte {
	var all [][]byte
	for _, t := range goodUpdate {
		if t != typ {
			all = append(all, goodAttr(t, false))
		}
	}
	return updateBody(all...)
}

// reach and unreach make multiprotocol attributes of good form around NLRIs.
func reach(f Family, nlri ...byte) []byte {
	return attr(0x80, attrMPReach, mpReach(f, appendNextHop(nil, f, netip.MustParseAddr("192.0.2.1"))[1:], nlri)...)
}

func unreach(f Family, nlri ...byte) []byte {
	return attr(0x80, attrMPUnreach, append([]byte{byte(f.AFI >> 8), byte(f.AFI), f.SAFI}, nlri...)...)
}

// outcome handles an UPDATE as a session does, and says what comes of it: "ok",
// or the strongest class with code and subcode, then the routes announced and
// withdrawn, those skipped, and the types of attributes kept.
func outcome(body []byte, r Rules) string {
	u, worst := ParseUpdate(body, nil)
	if worst != nil && worst.Class == SessionReset {
		return verdict(worst)
	}
	up, skippedUp, err := readAll(u.Reach.Family, u.Reach.NLRI, false)
	worst = stronger(worst, err)
	down, skippedDown, err := readAll(u.Unreach.Family, u.Unreach.NLRI, true)
	worst = stronger(worst, err)
	var kept []byte
	if u.Reach.Present {
		worst = stronger(worst, u.Withdraw)
		a, err := DecodeAttrs(u.Attrs, u.NextHop, r)
		worst = stronger(worst, err)
		if err == nil {
			worst = stronger(worst, a.Discarded)
			kept = attrTypesOf(a.Raw)
		}
	}
	s := fmt.Sprintf("%s +%d -%d", verdict(worst), len(up), len(down))
	if skipped := skippedUp + skippedDown; skipped > 0 {
		s += fmt.Sprintf(" skipped %d", skipped)
	}
	if extra := slices.DeleteFunc(kept, func(typ byte) bool { return slices.Contains(goodUpdate, typ) }); len(extra) > 0 {
		s += fmt.Sprintf(" kept %d", extra)
	}
	return s
}

func verdict(err *Error) string {
	if err == nil {
		return "ok"
	}
	return fmt.Sprintf("%s %d/%d", err.Class, err.Code, err.Subcode)
}

func attrTypesOf(raw []byte) []byte {
	var types []byte
	for len(raw) > 0 {
		_, typ, _, size, ok := splitAttr(raw)
		if !ok {
			break
		}
		types, raw = append(types, typ), raw[size:]
	}
	return types
}

// faultCase is one clause: what is received, and what is to come of it.
type faultCase struct {
	clause string // RFC, section and attribute
	name   string
	body   []byte
	rules  Rules
	want   string
}

var (
	ibgp  = Rules{FourOctetAS: true}
	ebgp  = Rules{FourOctetAS: true, External: true}
	ibgp2 = Rules{}
)

// faultCases lists all clauses.
func faultCases() []faultCase {
	return slices.Concat(messageFaults(), mandatoryFaults(), reflectionFaults(), optionalFaults(), path4Faults(), tunnelFaults(), mpFaults(), nlriFaults(), flowFaults())
}

func messageFaults() []faultCase {
	good := faulty(false)
	unicast := func(body []byte) []byte { return append(body, 24, 203, 0, 113) }
	cut := []byte{0xc0, 99, 5, 1}
	return []faultCase{
		{"RFC 4271 §4.3", "good announcement", good, ibgp, "ok +1 -0"},
		{"RFC 4271 §4.3", "good announcement of an external peer", faulty(true), ebgp, "ok +1 -0"},
		{"RFC 7606 §3 b", "Withdrawn Routes Length beyond the message", []byte{0, 9, 0, 0}, ibgp, "session reset 3/1"},
		{"RFC 7606 §3 b", "Withdrawn Routes Length leaves one octet", []byte{0, 1, 0, 0}, ibgp, "session reset 3/1"},
		{"RFC 7606 §3 b", "Total Attribute Length beyond the message", good[:len(good)-1], ibgp, "session reset 3/1"},
		{"RFC 7606 §3 d", "ORIGIN missing", without(attrOrigin), ibgp, "treat-as-withdraw 3/3 +1 -0"},
		{"RFC 7606 §3 d", "AS_PATH missing", without(attrASPath), ibgp, "treat-as-withdraw 3/3 +1 -0"},
		{"RFC 4271 §5.1.5", "LOCAL_PREF missing: the default", without(attrLocalPref), ibgp, "ok +1 -0"},
		{"RFC 7606 §3 g", "attribute twice: the first counts", faulty(false, attr(0x80, attrMED, 0, 0, 0, 1), attr(0x80, attrMED, 1)), ibgp, "ok +1 -0 kept [4]"},
		{"RFC 7606 §3 g", "attribute twice, the first malformed", faulty(false, attr(0x80, attrMED, 1), attr(0x80, attrMED, 0, 0, 0, 1)), ibgp, "treat-as-withdraw 3/5 +1 -0"},
		{"RFC 7606 §3 g", "unknown attribute twice", faulty(false, attr(0xc0, 99, 1), attr(0xc0, 99, 2)), ibgp, "ok +1 -0 kept [99]"},
		{"RFC 7606 §3 g", "MP_REACH_NLRI twice", faulty(false, goodAttr(attrMPReach, false), goodAttr(attrMPReach, false)), ibgp, "session reset 3/1"},
		{"RFC 7606 §3 g", "MP_UNREACH_NLRI twice", updateBody(unreach(EVPN), unreach(EVPN)), ibgp, "session reset 3/1"},
		{"RFC 7606 §3 h", "the strongest class counts: withdraw over discard", faulty(false, attr(0xc0, attrAggregator, 1), attr(0x80, attrMED, 1)), ibgp, "treat-as-withdraw 3/5 +1 -0"},
		{"RFC 7606 §3 h", "the strongest class counts: reset behind withdraw", faulty(false, attr(0x80, attrMED, 1), attr(0x40, 99, 1)), ibgp, "session reset 3/2 +1 -0"},
		{"RFC 7606 §3 h", "disable over withdraw", faulty(false, attr(0x80, attrMED, 1), reach(VPNv4, 120, 0)), ibgp, "AFI/SAFI disable 3/9 +0 -0"},
		{"RFC 7606 §4", "attribute longer than what is left, routes known", faulty(false, cut), ibgp, "treat-as-withdraw 3/5 +1 -0"},
		{"RFC 7606 §4", "two octets left, routes known", faulty(false, []byte{0xc0, 99}), ibgp, "treat-as-withdraw 3/5 +1 -0"},
		{"RFC 7606 §4", "extended length cut off, routes known", faulty(false, []byte{0xd0, 99, 0}), ibgp, "treat-as-withdraw 3/5 +1 -0"},
		{"RFC 7606 §4", "cut off, IPv4 unicast routes known", unicast(updateBody(attrIGP, cut)), ibgp, "ok +0 -0"},
		{"RFC 7606 §5.2", "cut off before any routes", updateBody(attrIGP, attrPath, []byte{0x80, attrMPReach, 200, 0}), ibgp, "session reset 3/1"},
		{"RFC 7606 §5.2", "cut off behind withdrawals only", updateBody(unreach(EVPN), cut), ibgp, "session reset 3/1"},
		{"RFC 7606 §5.2", "attributes of a withdrawal are not looked at", updateBody(attr(0x40, attrOrigin, 9), unreach(VPNv4, goodVPN...)), ibgp, "ok +0 -1"},
		{"RFC 4271 §9", "unknown optional transitive is kept", faulty(false, attr(0xc0, 99, 1)), ibgp, "ok +1 -0 kept [99]"},
		{"RFC 4271 §9", "unknown optional transitive, Partial, is kept", faulty(false, attr(0xe0, 99)), ibgp, "ok +1 -0 kept [99]"},
		{"RFC 4271 §9", "unknown optional non-transitive is dropped", faulty(false, attr(0x80, 99, 1)), ibgp, "ok +1 -0"},
		{"RFC 4271 §6.3", "unknown well-known", faulty(false, attr(0x40, 99, 1)), ibgp, "session reset 3/2 +1 -0"},
		{"RFC 4271 §6.3", "unknown without any flag", faulty(false, attr(0, 99, 1)), ibgp, "session reset 3/2 +1 -0"},
	}
}

func mandatoryFaults() []faultCase {
	one := func(flags, typ byte, v ...byte) []byte { return faulty(false, attr(flags, typ, v...)) }
	path := func(v ...byte) []byte { return one(0x40, attrASPath, v...) }
	const withdraw, badFlags, badPath = "treat-as-withdraw 3/5 +1 -0", "treat-as-withdraw 3/4 +1 -0", "treat-as-withdraw 3/11 +1 -0"
	return []faultCase{
		{"RFC 7606 §3 c ORIGIN", "optional", one(0xc0, attrOrigin, 0), ibgp, badFlags},
		{"RFC 7606 §3 c ORIGIN", "not transitive", one(0, attrOrigin, 0), ibgp, badFlags},
		{"RFC 7606 §3 c ORIGIN", "the Partial bit is no matter", one(0x60, attrOrigin, 0), ibgp, "ok +1 -0"},
		{"RFC 7606 §7.1 ORIGIN", "length 0", one(0x40, attrOrigin), ibgp, withdraw},
		{"RFC 7606 §7.1 ORIGIN", "length 2", one(0x40, attrOrigin, 0, 0), ibgp, withdraw},
		{"RFC 7606 §7.1 ORIGIN", "EGP", one(0x40, attrOrigin, 1), ibgp, "ok +1 -0"},
		{"RFC 7606 §7.1 ORIGIN", "INCOMPLETE", one(0x40, attrOrigin, 2), ibgp, "ok +1 -0"},
		{"RFC 7606 §7.1 ORIGIN", "undefined value", one(0x40, attrOrigin, 3), ibgp, "treat-as-withdraw 3/6 +1 -0"},
		{"RFC 7606 §3 c AS_PATH", "optional", one(0xc0, attrASPath), ibgp, badFlags},
		{"RFC 7606 §4 AS_PATH", "length 0", path(), ibgp, "ok +1 -0"},
		{"RFC 7606 §7.2 AS_PATH", "segment type 0", path(0, 1, 0, 0, 0, 1), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "segment type 5", path(5, 1, 0, 0, 0, 1), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "segment overrun", path(2, 2, 0, 0, 0, 1), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "segment underrun", path(2, 1, 0, 0, 0, 1, 2), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "segment of no ASes", path(2, 0), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "two-octet ASes on a session with four", path(2, 1, 0xfc, 0), ibgp, badPath},
		{"RFC 7606 §7.2 AS_PATH", "two-octet ASes", path(2, 1, 0xfc, 0), ibgp2, "ok +1 -0"},
		{"RFC 7607 §2 AS_PATH", "AS 0", path(2, 2, 0, 0, 0, 1, 0, 0, 0, 0), ibgp, badPath},
		{"RFC 7607 §2 AS_PATH", "AS 0 of two octets", path(1, 1, 0, 0), ibgp2, badPath},
		{"RFC 5065 §5 AS_PATH", "confederation segment of a member", path(3, 1, 0, 0, 0, 1), ibgp, "ok +1 -0"},
		{"RFC 5065 §5 AS_PATH", "confederation segment of an external peer", faulty(true, attr(0x40, attrASPath, 3, 1, 0, 0, 0, 1)), ebgp, badPath},
		{"RFC 4760 §3 NEXT_HOP", "beside MP_REACH_NLRI is ignored", one(0x40, attrNextHop, 192, 0, 2, 9), ibgp, "ok +1 -0 kept [3]"},
		{"RFC 4760 §3 NEXT_HOP", "of wrong length, beside MP_REACH_NLRI", one(0x40, attrNextHop, 192, 0, 2), ibgp, "attribute discard 3/5 +1 -0"},
		{"RFC 4760 §3 NEXT_HOP", "with wrong flags, beside MP_REACH_NLRI", one(0xc0, attrNextHop, 192, 0, 2, 9), ibgp, "attribute discard 3/4 +1 -0"},
		{"RFC 7606 §3 c MULTI_EXIT_DISC", "transitive", one(0xc0, attrMED, 0, 0, 0, 1), ibgp, badFlags},
		{"RFC 7606 §7.4 MULTI_EXIT_DISC", "length 0", one(0x80, attrMED), ibgp, withdraw},
		{"RFC 7606 §7.4 MULTI_EXIT_DISC", "length 3", one(0x80, attrMED, 1, 2, 3), ibgp, withdraw},
		{"RFC 7606 §7.4 MULTI_EXIT_DISC", "length 5", one(0x80, attrMED, 1, 2, 3, 4, 5), ibgp, withdraw},
		{"RFC 7606 §3 c LOCAL_PREF", "optional", one(0xc0, attrLocalPref, 0, 0, 0, 1), ibgp, badFlags},
		{"RFC 7606 §7.5 LOCAL_PREF", "length 0", one(0x40, attrLocalPref), ibgp, withdraw},
		{"RFC 7606 §7.5 LOCAL_PREF", "length 5", one(0x40, attrLocalPref, 1, 2, 3, 4, 5), ibgp, withdraw},
		{"RFC 7606 §7.5 LOCAL_PREF", "of an external peer", one(0x40, attrLocalPref, 0, 0, 0, 1), ebgp, "attribute discard 3/4 +1 -0"},
		{"RFC 7606 §7.5 LOCAL_PREF", "of an external peer, malformed", one(0xc0, attrLocalPref, 1), ebgp, "attribute discard 3/4 +1 -0"},
	}
}

func reflectionFaults() []faultCase {
	one := func(flags, typ byte, v ...byte) []byte { return faulty(false, attr(flags, typ, v...)) }
	const withdraw, badFlags = "treat-as-withdraw 3/5 +1 -0", "treat-as-withdraw 3/4 +1 -0"
	return []faultCase{
		{"RFC 7606 §3 c ORIGINATOR_ID", "transitive", one(0xc0, attrOriginatorID, 192, 0, 2, 1), ibgp, badFlags},
		{"RFC 7606 §7.9 ORIGINATOR_ID", "good", one(0x80, attrOriginatorID, 192, 0, 2, 1), ibgp, "ok +1 -0 kept [9]"},
		{"RFC 7606 §7.9 ORIGINATOR_ID", "length 0", one(0x80, attrOriginatorID), ibgp, withdraw},
		{"RFC 7606 §7.9 ORIGINATOR_ID", "length 3", one(0x80, attrOriginatorID, 192, 0, 2), ibgp, withdraw},
		{"RFC 7606 §7.9 ORIGINATOR_ID", "of an external peer", one(0x80, attrOriginatorID, 192, 0, 2, 1), ebgp, "attribute discard 3/4 +1 -0"},
		{"RFC 7606 §3 c CLUSTER_LIST", "transitive", one(0xc0, attrClusterList, 192, 0, 2, 1), ibgp, badFlags},
		{"RFC 7606 §7.10 CLUSTER_LIST", "good", one(0x80, attrClusterList, 192, 0, 2, 1, 192, 0, 2, 2), ibgp, "ok +1 -0 kept [10]"},
		{"RFC 7606 §7.10 CLUSTER_LIST", "length 0", one(0x80, attrClusterList), ibgp, withdraw},
		{"RFC 7606 §7.10 CLUSTER_LIST", "length 6", one(0x80, attrClusterList, 192, 0, 2, 1, 1, 1), ibgp, withdraw},
		{"RFC 7606 §7.10 CLUSTER_LIST", "of an external peer", one(0x80, attrClusterList, 1), ebgp, "attribute discard 3/4 +1 -0"},
	}
}

func optionalFaults() []faultCase {
	one := func(flags, typ byte, v ...byte) []byte { return faulty(false, attr(flags, typ, v...)) }
	n := func(flags, typ byte, size int) []byte { return one(flags, typ, make([]byte, size)...) }
	const withdraw, badFlags = "treat-as-withdraw 3/5 +1 -0", "treat-as-withdraw 3/4 +1 -0"
	const discard, discardFlags = "attribute discard 3/5 +1 -0", "attribute discard 3/4 +1 -0"
	return []faultCase{
		{"RFC 7606 §3 f ATOMIC_AGGREGATE", "optional", n(0xc0, attrAtomicAggregate, 0), ibgp, discardFlags},
		{"RFC 7606 §7.6 ATOMIC_AGGREGATE", "good", n(0x40, attrAtomicAggregate, 0), ibgp, "ok +1 -0 kept [6]"},
		{"RFC 7606 §7.6 ATOMIC_AGGREGATE", "length 1", n(0x40, attrAtomicAggregate, 1), ibgp, discard},
		{"RFC 7606 §3 f AGGREGATOR", "not transitive", one(0x80, attrAggregator, 0, 0, 0, 1, 192, 0, 2, 1), ibgp, discardFlags},
		{"RFC 7606 §7.7 AGGREGATOR", "four-octet AS", one(0xc0, attrAggregator, 0, 0, 0, 1, 192, 0, 2, 1), ibgp, "ok +1 -0 kept [7]"},
		{"RFC 7606 §7.7 AGGREGATOR", "two-octet AS", one(0xc0, attrAggregator, 0, 1, 192, 0, 2, 1), ibgp2, "ok +1 -0 kept [7]"},
		{"RFC 7606 §7.7 AGGREGATOR", "two-octet AS on a session with four", one(0xc0, attrAggregator, 0, 1, 192, 0, 2, 1), ibgp, discard},
		{"RFC 7606 §7.7 AGGREGATOR", "four-octet AS on a session with two", one(0xc0, attrAggregator, 0, 0, 0, 1, 192, 0, 2, 1), ibgp2, discard},
		{"RFC 7606 §7.7 AGGREGATOR", "length 0", one(0xc0, attrAggregator), ibgp, discard},
		{"RFC 7607 §2 AGGREGATOR", "AS 0", one(0xc0, attrAggregator, 0, 0, 0, 0, 192, 0, 2, 1), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 7606 §3 c COMMUNITIES", "not transitive", n(0x80, attrCommunities, 4), ibgp, badFlags},
		{"RFC 7606 §7.8 COMMUNITIES", "good", n(0xc0, attrCommunities, 8), ibgp, "ok +1 -0 kept [8]"},
		{"RFC 7606 §7.8 COMMUNITIES", "length 0", n(0xc0, attrCommunities, 0), ibgp, withdraw},
		{"RFC 7606 §7.8 COMMUNITIES", "length 6", n(0xc0, attrCommunities, 6), ibgp, withdraw},
		{"RFC 7606 §3 c EXTENDED COMMUNITIES", "not transitive", n(0x80, attrExtComms, 8), ibgp, badFlags},
		{"RFC 7606 §7.14 EXTENDED COMMUNITIES", "unknown types", one(0xc0, attrExtComms, 0x3f, 0xff, 1, 2, 3, 4, 5, 6), ibgp, "ok +1 -0 kept [16]"},
		{"RFC 7606 §7.14 EXTENDED COMMUNITIES", "length 0", n(0xc0, attrExtComms, 0), ibgp, withdraw},
		{"RFC 7606 §7.14 EXTENDED COMMUNITIES", "length 12", n(0xc0, attrExtComms, 12), ibgp, withdraw},
		{"RFC 7606 §3 c IPv6 EXTENDED COMMUNITY", "well-known", n(0x40, attrIPv6ExtComms, 20), ibgp, badFlags},
		{"RFC 7606 §7.15 IPv6 EXTENDED COMMUNITY", "good", n(0xc0, attrIPv6ExtComms, 20), ibgp, "ok +1 -0 kept [25]"},
		{"RFC 7606 §7.15 IPv6 EXTENDED COMMUNITY", "length 0", n(0xc0, attrIPv6ExtComms, 0), ibgp, withdraw},
		{"RFC 7606 §7.15 IPv6 EXTENDED COMMUNITY", "length 8", n(0xc0, attrIPv6ExtComms, 8), ibgp, withdraw},
		{"RFC 7606 §3 c LARGE_COMMUNITY", "not transitive", n(0x80, attrLargeComms, 12), ibgp, badFlags},
		{"RFC 8092 §6 LARGE_COMMUNITY", "good", n(0xc0, attrLargeComms, 24), ibgp, "ok +1 -0 kept [32]"},
		{"RFC 8092 §6 LARGE_COMMUNITY", "length 0", n(0xc0, attrLargeComms, 0), ibgp, withdraw},
		{"RFC 8092 §6 LARGE_COMMUNITY", "length 8", n(0xc0, attrLargeComms, 8), ibgp, withdraw},
		{"RFC 7311 §3 AIGP", "good", one(0x80, attrAIGP, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9), ibgp, "ok +1 -0 kept [26]"},
		{"RFC 7311 §3 AIGP", "transitive", one(0xc0, attrAIGP, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9), ibgp, discardFlags},
		{"RFC 7311 §3 AIGP", "empty", n(0x80, attrAIGP, 0), ibgp, discard},
		{"RFC 7311 §3 AIGP", "element cut off", one(0x80, attrAIGP, 2, 0, 5, 0), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 7311 §3 AIGP", "element shorter than its header", one(0x80, attrAIGP, 2, 0, 2), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 7311 §3 AIGP", "metric of 4 octets", one(0x80, attrAIGP, 1, 0, 7, 0, 0, 0, 9), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 7311 §3 AIGP", "octets behind", one(0x80, attrAIGP, 2, 0, 3, 9), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 7311 §3.3 AIGP", "of an external peer", one(0x80, attrAIGP, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9), ebgp, "attribute discard 3/4 +1 -0"},
		{"RFC 7606 §7.16 ATTR_SET", "good", one(0xc0, attrSet, 0, 0, 0, 1, 0x40, 1, 1, 0), ibgp, "ok +1 -0 kept [128]"},
		{"RFC 7606 §3 c ATTR_SET", "not transitive", one(0x80, attrSet, 0, 0, 0, 1), ibgp, badFlags},
		{"RFC 7606 §7.16 ATTR_SET", "without AS", n(0xc0, attrSet, 3), ibgp, withdraw},
		{"RFC 7606 §7.16 ATTR_SET", "attribute cut off", one(0xc0, attrSet, 0, 0, 0, 1, 0x40, 1, 1), ibgp, "treat-as-withdraw 3/9 +1 -0"},
		{"RFC 6368 §5 ATTR_SET", "MP_REACH_NLRI inside", one(0xc0, attrSet, 0, 0, 0, 1, 0x80, 14, 0), ibgp, "treat-as-withdraw 3/9 +1 -0"},
	}
}

func path4Faults() []faultCase {
	one := func(flags, typ byte, v ...byte) []byte { return faulty(false, attr(flags, typ, v...)) }
	path := func(v ...byte) []byte { return one(0xc0, attrAS4Path, v...) }
	const discardPath = "attribute discard 3/11 +1 -0"
	return []faultCase{
		{"RFC 6793 §6 AS4_PATH", "good", path(2, 1, 0, 1, 0, 0), ibgp2, "ok +1 -0 kept [17]"},
		{"RFC 6793 §6 AS4_PATH", "not transitive", one(0x80, attrAS4Path, 2, 1, 0, 1, 0, 0), ibgp2, "attribute discard 3/4 +1 -0"},
		{"RFC 6793 §6 AS4_PATH", "length 0", path(), ibgp2, discardPath},
		{"RFC 6793 §6 AS4_PATH", "odd length", path(2, 1, 0, 1, 0, 0, 2), ibgp2, discardPath},
		{"RFC 6793 §6 AS4_PATH", "segment length", path(2, 2, 0, 1, 0, 0), ibgp2, discardPath},
		{"RFC 6793 §6 AS4_PATH", "segment of no ASes", path(2, 0), ibgp2, discardPath},
		{"RFC 6793 §6 AS4_PATH", "segment type", path(7, 1, 0, 1, 0, 0), ibgp2, discardPath},
		{"RFC 6793 §6 AS4_PATH", "confederation segment is ignored", path(3, 1, 0, 1, 0, 0), ibgp2, "ok +1 -0 kept [17]"},
		{"RFC 7607 §2 AS4_PATH", "AS 0", path(2, 1, 0, 0, 0, 0), ibgp2, discardPath},
		{"RFC 6793 §4.1 AS4_PATH", "of a speaker with four-octet ASes", path(2, 0), ibgp, "ok +1 -0"},
		{"RFC 6793 §6 AS4_AGGREGATOR", "good", one(0xc0, attrAS4Aggregator, 0, 1, 0, 0, 192, 0, 2, 1), ibgp2, "ok +1 -0 kept [18]"},
		{"RFC 6793 §6 AS4_AGGREGATOR", "length 6", one(0xc0, attrAS4Aggregator, 0, 1, 192, 0, 2, 1), ibgp2, "attribute discard 3/5 +1 -0"},
		{"RFC 6793 §6 AS4_AGGREGATOR", "well-known", one(0x40, attrAS4Aggregator, 0, 1, 0, 0, 192, 0, 2, 1), ibgp2, "attribute discard 3/4 +1 -0"},
		{"RFC 7607 §2 AS4_AGGREGATOR", "AS 0", one(0xc0, attrAS4Aggregator, 0, 0, 0, 0, 192, 0, 2, 1), ibgp2, "attribute discard 3/9 +1 -0"},
		{"RFC 6793 §4.1 AS4_AGGREGATOR", "of a speaker with four-octet ASes", one(0xc0, attrAS4Aggregator, 1), ibgp, "ok +1 -0"},
	}
}

func tunnelFaults() []faultCase {
	one := func(flags, typ byte, v ...byte) []byte { return faulty(false, attr(flags, typ, v...)) }
	const withdraw, badFlags, badValue = "treat-as-withdraw 3/5 +1 -0", "treat-as-withdraw 3/4 +1 -0", "treat-as-withdraw 3/9 +1 -0"
	return []faultCase{
		{"RFC 7606 §3 c PMSI_TUNNEL", "not transitive", one(0x80, attrPMSI, 0, 0, 0, 0, 1), ibgp, badFlags},
		{"RFC 6514 §5 PMSI_TUNNEL", "no tunnel", one(0xc0, attrPMSI, 0, 0, 0, 0, 0), ibgp, "ok +1 -0 kept [22]"},
		{"RFC 6514 §5 PMSI_TUNNEL", "unknown tunnel type", one(0xc0, attrPMSI, 0, 99, 0, 0, 1, 7, 7), ibgp, "ok +1 -0 kept [22]"},
		{"RFC 6514 §5 PMSI_TUNNEL", "length 0", one(0xc0, attrPMSI), ibgp, withdraw},
		{"RFC 6514 §5 PMSI_TUNNEL", "length 4", one(0xc0, attrPMSI, 0, 6, 0, 0), ibgp, withdraw},
		{"RFC 6514 §5 PMSI_TUNNEL", "ingress replication without an end", one(0xc0, attrPMSI, 0, 6, 0, 0, 1), ibgp, withdraw},
		{"RFC 6514 §5 PMSI_TUNNEL", "ingress replication to 5 octets", one(0xc0, attrPMSI, 0, 6, 0, 0, 1, 1, 2, 3, 4, 5), ibgp, withdraw},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "good", one(0xc0, attrTunnelEncap, 0, 8, 0, 4, 4, 2, 0, 0), ibgp, "ok +1 -0 kept [23]"},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "unknown tunnel and sub-TLV", one(0xc0, attrTunnelEncap, 0xff, 0, 0, 4, 200, 0, 1, 9), ibgp, "ok +1 -0 kept [23]"},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "not transitive", one(0x80, attrTunnelEncap, 0, 8, 0, 0), ibgp, "attribute discard 3/4 +1 -0"},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "TLV cut off", one(0xc0, attrTunnelEncap, 0, 8, 0, 9, 4, 2, 0, 0), ibgp, badValue},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "TLV header cut off", one(0xc0, attrTunnelEncap, 0, 8, 0), ibgp, badValue},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "sub-TLV beyond its TLV", one(0xc0, attrTunnelEncap, 0, 8, 0, 3, 4, 2, 0, 0), ibgp, badValue},
		{"RFC 9012 §13 TUNNEL_ENCAPSULATION", "sub-TLV with a long length cut off", one(0xc0, attrTunnelEncap, 0, 8, 0, 2, 200, 0), ibgp, badValue},
		{"RFC 8669 §6 BGP PREFIX-SID", "good", one(0xc0, attrPrefixSID, 1, 0, 7, 0, 0, 0, 0, 0, 0, 9), ibgp, "ok +1 -0 kept [40]"},
		{"RFC 8669 §6 BGP PREFIX-SID", "unknown TLV", one(0xc0, attrPrefixSID, 200, 0, 1, 9), ibgp, "ok +1 -0 kept [40]"},
		{"RFC 8669 §6 BGP PREFIX-SID", "TLV cut off", one(0xc0, attrPrefixSID, 5, 0, 20, 1), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 8669 §6 BGP PREFIX-SID", "empty", one(0xc0, attrPrefixSID), ibgp, "attribute discard 3/5 +1 -0"},
		{"RFC 8669 §6 BGP PREFIX-SID", "octets behind", one(0xc0, attrPrefixSID, 200, 0, 0, 1), ibgp, "attribute discard 3/9 +1 -0"},
		{"RFC 8669 §6 BGP PREFIX-SID", "not transitive", one(0x80, attrPrefixSID, 200, 0, 0), ibgp, "attribute discard 3/4 +1 -0"},
		{"RFC 8669 §3 BGP PREFIX-SID", "of an external peer", one(0xc0, attrPrefixSID, 200, 0, 0), ebgp, "attribute discard 3/4 +1 -0"},
	}
}

func mpFaults() []faultCase {
	value := mpReach(VPNv4, make12(192, 0, 2, 1), goodVPN)
	nextHop := func(f Family, size int) []byte {
		return faulty(false, attr(0x80, attrMPReach, mpReach(f, make([]byte, size), nil)...))
	}
	other := reach(EVPN, 11, 0)
	const disabled = "AFI/SAFI disable 3/9 +0 -0"
	cases := []faultCase{
		{"RFC 7606 §5.3 MP_REACH_NLRI", "transitive", faulty(false, attr(0xc0, attrMPReach, value...)), ibgp, disabled},
		{"RFC 7606 §5.3 MP_REACH_NLRI", "well-known", faulty(false, attr(0x40, attrMPReach, value...)), ibgp, disabled},
		{"RFC 7606 §5.3 MP_REACH_NLRI", "length 0", faulty(false, attr(0x80, attrMPReach)), ibgp, "session reset 3/9"},
		{"RFC 7606 §5.3 MP_REACH_NLRI", "family cut off", faulty(false, attr(0x80, attrMPReach, 0, 1)), ibgp, "session reset 3/9"},
		{"RFC 7606 §5.3 MP_REACH_NLRI", "length 4", faulty(false, attr(0x80, attrMPReach, 0, 1, 128, 0)), ibgp, disabled},
		{"RFC 7606 §7.11 MP_REACH_NLRI", "next hop cut off", faulty(false, attr(0x80, attrMPReach, 0, 1, 128, 12, 0, 0)), ibgp, disabled},
		{"RFC 7606 §7.11 MP_REACH_NLRI", "next hop of a family that we do not speak", nextHop(Family{16388, 71}, 7), ibgp, "ok +0 -0"},
		{"RFC 4760 §7 MP_REACH_NLRI", "withdrawals of another family stay good", faulty(false, attr(0xc0, attrMPReach, value...), unreach(VPNv6)), ibgp, disabled},
		{"RFC 4760 §7 MP_UNREACH_NLRI", "announcements of another family stay good", faulty(false, attr(0xc0, attrMPUnreach, 0, 25, 70)), ibgp, "AFI/SAFI disable 3/9 +1 -0"},
		{"RFC 7606 §5.3 MP_UNREACH_NLRI", "transitive", updateBody(attr(0xc0, attrMPUnreach, 0, 25, 70)), ibgp, disabled},
		{"RFC 7606 §5.3 MP_UNREACH_NLRI", "family cut off", updateBody(attr(0x80, attrMPUnreach, 0, 25)), ibgp, "session reset 3/9"},
		{"RFC 4760 §7", "both attributes bad, of two families", faulty(false, attr(0xc0, attrMPReach, value...), attr(0xc0, attrMPUnreach, 0, 25, 70)), ibgp, "session reset 3/9"},
		{"RFC 4760 §7", "both attributes bad, of one family", faulty(false, attr(0xc0, attrMPReach, value...), attr(0xc0, attrMPUnreach, 0, 1, 128)), ibgp, disabled},
		{"RFC 7606 §5.4", "EVPN route of unknown type", faulty(false, other), ibgp, "ok +0 -0 skipped 1"},
	}
	bad := map[Family][]int{VPNv4: {0, 5, 8, 20, 40}, VPNv6: {0, 8, 40}, EVPN: {0, 5, 12, 24}, RTC: {0, 12}, FlowVPNv4: {5, 12}}
	for _, f := range Families {
		for _, size := range bad[f] {
			cases = append(cases, faultCase{"RFC 7606 §7.11 MP_REACH_NLRI", fmt.Sprintf("%s next hop of %d octets", f, size), nextHop(f, size), ibgp, disabled})
		}
	}
	return cases
}

func nlriFaults() []faultCase {
	up := func(f Family, nlri ...byte) []byte { return faulty(false, reach(f, nlri...)) }
	rd := testRD[:]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	rtc := append([]byte{96, 0, 0, 0xfc, 0}, 0, 2, 0xfc, 0, 0, 0, 0, 1)
	const disabled = "AFI/SAFI disable 3/9"
	return []faultCase{
		{"RFC 7606 §5.3 VPNv4", "last NLRI cut off", up(VPNv4, join(goodVPN, goodVPN[:9])...), ibgp, disabled + " +1 -0"},
		{"RFC 7606 §5.3 VPNv4", "withdrawn NLRI cut off", updateBody(unreach(VPNv4, join(goodVPN, goodVPN[:9])...)), ibgp, disabled + " +0 -1"},
		{"RFC 7606 §5.3 VPNv4", "prefix length 33, framed", up(VPNv4, join(goodVPN, []byte{121}, goodVPN[1:], []byte{0}, goodVPN)...), ibgp, "ok +2 -0 skipped 1"},
		{"RFC 7606 §5.3 VPNv6", "prefix length 129, framed", up(VPNv6, join([]byte{217, 0, 1, 0x11}, rd, make([]byte, 17))...), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 8277 §2 VPNv4", "endless label stack, framed", up(VPNv4, 48, 0, 1, 0x10, 0, 1, 0x10), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 7606 §5.3 EVPN", "value cut off", up(EVPN, 2, 33, 1), ibgp, disabled + " +0 -0"},
		{"RFC 7606 §5.3 EVPN", "header cut off", up(EVPN, 2), ibgp, disabled + " +0 -0"},
		{"RFC 7606 §5.4 EVPN", "unknown types", up(EVPN, 11, 1, 0, 255, 0), ibgp, "ok +0 -0 skipped 2"},
		{"RFC 7432 §7.2 EVPN", "MAC length 47, framed", up(EVPN, join([]byte{2, 33}, rd, make([]byte, 14), []byte{47}, make([]byte, 10))...), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 7432 §7.3 EVPN", "address length 33, framed", up(EVPN, join([]byte{3, 17}, rd, make([]byte, 4), []byte{33}, make([]byte, 4))...), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 4684 §4 RTC", "good", up(RTC, rtc...), ibgp, "ok +1 -0"},
		{"RFC 4684 §4 RTC", "length 31, framed", up(RTC, join([]byte{31, 0, 0, 0xfc, 0}, rtc)...), ibgp, "ok +1 -0 skipped 1"},
		{"RFC 4684 §4 RTC", "length 97, framed", up(RTC, join([]byte{97}, make([]byte, 13), rtc)...), ibgp, "ok +1 -0 skipped 1"},
		{"RFC 4684 §4 RTC", "cut off", up(RTC, rtc[:12]...), ibgp, disabled + " +0 -0"},
		{"RFC 4684 §4 RTC", "length 255 and cut off", up(RTC, 255, 0), ibgp, disabled + " +0 -0"},
	}
}

func flowFaults() []faultCase {
	flow := func(f Family, hex string) []byte {
		var components []byte
		if _, err := fmt.Sscanf(hex, "%x", &components); err != nil {
			panic(err)
		}
		good := []byte{3, 0x81, 6}
		b := appendFlowLength(nil, 8+len(components))
		b = append(append(b, testRD[:]...), components...)
		b = append(append(appendFlowLength(b, 8+len(good)), testRD[:]...), good...)
		return faulty(false, reach(f, b...))
	}
	const good, skipped = "ok +2 -0", "ok +1 -0 skipped 1"
	return []faultCase{
		{"RFC 8955 §4.2", "all kinds of components", flow(FlowVPNv4, "0118cb0071"+"0200"+"038106"+"04010191ffff"+"0981ff"+"0c8001"), ibgp, good},
		{"RFC 8955 §4.2", "values of 1, 2, 4 and 8 octets", flow(FlowVPNv4, "0a"+"0101"+"110102"+"2101020304"+"b10102030405060708"), ibgp, good},
		{"RFC 8955 §4.2", "order of types", flow(FlowVPNv4, "058150"+"038106"), ibgp, skipped},
		{"RFC 8955 §4.2", "type twice", flow(FlowVPNv4, "038106"+"038111"), ibgp, skipped},
		{"RFC 8955 §4.2", "type 0", flow(FlowVPNv4, "008106"), ibgp, skipped},
		{"RFC 8955 §4.2", "unknown type", flow(FlowVPNv4, "038106"+"0e8106"), ibgp, skipped},
		{"RFC 8955 §4.2", "flow label for IPv4", flow(FlowVPNv4, "0da100000001"), ibgp, skipped},
		{"RFC 8955 §4.2", "value cut off", flow(FlowVPNv4, "049150"), ibgp, skipped},
		{"RFC 8955 §4.2", "no end of list", flow(FlowVPNv4, "040150"), ibgp, skipped},
		{"RFC 8955 §4.2", "no operator", flow(FlowVPNv4, "04"), ibgp, skipped},
		{"RFC 8955 §4.2.2.1", "prefix length 33", flow(FlowVPNv4, "0121cb00710000"), ibgp, skipped},
		{"RFC 8955 §4.2.2.1", "prefix cut off", flow(FlowVPNv4, "0118cb00"), ibgp, skipped},
		{"RFC 8955 §4.2.2.1", "prefix without length", flow(FlowVPNv4, "01"), ibgp, skipped},
		{"RFC 8955 §8", "no room for a route distinguisher", faulty(false, reach(FlowVPNv4, 7, 1, 2, 3, 4, 5, 6, 7)), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 8955 §4.2", "no components", faulty(false, reach(FlowVPNv4, append([]byte{8}, testRD[:]...)...)), ibgp, "ok +0 -0 skipped 1"},
		{"RFC 8955 §4.1", "NLRI cut off", faulty(false, reach(FlowVPNv4, 20, 1)), ibgp, "AFI/SAFI disable 3/9 +0 -0"},
		{"RFC 8956 §3", "all kinds of components", flow(FlowVPNv6, "01200020010db8"+"02402000010002"+"038106"+"0da100000001"), ibgp, good},
		{"RFC 8956 §3", "pattern longer than length less offset", flow(FlowVPNv6, "02402000010002ff"), ibgp, skipped},
		{"RFC 8956 §3.1", "length 0 and offset 0", flow(FlowVPNv6, "010000"), ibgp, good},
		{"RFC 8956 §3.1", "offset of the length", flow(FlowVPNv6, "012020"), ibgp, skipped},
		{"RFC 8956 §3.1", "offset above length 0", flow(FlowVPNv6, "010001"), ibgp, skipped},
		{"RFC 8956 §3.1", "length 129", flow(FlowVPNv6, "018100"+strings.Repeat("00", 17)), ibgp, skipped},
		{"RFC 8956 §3.1", "pattern cut off", flow(FlowVPNv6, "014000000000"), ibgp, skipped},
		{"RFC 8956 §3", "unknown type", flow(FlowVPNv6, "0e8106"), ibgp, skipped},
	}
}

// TestRFC7606 has one row per clause and attribute.
func TestRFC7606(t *testing.T) {
	t.Parallel()
	for _, tt := range faultCases() {
		t.Run(tt.clause+": "+tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, outcome(tt.body, tt.rules)); diff != "" {
				t.Errorf("%x\n(-want +got):\n%s", tt.body, diff)
			}
		})
	}
}

var update = flag.Bool("update", false, "rewrite testdata/rfc7606.txt")

// The cases stand in a file, too: the speaker's tests send them to a live session.
func TestRFC7606File(t *testing.T) {
	t.Parallel()
	const file = "testdata/rfc7606.txt"
	var b strings.Builder
	b.WriteString("# clause, case, session, UPDATE without header, outcome: from TestRFC7606File -update\n")
	for _, tt := range faultCases() {
		session := map[Rules]string{ibgp: "iBGP", ebgp: "eBGP", ibgp2: "iBGP with two-octet AS numbers"}[tt.rules]
		fmt.Fprintf(&b, "%s\t%s\t%s\t%x\t%s\n", tt.clause, tt.name, session, tt.body, tt.want)
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("%s is not what the cases say; run the test with -update (-want +got):\n%s", file, diff)
	}
}

// Cut off anywhere, good messages never panic and never lead to more than the
// RFC allows.
func TestMessagesCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range faultCases() {
		for i := range tt.body {
			_ = outcome(tt.body[:i], tt.rules)
			_ = outcome(append(bytes.Clone(tt.body[:i]), tt.body[i+1:]...), tt.rules)
		}
	}
}
