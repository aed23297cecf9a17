// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"encoding/binary"
	"time"
)

const (
	// packetLen is the length of a control packet without authentication.
	packetLen = 24
	// authLen is the least length of a control packet with authentication.
	authLen = packetLen + 2
	// maxPacketLen is what the length field can say.
	maxPacketLen = 255

	version = 1
)

// The bits of the second octet beside the state.
const (
	bitMultipoint = 1 << iota
	bitDemand
	bitAuth
	bitIndependent
	bitFinal
	bitPoll
)

// packet is a control packet (RFC 5880 §4.1). Times have microseconds on the
// wire, at most 2^32-1.
type packet struct {
	diag        Diag
	state       State
	poll, final bool
	independent bool // the sender's BFD does not share the fate of its control plane
	auth        bool // there is an authentication section; only ever received
	demand      bool
	mult        uint8
	mine, yours uint32 // discriminators of sender and receiver
	minTx       time.Duration
	minRx       time.Duration
	minEchoRx   time.Duration
}

// parse reads a control packet and checks what needs no session, in the order
// of RFC 5880 §6.8.6. The reason is notDropped when the packet is fine. What
// follows the length that the packet gives is ignored.
func parse(b []byte) (packet, Reason) {
	if len(b) < packetLen {
		return packet{}, BadLength
	}
	flags, length, least := b[1], int(b[3]), packetLen
	if flags&bitAuth != 0 {
		least = authLen
	}
	p := packet{
		diag: Diag(b[0] & 0x1f), state: State(flags >> 6), poll: flags&bitPoll != 0, final: flags&bitFinal != 0,
		independent: flags&bitIndependent != 0, auth: flags&bitAuth != 0, demand: flags&bitDemand != 0, mult: b[2],
		mine: binary.BigEndian.Uint32(b[4:]), yours: binary.BigEndian.Uint32(b[8:]),
		minTx: interval(b[12:]), minRx: interval(b[16:]), minEchoRx: interval(b[20:]),
	}
	switch {
	case b[0]>>5 != version:
		return p, BadVersion
	case length < least || length > len(b):
		return p, BadLength
	case p.mult == 0:
		return p, ZeroMultiplier
	case flags&bitMultipoint != 0:
		return p, Multipoint
	case p.mine == 0:
		return p, ZeroDiscriminator
	}
	return p, notDropped
}

// append writes the packet behind b, without authentication.
func (p packet) append(b []byte) []byte {
	flags := byte(p.state)<<6 | flag(p.poll, bitPoll) | flag(p.final, bitFinal) |
		flag(p.independent, bitIndependent) | flag(p.demand, bitDemand)
	b = append(b, version<<5|byte(p.diag)&0x1f, flags, p.mult, packetLen)
	b = binary.BigEndian.AppendUint32(b, p.mine)
	b = binary.BigEndian.AppendUint32(b, p.yours)
	for _, d := range [...]time.Duration{p.minTx, p.minRx, p.minEchoRx} {
		b = binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
	}
	return b
}

// interval reads a number of microseconds.
func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}
