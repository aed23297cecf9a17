// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// maxBody bounds the body of a request, in octets.
const maxBody = 1 << 20

// writeChunk is the part of a reply that a reader has limits.stall for, in octets.
const writeChunk = 1 << 20

// limits bound what clients can take of the daemon: a reply that waits for its
// reader is in memory.
type limits struct {
	header time.Duration // for the header of a request, and for a TLS handshake
	read   time.Duration // for a whole request
	idle   time.Duration // between requests of a connection
	stall  time.Duration // for a reader to take writeChunk octets of a reply
	reply  time.Duration // for a reader to take all of a reply
	wait   time.Duration // for a request to wait until it is worked on
	stop   time.Duration // for requests to end when the daemon stops

	headerOctets int
	// connections is for each listener; beyond, there are spare ones that only
	// probes are answered on.
	connections, spare int
	changes            int // attach and detach worked on at once
	operated           int // operations on peers at once
	pages              int // pages of the looking glass made or sent at once
}

var defaultLimits = limits{
	header: 10 * time.Second, read: 30 * time.Second, idle: 2 * time.Minute, stall: 30 * time.Second,
	reply: 10 * time.Minute, wait: 10 * time.Second, stop: 2 * time.Second,
	headerOctets: 16 << 10, connections: 1024, spare: 64, changes: 64, operated: 16, pages: 16,
}

// places bounds how many requests are worked on at once.
type places chan struct{}

// take waits for a place, at most for a time and as long as ctx, and tells
// whether there is one. It is given back by leave.
func (p places) take(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case p <- struct{}{}:
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	}
	if ctx.Err() != nil { // both, and select took the place
		p.leave()
		return false
	}
	return true
}

func (p places) leave() { <-p }

// close waits until all places are empty and lets nobody in any more.
func (p places) close() {
	for range cap(p) {
		p <- struct{}{}
	}
}

// retryAfter is what a client that is turned away is told to wait, in seconds.
const retryAfter = "1"

// turnAway answers 503: the request has not been begun.
func turnAway(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Retry-After", retryAfter)
	writeError(w, http.StatusServiceUnavailable, fmt.Sprintf(format, args...))
}

// enter takes a place for a request, or turns it away.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, p places) bool {
	if p.take(r.Context(), s.limits.wait) {
		return true
	}
	turnAway(w, "%d requests are worked on and none has ended in %s", cap(p), s.limits.wait)
	return false
}

// probes are the paths that are answered whatever the load.
var probes = map[string]bool{"/ping": true, "/healthz": true, "/readyz": true, "/metrics": true}
