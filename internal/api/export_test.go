// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric is one of the node's own metrics.
type Metric = metric

// Collector returns what reads the state of the node.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// SetStallLimit sets how long a reader may take for a part of a reply.
func (s *Server) SetStallLimit(d time.Duration) { s.limits.stall = d }

// What the tests of the package see of its inside.
var (
	Metrics   = metrics
	ByCode    = byCode
	Printable = printable
)

// SetReplyLimit sets how long a reader may take for a whole reply.
func (s *Server) SetReplyLimit(d time.Duration) { s.limits.reply = d }

// SetStopLimit sets how long requests have when the daemon stops.
func (s *Server) SetStopLimit(d time.Duration) { s.limits.stop = d }

// SetTimes sets the limits of slow clients and of waiting.
func (s *Server) SetTimes(header, read, wait time.Duration) {
	s.limits.header, s.limits.read, s.limits.wait = header, read, wait
}

// SetCounts sets how many of everything there may be.
func (s *Server) SetCounts(connections, spare, changes, pages int) {
	l := s.limits
	l.connections, l.spare, l.changes, l.pages = connections, spare, changes, pages
	s.setLimits(l)
}

// Fill takes all places of changes and pages until free is called.
func (s *Server) Fill() (free func()) {
	all := []places{s.changes, s.operated, s.pages}
	for _, p := range all {
		p.close()
	}
	return func() {
		for _, p := range all {
			for range cap(p) {
				p.leave()
			}
		}
	}
}
