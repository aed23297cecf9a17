// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
)

// scrape returns the node's own metrics by name, and the whole text.
func scrape(t *testing.T, s *server) (map[string]*dto.MetricFamily, []byte) {
	t.Helper()
	w := s.get("/metrics")
	if w.Code != 200 {
		t.Fatalf("GET /metrics: %d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return all, w.Body.Bytes()
}

// value returns a metric's value; labels are "name=value".
func value(f *dto.MetricFamily, labels ...string) string {
	for _, m := range f.GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if slices.Equal(have, labels) {
			return fmt.Sprint(m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()))
		}
	}
	return "none"
}

func TestMetricsPassTheLinter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		s.get("/ping")
		all, text := scrape(t, s)
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		for name, f := range all {
			if f.GetHelp() == "" {
				t.Errorf("%s has no help", name)
			}
			if strings.HasSuffix(name, "_total") != (f.GetType() == dto.MetricType_COUNTER) && strings.HasPrefix(name, "bagpipe_") {
				t.Errorf("%s is a %s: counters, and they only, end in _total", name, f.GetType())
			}
		}
	})
}

func TestMetricValues(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		s.get("/ping")
		s.get("/none")
		all, _ := scrape(t, s)
		const peer = "peer=10.77.0.254"
		for _, tt := range []struct {
			name   string
			labels []string
			want   string
		}{
			{api.MetricInstances, []string{"vpn_type=evpn"}, "1"},
			{api.MetricEndpoints, []string{"vpn_type=ipvpn"}, "2"},
			{api.MetricEntries, []string{"kind=local-mac", "vpn_type=evpn"}, "2"},
			{api.MetricEntries, []string{"kind=mac", "vpn_type=evpn"}, "1"},
			{api.MetricEntries, []string{"kind=prefix", "vpn_type=ipvpn"}, "3"},
			{api.MetricPaths, nil, "10"},
			{api.MetricPathChanges, []string{"change=withdrawn"}, "0"},
			{api.MetricProblems, nil, "0"},
			{api.MetricWarnings, nil, "2"},
			{api.MetricPeerUp, []string{peer}, "0"},
			{api.MetricPeerState, []string{peer}, "1"},
			{api.MetricPeerEstablished, []string{peer}, "0"},
			{api.MetricPeerReceived, []string{peer, "type=UPDATE"}, "0"},
			{api.MetricPeerRoutesIn, []string{"family=l2vpn/evpn", peer}, "0"},
			{api.MetricRequests, []string{"code=200", "resource=/ping"}, "1"},
			{api.MetricRequests, []string{"code=404", "resource=other"}, "1"},
			{api.MetricRequests, []string{"code=200", "resource=/attach_localport"}, "4"},
		} {
			if got := value(all[tt.name], tt.labels...); got != tt.want {
				t.Errorf("%s %v = %s, want %s", tt.name, tt.labels, got, tt.want)
			}
		}
		if build := all[api.MetricBuildInfo].GetMetric(); len(build) != 1 {
			t.Errorf("%s has %d series, want 1", api.MetricBuildInfo, len(build))
		}
	})
}

// The number of series does not grow with what callers ask for or attach.
func TestLabelsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		load := func(n int) []string {
			for i := range 5 {
				id := fmt.Sprintf("net-%d-%d", n, i)
				s.accept("/attach_localport", evpnBody().with("vpn_instance_id", id))
				s.get("/" + id)
				s.get("/looking-glass/vpns/instances/" + id)
				s.get("/looking-glass/" + id)
				s.post("/detach_localport", evpnBody().with("vpn_instance_id", "none-"+id))
			}
			all, _ := scrape(t, s)
			var series []string
			ours := regexp.MustCompile("^bagpipe_")
			for name, f := range all {
				if ours.MatchString(name) {
					for _, m := range f.GetMetric() {
						series = append(series, name+fmt.Sprint(m.GetLabel()))
					}
				}
			}
			slices.Sort(series)
			return series
		}
		load(0)
		first := load(1) // with the series of /metrics itself
		if diff := cmp.Diff(first, load(2)); diff != "" {
			t.Errorf("series (-before +after):\n%s", diff)
		}
	})
}
