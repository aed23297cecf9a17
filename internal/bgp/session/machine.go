// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"

// State is a state of the BGP finite state machine (RFC 4271 §8.2.2).
type State uint8

// The six states.
const (
	Idle State = iota
	Connect
	Active
	OpenSent
	OpenConfirm
	Established
)

// String returns the state's name as in the RFC and the looking glass.
func (s State) String() string {
	return [...]string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}[s]
}

// event is what can happen to a connection (RFC 4271 §8.1).
type event uint8

const (
	evStart          event = iota // start, or the idle back-off is over
	evStop                        // stop by the operator
	evRetry                       // ConnectRetryTimer expired
	evConnected                   // TCP connection made or accepted
	evConnectFailed               // TCP connection could not be made
	evClosed                      // TCP connection lost
	evHold                        // HoldTimer expired
	evKeepaliveTimer              // KeepaliveTimer expired
	evOpen                        // valid OPEN received
	evKeepalive                   // KEEPALIVE received
	evUpdate                      // UPDATE or ROUTE-REFRESH received
	evNotification                // NOTIFICATION received
	evBadMessage                  // message with an error received
	evCollision                   // connection lost the collision
)

var eventNames = [...]string{
	"start", "stop", "connect retry timer expired", "connected", "connect failed", "connection lost",
	"hold timer expired", "keepalive timer expired", "OPEN", "KEEPALIVE", "UPDATE", "NOTIFICATION", "bad message", "collision",
}

// String returns the event's name for logs and tests.
func (e event) String() string { return eventNames[e] }

// action is what the peer must do for a transition, in order.
type action uint8

const (
	actDial          action = iota // begin a TCP connection
	actClose                       // close the TCP connection
	actSendOpen                    // send OPEN
	actSendKeepalive               // send KEEPALIVE
	actNotify                      // send the NOTIFICATION of the step
	actStartRetry                  // start ConnectRetryTimer
	actStopRetry                   // stop ConnectRetryTimer
	actLargeHold                   // start HoldTimer with the large value of OpenSent
	actNegotiate                   // start HoldTimer and KeepaliveTimer with the negotiated values
	actRestartHold                 // restart HoldTimer
	actUp                          // session established
	actDown                        // session lost: routes go
	actBackOff                     // stay idle for a while, then start again
)

var actionNames = [...]string{
	"dial", "close", "send OPEN", "send KEEPALIVE", "send NOTIFICATION", "start retry timer", "stop retry timer",
	"start large hold timer", "start negotiated timers", "restart hold timer", "up", "down", "back off",
}

// String returns the action's name for tests.
func (a action) String() string { return actionNames[a] }

// machine is the FSM of one connection.
type machine struct {
	state   State
	passive bool // never dials
}

// step is the outcome of an event.
type step struct {
	actions []action
	// notification goes with actNotify.
	notification wire.Notification
}

// largeHoldSeconds is the hold time before OPEN is received (RFC 4271 §8.2.2).
const largeHoldSeconds = 240

// on handles an event. Bad is the error of evBadMessage and the notification
// of evStop. An event that means nothing in a state gives no action.
func (m *machine) on(ev event, bad wire.Notification) step {
	switch m.state {
	case Idle:
		return m.onIdle(ev)
	case Connect, Active:
		return m.onConnecting(ev)
	}
	return m.onConnected(ev, bad)
}

func (m *machine) to(s State, actions ...action) step {
	m.state = s
	return step{actions: actions}
}

func (m *machine) onIdle(ev event) step {
	switch {
	case ev == evStart && m.passive:
		return m.to(Active)
	case ev == evStart:
		return m.to(Connect, actDial)
	}
	return step{}
}

func (m *machine) onConnecting(ev event) step {
	switch ev {
	case evConnected:
		return m.to(OpenSent, actStopRetry, actSendOpen, actLargeHold)
	case evConnectFailed:
		return m.to(Active, actStartRetry)
	case evRetry:
		if m.passive {
			return step{}
		}
		return m.to(Connect, actClose, actDial)
	case evStop:
		return m.to(Idle, actStopRetry, actClose)
	case evStart, evKeepaliveTimer:
		return step{}
	}
	return m.to(Idle, actStopRetry, actClose, actBackOff)
}

// onConnected handles OpenSent, OpenConfirm and Established.
func (m *machine) onConnected(ev event, bad wire.Notification) step {
	switch ev {
	case evStart, evRetry, evConnected, evConnectFailed:
		return step{}
	case evStop:
		st := m.fail(bad)
		st.actions = st.actions[:len(st.actions)-1] // stay idle until started
		return st
	case evHold:
		return m.fail(wire.Notification{Code: wire.CodeHold})
	case evBadMessage:
		return m.fail(bad)
	case evCollision:
		return m.fail(wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision})
	case evNotification:
		return m.lost()
	case evClosed:
		if m.state == OpenSent {
			return m.to(Active, actClose, actStartRetry)
		}
		return m.lost()
	}
	switch {
	case m.state == OpenSent && ev == evOpen:
		return m.to(OpenConfirm, actSendKeepalive, actNegotiate)
	case m.state == OpenConfirm && ev == evKeepalive:
		return m.to(Established, actRestartHold, actUp)
	case m.state == Established && (ev == evKeepalive || ev == evUpdate):
		return step{actions: []action{actRestartHold}}
	case m.state != OpenSent && ev == evKeepaliveTimer:
		return step{actions: []action{actSendKeepalive}}
	case ev == evKeepaliveTimer:
		return step{}
	}
	// A message that does not belong here (RFC 6608 §3 gives a subcode per state).
	return m.fail(wire.Notification{Code: wire.CodeFSM, Subcode: uint8(m.state - OpenSent + 1)})
}

// fail ends the connection with a NOTIFICATION.
func (m *machine) fail(n wire.Notification) step {
	st := m.lost()
	st.actions = append([]action{actNotify}, st.actions...)
	st.notification = n
	return st
}

// lost ends the connection without a NOTIFICATION.
func (m *machine) lost() step {
	if m.state == Established {
		return m.to(Idle, actClose, actDown, actBackOff)
	}
	return m.to(Idle, actClose, actBackOff)
}

// collisionLoser tells which of two connections in OpenConfirm must go (RFC
// 4271 §6.8, RFC 6286 §2.3): the one initiated by the side with the lower BGP
// identifier, or AS number where the identifiers are equal. It returns true
// when that is the connection that we initiated.
func collisionLoser(local, remote wire.Open) (ours bool) {
	if c := local.RouterID.Compare(remote.RouterID); c != 0 {
		return c < 0
	}
	return local.AS < remote.AS
}
