// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var frrKind = peerKind{
	name: "FRR", version: debianVersion("frr"), needs: needFRR,
	families: []string{"VPNv4", "VPNv6", "EVPN"}, graceful: true,
	options: []string{"eBGP", "TCP-MD5", "TTL security", "BFD"}, new: newFRRPeer,
	notes: []string{
		"FRR 8.4 has neither VPN FlowSpec nor RT constraint.",
		"Here it is a route reflector: *their routes* come from another engine; ORIGINATOR_ID, CLUSTER_LIST and the MED of 0 that " +
			"FRR adds are compared. TestFRRSpeaker has routes of its own, with traffic. It shows neither the PMSI tunnel's " +
			"end nor the label of E-VPN type 3.",
		"Beside TTL security it runs BFD as multihop, on the link too: set `bfd = multihop`. It keeps routes of a restarting neighbour " +
			"for VPNv4 and VPNv6, not for E-VPN, and not when BFD says that the neighbour is gone.",
	},
}

// A frrPeer is FRR's bgpd as a route reflector for the engine and a feeder.
type frrPeer struct {
	*frr
	peerSetup
	bfdd *process
	feed *feeder
}

func newFRRPeer(h *host, s peerSetup) peer {
	return &frrPeer{frr: newFRR(h), peerSetup: s, feed: s.feeder(s.as)}
}

// frrFamily is a family's name in the configuration.
var frrFamily = map[string]string{"VPNv4": "ipv4 vpn", "VPNv6": "ipv6 vpn", "EVPN": "l2vpn evpn"}

func (f *frrPeer) start(t testing.TB) {
	t.Helper()
	if f.option != "BFD" {
		f.startBGPD(f.config(), "--no_zebra")
		return
	}
	// The daemons of FRR talk to each other through zebra.
	f.ownDir()
	socket := f.startZebra()
	f.startBFDD(socket)
	f.startBGPD(f.config(), "--socket", socket)
}

func (f *frrPeer) config() string {
	engine := f.engine.v4
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\nrouter bgp %d\n bgp router-id %s\n bgp cluster-id %s\n", f.label, f.as, f.v4, f.v4)
	b.WriteString(" no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n")
	if f.graceful {
		b.WriteString(" bgp graceful-restart\n bgp graceful-restart restart-time 60\n")
	}
	fmt.Fprintf(&b, " neighbor %s remote-as %d\n neighbor %s timers connect 1\n", engine, f.engineAS, engine)
	if f.passive {
		fmt.Fprintf(&b, " neighbor %s passive\n", engine)
	}
	switch f.option {
	case "TCP-MD5":
		fmt.Fprintf(&b, " neighbor %s password %s\n", engine, md5Password)
	case "TTL security":
		fmt.Fprintf(&b, " neighbor %s ttl-security hops 1\n", engine)
	case "BFD":
		fmt.Fprintf(&b, " neighbor %s bfd 3 50 50\n", engine)
	}
	fmt.Fprintf(&b, " neighbor %s remote-as %d\n neighbor %s passive\n", f.feed.v4, f.as, f.feed.v4)
	for _, family := range f.families {
		fmt.Fprintf(&b, " address-family %s\n", frrFamily[family])
		fmt.Fprintf(&b, "  neighbor %s activate\n  neighbor %s activate\n", engine, f.feed.v4)
		if f.as == f.engineAS {
			fmt.Fprintf(&b, "  neighbor %s route-reflector-client\n  neighbor %s route-reflector-client\n", engine, f.feed.v4)
		} else {
			fmt.Fprintf(&b, "  neighbor %s attribute-unchanged next-hop\n", engine)
		}
		b.WriteString(" exit-address-family\n")
	}
	return b.String()
}

// startBFDD runs FRR's BFD daemon.
func (f *frrPeer) startBFDD(socket string) {
	f.t.Helper()
	control := filepath.Join(f.dir, "bfdd.sock")
	conf := writeFile(f.t, f.dir, "bfdd.conf", "hostname "+f.label+"\n")
	f.bfdd = startProcess(f.t, f.NS, f.dir, "bfdd", nil, frrBFDD, "--config_file", conf, "--pid_file", filepath.Join(f.dir, "bfdd.pid"),
		"--vty_socket", f.dir, "--vty_port", "0", "--socket", socket, "--bfdctl", control, "--log", "stdout", "--log-level", "debug")
	f.bfdd.ready(func() error {
		_, err := os.Stat(control)
		return err
	})
}

func (f *frrPeer) kill() { f.bgpd.kill() }

func (f *frrPeer) set(t testing.TB, routes []vpnRoute) { f.feed.replace(t, routes) }

func (f *frrPeer) sends(r vpnRoute) vpnRoute {
	if f.as != f.engineAS {
		return r
	}
	r.MED = "0"
	return f.feed.reflected(r, f.v4.String())
}

func (f *frrPeer) shows(r vpnRoute) vpnRoute {
	if r.Kind == "imet" {
		r.PMSI, _, _ = strings.Cut(r.PMSI, " ")
	}
	return r
}

// A frrVPNPath is one path of "show bgp ipv4 vpn ... json".
type frrVPNPath struct {
	VNI    string `json:"vni"`
	ASPath struct {
		Text string `json:"string"`
	} `json:"aspath"`
	Origin      string  `json:"origin"`
	LocalPref   *uint32 `json:"locPrf"`
	Communities struct {
		Text string `json:"string"`
	} `json:"extendedCommunity"`
	Label    uint32 `json:"remoteLabel"`
	NextHops []struct {
		IP string `json:"ip"`
	} `json:"nexthops"`
	PMSI struct {
		TunnelType string `json:"tunnelType"`
	} `json:"pmsi"`
	Peer struct {
		ID string `json:"peerId"`
	} `json:"peer"`
}

func (f *frrPeer) received(_ testing.TB, family string) ([]vpnRoute, error) {
	if family == "EVPN" {
		return f.receivedEVPN()
	}
	show := "bgp " + frrFamily[family]
	var list struct {
		Routes struct {
			ByRD map[string]map[string]json.RawMessage `json:"routeDistinguishers"`
		} `json:"routes"`
	}
	if err := f.show(show, &list); err != nil {
		return nil, err
	}
	var routes []vpnRoute
	for rd, prefixes := range list.Routes.ByRD {
		for prefix := range prefixes {
			var byRD map[string]struct {
				Paths []frrVPNPath `json:"paths"`
			}
			if err := f.show(fmt.Sprintf("%s rd %s %s", show, rd, prefix), &byRD); err != nil {
				return nil, err
			}
			for _, p := range byRD[rd].Paths {
				if p.Peer.ID == f.engine.v4.String() {
					routes = append(routes, p.route(vpnRoute{Family: family, RD: rd, Prefix: prefix}))
				}
			}
		}
	}
	return routes, nil
}

func (f *frrPeer) receivedEVPN() ([]vpnRoute, error) {
	var top map[string]json.RawMessage
	if err := f.show("bgp l2vpn evpn route detail", &top); err != nil {
		return nil, err
	}
	var routes []vpnRoute
	for rd, raw := range top {
		var byPrefix map[string]json.RawMessage
		if json.Unmarshal(raw, &byPrefix) != nil {
			continue // one of the counters
		}
		for name, raw := range byPrefix {
			var p struct {
				Type  int            `json:"routeType"`
				MAC   string         `json:"mac"`
				IP    string         `json:"ip"`
				Paths [][]frrVPNPath `json:"paths"`
			}
			if !strings.HasPrefix(name, "[") {
				continue
			}
			if err := json.Unmarshal(raw, &p); err != nil {
				return nil, fmt.Errorf("FRR route %s: %w", name, err)
			}
			r := vpnRoute{Family: "EVPN", RD: rd, MAC: p.MAC, IP: p.IP, Kind: map[int]string{2: "mac-ip", 3: "imet"}[p.Type]}
			for _, multi := range p.Paths {
				for _, path := range multi {
					if path.Peer.ID == f.engine.v4.String() {
						routes = append(routes, path.route(r))
					}
				}
			}
		}
	}
	return routes, nil
}

// route enters the attributes of a path.
func (p frrVPNPath) route(r vpnRoute) vpnRoute {
	r.Label, r.Origin = p.Label, strings.ToLower(p.Origin)
	if r.Kind == "mac-ip" {
		r.Label = number(p.VNI)
	}
	if r.ASPath = p.ASPath.Text; r.ASPath == "Local" {
		r.ASPath = ""
	}
	if p.LocalPref != nil {
		r.LocalPref = strconv.Itoa(int(*p.LocalPref))
	}
	if len(p.NextHops) > 0 {
		r.NextHop = unmapped(p.NextHops[0].IP)
	}
	r.PMSI = strings.ReplaceAll(strings.ToLower(p.PMSI.TunnelType), " ", "-")
	for _, c := range strings.Fields(p.Communities.Text) {
		if rt, ok := strings.CutPrefix(c, "RT:"); ok {
			r.RTs = append(r.RTs, rt)
			continue
		}
		r.Communities = append(r.Communities, strings.NewReplacer("ET:8", "encap:vxlan", "ET:10", "encap:mpls", "MM:", "mac-mobility:").Replace(c))
	}
	return r
}
