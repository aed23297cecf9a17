// SPDX-License-Identifier: Apache-2.0

// Package openflow speaks OpenFlow 1.5 with an Open vSwitch bridge, over the
// unix socket BRIDGE.mgmt that every bridge has, without a process per change.
//
// Only version 1.5 is offered: the selection method of a group (dp_hash or
// hash) is a group property, which no earlier version carries, and one version
// has one encoding. An administrator who restricts Bridge.protocols must list
// OpenFlow15.
//
// Matches and action lists are kept as the octets that go on the wire, in one
// canonical order: they are small, comparable, and what a switch says that it
// has can be compared with what it was told. String gives them in the form of
// ovs-ofctl(8).
//
// Sources: OpenFlow Switch Specification 1.5.1; ovs-actions(7) and ovs-fields(7)
// for registers, resubmit, note and clone; the Netronome extension for the
// selection method.
package openflow

import "encoding/binary"

// Version is the protocol version on the wire.
const Version = 6

// Reserved port numbers.
const (
	PortInPort uint32 = 0xfffffff8
	PortLocal  uint32 = 0xfffffffe
	PortAny    uint32 = 0xffffffff
)

const (
	groupAny  uint32 = 0xffffffff
	everyOne  uint32 = 0xfffffffc // OFPG_ALL
	noBuffer  uint32 = 0xffffffff
	allTables uint8  = 0xff
)

// Message types.
const (
	typeHello            = 0
	typeError            = 1
	typeEchoRequest      = 2
	typeEchoReply        = 3
	typeFlowMod          = 14
	typeGroupMod         = 15
	typeMultipartRequest = 18
	typeMultipartReply   = 19
	typeBarrierRequest   = 20
	typeBarrierReply     = 21
	typeBundleControl    = 33
	typeBundleAdd        = 34
)

const headerLen = 8

// maxMessage is the longest message: its length is 16 bits.
const maxMessage = 65535

var be = binary.BigEndian

// header appends the start of a message; finish sets its length.
func header(b []byte, typ uint8, xid uint32) []byte {
	b = append(b, Version, typ, 0, 0)
	return be.AppendUint32(b, xid)
}

// finish sets the length of the message that begins at start. Conn.Exec does
// not send one that is too long.
func finish(b []byte, start int) []byte {
	be.PutUint16(b[start+2:], uint16(min(len(b)-start, maxMessage)))
	return b
}

// pad appends zeros until the octets from start on are a multiple of 8.
func pad(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

func padded(n int) int { return (n + 7) &^ 7 }
