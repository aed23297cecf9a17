// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Capability codes (IANA "Capability Codes").
const (
	capMultiprotocol   = 1
	capRouteRefresh    = 2
	capExtendedNextHop = 5
	capExtendedMessage = 6
	capGracefulRestart = 64
	capFourOctetAS     = 65
	capEnhancedRefresh = 70
	capLongLived       = 71
	capFQDN            = 73
)

// Flags of graceful restart (RFC 4724 §3, RFC 8538 §2) and of its families, the
// latter also in long-lived graceful restart (RFC 9494 §3.1).
const (
	restartRestarting   = 0x8
	restartNotification = 0x4
	statePreserved      = 0x80
)

// Largest values that fit the fields.
const (
	maxRestartTime   = 1<<12 - 1
	maxLongLivedTime = 1<<24 - 1
	maxCapability    = 255
)

// parseCapabilities reads the value of one capabilities parameter (RFC 5492 §4).
func (o *Open) parseCapabilities(b []byte) *Error {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return malformedOpen("capability %d cut off: %d octets left", b[0], len(b))
		}
		code, value := b[0], b[2:2+int(b[1])]
		if err := o.addCapability(code, value); err != nil {
			return err
		}
		b = b[2+len(value):]
	}
	return nil
}

func (o *Open) addCapability(code byte, v []byte) *Error {
	switch code {
	case capMultiprotocol: // RFC 4760 §8
		if len(v) != 4 {
			return malformedOpen("multiprotocol capability of %d octets: want 4", len(v))
		}
		if f := (Family{binary.BigEndian.Uint16(v), v[3]}); !slices.Contains(o.Families, f) {
			o.Families = append(o.Families, f)
		}
	case capFourOctetAS: // RFC 6793 §3
		if len(v) != 4 {
			return malformedOpen("four-octet AS capability of %d octets: want 4", len(v))
		}
		o.FourOctetAS, o.AS = true, binary.BigEndian.Uint32(v)
	case capRouteRefresh:
		o.RouteRefresh = true
	case capEnhancedRefresh:
		o.EnhancedRefresh = true
	case capExtendedMessage:
		o.ExtendedMessage = true
	case capGracefulRestart:
		o.addGracefulRestart(v)
	case capLongLived:
		o.addLongLived(v)
	case capExtendedNextHop:
		o.addNextHops(v)
	case capFQDN:
		o.addHostname(v)
	}
	return nil
}

// addGracefulRestart reads <flags, time> and <AFI, SAFI, flags> of each family
// (RFC 4724 §3).
func (o *Open) addGracefulRestart(v []byte) {
	if len(v) < 2 || len(v)%4 != 2 {
		return
	}
	head := binary.BigEndian.Uint16(v)
	g := &GracefulRestart{
		Restarting: head>>12&restartRestarting != 0, Notification: head>>12&restartNotification != 0, Time: head & maxRestartTime,
	}
	for v = v[2:]; len(v) > 0; v = v[4:] {
		g.Families = append(g.Families, ForwardingState{Family{binary.BigEndian.Uint16(v), v[2]}, v[3]&statePreserved != 0})
	}
	o.GracefulRestart = g
}

// addLongLived reads <AFI, SAFI, flags, time> of each family (RFC 9494 §3.1).
func (o *Open) addLongLived(v []byte) {
	if len(v)%7 != 0 {
		return
	}
	o.LongLived = []LongLived{}
	for ; len(v) > 0; v = v[7:] {
		o.LongLived = append(o.LongLived, LongLived{Family{binary.BigEndian.Uint16(v), v[2]}, v[3]&statePreserved != 0, uint24(v[4:])})
	}
}

// addNextHops reads <AFI, 16-bit SAFI, next hop AFI> triples (RFC 8950 §4).
func (o *Open) addNextHops(v []byte) {
	if len(v)%6 != 0 {
		return
	}
	for ; len(v) > 0; v = v[6:] {
		safi := binary.BigEndian.Uint16(v[2:])
		n := ExtendedNextHop{Family{binary.BigEndian.Uint16(v), uint8(safi)}, binary.BigEndian.Uint16(v[4:])}
		if safi <= 255 && !slices.Contains(o.NextHops, n) {
			o.NextHops = append(o.NextHops, n)
		}
	}
}

// addHostname reads <length, host, length, domain>. The text is for people:
// one that is not printable UTF-8 is left out.
func (o *Open) addHostname(v []byte) {
	host, v, ok := cutText(v)
	if !ok {
		return
	}
	domain, v, ok := cutText(v)
	if !ok || len(v) != 0 || host == "" {
		return
	}
	o.Hostname = host
	if domain != "" {
		o.Hostname += "." + domain
	}
}

// cutText splits a text with a length octet before it off b.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	text, rest = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	return text, rest, utf8.ValidString(text) && !strings.ContainsFunc(text, unprintable)
}

// appendCapabilities appends all capabilities of o.
func (o Open) appendCapabilities(b []byte) ([]byte, error) {
	for _, f := range o.Families {
		b = append(b, capMultiprotocol, 4)
		b = binary.BigEndian.AppendUint16(b, f.AFI)
		b = append(b, 0, f.SAFI)
	}
	if o.RouteRefresh {
		b = append(b, capRouteRefresh, 0)
	}
	if o.EnhancedRefresh {
		b = append(b, capEnhancedRefresh, 0)
	}
	if o.ExtendedMessage {
		b = append(b, capExtendedMessage, 0)
	}
	if o.FourOctetAS {
		b = append(b, capFourOctetAS, 4)
		b = binary.BigEndian.AppendUint32(b, o.AS)
	}
	for _, value := range []func() (code byte, v []byte, err error){o.nextHops, o.gracefulRestart, o.longLived, o.hostname} {
		code, v, err := value()
		if err != nil {
			return nil, err
		}
		if len(v) > maxCapability {
			return nil, fmt.Errorf("capability %d of %d octets: want at most %d", code, len(v), maxCapability)
		}
		if v != nil {
			b = append(append(b, code, byte(len(v))), v...)
		}
	}
	return b, nil
}

func (o Open) nextHops() (byte, []byte, error) {
	var v []byte
	for _, n := range o.NextHops {
		v = binary.BigEndian.AppendUint16(v, n.Family.AFI)
		v = binary.BigEndian.AppendUint16(v, uint16(n.Family.SAFI))
		v = binary.BigEndian.AppendUint16(v, n.AFI)
	}
	return capExtendedNextHop, v, nil
}

func (o Open) gracefulRestart() (byte, []byte, error) {
	g := o.GracefulRestart
	if g == nil {
		return capGracefulRestart, nil, nil
	}
	if g.Time > maxRestartTime {
		return 0, nil, fmt.Errorf("graceful restart time %d s: want 0 to %d", g.Time, maxRestartTime)
	}
	head := g.Time
	if g.Restarting {
		head |= restartRestarting << 12
	}
	if g.Notification {
		head |= restartNotification << 12
	}
	v := binary.BigEndian.AppendUint16(nil, head)
	for _, s := range g.Families {
		v = binary.BigEndian.AppendUint16(v, s.Family.AFI)
		v = append(v, s.Family.SAFI, stateFlags(s.Preserved))
	}
	return capGracefulRestart, v, nil
}

func (o Open) longLived() (byte, []byte, error) {
	if o.LongLived == nil {
		return capLongLived, nil, nil
	}
	v := []byte{} // without families: we keep the peer's routes only
	for _, l := range o.LongLived {
		if l.Time > maxLongLivedTime {
			return 0, nil, fmt.Errorf("long-lived stale time %d s of %s: want 0 to %d", l.Time, l.Family, maxLongLivedTime)
		}
		v = binary.BigEndian.AppendUint16(v, l.Family.AFI)
		v = append(v, l.Family.SAFI, stateFlags(l.Preserved))
		v = appendUint24(v, l.Time)
	}
	return capLongLived, v, nil
}

func stateFlags(preserved bool) byte {
	if preserved {
		return statePreserved
	}
	return 0
}

// hostname splits the name at its first dot, if there is something on both sides.
func (o Open) hostname() (byte, []byte, error) {
	if o.Hostname == "" {
		return capFQDN, nil, nil
	}
	host, domain, _ := strings.Cut(o.Hostname, ".")
	if host == "" || domain == "" {
		host, domain = o.Hostname, ""
	}
	if len(host)+len(domain) > maxCapability-2 {
		return 0, nil, fmt.Errorf("host name of %d octets: want at most %d", len(o.Hostname), maxCapability-2)
	}
	v := append([]byte{byte(len(host))}, host...)
	v = append(v, byte(len(domain)))
	return capFQDN, append(v, domain...), nil
}
