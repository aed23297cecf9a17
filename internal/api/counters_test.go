// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// withCounters gives a filled server's drivers something that they have counted.
func withCounters(t *testing.T) *server {
	t.Helper()
	s := filled(t)
	s.plane.Count(dataplane.IPVPN,
		dataplane.Counter{Instance: "blue", Port: "tap2", Name: "received", Packets: 3, Bytes: 300},
		dataplane.Counter{Instance: "blue", Port: "tap2", Name: "sent", Packets: 5, Bytes: 500},
		dataplane.Counter{Instance: "blue", Port: "tap3", Name: "received", Packets: 7, Bytes: 700},
		dataplane.Counter{Instance: "blue", Port: "tap2", Name: "no route", Dropped: true, Packets: 11},
		dataplane.Counter{Instance: "blue", Port: "tap3", Name: "no route", Dropped: true, Packets: 13},
		dataplane.Counter{Instance: "green", Name: "spoofed", Dropped: true, Packets: 17},
		dataplane.Counter{Name: "unknown label", Dropped: true, Packets: 19},
	)
	s.plane.Count(dataplane.EVPN, dataplane.Counter{Name: "unknown label", Dropped: true, Packets: 23})
	return s
}

func TestCounterMetrics(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := withCounters(t)
		all, _ := scrape(t, s)
		const blue, ipvpn = "vpn_instance=blue", "vpn_type=ipvpn"
		for _, tt := range []struct {
			name   string
			labels []string
			want   string
		}{
			{api.MetricPackets, []string{"counter=received", "port=tap2", blue, ipvpn}, "3"},
			{api.MetricPackets, []string{"counter=sent", "port=tap2", blue, ipvpn}, "5"},
			{api.MetricPackets, []string{"counter=received", "port=tap3", blue, ipvpn}, "7"},
			{api.MetricPackets, []string{"counter=no route", "port=tap2", blue, ipvpn}, "none"},
			{api.MetricBytes, []string{"counter=received", "port=tap3", blue, ipvpn}, "700"},
			{api.MetricDropped, []string{"reason=no route", blue, ipvpn}, "24"},
			{api.MetricDropped, []string{"reason=spoofed", "vpn_instance=green", ipvpn}, "17"},
			{api.MetricDropped, []string{"reason=unknown label", "vpn_instance=", ipvpn}, "19"},
			{api.MetricDropped, []string{"reason=unknown label", "vpn_instance=", "vpn_type=evpn"}, "23"},
		} {
			if got := value(all[tt.name], tt.labels...); got != tt.want {
				t.Errorf("%s %v = %s, want %s", tt.name, tt.labels, got, tt.want)
			}
		}
	})
}

// A driver that cannot read its counters leaves all other metrics alone.
func TestCountersThatFail(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := withCounters(t)
		s.plane.FailWith(errors.New("no counters"), fake.Forever, func(o fake.Op) bool { return o.Verb == "counters" })
		all, _ := scrape(t, s)
		if all[api.MetricPackets] != nil || all[api.MetricDropped] != nil || value(all[api.MetricInstances], "vpn_type=ipvpn") != "1" {
			t.Errorf("%s %v, %s %v", api.MetricPackets, all[api.MetricPackets], api.MetricInstances, all[api.MetricInstances])
		}
		if got := strings.TrimSpace(s.get("/looking-glass/vpns/instances/blue/dataplane/counters").Body.String()); got != "[]" {
			t.Errorf("counters %s, want none", got)
		}
	})
}

func TestCountersOfAnInstance(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := withCounters(t)
		s.plane.Count(dataplane.IPVPN,
			dataplane.Counter{Instance: "green", Port: "tap9", Name: "received", Packets: 1},
			dataplane.Counter{Instance: "blue", Name: "spoofed", Dropped: true, Packets: 2},
			dataplane.Counter{Instance: "blue", Port: "tap2", Name: "received", Packets: 3, Bytes: 300},
		)
		got := strings.TrimSpace(s.get("/looking-glass/vpns/instances/blue/dataplane/counters").Body.String())
		want := `[{"port":null,"counter":"spoofed","dropped":true,"packets":2,"bytes":0},{"port":"tap2","counter":"received","dropped":false,"packets":3,"bytes":300}]`
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("counters (-want +got):\n%s", diff)
		}
		if got := strings.TrimSpace(s.get("/looking-glass/vpns/instances/red/dataplane/counters").Body.String()); got != "[]" {
			t.Errorf("counters of an instance without %s", got)
		}
	})
}
