// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// TestPeerSection runs daemons with [PEER] sections against FRR, in another AS:
// a with password, TTL security and BFD (which FRR runs as multihop beside TTL
// security), b with another password, c with graceful restart. BFD is not for c:
// FRR drops the routes of a neighbour whose BFD ends with its daemon. Its graceful
// restart has no E-VPN.
func TestPeerSection(t *testing.T) {
	f := newFabric(t)
	ha, hb, hc, hf := f.host("node-a", 1), f.host("node-b", 2), f.host("node-c", 3), f.host("frr", 50)
	rr := &frrPeer{frr: newFRR(hf)}
	rr.ownDir()
	socket := rr.startZebra()
	rr.startBFDD(socket)
	rr.startBGPD(sectionConfig(rr.v4.String(), ha.v4.String(), hb.v4.String(), hc.v4.String()), "--socket", socket)
	peer := rr.v4.String()
	start := func(h *host, more string) *node {
		return newOurs(h, nil, options{
			"connect_retry_time": "1",
			peerSections:         fmt.Sprintf("[PEER %s]\npeer_as = 64496\nfamilies = evpn, vpnv4\n%s", peer, more),
		})
	}
	const secure = "ttl_security = 1\nbfd = multihop\nbfd_min_ttl = 255\nbfd_min_tx = 50\nbfd_min_rx = 50\n"
	a, b, c := start(ha, secure+"password = secret\n"), start(hb, secure+"password = Secret\n"), start(hc, "graceful_restart = full\n")
	a.established(peer)
	c.established(peer)
	var state struct {
		BFD struct {
			State string `json:"state"`
		} `json:"bfd"`
	}
	nstest.Eventually(t, startTimeout, func() bool {
		return a.get("bgp/peers/"+peer, &state) == nil && state.BFD.State == "Up"
	}, func() string { return "BFD of a: " + state.BFD.State })
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	a.attachVM(vmA, "red", 1001, "64512:300")
	wantFRR(t, "at first", 2, func() (int, error) { return rr.count("EVPN", ha) })
	if got, err := b.peer(peer); err != nil || got.Protocol.State == "Established" {
		t.Errorf("with the wrong password: %+v, %v", got.Protocol, err)
	}

	t.Log("c is killed, and comes back")
	gateway := "198.51.100.1"
	port := attachment{
		VPNType: "ipvpn", Instance: "blue", MAC: "02:aa:00:00:00:0c", IP: "198.51.100.12/32", Gateway: &gateway, Port: "tap0",
		ImportRT: []string{"64512:400"}, ExportRT: []string{"64512:400"},
	}
	c.attach(port)
	wantFRR(t, "at first", 1, func() (int, error) { return rr.count("VPNv4", hc) })
	c.proc.clean = false
	c.proc.kill()
	rr.neighborUntil(c.local, func(n frrNeighbor) bool { return n.State != "Established" })
	wantFRR(t, "while c is gone", 1, func() (int, error) { return rr.count("VPNv4", hc) })
	c = start(hc, "graceful_restart = full\n")
	c.established(peer)
	wantFRR(t, "when c is back, without its ports", 0, func() (int, error) { return rr.count("VPNv4", hc) })
	c.attach(port)
	wantFRR(t, "when c is back", 1, func() (int, error) { return rr.count("VPNv4", hc) })
}

// sectionConfig makes FRR wait for a and b with all that protects a session, and
// for c with graceful restart.
func sectionConfig(own, a, b, c string) string {
	s := fmt.Sprintf("hostname frr\nrouter bgp 64496\n bgp router-id %s\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n", own)
	s += " bgp graceful-restart\n"
	for _, n := range []string{a, b, c} {
		s += fmt.Sprintf(" neighbor %[1]s remote-as 64512\n neighbor %[1]s passive\n", n)
		if n != c {
			s += fmt.Sprintf(" neighbor %[1]s password secret\n neighbor %[1]s ttl-security hops 1\n neighbor %[1]s bfd 3 50 50\n", n)
		}
		for _, family := range []string{"l2vpn evpn", "ipv4 vpn"} {
			s += fmt.Sprintf(" address-family %[2]s\n  neighbor %[1]s activate\n exit-address-family\n", n, family)
		}
	}
	return s
}

// count counts the routes of a family that FRR has from a host.
func (f *frrPeer) count(family string, from *host) (int, error) {
	f.engine = from
	routes, err := f.received(f.t, family)
	return len(routes), err
}

// wantFRR waits until FRR has a number of routes.
func wantFRR(t *testing.T, when string, want int, count func() (int, error)) {
	t.Helper()
	var n int
	var err error
	nstest.Eventually(t, routeTimeout, func() bool {
		n, err = count()
		return err == nil && n == want
	}, func() string { return fmt.Sprintf("%s: FRR has %d routes, %v; want %d", when, n, err, want) })
}
