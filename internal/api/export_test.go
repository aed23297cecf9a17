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
func (s *Server) SetStallLimit(d time.Duration) { s.stall = d }

// What the tests of the package see of its inside.
var (
	Metrics   = metrics
	ByCode    = byCode
	Printable = printable
)
