// SPDX-License-Identifier: Apache-2.0

package bfd

import "testing"

// TestRespond is RFC 5880 §6.8.6 in full. A side in AdminDown heeds nothing.
func TestRespond(t *testing.T) {
	t.Parallel()
	const old = PathDown // the diagnostic of before
	for _, tt := range []struct {
		local, remote State
		want          State
		diag          Diag
	}{
		{AdminDown, AdminDown, AdminDown, old},
		{AdminDown, Down, AdminDown, old},
		{AdminDown, Init, AdminDown, old},
		{AdminDown, Up, AdminDown, old},

		{Down, AdminDown, Down, old},
		{Down, Down, Init, old},
		{Down, Init, Up, NoDiagnostic},
		{Down, Up, Down, old},

		{Init, AdminDown, Down, NeighborSignaledDown},
		{Init, Down, Init, old},
		{Init, Init, Up, NoDiagnostic},
		{Init, Up, Up, NoDiagnostic},

		{Up, AdminDown, Down, NeighborSignaledDown},
		{Up, Down, Down, NeighborSignaledDown},
		{Up, Init, Up, old},
		{Up, Up, Up, old},
	} {
		if s, d := respond(tt.local, old, tt.remote); s != tt.want || d != tt.diag {
			t.Errorf("%s hears %s: %s, %s: want %s, %s", tt.local, tt.remote, s, d, tt.want, tt.diag)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		AdminDown.String(): "AdminDown", Up.String(): "Up", State(9).String(): "state 9",
		NoDiagnostic.String(): "no diagnostic", MisConnectivity.String(): "mis-connectivity defect", Diag(31).String(): "diagnostic 31",
		BadLength.String(): "bad length", Panicked.String(): "panic", Reason(99).String(): "unknown reason",
	} {
		if got != want {
			t.Errorf("%q: want %q", got, want)
		}
	}
	for r := range reasons {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}
