// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ovs"
	"github.com/bagpipe-vpn/bagpipe/internal/nodelock"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// While a daemon has the forwarding plane nothing is taken away.
func TestCleanupLeavesRunningDaemonsAlone(t *testing.T) {
	t.Parallel()
	nstest.New(t, "cleanup").Do(func() {
		lock, err := nodelock.Take()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Close() }()
		removed, err := Cleanup(t.Context(), config.Source{Files: []string{config.DefaultFile}}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d of user", os.Getpid())) || len(removed) > 0 {
			t.Errorf("removed %v, error %v: want nothing, and who runs", removed, err)
		}
	})
}

// What the driver ovs left is found by the configuration, and taken away.
func TestCleanupOfOpenVSwitch(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "cleanup")
	sw := ovstest.New(t, ns)
	sw.AddBridge("br-mpls")
	sw.Ofctl("add-flow", "br-mpls", "table=9,priority=7,actions=drop") // of others
	cfg := ovs.Config{LocalAddr: netip.MustParseAddr("192.0.2.1"), Bridge: "br-mpls", OVSDB: sw.DB(), RunDir: sw.Dir, MPLSInterface: "*gre*"}
	log := slog.New(slog.DiscardHandler)
	ns.Do(func() {
		d, err := ovs.New(cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open(t.Context(), dataplane.Instance{ID: "red", Type: dataplane.IPVPN, Number: 1, VNI: 1}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	flows := func() string { return sw.Ofctl("--no-stats", "dump-flows", "br-mpls") }
	if !strings.Contains(flows(), "cookie=0xba61be00") {
		t.Fatalf("the driver left no flows:\n%s", flows())
	}
	clean := func(file string) []string {
		t.Helper()
		var removed []string
		ns.Do(func() {
			var err error
			if removed, err = Cleanup(t.Context(), config.Source{Files: []string{file}}, log); err != nil {
				t.Error(err)
			}
		})
		return removed
	}
	dir := t.TempDir()
	if _, err := cleanOVS(t.Context(), config.Source{Files: []string{filepath.Join(dir, "none.conf")}}, log); err == nil {
		t.Error("a file that does not exist was taken as none")
	}
	file := filepath.Join(dir, "bgp.conf")
	text := "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ovs\nmpls_interface = gone\n" +
		"[OVS]\novsdb_connection = " + sw.DB() + "\nrun_dir = " + sw.Dir + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	removed := strings.Join(clean(file), "\n")
	for _, want := range []string{"flows of OVS bridge br-mpls", "port mpls_gre of OVS bridge br-mpls"} {
		if !strings.Contains(removed, want) {
			t.Errorf("%q is missing in %q", want, removed)
		}
	}
	if left := flows(); strings.Contains(left, "0xba61be00") || !strings.Contains(left, "priority=7") {
		t.Errorf("left:\n%s", left)
	}
	if err := os.WriteFile(file, []byte("[BGP]\nmy_as = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cleanOVS(t.Context(), config.Source{Files: []string{file}}, log); err == nil || !strings.Contains(err.Error(), "my_as") {
		t.Errorf("with a bad configuration: %v", err)
	}
}
