// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// helperKind is a route reflector that keeps the routes of a client which restarts
// (RFC 4724). It can be started again.
type helperKind struct {
	name string
	// noEVPN: it does not keep E-VPN routes.
	noEVPN bool
	// asks: it asks its clients to keep what it has sent when it restarts itself.
	asks  bool
	start func(f *fabric, clients ...netip.Addr)
}

var (
	gobgpHelper = helperKind{name: "GoBGP", asks: true, start: (*fabric).startGoBGP}
	frrHelper   = helperKind{name: "FRR", noEVPN: true, start: (*fabric).startFRR}
)

// startGoBGP starts GoBGP in the hub.
func (f *fabric) startGoBGP(clients ...netip.Addr) {
	f.t.Helper()
	var b strings.Builder
	id := fmt.Sprintf("192.0.2.%d", reflectorNumber)
	fmt.Fprintf(&b, "[global.config]\n  as = %d\n  router-id = %q\n  local-address-list = [%q]\n", asn, id, f.addr(reflectorNumber))
	for _, client := range clients {
		fmt.Fprintf(&b, "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = %q\n    peer-as = %d\n", client, asn)
		b.WriteString("  [neighbors.transport.config]\n    passive-mode = true\n  [neighbors.timers.config]\n    idle-hold-time-after-reset = 1\n")
		b.WriteString("  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 60\n")
		fmt.Fprintf(&b, "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = %q\n", id)
		for _, family := range []string{"l2vpn-evpn", "l3vpn-ipv4-unicast", "l3vpn-ipv6-unicast", "rtc"} {
			fmt.Fprintf(&b, "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = %q\n", family)
			b.WriteString("    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n")
		}
	}
	conf := writeFile(f.t, f.t.TempDir(), "gobgpd.toml", b.String())
	args := []string{"gobgpd", "-f", conf, "--api-hosts", "127.0.0.1:50051"}
	if f.rr != nil {
		args = append(args, "-r") // it is a restart
	}
	f.rr = startProcess(f.t, f.hub, "gobgpd", args...)
	f.rr.ready(func() error {
		_, err := f.hub.Try("gobgp", "neighbor")
		return err
	})
}

// startFRR starts FRR's bgpd in the hub. Without zebra it takes every next hop as reachable. It has
// no "bgp graceful-restart", with which FRR 8.4 holds all VPN routes back for minutes after
// a start, but sends End-of-RIB at once: clients then drop what they have kept.
func (f *fabric) startFRR(clients ...netip.Addr) {
	f.t.Helper()
	var b strings.Builder
	id := fmt.Sprintf("192.0.2.%d", reflectorNumber)
	fmt.Fprintf(&b, "hostname frr\nrouter bgp %d\n bgp router-id %s\n bgp cluster-id %s\n no bgp default ipv4-unicast\n", asn, id, id)
	fmt.Fprintf(&b, " neighbor nodes peer-group\n neighbor nodes remote-as %d\n neighbor nodes passive\n", asn)
	for _, client := range clients {
		fmt.Fprintf(&b, " neighbor %s peer-group nodes\n", client)
	}
	for _, family := range []string{"l2vpn evpn", "ipv4 vpn", "ipv6 vpn"} {
		fmt.Fprintf(&b, " address-family %s\n  neighbor nodes activate\n  neighbor nodes route-reflector-client\n exit-address-family\n", family)
	}
	dir := f.t.TempDir()
	conf := writeFile(f.t, dir, "bgpd.conf", b.String())
	f.rr = startProcess(f.t, f.hub, "bgpd", "/usr/lib/frr/bgpd", "--skip_runas", "--no_zebra", "--config_file", conf,
		"--pid_file", filepath.Join(dir, "bgpd.pid"), "--vty_socket", dir, "--vty_port", "0", "--log", "stdout", "--log-level", "debug")
	f.rr.ready(func() error {
		_, err := f.hub.Try("vtysh", "--vty_socket", dir, "-c", "show bgp summary json")
		return err
	})
}

// writeFile writes a file and returns its path.
func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
