// SPDX-License-Identifier: Apache-2.0

package api

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Names of the metrics.
const (
	MetricBuildInfo          = "bagpipe_build_info"
	MetricReady              = "bagpipe_ready"
	MetricNotReady           = "bagpipe_not_ready_faults"
	MetricStateUnwritten     = "bagpipe_state_unwritten_records"
	MetricStateErrors        = "bagpipe_state_write_errors_total"
	MetricPeerInfo           = "bagpipe_bgp_peer_info"
	MetricPeerState          = "bagpipe_bgp_peer_state"
	MetricPeerUp             = "bagpipe_bgp_peer_up"
	MetricPeerUptime         = "bagpipe_bgp_peer_uptime_seconds"
	MetricPeerHeldDown       = "bagpipe_bgp_peer_held_down"
	MetricPeerEstablished    = "bagpipe_bgp_peer_established_total"
	MetricPeerResets         = "bagpipe_bgp_peer_resets_total"
	MetricPeerReceived       = "bagpipe_bgp_peer_messages_received_total"
	MetricPeerSent           = "bagpipe_bgp_peer_messages_sent_total"
	MetricPeerSentBytes      = "bagpipe_bgp_peer_sent_bytes_total"
	MetricPeerNotifiedBy     = "bagpipe_bgp_peer_notifications_received_total"
	MetricPeerNotified       = "bagpipe_bgp_peer_notifications_sent_total"
	MetricPeerFaults         = "bagpipe_bgp_peer_update_faults_total"
	MetricPeerIgnored        = "bagpipe_bgp_peer_routes_ignored_total"
	MetricPeerDisabled       = "bagpipe_bgp_peer_families_disabled"
	MetricPeerRoutesIn       = "bagpipe_bgp_peer_routes_received"
	MetricPeerRoutesOut      = "bagpipe_bgp_peer_routes_announced"
	MetricPeerRoutesStale    = "bagpipe_bgp_peer_routes_stale"
	MetricPeerMaxPrefixes    = "bagpipe_bgp_peer_max_prefixes"
	MetricBFDUp              = "bagpipe_bfd_peer_up"
	MetricBFDUptime          = "bagpipe_bfd_peer_uptime_seconds"
	MetricBFDFlaps           = "bagpipe_bfd_peer_flaps_total"
	MetricBFDReceived        = "bagpipe_bfd_peer_packets_received_total"
	MetricBFDSent            = "bagpipe_bfd_peer_packets_sent_total"
	MetricBFDDropped         = "bagpipe_bfd_peer_packets_dropped_total"
	MetricStationUp          = "bagpipe_bmp_station_up"
	MetricStationConnections = "bagpipe_bmp_station_connections_total"
	MetricStationRoutes      = "bagpipe_bmp_station_routes_sent_total"
	MetricStationSent        = "bagpipe_bmp_station_messages_sent_total"
	MetricStationSentBytes   = "bagpipe_bmp_station_sent_bytes_total"
	MetricPaths              = "bagpipe_rib_paths"
	MetricSets               = "bagpipe_rib_attribute_sets"
	MetricPathChanges        = "bagpipe_rib_path_changes_total"
	MetricIrrelevant         = "bagpipe_rib_irrelevant_routes_total"
	MetricInstances          = "bagpipe_vpn_instances"
	MetricEndpoints          = "bagpipe_vpn_endpoints"
	MetricEntries            = "bagpipe_dataplane_entries"
	MetricDataplaneChanges   = "bagpipe_dataplane_changes_total"
	MetricProblems           = "bagpipe_dataplane_problems"
	MetricPackets            = "bagpipe_dataplane_packets_total"
	MetricBytes              = "bagpipe_dataplane_bytes_total"
	MetricDropped            = "bagpipe_dataplane_dropped_packets_total"
	MetricWarnings           = "bagpipe_log_warnings"
	MetricLogged             = "bagpipe_log_entries_total"
	MetricRequests           = "bagpipe_api_request_duration_seconds"
)

const metricRequestsHelp = "Time to answer a request of the REST API."

// Types of metrics.
const (
	gauge     = "gauge"
	counter   = "counter"
	histogram = "histogram"
)

// metric describes one of the node's own metrics.
type metric struct {
	Name, Type, Help string
	Labels           []string
}

// metrics lists what the node exports, in the order of docs/metrics.md, which a
// test generates from it.
var metrics = []metric{
	{MetricBuildInfo, gauge, "Version of the daemon and of Go; always 1.", []string{"version", "goversion"}},
	{MetricReady, gauge, "Whether the node does its work, as /readyz says.", nil},
	{MetricNotReady, gauge, "Faults that /readyz lists, by cause.", []string{"cause"}},
	{MetricStateUnwritten, gauge, "Records of attachments that are not on disk: a restart now would lose them. Only with state_directory.", nil},
	{MetricStateErrors, counter, "Attempts to write such records that failed.", nil},

	{MetricPeerInfo, gauge, "AS numbers and description of the peer; always 1.", []string{"peer", "local_as", "peer_as", "description"}},
	{MetricPeerState, gauge, "State of the BGP session: 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established (RFC 4273).", []string{"peer"}},
	{MetricPeerUp, gauge, "Whether the BGP session is established.", []string{"peer"}},
	{MetricPeerUptime, gauge, "How long the BGP session has been established; 0 when it is not.", []string{"peer"}},
	{MetricPeerHeldDown, gauge, "Whether the peer is kept down: by the operator, or because it sent more routes than max_prefixes.", []string{"peer", "reason"}},
	{MetricPeerEstablished, counter, "How often the BGP session was established.", []string{"peer"}},
	{MetricPeerResets, counter, "How often an established BGP session ended.", []string{"peer"}},
	{MetricPeerReceived, counter, "BGP messages received.", []string{"peer", "type"}},
	{MetricPeerSent, counter, "BGP messages sent.", []string{"peer", "type"}},
	{MetricPeerSentBytes, counter, "Octets of BGP messages sent.", []string{"peer"}},
	{MetricPeerNotifiedBy, counter, "NOTIFICATIONs received, by error code (RFC 4271).", []string{"peer", "code"}},
	{MetricPeerNotified, counter, "NOTIFICATIONs sent, by error code (RFC 4271).", []string{"peer", "code"}},
	{MetricPeerFaults, counter, "Faults in UPDATEs of the peer, by what they led to (RFC 7606).", []string{"peer", "class"}},
	{MetricPeerIgnored, counter, "Routes ignored because they are of an unknown type, or make no sense (RFC 7606).", []string{"peer"}},
	{MetricPeerDisabled, gauge, "Address families that a fault disabled for the rest of the session (RFC 7606).", []string{"peer"}},
	{MetricPeerRoutesIn, gauge, "Routes held from the peer (Adj-RIB-In).", []string{"peer", "family"}},
	{MetricPeerRoutesOut, gauge, "Routes that the peer has from us (Adj-RIB-Out).", []string{"peer", "family"}},
	{MetricPeerRoutesStale, gauge, "Routes kept for a peer that may be restarting and has not announced them again (RFC 4724, RFC 9494).", []string{"peer", "family"}},
	{MetricPeerMaxPrefixes, gauge, "Bound of the routes of each family; only of peers that have one.", []string{"peer"}},

	{MetricBFDUp, gauge, "Whether the BFD session is up; only of peers that have one.", []string{"peer"}},
	{MetricBFDUptime, gauge, "How long the BFD session has been up; 0 when it is not.", []string{"peer"}},
	{MetricBFDFlaps, counter, "How often the BFD session went down.", []string{"peer"}},
	{MetricBFDReceived, counter, "BFD packets accepted.", []string{"peer"}},
	{MetricBFDSent, counter, "BFD packets sent.", []string{"peer"}},
	{MetricBFDDropped, counter, "BFD packets of the peer that were not accepted, by reason.", []string{"peer", "reason"}},

	{MetricStationUp, gauge, "Whether the BMP station is connected (RFC 7854); only where there are some.", []string{"station"}},
	{MetricStationConnections, counter, "Connections made to the BMP station.", []string{"station"}},
	{MetricStationSent, counter, "BMP messages sent to the station.", []string{"station"}},
	{MetricStationSentBytes, counter, "Octets of BMP messages sent to the station.", []string{"station"}},
	{MetricStationRoutes, counter, "Routes announced or withdrawn to the BMP station.", []string{"station"}},

	{MetricPaths, gauge, "Paths held, from peers and local.", nil},
	{MetricSets, gauge, "Distinct sets of path attributes held.", nil},
	{MetricPathChanges, counter, "Changes of paths: announced or withdrawn.", []string{"change"}},
	{MetricIrrelevant, counter, "Routes of peers that were not kept because no instance imports them.", nil},

	{MetricInstances, gauge, "VPN instances.", []string{"vpn_type"}},
	{MetricEndpoints, gauge, "Local endpoints.", []string{"vpn_type"}},
	{MetricEntries, gauge, "Desired forwarding entries.", []string{"vpn_type", "kind"}},
	{MetricDataplaneChanges, counter, "Changes of remote forwarding entries handed to dataplane drivers.", nil},
	{MetricProblems, gauge, "Forwarding entries that are desired and not installed; the looking glass has them under vpns/dataplane/problems.", nil},
	{MetricPackets, counter, "Packets that the dataplane driver has counted, by instance and port; only of drivers that count.", []string{"vpn_type", "vpn_instance", "port", "counter"}},
	{MetricBytes, counter, "Octets of these packets.", []string{"vpn_type", "vpn_instance", "port", "counter"}},
	{MetricDropped, counter, "Packets that the dataplane driver has dropped, by instance and reason; only of drivers that count.", []string{"vpn_type", "vpn_instance", "reason"}},

	{MetricWarnings, gauge, "Warnings and errors kept for the looking glass, at most 100.", nil},
	{MetricLogged, counter, "Warnings and errors logged.", nil},
	{MetricRequests, histogram, metricRequestsHelp, []string{"resource", "code"}},
}

// described is a metric as the registry has it.
type described struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

// descs has the metrics that the collector makes, by name.
var descs = func() map[string]described {
	m := map[string]described{}
	for _, d := range metrics {
		kind := prometheus.GaugeValue
		switch d.Type {
		case counter:
			kind = prometheus.CounterValue
		case histogram:
			continue // which counts by itself
		}
		m[d.Name] = described{prometheus.NewDesc(d.Name, d.Help, d.Labels, nil), kind}
	}
	return m
}()

// metrics returns a registry with all metrics of the node.
func (s *Server) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	s.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: MetricRequests, Help: metricRequestsHelp,
		Buckets: []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
	}, []string{"resource", "code"})
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), s.requests, collector{s})
	return r
}
