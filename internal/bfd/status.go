// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Reason tells why a received packet was dropped. All but the last three are
// the rules of RFC 5880 §6.8.6 and RFC 5881 §5.
type Reason uint8

// The reasons.
const (
	notDropped        Reason = iota
	BadLength                // too short, or shorter than it says
	BadVersion               // not version 1
	ZeroMultiplier           // detection multiplier 0
	Multipoint               // multipoint bit
	ZeroDiscriminator        // sender's discriminator 0
	UnknownSession           // no session has the discriminator, or the address where there is none
	BadState                 // no discriminator of the receiver, although the sender is in Init or Up
	Authenticated            // authentication section, while we use none
	LowTTL                   // TTL or hop limit is too low, or not known
	QueueFull                // the session did not keep up
	Panicked                 // its handler, or that of a timer, panicked
	reasons
)

var reasonNames = [reasons]string{
	"not dropped", "bad length", "bad version", "zero multiplier", "multipoint", "zero discriminator", "unknown session",
	"bad state", "authenticated", "low TTL", "queue full", "panic",
}

// String returns the reason for people and for metrics.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown reason"
}

// drops counts dropped packets.
type drops [reasons]atomic.Uint64

func (d *drops) add(r Reason) { d[r].Add(1) }

// byReason returns all counters, also those that are 0.
func (d *drops) byReason() map[Reason]uint64 {
	m := make(map[Reason]uint64, reasons-1)
	for r := notDropped + 1; r < reasons; r++ {
		m[r] = d[r].Load()
	}
	return m
}

// Change is a transition of a session's state.
type Change struct {
	// Previous and State are ours; they differ.
	Previous, State State
	// RemoteState is the state that the other side told in the packet that made
	// the transition; Down when the transition is for want of packets.
	RemoteState State
	// Diag is our reason, RemoteDiag the one of the last packet.
	Diag, RemoteDiag Diag
	// ControlPlaneIndependent is the C bit of the last packet that the other side
	// sent in state Up: its BFD goes on when its control plane restarts (RFC 5882
	// §4.3.2).
	ControlPlaneIndependent bool
	// At is when it happened.
	At time.Time
}

// Status is a snapshot of a session for people and metrics.
type Status struct {
	Local, Remote netip.Addr
	Device        string // "" when the session is bound to none
	Multihop      bool

	State, RemoteState State
	// Diag is our reason for the last transition, RemoteDiag the other side's.
	Diag, RemoteDiag Diag
	// Since is when State was entered.
	Since time.Time
	// Up counts how often Up was entered, Flaps how often it was left, Close aside.
	Up, Flaps uint64

	// Discriminators; that of the other side is 0 when it is not heard.
	Discriminator, RemoteDiscriminator uint32
	// Multiplier is ours, RemoteMultiplier the last received, 0 before.
	Multiplier, RemoteMultiplier uint8
	// MinTx and MinRx are what we tell at the moment: MinTx is at least a second
	// unless State is Up (RFC 5880 §6.8.3).
	MinTx, MinRx time.Duration
	// RemoteMinTx and RemoteMinRx are what the other side told last.
	RemoteMinTx, RemoteMinRx time.Duration
	// TxInterval is the negotiated time between packets of ours before jitter, 0
	// while the other side wants none.
	TxInterval time.Duration
	// DetectionTime is how long the other side may be silent, 0 when it is not heard.
	DetectionTime time.Duration
	// RemoteIndependent and RemoteDemand are the C and D bits last received.
	RemoteIndependent, RemoteDemand bool
	// Polling is set while a Poll Sequence of ours is not answered.
	Polling bool

	// In and Out count packets that were accepted and sent, Dropped those that
	// were received from the other side and not accepted, by each reason there is.
	In, Out uint64
	Dropped map[Reason]uint64
	// SendErrors counts packets that could not be sent, LastSendError tells why the
	// last one could not; it is "" once one could.
	SendErrors    uint64
	LastSendError string
}
