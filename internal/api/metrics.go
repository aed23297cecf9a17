// SPDX-License-Identifier: Apache-2.0

package api

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Names of the metrics.
const (
	MetricBuildInfo        = "bagpipe_build_info"
	MetricPeerState        = "bagpipe_bgp_peer_state"
	MetricPeerUp           = "bagpipe_bgp_peer_up"
	MetricPeerEstablished  = "bagpipe_bgp_peer_established_total"
	MetricPeerReceived     = "bagpipe_bgp_peer_messages_received_total"
	MetricPeerSent         = "bagpipe_bgp_peer_messages_sent_total"
	MetricPeerRoutesIn     = "bagpipe_bgp_peer_routes_received"
	MetricPeerRoutesOut    = "bagpipe_bgp_peer_routes_announced"
	MetricPaths            = "bagpipe_rib_paths"
	MetricSets             = "bagpipe_rib_attribute_sets"
	MetricPathChanges      = "bagpipe_rib_path_changes_total"
	MetricInstances        = "bagpipe_vpn_instances"
	MetricEndpoints        = "bagpipe_vpn_endpoints"
	MetricEntries          = "bagpipe_dataplane_entries"
	MetricDataplaneChanges = "bagpipe_dataplane_changes_total"
	MetricProblems         = "bagpipe_dataplane_problems"
	MetricWarnings         = "bagpipe_log_warnings"
	MetricRequests         = "bagpipe_api_request_duration_seconds"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descBuild       = desc(MetricBuildInfo, "Version of the daemon and of Go; always 1.", "version", "goversion")
	descPeerState   = desc(MetricPeerState, "State of the BGP session: 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established (RFC 4273).", "peer")
	descPeerUp      = desc(MetricPeerUp, "Whether the BGP session is established.", "peer")
	descEstablished = desc(MetricPeerEstablished, "How often the BGP session was established.", "peer")
	descReceived    = desc(MetricPeerReceived, "BGP messages received.", "peer", "type")
	descSent        = desc(MetricPeerSent, "BGP messages sent.", "peer", "type")
	descRoutesIn    = desc(MetricPeerRoutesIn, "Routes held from the peer (Adj-RIB-In).", "peer", "family")
	descRoutesOut   = desc(MetricPeerRoutesOut, "Routes that the peer has from us (Adj-RIB-Out).", "peer", "family")
	descPaths       = desc(MetricPaths, "Paths held.")
	descSets        = desc(MetricSets, "Distinct sets of path attributes held.")
	descPathChanges = desc(MetricPathChanges, "Changes of paths.", "change")
	descInstances   = desc(MetricInstances, "VPN instances.", "vpn_type")
	descEndpoints   = desc(MetricEndpoints, "Local endpoints.", "vpn_type")
	descEntries     = desc(MetricEntries, "Desired forwarding entries.", "vpn_type", "kind")
	descChanges     = desc(MetricDataplaneChanges, "Changes of remote forwarding entries handed to dataplane drivers.")
	descProblems    = desc(MetricProblems, "Forwarding entries that are desired and not installed.")
	descWarnings    = desc(MetricWarnings, "Warnings and errors kept for the looking glass.")
)

// metrics returns a registry with all metrics of the node.
func (s *Server) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	s.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: MetricRequests, Help: "Time to answer a request of the REST API.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
	}, []string{"resource", "code"})
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), s.requests, collector{s})
	return r
}

// collector reads the state of the node when it is asked.
type collector struct{ s *Server }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descPeerState, descPeerUp, descEstablished, descReceived, descSent, descRoutesIn, descRoutesOut, descPaths,
		descSets, descPathChanges, descInstances, descEndpoints, descEntries, descChanges, descProblems, descWarnings,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descBuild, 1, c.s.Version, runtime.Version())
	c.peers(gauge, counter)
	st := c.s.RIB.Stats()
	gauge(descPaths, float64(st.Paths))
	gauge(descSets, float64(st.Sets))
	counter(descPathChanges, st.Announced, "announced")
	counter(descPathChanges, st.Withdrawn, "withdrawn")
	c.vpns(gauge)
	counter(descChanges, c.s.Reconciler.Changes())
	gauge(descProblems, float64(len(c.s.Reconciler.Problems())))
	gauge(descWarnings, float64(c.s.Logs.Len()))
}

func (c collector) peers(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	for _, n := range c.s.Speaker.Neighbours() {
		st, peer := n.Status(), n.Config().Peer.String()
		up := 0.0
		if st.State == session.Established {
			up = 1
		}
		gauge(descPeerState, float64(st.State)+1, peer)
		gauge(descPeerUp, up, peer)
		counter(descEstablished, st.Established, peer)
		for t := wire.MsgOpen; t <= wire.MsgRouteRefresh; t++ {
			counter(descReceived, st.ReceivedByType[t], peer, t.String())
			counter(descSent, st.SentByType[t], peer, t.String())
		}
		in, out := n.Received(), n.Announced()
		for _, f := range wire.Families {
			gauge(descRoutesIn, float64(in[f]), peer, f.String())
			gauge(descRoutesOut, float64(out[f]), peer, f.String())
		}
	}
}

func (c collector) vpns(gauge func(*prometheus.Desc, float64, ...string)) {
	type entryLabels struct{ vpn, kind string }
	instances, endpoints := map[string]int{"evpn": 0, "ipvpn": 0}, map[string]int{"evpn": 0, "ipvpn": 0}
	entries := map[entryLabels]int{}
	for _, i := range c.s.Manager.Instances() {
		t := string(i.Type)
		instances[t]++
		endpoints[t] += i.Endpoints()
		if f := i.Forwarding(); f != nil {
			for k, n := range f.Desired() {
				entries[entryLabels{t, k.String()}] += n
			}
		}
	}
	for t, n := range instances {
		gauge(descInstances, float64(n), t)
		gauge(descEndpoints, float64(endpoints[t]), t)
	}
	for l, n := range entries {
		gauge(descEntries, float64(n), l.vpn, l.kind)
	}
}
