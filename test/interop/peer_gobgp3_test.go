// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var gobgp3Kind = peerKind{
	name: "GoBGP", version: debianVersion("gobgpd"), needs: needGoBGP,
	families: []string{"VPNv4", "VPNv6", "EVPN", "FlowSpec VPNv4", "FlowSpec VPNv6", "RTC"},
	graceful: true, new: newGobgp3,
	notes: []string{
		"The command line of 3.10 has no MAC mobility and takes no LOCAL_PREF for FlowSpec; what it sends is compared without.",
		"Its command line has no RT constraint routes; the test makes VRFs that import a route target.",
		"It sends End-of-RIB only with graceful restart.",
	},
}

// A gobgp3 is GoBGP's daemon, driven by its command line.
type gobgp3 struct {
	*host
	peerSetup
	dir    string
	proc   *process
	routes []vpnRoute
}

func newGobgp3(h *host, s peerSetup) peer { return &gobgp3{host: h, peerSetup: s, dir: workDir(h.t)} }

// gobgpFamily is a family's name in GoBGP's configuration and command line.
var gobgpFamily = map[string][2]string{
	"VPNv4": {"l3vpn-ipv4-unicast", "vpnv4"}, "VPNv6": {"l3vpn-ipv6-unicast", "vpnv6"}, "EVPN": {"l2vpn-evpn", "evpn"},
	"FlowSpec VPNv4": {"l3vpn-ipv4-flowspec", "ipv4-l3vpn-flowspec"},
	"FlowSpec VPNv6": {"l3vpn-ipv6-flowspec", "ipv6-l3vpn-flowspec"}, "RTC": {"rtc", "rtc"},
}

func (g *gobgp3) start(t testing.TB) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "[global.config]\n  as = %d\n  router-id = %q\n  port = %d\n", g.as, g.v4, map[bool]int{true: 179, false: -1}[g.passive])
	fmt.Fprintf(&b, "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = %q\n    peer-as = %d\n", g.engine.v4, g.engineAS)
	fmt.Fprintf(&b, "  [neighbors.transport.config]\n    passive-mode = %t\n    local-address = %q\n", g.passive, g.v4)
	b.WriteString("  [neighbors.timers.config]\n    connect-retry = 1\n    idle-hold-time-after-reset = 1\n")
	if g.graceful {
		b.WriteString("  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 60\n")
	}
	for _, f := range g.families {
		fmt.Fprintf(&b, "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = %q\n", gobgpFamily[f][0])
		if g.graceful {
			b.WriteString("    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n")
		}
	}
	args := []string{"gobgpd", "-f", writeFile(t, g.dir, "gobgpd.toml", b.String()), "--api-hosts", "127.0.0.1:50051"}
	if g.graceful && g.proc != nil {
		args = append(args, "-r") // it is a restart
	}
	g.proc = startProcess(g.t, g.NS, g.dir, "gobgpd", nil, args...)
	g.proc.ready(func() error {
		_, err := g.Try("gobgp", "neighbor", "-j")
		return err
	})
	for _, r := range g.routes {
		g.rib(t, "add", r)
	}
}

func (g *gobgp3) kill() { g.proc.kill() }

func (g *gobgp3) set(t testing.TB, routes []vpnRoute) {
	t.Helper()
	gone, news := difference(g.routes, routes)
	g.routes = slices.Clone(routes)
	if g.proc == nil || g.proc.exited() {
		return
	}
	for _, r := range gone {
		g.rib(t, "del", r)
	}
	for _, r := range news {
		g.rib(t, "add", r)
	}
}

// rib adds or deletes a route of GoBGP's own.
func (g *gobgp3) rib(t testing.TB, verb string, r vpnRoute) {
	t.Helper()
	if r.Target != "" {
		g.vrf(t, verb, r.Target)
		return
	}
	extra := " rd " + r.RD + " rt"
	for _, rt := range r.RTs {
		extra += " " + gobgpWord(rt)
	}
	for _, c := range r.Communities {
		if name, ok := strings.CutPrefix(c, "encap:"); ok {
			extra += " encap " + name
		}
	}
	var line string
	switch {
	case r.Kind == "imet":
		line = fmt.Sprintf("multicast %s etag 0%s pmsi ingress-repl %s", r.IP, extra, strings.TrimPrefix(r.PMSI, "ingress-replication "))
	case r.Kind == "mac-ip":
		line = fmt.Sprintf("macadv %s %s etag 0 label %d%s", r.MAC, map[bool]string{true: "0.0.0.0"}[r.IP == ""]+r.IP, r.Label, extra)
	case r.Flow != "":
		match := strings.NewReplacer(";", "", " =", " ==").Replace(r.Flow)
		action, target, _ := strings.Cut(r.Communities[0], ":")
		line = fmt.Sprintf("match %s then %s %s%s", match, action, gobgpWord(target), extra)
	default:
		line = fmt.Sprintf("%s label %d%s", r.Prefix, r.Label, extra)
	}
	if r.Flow == "" {
		line += fmt.Sprintf(" nexthop %s local-pref %s origin igp", r.NextHop, r.LocalPref)
	}
	args := append([]string{"gobgp", "global", "rib", "-a", gobgpFamily[r.Family][1], verb}, strings.Fields(line)...)
	if out, err := g.Try(args...); err != nil || out != "" {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// gobgpWord writes a route target for the command line: a four-octet AS as two numbers.
func gobgpWord(rt string) string {
	if as, n, _ := strings.Cut(rt, ":"); number(as) > 65535 && !strings.Contains(as, ".") {
		return fmt.Sprintf("%d.%d:%s", number(as)>>16, number(as)&0xffff, n)
	}
	return rt
}

// vrf adds or deletes a VRF for its import route target: the command line has no
// RT constraint routes.
func (g *gobgp3) vrf(t testing.TB, verb, target string) {
	t.Helper()
	_, rt, _ := strings.Cut(target, ":")
	name := strings.ReplaceAll(rt, ":", "-")
	args := []string{"gobgp", "vrf", "del", name}
	if verb == "add" {
		_, n, _ := strings.Cut(rt, ":")
		args = []string{"gobgp", "vrf", "add", name, "rd", g.v4.String() + ":" + n, "rt", "import", rt, "export", rt}
	}
	if out, err := g.Try(args...); err != nil || out != "" {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (g *gobgp3) sends(r vpnRoute) vpnRoute {
	r.Communities = slices.DeleteFunc(slices.Clone(r.Communities), func(c string) bool { return strings.HasPrefix(c, "mac-mobility") })
	if r.Flow != "" {
		r.LocalPref, r.Origin = "100", "incomplete"
	}
	return r
}

func (g *gobgp3) shows(r vpnRoute) vpnRoute { return r }

func (g *gobgp3) received(_ testing.TB, family string) ([]vpnRoute, error) {
	out, err := g.Try("gobgp", "neighbor", g.engine.v4.String(), "adj-in", "-a", gobgpFamily[family][1], "-j")
	if err != nil {
		return nil, fmt.Errorf("gobgp: %w: %s", err, out)
	}
	return gobgpRoutes([]byte(out), family)
}
