// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// Causes of faults, values of the label "cause".
const (
	causeSessions    = "bgp_sessions"
	causeRestore     = "restore"
	causeState       = "state"
	causeDataplane   = "dataplane"
	causeDriver      = "dataplane_driver"
	causeDescriptors = "file_descriptors"
)

var causes = []string{causeSessions, causeRestore, causeState, causeDataplane, causeDriver, causeDescriptors}

// fault is something that keeps the node from doing its work.
type fault struct{ cause, name, reason string }

// shown returns faults as /readyz and the looking glass have them.
func shown(faults []fault) []object {
	out := []object{}
	for _, f := range faults {
		out = append(out, object{{"name", f.name}, {"reason", f.reason}})
	}
	return out
}

// ready answers 200 when the node does its work, else 503 with what is wrong.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	faults := s.notReady()
	code := http.StatusOK
	if len(faults) > 0 {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, object{{"ready", len(faults) == 0}, {"not_ready", shown(faults)}})
}

// notReady lists what keeps the node from doing its work. It is the one list for /readyz, the
// looking glass and the metrics.
func (s *Server) notReady() (faults []fault) {
	note := func(cause, name, reason string) { faults = append(faults, fault{cause, name, reason}) }
	if s.Speaker.Established() == 0 {
		for _, n := range s.Speaker.Neighbours() {
			st := n.Status()
			reason := "session is " + st.State.String()
			switch {
			case st.HeldDown != "":
				reason += ", held down: " + st.HeldDown
			case st.LastError != "":
				reason += ": " + st.LastError
			}
			note(causeSessions, "bgp peer "+n.Config().Peer.String(), reason)
		}
	}
	for id, err := range s.Manager.Unrestored() {
		reason := "its turn has not come"
		if err != nil {
			reason = err.Error()
		}
		note(causeRestore, "instance "+id+" of the last run", reason)
	}
	if s.Store != nil {
		if since, err := s.Store.Trouble(); err != nil {
			note(causeState, "state", fmt.Sprintf("not written for %s: %v", ago(since), err))
		}
	}
	for _, b := range s.Reconciler.Blind() {
		note(causeDriver, fmt.Sprintf("dataplane driver %s of %s", b.Driver, b.Type), fmt.Sprintf("cannot look at what is installed for %s: %v", ago(b.Since), b.Err))
	}
	for _, p := range s.Reconciler.Problems() {
		if p.Attempts > 1 || time.Since(p.Since) > time.Second {
			what := p.Change.String()
			if p.Count > 1 {
				what += fmt.Sprintf(" and %d more", p.Count-1)
			}
			note(causeDataplane, "dataplane of instance "+p.Instance, what+": "+p.Err.Error())
		}
	}
	if err := spareDescriptor(); err != nil {
		note(causeDescriptors, "file descriptors", fmt.Sprintf("there is none for connections and netlink: %v", err))
	}
	return faults
}

func ago(since time.Time) time.Duration { return time.Since(since).Round(time.Second) }

// spareDescriptor tells why a new file descriptor cannot be had, if so.
func spareDescriptor() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
