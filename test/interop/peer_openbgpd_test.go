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

var openbgpdKind = peerKind{
	name: "OpenBGPD", version: debianVersion("openbgpd"),
	needs:    []dependency{{openbgpdProgram, "openbgpd"}, {"bgpctl", "openbgpd"}},
	families: []string{"VPNv4", "VPNv6"}, new: newOpenbgpd,
	flaws: map[string]string{lineUnset: "peer's fault"},
	notes: []string{
		"Version 7.7 has neither E-VPN, VPN FlowSpec nor RT constraint.",
		"Its VPNs want an MPLS interface (`mpe`), which Linux has not, so it has no VPN routes of its own: *their routes* come " +
			"from another engine, and it reflects them. ORIGINATOR_ID and CLUSTER_LIST are compared. It does not show labels.",
		"It ignores withdrawals of VPN routes, whatever label stands in them (tried: 0x800000 as RFC 8277 wants it, 0x800001, 0, " +
			"the label of the route; with and without path attributes). Routes go only with the session.",
		"It does not ask others to keep its routes while it restarts; of graceful restart it has End-of-RIB.",
	},
}

// FRR's daemon has the same name.
const openbgpdProgram = "/usr/sbin/bgpd"

// An openbgpd is OpenBGPD as a route reflector.
type openbgpd struct {
	*host
	peerSetup
	dir, socket string
	proc        *process
	feed        *feeder
}

func newOpenbgpd(h *host, s peerSetup) peer {
	o := &openbgpd{host: h, peerSetup: s, dir: workDir(h.t)}
	o.socket = filepath.Join(o.dir, "bgpd.sock")
	// Where its processes change root to; its service unit would make it.
	if err := os.MkdirAll("/run/openbgpd", 0o755); err != nil {
		h.t.Fatal(err)
	}
	o.feed = s.feeder(s.as)
	return o
}

func (o *openbgpd) start(t testing.TB) {
	t.Helper()
	var c strings.Builder
	fmt.Fprintf(&c, "AS %d\nrouter-id %s\nsocket \"%s\"\nfib-update no\nlisten on %s\nconnect-retry 1\n", o.as, o.v4, o.socket, o.v4)
	for _, n := range []struct {
		addr    string
		passive bool
	}{{o.engine.v4.String(), o.passive}, {o.feed.v4.String(), true}} {
		fmt.Fprintf(&c, "neighbor %s {\n  remote-as %d\n  route-reflector %s\n  announce IPv4 none\n  announce IPv6 none\n", n.addr, o.as, o.v4)
		if n.passive {
			c.WriteString("  passive\n")
		}
		for _, f := range o.families {
			fmt.Fprintf(&c, "  announce %s vpn\n", map[string]string{"VPNv4": "IPv4", "VPNv6": "IPv6"}[f])
		}
		c.WriteString("}\n")
	}
	c.WriteString("allow from ibgp\nallow to ibgp\n")
	conf := writeFile(t, o.dir, "bgpd.conf", c.String())
	if err := os.Chmod(conf, 0o600); err != nil {
		t.Fatal(err)
	}
	o.proc = startProcess(o.t, o.NS, o.dir, "openbgpd", nil, openbgpdProgram, "-d", "-v", "-f", conf)
	o.proc.ready(func() error {
		_, err := o.rib("show", "summary")
		return err
	})
}

func (o *openbgpd) rib(args ...string) (string, error) {
	out, err := o.Try(append([]string{"bgpctl", "-s", o.socket, "-j"}, args...)...)
	if err != nil {
		err = fmt.Errorf("bgpctl: %w: %s", err, out)
	}
	return out, err
}

func (o *openbgpd) kill() { o.proc.kill() }

func (o *openbgpd) set(t testing.TB, routes []vpnRoute) { o.feed.replace(t, routes) }

func (o *openbgpd) sends(r vpnRoute) vpnRoute { return o.feed.reflected(r, o.v4.String()) }

func (o *openbgpd) shows(r vpnRoute) vpnRoute {
	r.Label = 0
	return r
}

func (o *openbgpd) received(_ testing.TB, family string) ([]vpnRoute, error) {
	out, err := o.rib("show", "rib", "detail", "neighbor", o.engine.v4.String())
	if err != nil {
		return nil, err
	}
	var rib struct {
		Routes []struct {
			Prefix      string   `json:"prefix"`
			ASPath      string   `json:"aspath"`
			NextHop     string   `json:"exit_nexthop"`
			Origin      string   `json:"origin"`
			Metric      int      `json:"metric"`
			LocalPref   int      `json:"localpref"`
			Communities []string `json:"extended_communities"`
		} `json:"rib"`
	}
	if err := json.Unmarshal([]byte(out), &rib); err != nil {
		return nil, fmt.Errorf("bgpctl: %w: %s", err, out)
	}
	var routes []vpnRoute
	for _, in := range rib.Routes {
		f := strings.Fields(in.Prefix) // "rd", RD, prefix
		r := vpnRoute{
			Family: "VPNv4", RD: f[1], Prefix: f[2], ASPath: in.ASPath, Origin: strings.ToLower(in.Origin),
			NextHop: unmapped(in.NextHop), LocalPref: strconv.Itoa(in.LocalPref),
		}
		if strings.Contains(r.Prefix, ":") {
			r.Family = "VPNv6"
		}
		for _, c := range in.Communities {
			if rt, ok := strings.CutPrefix(c, "rt "); ok {
				r.RTs = append(r.RTs, rt)
			} else {
				r.Communities = append(r.Communities, map[string]string{"[12] 0xa": "encap:mpls"}[c])
			}
		}
		if r.Family == family {
			routes = append(routes, r)
		}
	}
	return routes, nil
}
