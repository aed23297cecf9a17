// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// outcome is a step in a form that is easy to write and to compare.
type outcome struct {
	State   State
	Actions string // names, separated by "; "
	Note    string // NOTIFICATION as code/subcode
}

const (
	nothing   = ""
	sendsOpen = "stop retry timer; send OPEN; start large hold timer"
	gaveUp    = "stop retry timer; close; back off"
	lost      = "close; back off"
	notified  = "send NOTIFICATION; close; back off"
	downLost  = "close; down; back off"
	downNoted = "send NOTIFICATION; close; down; back off"
	// given stands for the NOTIFICATION that came with the event.
	given = "3/1"
)

// transitions is RFC 4271 §8.2.2 for a peer that is dialled, with these
// deliberate differences: a failed dial leads to Active with the retry timer
// running instead of Idle with the oscillation damping of §8.1, which is the
// same pause; timers that a state does not run are ignored when they expire
// instead of being an FSM error, so that a late tick does not hurt; and a
// NOTIFICATION is never answered with another one.
var transitions = []struct {
	state State
	ev    event
	want  outcome
}{
	{Idle, evStart, outcome{Connect, "dial", ""}},
	{Idle, evStop, outcome{Idle, nothing, ""}},
	{Idle, evRetry, outcome{Idle, nothing, ""}},
	{Idle, evConnected, outcome{Idle, nothing, ""}},
	{Idle, evConnectFailed, outcome{Idle, nothing, ""}},
	{Idle, evClosed, outcome{Idle, nothing, ""}},
	{Idle, evHold, outcome{Idle, nothing, ""}},
	{Idle, evKeepaliveTimer, outcome{Idle, nothing, ""}},
	{Idle, evOpen, outcome{Idle, nothing, ""}},
	{Idle, evKeepalive, outcome{Idle, nothing, ""}},
	{Idle, evUpdate, outcome{Idle, nothing, ""}},
	{Idle, evNotification, outcome{Idle, nothing, ""}},
	{Idle, evBadMessage, outcome{Idle, nothing, ""}},
	{Idle, evCollision, outcome{Idle, nothing, ""}},

	{Connect, evStart, outcome{Connect, nothing, ""}},
	{Connect, evStop, outcome{Idle, "stop retry timer; close", ""}},
	{Connect, evRetry, outcome{Connect, "close; dial", ""}},
	{Connect, evConnected, outcome{OpenSent, sendsOpen, ""}},
	{Connect, evConnectFailed, outcome{Active, "start retry timer", ""}},
	{Connect, evClosed, outcome{Idle, gaveUp, ""}},
	{Connect, evHold, outcome{Idle, gaveUp, ""}},
	{Connect, evKeepaliveTimer, outcome{Connect, nothing, ""}},
	{Connect, evOpen, outcome{Idle, gaveUp, ""}},
	{Connect, evKeepalive, outcome{Idle, gaveUp, ""}},
	{Connect, evUpdate, outcome{Idle, gaveUp, ""}},
	{Connect, evNotification, outcome{Idle, gaveUp, ""}},
	{Connect, evBadMessage, outcome{Idle, gaveUp, ""}},
	{Connect, evCollision, outcome{Idle, gaveUp, ""}},

	{Active, evStart, outcome{Active, nothing, ""}},
	{Active, evStop, outcome{Idle, "stop retry timer; close", ""}},
	{Active, evRetry, outcome{Connect, "close; dial", ""}},
	{Active, evConnected, outcome{OpenSent, sendsOpen, ""}},
	{Active, evConnectFailed, outcome{Active, "start retry timer", ""}},
	{Active, evClosed, outcome{Idle, gaveUp, ""}},
	{Active, evHold, outcome{Idle, gaveUp, ""}},
	{Active, evKeepaliveTimer, outcome{Active, nothing, ""}},
	{Active, evOpen, outcome{Idle, gaveUp, ""}},
	{Active, evKeepalive, outcome{Idle, gaveUp, ""}},
	{Active, evUpdate, outcome{Idle, gaveUp, ""}},
	{Active, evNotification, outcome{Idle, gaveUp, ""}},
	{Active, evBadMessage, outcome{Idle, gaveUp, ""}},
	{Active, evCollision, outcome{Idle, gaveUp, ""}},

	{OpenSent, evStart, outcome{OpenSent, nothing, ""}},
	{OpenSent, evStop, outcome{Idle, "send NOTIFICATION; close", given}},
	{OpenSent, evRetry, outcome{OpenSent, nothing, ""}},
	{OpenSent, evConnected, outcome{OpenSent, nothing, ""}},
	{OpenSent, evConnectFailed, outcome{OpenSent, nothing, ""}},
	{OpenSent, evClosed, outcome{Active, "close; start retry timer", ""}},
	{OpenSent, evHold, outcome{Idle, notified, "4/0"}},
	{OpenSent, evKeepaliveTimer, outcome{OpenSent, nothing, ""}},
	{OpenSent, evOpen, outcome{OpenConfirm, "send KEEPALIVE; start negotiated timers", ""}},
	{OpenSent, evKeepalive, outcome{Idle, notified, "5/1"}},
	{OpenSent, evUpdate, outcome{Idle, notified, "5/1"}},
	{OpenSent, evNotification, outcome{Idle, lost, ""}},
	{OpenSent, evBadMessage, outcome{Idle, notified, given}},
	{OpenSent, evCollision, outcome{Idle, notified, "6/7"}},

	{OpenConfirm, evStart, outcome{OpenConfirm, nothing, ""}},
	{OpenConfirm, evStop, outcome{Idle, "send NOTIFICATION; close", given}},
	{OpenConfirm, evRetry, outcome{OpenConfirm, nothing, ""}},
	{OpenConfirm, evConnected, outcome{OpenConfirm, nothing, ""}},
	{OpenConfirm, evConnectFailed, outcome{OpenConfirm, nothing, ""}},
	{OpenConfirm, evClosed, outcome{Idle, lost, ""}},
	{OpenConfirm, evHold, outcome{Idle, notified, "4/0"}},
	{OpenConfirm, evKeepaliveTimer, outcome{OpenConfirm, "send KEEPALIVE", ""}},
	{OpenConfirm, evOpen, outcome{Idle, notified, "5/2"}},
	{OpenConfirm, evKeepalive, outcome{Established, "restart hold timer; up", ""}},
	{OpenConfirm, evUpdate, outcome{Idle, notified, "5/2"}},
	{OpenConfirm, evNotification, outcome{Idle, lost, ""}},
	{OpenConfirm, evBadMessage, outcome{Idle, notified, given}},
	{OpenConfirm, evCollision, outcome{Idle, notified, "6/7"}},

	{Established, evStart, outcome{Established, nothing, ""}},
	{Established, evStop, outcome{Idle, "send NOTIFICATION; close; down", given}},
	{Established, evRetry, outcome{Established, nothing, ""}},
	{Established, evConnected, outcome{Established, nothing, ""}},
	{Established, evConnectFailed, outcome{Established, nothing, ""}},
	{Established, evClosed, outcome{Idle, downLost, ""}},
	{Established, evHold, outcome{Idle, downNoted, "4/0"}},
	{Established, evKeepaliveTimer, outcome{Established, "send KEEPALIVE", ""}},
	{Established, evOpen, outcome{Idle, downNoted, "5/3"}},
	{Established, evKeepalive, outcome{Established, "restart hold timer", ""}},
	{Established, evUpdate, outcome{Established, "restart hold timer", ""}},
	{Established, evNotification, outcome{Idle, downLost, ""}},
	{Established, evBadMessage, outcome{Idle, downNoted, given}},
	{Established, evCollision, outcome{Idle, downNoted, "6/7"}},
}

// passiveTransitions are those that differ for a peer that is not dialled.
var passiveTransitions = map[State]map[event]outcome{
	Idle:    {evStart: {Active, nothing, ""}},
	Connect: {evRetry: {Connect, nothing, ""}}, // a state it never is in
	Active:  {evRetry: {Active, nothing, ""}},
}

func stepOf(m *machine, ev event) outcome {
	st := m.on(ev, wire.Notification{Code: wire.CodeUpdate, Subcode: 1})
	var names []string
	for _, a := range st.actions {
		names = append(names, a.String())
	}
	o := outcome{State: m.state, Actions: strings.Join(names, "; ")}
	if st.notification.Code != 0 {
		o.Note, _, _ = strings.Cut(st.notification.String(), " ")
	}
	return o
}

func TestMachine(t *testing.T) {
	t.Parallel()
	if got, want := len(transitions), 6*len(eventNames); got != want {
		t.Fatalf("the table has %d pairs: want %d", got, want)
	}
	seen := map[[2]int]bool{}
	for _, tt := range transitions {
		seen[[2]int{int(tt.state), int(tt.ev)}] = true
		t.Run(tt.state.String()+"/"+tt.ev.String(), func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, stepOf(&machine{state: tt.state}, tt.ev)); diff != "" {
				t.Errorf("active (-want +got):\n%s", diff)
			}
			want, differs := passiveTransitions[tt.state][tt.ev]
			if !differs {
				want = tt.want
			}
			if diff := cmp.Diff(want, stepOf(&machine{state: tt.state, passive: true}, tt.ev)); diff != "" {
				t.Errorf("passive (-want +got):\n%s", diff)
			}
		})
	}
	if len(seen) != len(transitions) {
		t.Errorf("%d of %d pairs are different", len(seen), len(transitions))
	}
}

// A session must not be lost without its routes going, and every way out of a
// connection must close it.
func TestMachineLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, tt := range transitions {
		acts := tt.want.Actions
		if up, down := tt.state == Established, strings.Contains(acts, "down"); down != (up && tt.want.State != Established) {
			t.Errorf("%s, %s: down is %t", tt.state, tt.ev, down)
		}
		if tt.state >= OpenSent && tt.want.State < OpenSent && !strings.Contains(acts, "close") {
			t.Errorf("%s, %s: the connection stays open", tt.state, tt.ev)
		}
		if strings.Contains(acts, "NOTIFICATION") != (tt.want.Note != "") {
			t.Errorf("%s, %s: NOTIFICATION %q with actions %q", tt.state, tt.ev, tt.want.Note, acts)
		}
	}
}

func TestCollisionLoser(t *testing.T) {
	t.Parallel()
	open := func(id string, as uint32) wire.Open { return wire.Open{RouterID: netip.MustParseAddr(id), AS: as} }
	for _, tt := range []struct {
		name          string
		local, remote wire.Open
		want          bool // ours goes
	}{
		{"our identifier is lower", open("192.0.2.1", 64500), open("192.0.2.2", 64500), true},
		{"our identifier is higher", open("192.0.2.2", 64500), open("192.0.2.1", 64500), false},
		{"compared as numbers, not as text", open("9.255.255.255", 64500), open("10.0.0.0", 64500), true},
		{"compared in network byte order", open("1.0.0.2", 64500), open("2.0.0.1", 64500), true},
		{"equal identifiers: our AS is lower", open("192.0.2.1", 64500), open("192.0.2.1", 64501), true},
		{"equal identifiers: our AS is higher", open("192.0.2.1", 4200000000), open("192.0.2.1", 64501), false},
		{"the AS does not count before the identifier", open("192.0.2.1", 64501), open("192.0.2.2", 64500), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := collisionLoser(tt.local, tt.remote); got != tt.want {
				t.Errorf("ours goes: %t, want %t", got, tt.want)
			}
		})
	}
}
