// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSections(t *testing.T) {
	t.Parallel()
	r := loadText(t, minimal+"peers = rr1.example.org, 192.0.2.9\npassive_peers = 192.0.2.9\nlisten = true\n"+
		"dynamic_neighbors = 192.0.2.0/24\n[DATAPLANE_DRIVER_EVPN]\ndataplane_local_address = eth0")
	r.check(t, r.cfg, nil, nil)
	want := []Section{
		{"COMMON", []Setting{{"root_helper", "sudo"}, {"root_helper_daemon", nil}, {"sweep_delay", int64(120)}}},
		{"API", []Setting{{"host", "127.0.0.1"}, {"port", int64(8082)}}},
		{"BGP", []Setting{
			{"local_address", "192.0.2.1"}, {"router_id", "192.0.2.1"}, {"my_as", int64(64512)},
			{"peers", []string{"rr1.example.org", "192.0.2.9"}}, {"passive_peers", []string{"192.0.2.9"}},
			{"bgp_port", int64(179)}, {"enable_rtc", true}, {"listen", true}, {"listen_port", int64(179)},
			{"dynamic_neighbors", []string{"192.0.2.0/24"}}, {"hold_time", int64(90)},
			{"connect_retry_time", int64(5)}, {"evpn_accept_no_encapsulation", true},
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
