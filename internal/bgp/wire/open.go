// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// paramCapabilities is the type of the only optional parameter in use (RFC 5492
// §4). In place of the first type, paramExtended says that the parameters and
// their lengths take the form of RFC 9072 §2.
const (
	paramCapabilities = 2
	paramExtended     = 255
)

// asTrans stands in the two-octet AS field for a larger AS number (RFC 6793 §9).
const asTrans = 23456

// Open is the content of an OPEN message that sessions act on.
type Open struct {
	// AS is the four-octet AS number if the capability is there, else the two-octet one.
	AS       uint32
	HoldTime uint16 // seconds
	RouterID netip.Addr
	Families []Family
	// FourOctetAS (RFC 6793), RouteRefresh (RFC 2918), EnhancedRefresh (RFC 7313)
	// and ExtendedMessage (RFC 8654) tell which capabilities are there.
	FourOctetAS, RouteRefresh, EnhancedRefresh, ExtendedMessage bool
	// GracefulRestart is nil when the capability is absent.
	GracefulRestart *GracefulRestart
	// LongLived lists the families of long-lived graceful restart (RFC 9494).
	LongLived []LongLived
	// NextHops lists what next hops may be of another family (RFC 8950).
	NextHops []ExtendedNextHop
	// Hostname is "host" or "host.domain" of the FQDN capability (73), "" without.
	Hostname string
}

// GracefulRestart is the capability of RFC 4724 §3, with the flag of RFC 8538 §2.
type GracefulRestart struct {
	// Restarting: the speaker has restarted. Notification: it keeps routes also
	// when the session ends with a NOTIFICATION.
	Restarting, Notification bool
	Time                     uint16 // seconds, 12 bits
	Families                 []ForwardingState
}

// ForwardingState tells whether forwarding state of a family was preserved
// across a restart (RFC 4724 §3).
type ForwardingState struct {
	Family    Family
	Preserved bool
}

// LongLived is one family of the capability of RFC 9494 §3.1.
type LongLived struct {
	Family    Family
	Preserved bool
	Time      uint32 // seconds that stale routes are kept, 24 bits
}

// ExtendedNextHop says that routes of a family may have next hops of another
// address family (RFC 8950 §4).
type ExtendedNextHop struct {
	Family Family
	AFI    uint16 // of the next hop
}

// Message returns the whole OPEN message. Parameters of more than 255 octets
// take the extended form (RFC 9072). The error names the member that has no form
// on the wire, and what is allowed.
func (o Open) Message() ([]byte, error) {
	if !o.RouterID.Is4() {
		return nil, fmt.Errorf("BGP identifier %s: want an IPv4 address", o.RouterID)
	}
	caps, err := o.appendCapabilities(nil)
	if err != nil {
		return nil, err
	}
	params := appendParameters(nil, caps)
	if total := minOpenLen + len(params) - 1; total > MaxMessage {
		return nil, fmt.Errorf("OPEN of %d octets: want at most %d", total, MaxMessage)
	}
	as := uint16(asTrans)
	if o.AS <= 65535 {
		as = uint16(o.AS)
	}
	b := AppendHeader(nil, MsgOpen, minOpenLen-HeaderLen-1+len(params))
	b = append(b, bgpVersion)
	b = binary.BigEndian.AppendUint16(b, as)
	b = binary.BigEndian.AppendUint16(b, o.HoldTime)
	b = append(b, o.RouterID.AsSlice()...)
	return append(b, params...), nil
}

// appendParameters appends the length octet and the optional parameters: one
// that holds all capabilities, or none.
func appendParameters(b, caps []byte) []byte {
	if len(caps) == 0 {
		return append(b, 0)
	}
	if len(caps)+2 <= 255 {
		b = append(b, byte(len(caps)+2), paramCapabilities, byte(len(caps)))
		return append(b, caps...)
	}
	b = append(b, 255, paramExtended)
	b = binary.BigEndian.AppendUint16(b, uint16(len(caps)+3))
	b = append(b, paramCapabilities)
	b = binary.BigEndian.AppendUint16(b, uint16(len(caps)))
	return append(b, caps...)
}

const bgpVersion = 4

// ParseOpen reads the body of an OPEN message. Values that RFC 4271 §6.2
// forbids are errors; whether the AS is the expected one is for the caller.
//
// Capabilities may come in several parameters, and repeatedly: families and
// next hops add up, of others the last counts (RFC 5492 §4, RFC 4724 §3).
// Unknown ones are ignored (RFC 5492 §3). A malformed one that decides how
// UPDATEs are read, multiprotocol or four-octet AS, is an error; any other
// counts as absent.
func ParseOpen(body []byte) (Open, *Error) {
	if len(body) < minOpenLen-HeaderLen {
		return Open{}, newError(SessionReset, CodeHeader, 2, nil, "OPEN body of %d octets: want at least %d", len(body), minOpenLen-HeaderLen)
	}
	if body[0] != bgpVersion {
		return Open{}, newError(SessionReset, CodeOpen, OpenBadVersion, []byte{0, bgpVersion}, "BGP version %d: want %d", body[0], bgpVersion)
	}
	o := Open{
		AS: uint32(binary.BigEndian.Uint16(body[1:])), HoldTime: binary.BigEndian.Uint16(body[3:]),
		RouterID: netip.AddrFrom4([4]byte(body[5:9])),
	}
	if err := o.parseParameters(body[9:]); err != nil {
		return Open{}, err
	}
	if o.GracefulRestart == nil { // RFC 9494 §3.1: of no meaning without
		o.LongLived = nil
	}
	switch {
	case o.HoldTime == 1 || o.HoldTime == 2:
		return o, newError(SessionReset, CodeOpen, OpenBadHoldTime, binary.BigEndian.AppendUint16(nil, o.HoldTime), "hold time %d s: want 0 or at least 3", o.HoldTime)
	case o.RouterID.IsUnspecified():
		return o, newError(SessionReset, CodeOpen, OpenBadIdentifier, nil, "BGP identifier 0.0.0.0: want any other (RFC 6286 §2.1)")
	case o.AS == 0:
		return o, newError(SessionReset, CodeOpen, OpenBadPeerAS, nil, "AS number 0: want 1 to 4294967295 (RFC 7607 §2)")
	}
	return o, nil
}

// malformedOpen is an error without a subcode of its own (RFC 4271 §6.2).
func malformedOpen(format string, args ...any) *Error {
	return newError(SessionReset, CodeOpen, 0, nil, format, args...)
}

// parseParameters reads the length octet and the optional parameters, which
// must take the rest of the message.
func (o *Open) parseParameters(b []byte) *Error {
	length, size := int(b[0]), 1 // octets of a length
	b = b[1:]
	if length > 0 && len(b) > 0 && b[0] == paramExtended { // RFC 9072 §2: length has no meaning
		if len(b) < 3 {
			return malformedOpen("extended optional parameters cut off: %d octets, want at least 3", len(b))
		}
		length, size = int(binary.BigEndian.Uint16(b[1:])), 2
		b = b[3:]
	}
	if length != len(b) {
		return malformedOpen("optional parameters of %d octets, but %d in the message", length, len(b))
	}
	for len(b) > 0 {
		if len(b) < 1+size {
			return malformedOpen("optional parameter cut off in its header")
		}
		typ, length := b[0], int(b[1])
		if size == 2 {
			length = int(binary.BigEndian.Uint16(b[1:]))
		}
		b = b[1+size:]
		if length > len(b) {
			return malformedOpen("optional parameter %d of %d octets cut off: %d left", typ, length, len(b))
		}
		if typ != paramCapabilities {
			return newError(SessionReset, CodeOpen, OpenUnsupportedParam, nil, "optional parameter %d: want %d, capabilities", typ, paramCapabilities)
		}
		if err := o.parseCapabilities(b[:length]); err != nil {
			return err
		}
		b = b[length:]
	}
	return nil
}
