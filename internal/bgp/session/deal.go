// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// ErrRestarting is the cause of a context with which Run ends such that peers
// with graceful restart keep our routes: forwarding goes on without us, and we
// will be back.
var ErrRestarting = errors.New("restarting")

// Causes of a context with which Run ends such that peers are told why by the
// subcode of the Cease (RFC 4486 §4).
var (
	ErrDeconfigured = errors.New("the neighbour is not configured any more")
	ErrReconfigured = errors.New("the neighbour is configured otherwise")
)

// farewell is what peers are told when Run ends.
func farewell(cause error) wire.Notification {
	switch {
	case errors.Is(cause, ErrDeconfigured):
		return wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseDeconfigured}
	case errors.Is(cause, ErrReconfigured):
		return wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseOtherChange}
	case cause == nil || errors.Is(cause, context.Canceled):
		return wire.Shutdown(wire.CeaseAdminShutdown, "")
	}
	return wire.Shutdown(wire.CeaseAdminShutdown, cause.Error())
}

// Negotiated is what both sides of a session agreed on.
type Negotiated struct {
	Local, Peer               netip.Addr
	LocalPort, PeerPort       uint16 // TCP
	PeerAS                    uint32
	PeerID                    netip.Addr
	HoldTime                  time.Duration // 0: no keepalives
	Families                  []wire.Family // in our order
	FourOctetAS, RouteRefresh bool
	ExtendedMessage           bool
	// Ours and Theirs are the OPENs, SentOpen and ReceivedOpen the messages.
	Ours, Theirs           wire.Open
	SentOpen, ReceivedOpen []byte
}

// MaxMessage returns the longest message allowed on the session, in octets.
func (n Negotiated) MaxMessage() int {
	if n.ExtendedMessage {
		return wire.MaxExtMessage
	}
	return wire.MaxMessage
}

// External tells whether the peer is in another AS.
func (n Negotiated) External() bool { return n.Ours.AS != n.Theirs.AS }

// EnhancedRefresh tells whether both sides mark begin and end of a refresh (RFC 7313).
func (n Negotiated) EnhancedRefresh() bool { return n.Ours.EnhancedRefresh && n.Theirs.EnhancedRefresh }

// GracefulRestart tells whether both sides have it (RFC 4724).
func (n Negotiated) GracefulRestart() bool {
	return n.Ours.GracefulRestart != nil && n.Theirs.GracefulRestart != nil
}

// keepsAfterNotification tells whether routes survive a NOTIFICATION (RFC 8538 §2).
func (n Negotiated) keepsAfterNotification() bool {
	return n.GracefulRestart() && n.Ours.GracefulRestart.Notification && n.Theirs.GracefulRestart.Notification
}

// KeepsOurs tells whether the peer keeps routes of ours when we restart.
func (n Negotiated) KeepsOurs() bool {
	return n.GracefulRestart() && len(n.Ours.GracefulRestart.Families) > 0
}

// Restartable returns the families of the session whose routes we keep when the
// peer restarts (RFC 4724 §4.2).
func (n Negotiated) Restartable() []wire.Family {
	if !n.GracefulRestart() {
		return nil
	}
	var out []wire.Family
	for _, s := range n.Theirs.GracefulRestart.Families {
		if slices.Contains(n.Families, s.Family) {
			out = append(out, s.Family)
		}
	}
	return out
}

// Preserved tells whether the peer says that it kept forwarding for a family
// while it restarted (RFC 4724 §3, RFC 9494 §3.1).
func (n Negotiated) Preserved(f wire.Family) bool {
	if !n.GracefulRestart() {
		return false
	}
	return slices.Contains(n.Theirs.GracefulRestart.Families, wire.ForwardingState{Family: f, Preserved: true}) ||
		slices.ContainsFunc(n.Theirs.LongLived, func(l wire.LongLived) bool { return l.Family == f && l.Preserved })
}

// TakesNextHop tells whether the peer takes next hops of the address family afi
// for routes of f (RFC 8950 §4).
func (n Negotiated) TakesNextHop(f wire.Family, afi uint16) bool {
	return slices.Contains(n.Theirs.NextHops, wire.ExtendedNextHop{Family: f, AFI: afi})
}

// Loss tells how a session ended.
type Loss struct {
	// Graceful is set when the peer's routes may be kept for a while, because it
	// may be restarting (RFC 4724 §4.2, RFC 8538 §4).
	Graceful bool
	// Sent or Received is the NOTIFICATION that ended the session, if one did.
	Sent, Received *wire.Notification
	// At is when it ended.
	At time.Time
	// FSMEvent is the event (RFC 4271 §8.1) that did, if there was no NOTIFICATION.
	FSMEvent uint16
}

// Events of RFC 4271 §8.1 that end a session without a NOTIFICATION.
const (
	fsmManualStop        = 2
	fsmTCPConnectionFail = 18
)

// lossOf tells how the session on t ended.
func (t *track) lossOf(i incident, st step) Loss {
	l := Loss{Graceful: t.deal.GracefulRestart(), At: time.Now()}
	n := i.bad
	switch {
	case i.ev == evNotification:
		l.Received = &n
	case slices.Contains(st.actions, actNotify) && st.notification.Code != 0:
		n = st.notification
		l.Sent = &n
	case i.ev == evStop:
		l.FSMEvent = fsmManualStop
		return l
	default:
		l.FSMEvent = fsmTCPConnectionFail
		return l
	}
	_, hard := n.Hard()
	l.Graceful = l.Graceful && (i.keep || t.deal.keepsAfterNotification() && !hard)
	return l
}

// final makes a NOTIFICATION one after which the peer keeps no routes.
func (t *track) final(n wire.Notification) wire.Notification {
	if t.m.state == Established && t.deal.keepsAfterNotification() {
		return wire.HardReset(n)
	}
	return n
}
