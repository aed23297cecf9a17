// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSections(t *testing.T) {
	t.Parallel()
	r := loadText(t, minimal+"peers = rr1.example.org, 192.0.2.9\npassive_peers = 192.0.2.9\nlisten = true\n"+
		"dynamic_neighbors = 192.0.2.0/24\npassword = s3cret\nfamilies = evpn, vpnv4\n"+
		"[PEER rr1.example.org]\ndescription = RR\n[BMP]\nstations = 192.0.2.8\n[DATAPLANE_DRIVER_EVPN]\ndataplane_local_address = eth0")
	r.check(t, r.cfg, nil, nil)
	shared := []Setting{
		{"password", "***"}, {"ttl_security", int64(0)}, {"device", ""}, {"families", []string{"vpnv4", "evpn"}},
		{"hold_time", int64(90)}, {"connect_retry_time", int64(5)}, {"max_prefixes", int64(0)},
		{"max_prefixes_warning", int64(80)}, {"max_prefixes_pause", int64(300)}, {"allow_own_as", int64(0)},
		{"irrelevant_routes", "auto"}, {"graceful_restart", "helper"}, {"restart_time", int64(120)},
		{"stale_time", int64(360)}, {"long_lived_stale_time", int64(86400)}, {"graceful_notification", true},
		{"bfd", "off"}, {"bfd_min_tx", int64(300)}, {"bfd_min_rx", int64(300)}, {"bfd_multiplier", int64(3)},
		{"bfd_min_ttl", int64(1)},
	}
	text := func(s string) Setting { return Setting{"description", s} }
	as, port, up := Setting{"peer_as", int64(64512)}, Setting{"port", int64(179)}, Setting{"shutdown", false}
	active, passive := Setting{"passive", false}, Setting{"passive", true}
	want := []Section{
		{"COMMON", []Setting{{"root_helper", "sudo"}, {"root_helper_daemon", nil}, {"sweep_delay", int64(120)}, {"state_directory", ""}, {"cleanup_on_stop", false}}},
		{"API", []Setting{
			{"host", "127.0.0.1"}, {"port", int64(8082)}, {"unix_socket", ""}, {"tls_certificate", ""}, {"tls_key", ""},
			{"tls_client_ca", ""}, {"token_file", ""},
		}},
		{"BGP", slices.Concat([]Setting{
			{"local_address", "192.0.2.1"}, {"router_id", "192.0.2.1"}, {"my_as", int64(64512)},
			{"peers", []string{"rr1.example.org", "192.0.2.9"}}, {"passive_peers", []string{"192.0.2.9"}},
			{"bgp_port", int64(179)}, {"enable_rtc", true}, {"listen", true}, {"listen_port", int64(179)},
			{"dynamic_neighbors", []string{"192.0.2.0/24"}}, {"evpn_accept_no_encapsulation", true},
		}, shared)},
		{"PEER rr1.example.org", slices.Concat([]Setting{text("RR"), as, port, active, up}, shared)},
		{"PEER 192.0.2.9", slices.Concat([]Setting{text(""), as, port, passive, up}, shared)},
		{"PEER 192.0.2.0/24", slices.Concat([]Setting{text(""), as, up}, shared)},
		{"BMP", []Setting{
			{"stations", []string{"192.0.2.8:11019"}}, {"connect_retry_time", int64(30)}, {"statistics_interval", int64(60)},
		}},
		{"DATAPLANE_DRIVER_IPVPN", []Setting{{"dataplane_driver", "dummy"}, {"dataplane_local_address", "192.0.2.1"}}},
		{"DATAPLANE_DRIVER_EVPN", []Setting{
			{"dataplane_driver", "dummy"}, {"dataplane_local_address", "192.0.2.10"}, {"vxlan_dst_port", int64(4789)},
		}},
	}
	if diff := cmp.Diff(want, r.cfg.Sections()); diff != "" {
		t.Errorf("unexpected sections (-want +got):\n%s", diff)
	}
}

// Empty lists must be [] in JSON, not null, and nothing may panic.
func TestSectionsOfZeroConfig(t *testing.T) {
	t.Parallel()
	for _, s := range (&Config{}).Sections() {
		for _, o := range s.Options {
			if list, ok := o.Value.([]string); ok && list == nil {
				t.Errorf("%s.%s is a nil list", s.Name, o.Name)
			}
		}
	}
}
