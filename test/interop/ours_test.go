// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// An options value holds options of the [BGP] section of our bgp.conf,
// dataplaneAddress of the E-VPN section, ipvpnSection and peerSections.
type options map[string]string

// peerSections is the text of sections for peers.
const peerSections = "[PEER]"

// ipvpnSection is the text of the section of the IP VPN dataplane.
const ipvpnSection = "[DATAPLANE_DRIVER_IPVPN]"

// dataplaneAddress is where tunnels end if not at the BGP local address.
const dataplaneAddress = "dataplane_local_address"

// newOurs starts our daemon on a host, with IPv4 sessions to peers unless bgp
// says otherwise, and waits for its API.
func newOurs(h *host, peers []string, bgp options) *node {
	h.t.Helper()
	program := daemonProgram(h.t)
	all := options{"local_address": h.v4.String(), "my_as": "64512"}
	if len(peers) > 0 {
		all["peers"] = strings.Join(peers, ",")
	}
	maps.Copy(all, bgp)
	n := newNode(h, all["local_address"], h.v4.String())
	evpn := "dataplane_driver = linux\n"
	if addr, ok := all[dataplaneAddress]; ok {
		evpn += dataplaneAddress + " = " + addr + "\n"
		n.tunnel = addr
		delete(all, dataplaneAddress)
	}
	sections, ipvpn := all[peerSections], all[ipvpnSection]
	delete(all, peerSections)
	delete(all, ipvpnSection)
	if ipvpn == "" {
		ipvpn = "dataplane_driver = dummy\n"
	}
	var b strings.Builder
	b.WriteString("[API]\nhost = 127.0.0.1\nport = 8082\n[BGP]\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = %s\n", name, all[name])
	}
	b.WriteString(ipvpnSection + "\n" + ipvpn + "[DATAPLANE_DRIVER_EVPN]\n" + evpn + sections)
	dir := workDir(h.t)
	conf := writeFile(h.t, dir, "bgp.conf", b.String())
	n.proc = startProcess(h.t, h.NS, dir, "bagpipe-bgp", nil, program, "--config-file", conf)
	n.proc.clean = true
	h.fabric.onFailure(h.dumpForwarding)
	h.fabric.onFailure(n.dumpState)
	n.waitAPI()
	return n
}

// dumpState shows what the daemon says about itself.
func (n *node) dumpState() {
	for _, path := range []string{"/readyz", "/looking-glass/logs", "/looking-glass/bgp/peers", "/looking-glass/bgp/routes"} {
		status, body, err := n.call(http.MethodGet, path, nil)
		n.t.Logf("%s: GET %s: %d, %v: %.4000s", n.label, path, status, err, body)
	}
}
