// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loadFile loads one file.
func loadFile(t *testing.T, text string) *Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bgp.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Load(Source{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReload(t *testing.T) {
	t.Parallel()
	const before = "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\npeers = 192.0.2.101\n"
	for _, tt := range []struct {
		name    string
		after   string
		debug   bool
		peers   []string
		hold    int // seconds, of the first peer
		pending []string
	}{
		{"nothing", before, false, []string{"192.0.2.101"}, 90, nil},
		{"log level", before + "[DEFAULT]\ndebug = true\n", true, []string{"192.0.2.101"}, 90, nil},
		{"cleanup at the end", before + "[COMMON]\ncleanup_on_stop = true\n", false, []string{"192.0.2.101"}, 90, nil},
		{"another peer", before + "[PEER 192.0.2.102]\n", false, []string{"192.0.2.101", "192.0.2.102"}, 90, nil},
		{"settings of all", before + "hold_time = 30\n", false, []string{"192.0.2.101"}, 30, nil},
		{"port of peers", before + "bgp_port = 1179\n[PEER 192.0.2.101]\nhold_time = 30\n", false, []string{"192.0.2.101"}, 30, []string{
			"BGP.listen_port: 1179 needs a restart, until then it is 179",
		}},
		{"others", before + "[API]\nport = 8083\n[COMMON]\nsweep_delay = 5\n[PEER 192.0.2.101]\nhold_time = 30\n", false, []string{"192.0.2.101"}, 30, []string{
			"COMMON.sweep_delay: 5 needs a restart, until then it is 120",
			"API.port: 8083 needs a restart, until then it is 8082",
		}},
		{"another AS", "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64513\npeers = 192.0.2.101, 192.0.2.102\n[DEFAULT]\ndebug = true\n", true, []string{"192.0.2.101"}, 90, []string{
			"BGP.my_as: 64513 needs a restart, until then it is 64512",
			"neighbours stay as they are until the restart that BGP.my_as needs",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			old := loadFile(t, before)
			got, pending := old.Reload(loadFile(t, tt.after))
			if diff := cmp.Diff(tt.pending, pending); diff != "" {
				t.Errorf("what needs a restart (-want +got):\n%s", diff)
			}
			if got.Log.Debug != tt.debug {
				t.Errorf("debug is %v, want %v", got.Log.Debug, tt.debug)
			}
			if diff := cmp.Diff(tt.peers, showPeers(got)); diff != "" {
				t.Errorf("peers (-want +got):\n%s", diff)
			}
			if hold := int(got.BGP.Peers[0].HoldTime.Seconds()); hold != tt.hold {
				t.Errorf("hold time %d, want %d", hold, tt.hold)
			}
			if old.BGP.MyAS != 64512 || len(old.BGP.Peers) != 1 || old.Log.Debug || old.BGP.HoldTime.Seconds() != 90 {
				t.Error("the old configuration was changed")
			}
		})
	}
}
