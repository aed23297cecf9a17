// SPDX-License-Identifier: Apache-2.0

package openflow

import "fmt"

// Error is what the switch says about a message that it does not take.
type Error struct {
	Type, Code uint16
	// XID is that of the message.
	XID uint32
}

var errorTypes = map[uint16]string{
	0: "hello failed", 1: "bad request", 2: "bad action", 3: "bad instruction", 4: "bad match", 5: "flow-mod failed",
	6: "group-mod failed", 13: "bad property", 17: "bundle failed", 0xffff: "vendor error",
}

// errorCodes are the ones that an operator may meet, by type and code.
var errorCodes = map[[2]uint16]string{
	{0, 0}: "no common version", {1, 9}: "bad table", {1, 5}: "not permitted",
	{2, 0}: "unknown action type", {2, 4}: "no such port", {2, 5}: "bad argument", {2, 9}: "no such group",
	{2, 13}: "value of field not valid", {2, 10}: "not possible with this match",
	{4, 6}: "field not known", {4, 9}: "a field that it needs is missing", {4, 10}: "two values for a field",
	{5, 1}: "table full", {5, 2}: "no such table", {5, 3}: "overlaps another flow", {5, 4}: "not permitted",
	{6, 0}: "group exists", {6, 3}: "too many groups", {6, 4}: "too many buckets", {6, 8}: "no such group", {6, 2}: "weights not possible",
	{17, 4}: "bundle is closed", {17, 8}: "a message of it failed",
}

// Error implements error, e.g. "switch refuses it: bad action (2), no such port (4)".
func (e *Error) Error() string {
	typ, ok := errorTypes[e.Type]
	if !ok {
		typ = "error"
	}
	s := fmt.Sprintf("switch refuses it: %s (%d), ", typ, e.Type)
	if code, ok := errorCodes[[2]uint16{e.Type, e.Code}]; ok {
		return s + fmt.Sprintf("%s (%d)", code, e.Code)
	}
	return s + fmt.Sprintf("code %d", e.Code)
}
