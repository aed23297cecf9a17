// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Class says what a session must do about an error (RFC 7606 §2), weakest
// first.
type Class uint8

// Error classes.
const (
	// AttributeDiscard: drop the attribute, keep the routes.
	AttributeDiscard Class = iota + 1
	// TreatAsWithdraw: handle the routes of the message as withdrawn.
	TreatAsWithdraw
	// DisableFamily: ignore the family for the rest of the session.
	DisableFamily
	// SessionReset: send a NOTIFICATION and close.
	SessionReset
)

// String returns the RFC's name of the class.
func (c Class) String() string {
	switch c {
	case AttributeDiscard:
		return "attribute discard"
	case TreatAsWithdraw:
		return "treat-as-withdraw"
	case DisableFamily:
		return "AFI/SAFI disable"
	case SessionReset:
		return "session reset"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// NOTIFICATION error codes (RFC 4271 §4.5, RFC 7313 §5).
const (
	CodeHeader  = 1
	CodeOpen    = 2
	CodeUpdate  = 3
	CodeHold    = 4
	CodeFSM     = 5
	CodeCease   = 6
	CodeRefresh = 7
)

// UPDATE message error subcodes (RFC 4271 §6.3).
const (
	updMalformedList   = 1
	updUnknownAttr     = 2 // well-known one
	updMissingAttr     = 3 // well-known one
	updAttrFlags       = 4
	updAttrLength      = 5
	updInvalidOrigin   = 6
	updOptionalAttr    = 9
	updMalformedASPath = 11
)

// Error is a fault in a received message.
type Error struct {
	Class         Class
	Code, Subcode uint8
	Data          []byte
	Text          string
	// Family is the one to ignore when the class is DisableFamily.
	Family Family
}

func newError(class Class, code, subcode uint8, data []byte, format string, args ...any) *Error {
	return &Error{Class: class, Code: code, Subcode: subcode, Data: data, Text: fmt.Sprintf(format, args...)}
}

// disable is an error in a multiprotocol attribute of f, whose routes cannot all
// be told (RFC 7606 §5.3, RFC 4760 §7).
func disable(f Family, format string, args ...any) *Error {
	err := newError(DisableFamily, CodeUpdate, updOptionalAttr, nil, format, args...)
	err.Family = f
	return err
}

// stronger returns the error with the stronger class, a when both are of the
// same (RFC 7606 §3 h). Either may be nil.
func stronger(a, b *Error) *Error {
	if a == nil || b != nil && b.Class > a.Class {
		return b
	}
	return a
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (%d/%d, %s)", e.Text, e.Code, e.Subcode, e.Class)
}

// Notification returns what to send when the session ends with the error.
func (e *Error) Notification() Notification {
	return Notification{e.Code, e.Subcode, e.Data}
}
