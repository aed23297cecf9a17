// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// gobgpFamilies are the families the reflector carries, in GoBGP's words.
var gobgpFamilies = []string{
	"l2vpn-evpn", "l3vpn-ipv4-unicast", "l3vpn-ipv6-unicast", "l3vpn-ipv4-flowspec", "rtc",
}

// A gobgp is GoBGP as a route reflector on a host of its own.
type gobgp struct {
	*host
	proc *process
	// clients are the addresses of the nodes, which the reflector waits for.
	clients []netip.Addr
	as      int64
	// without lists families that are not offered.
	without []string
	// holdTime is what it proposes; 0 leaves its default of 90 s.
	holdTime int
}

// start runs gobgpd.
func (g *gobgp) start() {
	g.t.Helper()
	need(g.t, needGoBGP)
	if g.as == 0 {
		g.as = 64512
	}
	dir := workDir(g.t)
	path := writeFile(g.t, dir, "gobgpd.toml", g.config())
	g.proc = startProcess(g.t, g.NS, dir, "gobgpd", nil, "gobgpd", "-f", path, "--api-hosts", "127.0.0.1:50051")
	g.proc.ready(func() error {
		_, err := g.Try("gobgp", "neighbor", "-j")
		return err
	})
}

func (g *gobgp) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[global.config]\n  as = %d\n  router-id = %q\n", g.as, g.v4)
	for _, client := range g.clients {
		fmt.Fprintf(&b, "[[neighbors]]\n")
		fmt.Fprintf(&b, "  [neighbors.config]\n    neighbor-address = %q\n    peer-as = %d\n", client, g.as)
		fmt.Fprintf(&b, "  [neighbors.transport.config]\n    passive-mode = true\n")
		if g.holdTime != 0 {
			fmt.Fprintf(&b, "  [neighbors.timers.config]\n    hold-time = %d\n    keepalive-interval = %d\n", g.holdTime, g.holdTime/3)
		}
		fmt.Fprintf(&b, "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = %q\n", g.v4)
		for _, family := range gobgpFamilies {
			if !slices.Contains(g.without, family) {
				fmt.Fprintf(&b, "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = %q\n", family)
			}
		}
	}
	return b.String()
}

// gobgpPath is one path in the JSON output of the gobgp program.
type gobgpPath struct {
	NLRI struct {
		Type  int `json:"type"`
		Value struct {
			RD     gobgpRD  `json:"rd"`
			ESI    string   `json:"esi"`
			Tag    uint32   `json:"etag"`
			MAC    string   `json:"mac"`
			IP     string   `json:"ip"`
			Labels []uint32 `json:"labels"`
		} `json:"value"`
		Prefix string `json:"prefix"`
	} `json:"nlri"`
	Attrs []struct {
		Type       int             `json:"type"`
		Value      json.RawMessage `json:"value"`
		NextHop    string          `json:"nexthop"`
		LeafInfo   bool            `json:"is-leaf-info-required"`
		TunnelType int             `json:"tunnel-type"`
		Label      uint32          `json:"label"`
		TunnelID   string          `json:"tunnel-id"`
	} `json:"attrs"`
	Source string `json:"neighbor-ip"`
}

type gobgpRD struct {
	Type     int             `json:"type"`
	Admin    json.RawMessage `json:"admin"`
	Assigned uint32          `json:"assigned"`
}

func (rd gobgpRD) String() string {
	return fmt.Sprintf("%s:%d", strings.Trim(string(rd.Admin), `"`), rd.Assigned)
}

// table asks for a table, such as "neighbor 10.77.0.1 adj-in", of a family.
func (g *gobgp) table(table, family string) ([]gobgpPath, error) {
	args := append([]string{"gobgp"}, strings.Fields(table)...)
	out, err := g.Try(append(args, "-a", family, "-j")...)
	if err != nil {
		return nil, fmt.Errorf("gobgp %s %s: %w: %s", table, family, err, out)
	}
	var byPrefix map[string][]gobgpPath
	if err := json.Unmarshal([]byte(out), &byPrefix); err != nil {
		return nil, fmt.Errorf("gobgp %s %s: %w: %s", table, family, err, out)
	}
	var paths []gobgpPath
	for list := range maps.Values(byPrefix) {
		paths = append(paths, list...)
	}
	return paths, nil
}

// evpn returns a function that reads a table of E-VPN routes.
func (g *gobgp) evpn(table string) func() ([]evpnRoute, error) {
	return func() ([]evpnRoute, error) {
		paths, err := g.table(table, "evpn")
		if err != nil {
			return nil, err
		}
		var out []evpnRoute
		for _, p := range paths {
			r, err := p.route()
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		return sorted(out), nil
	}
}

// adjIn reads what a client sent, adjOut what the reflector sends to it.
func (g *gobgp) adjIn(client netip.Addr) func() ([]evpnRoute, error) {
	return g.evpn("neighbor " + client.String() + " adj-in")
}

func (g *gobgp) adjOut(client netip.Addr) func() ([]evpnRoute, error) {
	return g.evpn("neighbor " + client.String() + " adj-out")
}

// wantRTC waits until the route target memberships a client has sent are
// exactly these ("64512:64512:300").
func (g *gobgp) wantRTC(client netip.Addr, want ...string) {
	g.t.Helper()
	var got []string
	var err error
	nstest.Eventually(g.t, routeTimeout, func() bool {
		var paths []gobgpPath
		paths, err = g.table("neighbor "+client.String()+" adj-in", "rtc")
		got = nil
		for _, p := range paths {
			got = append(got, p.NLRI.Prefix)
		}
		return err == nil && slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
	}, func() string { return fmt.Sprintf("RTC routes of %s: got %v, want %v; %v", client, got, want, err) })
}

// rib adds or deletes a route of GoBGP's own: rib("add", "evpn", "macadv ...").
func (g *gobgp) rib(action, family, route string) {
	g.t.Helper()
	args := append([]string{"gobgp", "global", "rib", "-a", family, action}, strings.Fields(route)...)
	g.Run(args...)
}

// route brings a path into the common form.
func (p gobgpPath) route() (evpnRoute, error) {
	v := p.NLRI.Value
	r := evpnRoute{RD: v.RD.String(), Tag: v.Tag, IP: v.IP}
	switch p.NLRI.Type {
	case 2:
		r.Kind, r.MAC, r.ESI = kindMACIP, v.MAC, v.ESI
		if r.ESI == "single-homed" {
			r.ESI = "0"
		}
		if r.IP == "invalid IP" || r.IP == "<nil>" {
			r.IP = ""
		}
		if len(v.Labels) != 1 {
			return r, fmt.Errorf("route of %s has labels %v", v.MAC, v.Labels)
		}
		r.VNI = v.Labels[0]
	case 3:
		r.Kind = kindMulticast
	default:
		return r, fmt.Errorf("unexpected E-VPN route type %d from %s", p.NLRI.Type, p.Source)
	}
	for _, a := range p.Attrs {
		switch a.Type {
		case 4:
			r.MED = string(a.Value)
		case 5:
			r.LocalPref = number(string(a.Value))
		case 9:
			r.Originator = strings.Trim(string(a.Value), `"`)
		case 10:
			if err := json.Unmarshal(a.Value, &r.Clusters); err != nil {
				return r, err
			}
		case 14:
			r.NextHop = a.NextHop
		case 16:
			texts, err := gobgpCommunities(a.Value)
			if err != nil {
				return r, err
			}
			r.addCommunities(texts)
		case 22:
			if a.TunnelType != 6 {
				return r, fmt.Errorf("PMSI tunnel of type %d", a.TunnelType)
			}
			r.PMSI, r.PMSILabel, r.TunnelEnd = ingressReplication, a.Label, a.TunnelID
			if a.LeafInfo {
				r.PMSI = "ingress-replication 1"
			}
		}
	}
	return r, nil
}

// gobgpCommunities writes extended communities the way the looking glass does.
func gobgpCommunities(raw json.RawMessage) ([]string, error) {
	var list []struct {
		Type, Subtype int
		Value         json.RawMessage
		TunnelType    int    `json:"tunnel_type"`
		Sequence      uint32 `json:"sequence"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, c := range list {
		switch {
		case c.Type == 3 && c.Subtype == 12 && c.TunnelType == 8:
			out = append(out, encapVXLAN)
		case c.Subtype == 2 && (c.Type == 0 || c.Type == 1 || c.Type == 2):
			out = append(out, "target:"+strings.Trim(string(c.Value), `"`))
		case c.Type == 6 && c.Subtype == 0:
			out = append(out, fmt.Sprintf("mac-mobility:%d", c.Sequence))
		default:
			out = append(out, fmt.Sprintf("community %d/%d %s", c.Type, c.Subtype, c.Value))
		}
	}
	return out, nil
}

// newGoBGP starts a reflector at 10.77.0.254 for the given clients.
func newGoBGP(f *fabric, clients ...netip.Addr) *gobgp {
	f.t.Helper()
	g := &gobgp{host: f.host("gobgp", 254), clients: clients}
	g.start()
	return g
}
