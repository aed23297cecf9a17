// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// FRR's daemons are not on PATH.
const (
	frrBGPD  = "/usr/lib/frr/bgpd"
	frrZebra = "/usr/lib/frr/zebra"
	frrBFDD  = "/usr/lib/frr/bfdd"
)

// A frr is FRR's bgpd on a host of its own, with zebra if it shall forward.
type frr struct {
	*host
	dir         string
	bgpd, zebra *process
}

// newFRR makes a host for FRR; startReflector or startSpeaker starts it.
func newFRR(h *host) *frr {
	h.t.Helper()
	need(h.t, needFRR)
	return &frr{host: h, dir: workDir(h.t)}
}

// startReflector runs bgpd alone as a route reflector for clients in AS 64512,
// with its router id as cluster id, for E-VPN, VPNv4 and VPNv6. It waits for
// the clients to connect, unless it shall dial them, too. It can be called again
// after stopping bgpd.
func (f *frr) startReflector(dial bool, clients ...netip.Addr) {
	f.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\nrouter bgp 64512\n bgp router-id %s\n bgp cluster-id %s\n", f.label, f.v4, f.v4)
	b.WriteString(" no bgp default ipv4-unicast\n neighbor nodes peer-group\n neighbor nodes remote-as 64512\n")
	b.WriteString(" neighbor nodes timers connect 1\n")
	if !dial {
		b.WriteString(" neighbor nodes passive\n")
	}
	for _, client := range clients {
		fmt.Fprintf(&b, " neighbor %s peer-group nodes\n", client)
	}
	for _, family := range []string{"l2vpn evpn", "ipv4 vpn", "ipv6 vpn"} {
		fmt.Fprintf(&b, " address-family %s\n  neighbor nodes activate\n  neighbor nodes route-reflector-client\n exit-address-family\n", family)
	}
	// Without zebra FRR takes every next hop as reachable.
	f.startBGPD(b.String(), "--no_zebra")
}

// startSpeaker runs zebra and bgpd as an E-VPN speaker that announces the VNIs
// of the namespace's VXLAN devices; vni has the given RD and route targets.
func (f *frr) startSpeaker(vni int, rd, rt string) {
	f.t.Helper()
	f.ownDir()
	socket := f.startZebra()
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\nrouter bgp 64512\n bgp router-id %s\n no bgp default ipv4-unicast\n", f.label, f.v4)
	b.WriteString(" neighbor nodes peer-group\n neighbor nodes remote-as 64512\n bgp listen range 10.77.0.0/24 peer-group nodes\n")
	b.WriteString(" address-family l2vpn evpn\n  neighbor nodes activate\n  advertise-all-vni\n")
	fmt.Fprintf(&b, "  vni %d\n   rd %s\n   route-target import %s\n   route-target export %s\n  exit-vni\n exit-address-family\n", vni, rd, rt, rt)
	f.startBGPD(b.String(), "--socket", socket)
}

// startZebra runs zebra, with lines of configuration, and returns the socket where
// the other daemons find it.
func (f *frr) startZebra(config ...string) string {
	f.t.Helper()
	socket := filepath.Join(f.dir, "zserv.api")
	conf := writeFile(f.t, f.dir, "zebra.conf", "hostname "+f.label+"\n"+strings.Join(config, ""))
	f.zebra = startProcess(f.t, f.NS, f.dir, "zebra", nil, frrZebra, "--config_file", conf,
		"--pid_file", filepath.Join(f.dir, "zebra.pid"), "--vty_socket", f.dir, "--socket", socket,
		"--vty_port", "0", "--log", "stdout", "--log-level", "info")
	f.zebra.ready(func() error {
		_, err := os.Stat(socket)
		return err
	})
	return socket
}

func (f *frr) startBGPD(config string, args ...string) {
	f.t.Helper()
	conf := writeFile(f.t, f.dir, "bgpd.conf", config)
	base := []string{
		frrBGPD, "--skip_runas", "--config_file", conf, "--pid_file", filepath.Join(f.dir, "bgpd.pid"),
		"--vty_socket", f.dir, "--vty_port", "0", "--log", "stdout", "--log-level", "debug",
	}
	f.bgpd = startProcess(f.t, f.NS, f.dir, "bgpd", nil, append(base, args...)...)
	f.fabric.onFailure(f.dumpForwarding)
	f.bgpd.ready(func() error {
		var out map[string]any
		return f.show("bgp summary", &out)
	})
}

// ownDir gives the directory to the user that zebra changes to.
func (f *frr) ownDir() {
	f.t.Helper()
	u, err := user.Lookup("frr")
	if err != nil {
		f.t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		f.t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chown(f.dir, uid, gid); err != nil {
		f.t.Fatal(err)
	}
}

// show decodes what "show <what> json" prints.
func (f *frr) show(what string, v any) error {
	out, err := f.Try("vtysh", "--vty_socket", f.dir, "-c", "show "+what+" json")
	if err != nil {
		return fmt.Errorf("show %s: %w: %s", what, err, out)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("show %s: %w: %s", what, err, out)
	}
	return nil
}

// A frrPath is one path of "show bgp l2vpn evpn route detail json".
type frrPath struct {
	VNI         string `json:"vni"`
	LocalPref   uint32 `json:"locPrf"`
	Communities struct {
		Text string `json:"string"`
	} `json:"extendedCommunity"`
	PMSI struct {
		TunnelType string `json:"tunnelType"`
		Label      uint32 `json:"label"`
	} `json:"pmsi"`
	NextHops []struct {
		IP string `json:"ip"`
	} `json:"nexthops"`
	Valid bool `json:"valid"`
	Peer  struct {
		ID string `json:"peerId"`
	} `json:"peer"`
}

// A frrPrefix is one prefix of the same.
type frrPrefix struct {
	Type  int         `json:"routeType"`
	Tag   uint32      `json:"ethTag"`
	MAC   string      `json:"mac"`
	IP    string      `json:"ip"`
	Paths [][]frrPath `json:"paths"`
}

// from returns a function that reads the E-VPN routes received from a peer,
// "0.0.0.0" for FRR's own.
func (f *frr) from(peer string) func() ([]evpnRoute, error) {
	return func() ([]evpnRoute, error) {
		var top map[string]json.RawMessage
		if err := f.show("bgp l2vpn evpn route detail", &top); err != nil {
			return nil, err
		}
		var out []evpnRoute
		for rd, raw := range top {
			var byPrefix map[string]json.RawMessage
			if json.Unmarshal(raw, &byPrefix) != nil {
				continue // one of the counters
			}
			for name, raw := range byPrefix {
				var p frrPrefix
				if !strings.HasPrefix(name, "[") {
					continue
				}
				if err := json.Unmarshal(raw, &p); err != nil {
					return nil, fmt.Errorf("FRR route %s: %w", name, err)
				}
				for _, multi := range p.Paths {
					for _, path := range multi {
						if path.Peer.ID == peer {
							out = append(out, p.route(rd, path))
						}
					}
				}
			}
		}
		return sorted(out), nil
	}
}

// route brings a path into the common form.
func (p frrPrefix) route(rd string, path frrPath) evpnRoute {
	r := evpnRoute{RD: rd, Tag: p.Tag, MAC: p.MAC, IP: p.IP, LocalPref: path.LocalPref}
	switch p.Type {
	case 2:
		r.Kind, r.VNI = kindMACIP, number(path.VNI)
	case 3:
		r.Kind, r.PMSILabel = kindMulticast, path.PMSI.Label
		r.PMSI = strings.ReplaceAll(strings.ToLower(path.PMSI.TunnelType), " ", "-")
	default:
		r.Kind = fmt.Sprintf("type %d", p.Type)
	}
	if len(path.NextHops) > 0 {
		r.NextHop = path.NextHops[0].IP
	}
	var texts []string
	for _, c := range strings.Fields(path.Communities.Text) {
		switch {
		case strings.HasPrefix(c, "RT:"):
			texts = append(texts, "target:"+strings.TrimPrefix(c, "RT:"))
		case c == "ET:8":
			texts = append(texts, encapVXLAN)
		case strings.HasPrefix(c, "MM:"):
			texts = append(texts, "mac-mobility:"+strings.TrimPrefix(c, "MM:"))
		default:
			texts = append(texts, c)
		}
	}
	r.addCommunities(texts)
	return r
}

// frrView takes away what FRR's output does not have: the ESI when there is
// none, the PMSI flags and tunnel end.
func frrView(routes []evpnRoute) []evpnRoute {
	out := make([]evpnRoute, len(routes))
	for i, r := range routes {
		if r.ESI == "0" {
			r.ESI = ""
		}
		r.PMSI, _, _ = strings.Cut(r.PMSI, " ")
		r.TunnelEnd, r.Originator, r.Clusters = "", "", nil
		out[i] = r
	}
	return out
}

// A frrNeighbor is the part of "show bgp neighbor" that tests look at.
type frrNeighbor struct {
	State        string `json:"bgpState"`
	RouterID     string `json:"remoteRouterId"`
	HoldTime     int    `json:"bgpTimerHoldTimeMsecs"`
	Established  int    `json:"connectionsEstablished"`
	Capabilities struct {
		FourOctetAS  string          `json:"4byteAs"`
		RouteRefresh string          `json:"routeRefresh"`
		Families     map[string]flag `json:"multiprotocolExtensions"`
	} `json:"neighborCapabilities"`
	GracefulRestart struct {
		EndOfRIB map[string]bool `json:"endOfRibRecv"`
	} `json:"gracefulRestartInfo"`
	Messages struct {
		NotificationsReceived int `json:"notificationsRecv"`
		RefreshesSent         int `json:"routeRefreshSent"`
		UpdatesReceived       int `json:"updatesRecv"`
	} `json:"messageStats"`
	LastReset        string `json:"lastResetDueTo"`
	LastNotification string `json:"lastNotificationReason"`
	ShutdownText     string `json:"lastShutdownDescription"`
}

// A flag is how FRR shows a capability of both sides.
type flag struct {
	Both bool `json:"advertisedAndReceived"`
}

// neighborUntil waits until what FRR knows about a neighbour satisfies check.
func (f *frr) neighborUntil(addr string, check func(frrNeighbor) bool) frrNeighbor {
	f.t.Helper()
	var out map[string]frrNeighbor
	var err error
	nstest.Eventually(f.t, startTimeout, func() bool {
		out = nil
		err = f.show("bgp neighbors "+addr, &out)
		return err == nil && check(out[addr])
	}, func() string { return fmt.Sprintf("FRR's session with %s: %+v, %v", addr, out[addr], err) })
	return out[addr]
}

// neighbor waits until the session with a peer is up and returns its state.
func (f *frr) neighbor(addr string) frrNeighbor {
	f.t.Helper()
	return f.neighborUntil(addr, func(n frrNeighbor) bool { return n.State == "Established" })
}

// do runs a command of FRR's shell.
func (f *frr) do(command string) {
	f.t.Helper()
	f.Run("vtysh", "--vty_socket", f.dir, "-c", command)
}
