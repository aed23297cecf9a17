// SPDX-License-Identifier: Apache-2.0

package api

import (
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// collector reads the state of the node when it is asked.
type collector struct{ s *Server }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d.Desc
	}
}

// sample takes one value of a metric.
type sample func(name string, value float64, labels ...string)

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	add := func(name string, value float64, labels ...string) {
		d := descs[name]
		for i, l := range labels {
			labels[i] = strings.ToValidUTF8(l, "?") // a description may be anything
		}
		ch <- prometheus.MustNewConstMetric(d.Desc, d.kind, value, labels...)
	}
	add(MetricBuildInfo, 1, c.s.Version, runtime.Version())
	c.faults(add)
	for _, n := range c.s.Speaker.Neighbours() {
		c.session(add, n)
		c.messages(add, n)
		c.routes(add, n)
		if st, ok := n.Path(); ok {
			path(add, n.Config().Peer.String(), st)
		}
	}
	for _, st := range c.s.stations() {
		add(MetricStationUp, flag(st.Connected), st.Station)
		add(MetricStationConnections, float64(st.Connections), st.Station)
		add(MetricStationSent, float64(st.Messages), st.Station)
		add(MetricStationSentBytes, float64(st.Bytes), st.Station)
		add(MetricStationRoutes, float64(st.Routes), st.Station)
	}
	c.rib(add)
	c.vpns(add)
	c.packets(add)
	add(MetricDataplaneChanges, float64(c.s.Reconciler.Changes()))
	problems := 0
	for _, p := range c.s.Reconciler.Problems() {
		problems += p.Count
	}
	add(MetricProblems, float64(problems))
	add(MetricWarnings, float64(c.s.Logs.Len()))
	add(MetricLogged, float64(c.s.Logs.Total()))
}

// faults adds what /readyz has.
func (c collector) faults(add sample) {
	faults := c.s.notReady()
	add(MetricReady, flag(len(faults) == 0))
	n := map[string]int{}
	for _, f := range faults {
		n[f.cause]++
	}
	for _, cause := range causes {
		add(MetricNotReady, float64(n[cause]), cause)
	}
	if c.s.Store != nil {
		unwritten, failed := c.s.Store.Stats()
		add(MetricStateUnwritten, float64(unwritten))
		add(MetricStateErrors, float64(failed))
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Values of the label "reason" of a peer that is kept down.
const (
	reasonOperator    = "operator"
	reasonMaxPrefixes = "max_prefixes"
)

func (c collector) session(add sample, n *speaker.Neighbour) {
	cfg, st := n.Config(), n.Status()
	peer, up := cfg.Peer.String(), st.State == session.Established
	add(MetricPeerInfo, 1, peer, strconv.FormatUint(uint64(cfg.LocalAS), 10), strconv.FormatUint(uint64(cfg.PeerAS), 10), n.Settings().Description)
	add(MetricPeerState, float64(st.State)+1, peer)
	add(MetricPeerUp, flag(up), peer)
	uptime := 0.0
	if up {
		uptime = time.Since(st.Since).Seconds()
	}
	add(MetricPeerUptime, uptime, peer)
	reason := heldDownReason(st)
	for _, r := range []string{reasonOperator, reasonMaxPrefixes} {
		add(MetricPeerHeldDown, flag(r == reason), peer, r)
	}
	add(MetricPeerEstablished, float64(st.Established), peer)
	add(MetricPeerResets, float64(lostSessions(st)), peer)
}

// lostSessions counts the established sessions that ended.
func lostSessions(st session.Status) uint64 {
	if st.State == session.Established {
		return st.Established - 1
	}
	return st.Established
}

func (c collector) messages(add sample, n *speaker.Neighbour) {
	st, peer := n.Status(), n.Config().Peer.String()
	for t := wire.MsgOpen; t <= wire.MsgRouteRefresh; t++ {
		add(MetricPeerReceived, float64(st.ReceivedByType[t]), peer, t.String())
		add(MetricPeerSent, float64(st.SentByType[t]), peer, t.String())
	}
	add(MetricPeerSentBytes, float64(st.SentBytes), peer)
	for label, n := range byCode(st.NotificationsSent) {
		add(MetricPeerNotified, float64(n), peer, label)
	}
	for label, n := range byCode(st.NotificationsReceived) {
		add(MetricPeerNotifiedBy, float64(n), peer, label)
	}
	faults := n.Faults()
	for class, label := range classLabels {
		add(MetricPeerFaults, float64(faults[class]), peer, label)
	}
	add(MetricPeerIgnored, float64(n.Ignored()), peer)
	add(MetricPeerDisabled, float64(len(n.Disabled())), peer)
}

func (c collector) routes(add sample, n *speaker.Neighbour) {
	peer := n.Config().Peer.String()
	in, out, stale := n.Received(), n.Announced(), n.StaleCounts()
	for _, f := range wire.Families {
		add(MetricPeerRoutesIn, float64(in[f]), peer, f.String())
		add(MetricPeerRoutesOut, float64(out[f]), peer, f.String())
		add(MetricPeerRoutesStale, float64(stale[f]), peer, f.String())
	}
	if most := n.Settings().MaxPrefixes; most > 0 {
		add(MetricPeerMaxPrefixes, float64(most), peer)
	}
}

func path(add sample, peer string, st bfd.Status) {
	uptime := 0.0
	if st.State == bfd.Up {
		uptime = time.Since(st.Since).Seconds()
	}
	add(MetricBFDUp, flag(st.State == bfd.Up), peer)
	add(MetricBFDUptime, uptime, peer)
	add(MetricBFDFlaps, float64(st.Flaps), peer)
	add(MetricBFDReceived, float64(st.In), peer)
	add(MetricBFDSent, float64(st.Out), peer)
	for reason, n := range st.Dropped {
		add(MetricBFDDropped, float64(n), peer, reason.String())
	}
}

func (c collector) rib(add sample) {
	st := c.s.RIB.Stats()
	add(MetricPaths, float64(st.Paths))
	add(MetricSets, float64(st.Sets))
	add(MetricPathChanges, float64(st.Announced), "announced")
	add(MetricPathChanges, float64(st.Withdrawn), "withdrawn")
	add(MetricIrrelevant, float64(st.Irrelevant))
}

func (c collector) vpns(add sample) {
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
		add(MetricInstances, float64(n), t)
		add(MetricEndpoints, float64(endpoints[t]), t)
	}
	for l, n := range entries {
		add(MetricEntries, float64(n), l.vpn, l.kind)
	}
}
