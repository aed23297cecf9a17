// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Message sizes (RFC 4271 §4.1, RFC 8654).
const (
	HeaderLen      = 19
	MaxMessage     = 4096
	MaxExtMessage  = 65535
	minOpenLen     = HeaderLen + 10
	minUpdateLen   = HeaderLen + 4
	minNotifyLen   = HeaderLen + 2
	refreshLen     = HeaderLen + 4
	maxShutdownMsg = 255
)

// MsgType is the type octet of a message header.
type MsgType uint8

// Message types (RFC 4271 §4.1, RFC 2918).
const (
	MsgOpen MsgType = iota + 1
	MsgUpdate
	MsgNotification
	MsgKeepalive
	MsgRouteRefresh
)

// String returns the RFC's name of the message type.
func (t MsgType) String() string {
	switch t {
	case MsgOpen:
		return "OPEN"
	case MsgUpdate:
		return "UPDATE"
	case MsgNotification:
		return "NOTIFICATION"
	case MsgKeepalive:
		return "KEEPALIVE"
	case MsgRouteRefresh:
		return "ROUTE-REFRESH"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

var marker = bytes.Repeat([]byte{0xff}, 16)

// ParseHeader reads a message header from the first HeaderLen octets of b and
// returns the type and the whole length. Errors are those of RFC 4271 §6.1.
// Max is MaxMessage, or MaxExtMessage on sessions with that capability; OPEN
// and KEEPALIVE never exceed MaxMessage (RFC 8654 §4).
func ParseHeader(b []byte, maxLen int) (MsgType, int, *Error) {
	length, typ := int(binary.BigEndian.Uint16(b[16:])), MsgType(b[18])
	if !bytes.Equal(b[:16], marker) {
		return 0, 0, newError(SessionReset, CodeHeader, 1, nil, "marker is not all ones")
	}
	if typ < MsgOpen || typ > MsgRouteRefresh {
		return 0, 0, newError(SessionReset, CodeHeader, 3, b[18:19], "unknown message type %d", typ)
	}
	least, most := HeaderLen, maxLen
	switch typ {
	case MsgOpen:
		least, most = minOpenLen, MaxMessage
	case MsgUpdate:
		least = minUpdateLen
	case MsgNotification:
		least = minNotifyLen
	case MsgKeepalive:
		most = HeaderLen
	case MsgRouteRefresh:
		least = refreshLen
	}
	if length < least || length > most {
		return 0, 0, newError(SessionReset, CodeHeader, 2, b[16:18], "%s of length %d: want %d to %d", typ, length, least, most)
	}
	return typ, length, nil
}

// AppendHeader appends a header for a message with the given body length.
func AppendHeader(b []byte, typ MsgType, body int) []byte {
	b = append(b, marker...)
	b = binary.BigEndian.AppendUint16(b, uint16(HeaderLen+body))
	return append(b, byte(typ))
}

// Keepalive returns a KEEPALIVE message.
func Keepalive() []byte { return AppendHeader(nil, MsgKeepalive, 0) }

// ROUTE-REFRESH subtypes (RFC 7313 §3.2).
const (
	RefreshRequest = 0 // plain request (RFC 2918)
	RefreshBegin   = 1 // BoRR
	RefreshEnd     = 2 // EoRR
)

// RouteRefresh returns a ROUTE-REFRESH message for f (RFC 2918, RFC 7313).
func RouteRefresh(f Family, subtype uint8) []byte {
	return appendRefresh(nil, f, subtype)
}

func appendRefresh(b []byte, f Family, subtype uint8) []byte {
	b = AppendHeader(b, MsgRouteRefresh, 4)
	b = binary.BigEndian.AppendUint16(b, f.AFI)
	return append(b, subtype, f.SAFI)
}

// ParseRouteRefresh reads the body of a ROUTE-REFRESH message and returns the
// family and the subtype (RFC 7313; 0 is a plain request). The error carries the
// whole message (RFC 7313 §5).
func ParseRouteRefresh(body []byte) (Family, uint8, *Error) {
	if len(body) != 4 {
		return Family{}, 0, newError(SessionReset, CodeRefresh, 1, append(AppendHeader(nil, MsgRouteRefresh, len(body)), body...), "ROUTE-REFRESH body of %d octets: want 4", len(body))
	}
	return Family{binary.BigEndian.Uint16(body), body[3]}, body[2], nil
}

// Notification is the content of a NOTIFICATION message (RFC 4271 §4.5).
type Notification struct {
	Code, Subcode uint8
	Data          []byte
}

// Cease subcodes (RFC 4486, RFC 8538, RFC 9384) and OPEN subcodes (RFC 4271 §6.2).
const (
	CeaseMaxPrefixes     = 1
	CeaseAdminShutdown   = 2
	CeaseDeconfigured    = 3
	CeaseAdminReset      = 4
	CeaseRejected        = 5
	CeaseOtherChange     = 6
	CeaseCollision       = 7
	CeaseOutOfResources  = 8
	CeaseHardReset       = 9
	CeaseBFDDown         = 10
	OpenBadVersion       = 1
	OpenBadPeerAS        = 2
	OpenBadIdentifier    = 3
	OpenUnsupportedParam = 4
	OpenBadHoldTime      = 6
)

// Shutdown returns a Cease with a communication for the peer's operator (RFC
// 9003). Text beyond 255 octets is cut at a character boundary.
func Shutdown(subcode uint8, text string) Notification {
	for len(text) > maxShutdownMsg {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	n := Notification{Code: CodeCease, Subcode: subcode}
	if text != "" {
		n.Data = append([]byte{byte(len(text))}, text...)
	}
	return n
}

// MaxPrefixes returns the Cease for a peer that sent more than limit routes of
// a family (RFC 4486 §4).
func MaxPrefixes(f Family, limit uint32) Notification {
	data := append(binary.BigEndian.AppendUint16(nil, f.AFI), f.SAFI)
	return Notification{CodeCease, CeaseMaxPrefixes, binary.BigEndian.AppendUint32(data, limit)}
}

// HardReset encapsulates n in a Hard Reset (RFC 8538 §3.1): the peer must not
// keep our routes for a graceful restart.
func HardReset(n Notification) Notification {
	return Notification{CodeCease, CeaseHardReset, append([]byte{n.Code, n.Subcode}, n.Data...)}
}

// Hard tells whether n is a Hard Reset (RFC 8538 §3.1), and returns the
// notification inside. One without content, which the RFC does not foresee, is
// a Cease of subcode 0 inside.
func (n Notification) Hard() (inner Notification, ok bool) {
	if n.Code != CodeCease || n.Subcode != CeaseHardReset {
		return Notification{}, false
	}
	if len(n.Data) < 2 {
		return Notification{Code: CodeCease}, true
	}
	return Notification{n.Data[0], n.Data[1], n.Data[2:]}, true
}

// ParseNotification reads the body of a NOTIFICATION message.
func ParseNotification(body []byte) (Notification, *Error) {
	if len(body) < 2 {
		return Notification{}, newError(SessionReset, CodeHeader, 2, nil, "NOTIFICATION body of %d octets: want at least 2", len(body))
	}
	return Notification{body[0], body[1], append([]byte(nil), body[2:]...)}, nil
}

// Message returns the whole NOTIFICATION message; data that does not fit is cut.
func (n Notification) Message() []byte {
	data := n.Data[:min(len(n.Data), MaxMessage-minNotifyLen)]
	b := AppendHeader(nil, MsgNotification, 2+len(data))
	return append(append(b, n.Code, n.Subcode), data...)
}

// Communication returns the peer's shutdown communication (RFC 9003), also that
// inside of a hard reset, or "".
func (n Notification) Communication() string {
	if inner, ok := n.Hard(); ok {
		n = inner
	}
	if n.Code != CodeCease || (n.Subcode != CeaseAdminShutdown && n.Subcode != CeaseAdminReset) || len(n.Data) < 1 {
		return ""
	}
	l := int(n.Data[0])
	if l > len(n.Data)-1 || !utf8.Valid(n.Data[1:1+l]) {
		return ""
	}
	return string(n.Data[1 : 1+l])
}

var codeNames = map[uint8]string{
	CodeHeader: "message header error", CodeOpen: "OPEN message error", CodeUpdate: "UPDATE message error",
	CodeHold: "hold timer expired", CodeFSM: "finite state machine error", CodeCease: "cease", CodeRefresh: "ROUTE-REFRESH message error",
}

var ceaseNames = map[uint8]string{
	CeaseMaxPrefixes: "maximum number of prefixes reached", CeaseAdminShutdown: "administrative shutdown",
	CeaseDeconfigured: "peer de-configured", CeaseAdminReset: "administrative reset", CeaseRejected: "connection rejected",
	CeaseOtherChange: "other configuration change", CeaseCollision: "connection collision resolution",
	CeaseOutOfResources: "out of resources", CeaseHardReset: "hard reset", CeaseBFDDown: "BFD down",
}

// String returns code and subcode with their names, and the communication; of
// a hard reset also what is inside.
func (n Notification) String() string {
	if inner, ok := n.Hard(); ok {
		return n.title() + ": " + inner.plain()
	}
	return n.plain()
}

// plain is String without regard to a hard reset.
func (n Notification) plain() string {
	s := n.title()
	if text := n.Communication(); text != "" {
		s += fmt.Sprintf(": %q", text)
	}
	return s
}

// title returns code and subcode with their names.
func (n Notification) title() string {
	name := codeNames[n.Code]
	if n.Code == CodeCease && ceaseNames[n.Subcode] != "" {
		name += ", " + ceaseNames[n.Subcode]
	}
	return fmt.Sprintf("%d/%d (%s)", n.Code, n.Subcode, name)
}
