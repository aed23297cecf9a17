// SPDX-License-Identifier: Apache-2.0

package bfd

import "fmt"

// State is the state of one side of a session (RFC 5880 §4.1, field Sta).
type State uint8

// The four states, as they are on the wire.
const (
	AdminDown State = iota // closed by the operator
	Down                   // the other side is not heard
	Init                   // the other side is heard, and does not hear us yet
	Up                     // both sides hear each other
)

var stateNames = [...]string{"AdminDown", "Down", "Init", "Up"}

// String returns the state's name as in the RFC.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Diag tells why a side left its last state (RFC 5880 §4.1, field Diag).
type Diag uint8

// The diagnostic codes of RFC 5880 §4.1, and the one of RFC 6428 §3.1.
const (
	NoDiagnostic Diag = iota
	DetectionTimeExpired
	EchoFailed
	NeighborSignaledDown
	ForwardingPlaneReset
	PathDown
	ConcatenatedPathDown
	AdministrativelyDown
	ReverseConcatenatedPathDown
	MisConnectivity
)

var diagNames = [...]string{
	"no diagnostic", "control detection time expired", "echo function failed", "neighbor signaled session down",
	"forwarding plane reset", "path down", "concatenated path down", "administratively down",
	"reverse concatenated path down", "mis-connectivity defect",
}

// String returns the code's meaning, or its number when it has none.
func (d Diag) String() string {
	if int(d) < len(diagNames) {
		return diagNames[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// respond is the state machine (RFC 5880 §6.2, §6.8.6): the state and the
// diagnostic that a side in state local has once it hears that the other side
// is in state remote.
func respond(local State, diag Diag, remote State) (State, Diag) {
	switch {
	case local == AdminDown:
	case remote == AdminDown && local != Down:
		return Down, NeighborSignaledDown
	case local == Down && remote == Down:
		return Init, diag
	case local == Down && remote == Init, local == Init && remote >= Init:
		return Up, NoDiagnostic
	case local == Up && remote == Down:
		return Down, NeighborSignaledDown
	}
	return local, diag
}
