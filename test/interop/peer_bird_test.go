// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var birdKind = peerKind{
	name: "BIRD", version: debianVersion("bird2"), needs: []dependency{{"bird", "bird2"}, {"birdc", "bird2"}},
	families: []string{"VPNv4", "VPNv6"}, graceful: true, options: []string{"eBGP", "TCP-MD5", "TTL security", "BFD"}, new: newBird,
	notes: []string{
		"BIRD has neither E-VPN, VPN FlowSpec nor RT constraint.",
		"It refuses a VPNv6 route with an IPv4-mapped next hop (RFC 4659 section 3.2.1.2), as a node with an IPv4 underlay " +
			"sends it, unless `extended next hop on` stands in its `vpn6` channel.",
		"Its own next hop goes out with label 3 (implicit null); a static route with `via ... mpls` keeps next hop and label.",
	},
}

// A bird is BIRD with static VPN routes.
type bird struct {
	*host
	peerSetup
	dir, socket string
	proc        *process
	routes      []vpnRoute
}

func newBird(h *host, s peerSetup) peer {
	b := &bird{host: h, peerSetup: s, dir: workDir(h.t)}
	b.socket = filepath.Join(b.dir, "bird.ctl")
	return b
}

func (b *bird) start(t testing.TB) {
	t.Helper()
	args := []string{"bird", "-f", "-c", b.configure(t), "-s", b.socket, "-P", filepath.Join(b.dir, "bird.pid")}
	if b.graceful && b.proc != nil {
		args = append(args, "-R") // it is a restart
	}
	b.proc = startProcess(b.t, b.NS, b.dir, "bird", nil, args...)
	b.proc.ready(func() error {
		_, err := b.Try("birdc", "-s", b.socket, "show status")
		return err
	})
}

func (b *bird) kill() {
	b.proc.kill()
}

func (b *bird) set(t testing.TB, routes []vpnRoute) {
	t.Helper()
	b.routes = slices.Clone(routes)
	if b.proc == nil || b.proc.exited() {
		return
	}
	b.configure(t)
	if out, err := b.Try("birdc", "-s", b.socket, "configure"); err != nil || !strings.Contains(out, "Reconfigur") {
		t.Fatalf("birdc configure: %v: %s", err, out)
	}
}

// birdTable is the table and channel of a family.
var birdTable = map[string]string{"VPNv4": "vpn4", "VPNv6": "vpn6"}

// configure writes the configuration and returns its path.
func (b *bird) configure(t testing.TB) string {
	t.Helper()
	var c strings.Builder
	fmt.Fprintf(&c, "log stderr all;\nrouter id %s;\nprotocol device { }\n", b.v4)
	for _, f := range b.families {
		fmt.Fprintf(&c, "%s table routes_%[1]s;\nprotocol static own_%[1]s {\n  %[1]s { table routes_%[1]s; };\n", birdTable[f])
		for _, r := range b.routes {
			if r.Family == f {
				b.writeRoute(t, &c, r)
			}
		}
		c.WriteString("}\n")
	}
	fmt.Fprintf(&c, "protocol bgp engine {\n  local %s as %d;\n  neighbor %s as %d;\n  hold time 90;\n", b.v4, b.as, b.engine.v4, b.engineAS)
	fmt.Fprintf(&c, "  connect delay time 1; connect retry time 1; error wait time 1, 1;\n  passive %s;\n  graceful restart %s;\n",
		onOff(b.passive), map[bool]string{true: "on", false: "off"}[b.graceful])
	for _, f := range b.families {
		fmt.Fprintf(&c, "  %s mpls {\n    table routes_%[1]s; import all; export where source = RTS_STATIC;\n", birdTable[f])
		if f == "VPNv6" {
			c.WriteString("    extended next hop on;\n")
		}
		c.WriteString("  };\n")
	}
	c.WriteString(b.optionConfig())
	c.WriteString("}\n")
	if b.option == "BFD" {
		c.WriteString("protocol bfd { interface \"*\" { interval 50 ms; multiplier 3; }; }\n")
	}
	return writeFile(t, b.dir, "bird.conf", c.String())
}

// optionConfig returns what a session option needs in the protocol.
func (b *bird) optionConfig() string {
	switch b.option {
	case "TCP-MD5":
		return fmt.Sprintf("  password \"%s\";\n", md5Password)
	case "TTL security":
		return "  multihop 1;\n  ttl security on;\n"
	case "BFD":
		return "  direct;\n  bfd on;\n"
	}
	return ""
}

func (b *bird) writeRoute(t testing.TB, c *strings.Builder, r vpnRoute) {
	t.Helper()
	fmt.Fprintf(c, "  route %s %s via %s mpls %d {\n    bgp_local_pref = %s; bgp_origin = ORIGIN_IGP;\n", r.RD, r.Prefix, r.NextHop, r.Label, r.LocalPref)
	for _, rt := range r.RTs {
		fmt.Fprintf(c, "    bgp_ext_community.add((rt, %s));\n", strings.Replace(rt, ":", ", ", 1))
	}
	for _, e := range r.Communities {
		n := communityNumber(t, e)
		fmt.Fprintf(c, "    bgp_ext_community.add((generic, %#x, %#x));\n", n>>32, n&0xffffffff)
	}
	c.WriteString("  };\n")
}

func (b *bird) sends(r vpnRoute) vpnRoute { return r }

// shows: BIRD gives routes without LOCAL_PREF its default.
func (b *bird) shows(r vpnRoute) vpnRoute {
	if r.LocalPref == "" {
		r.LocalPref = "100"
	}
	return r
}

func (b *bird) received(_ testing.TB, family string) ([]vpnRoute, error) {
	out, err := b.Try("birdc", "-s", b.socket, "show route all table routes_"+birdTable[family]+" protocol engine")
	if err != nil {
		return nil, fmt.Errorf("birdc show route: %w: %s", err, out)
	}
	var routes []vpnRoute
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2:
		case line[0] >= '0' && line[0] <= '9' && strings.Contains(words[1], "/"):
			routes = append(routes, vpnRoute{Family: family, RD: words[0], Prefix: words[1]})
		case strings.HasPrefix(words[0], "BGP.") && len(routes) > 0:
			if err := routes[len(routes)-1].birdAttribute(words[0], strings.Join(words[1:], " ")); err != nil {
				return nil, err
			}
		}
	}
	return routes, nil
}

// birdAttribute enters a line of "show route all".
func (r *vpnRoute) birdAttribute(name, value string) error {
	switch name {
	case "BGP.origin:":
		r.Origin = strings.ToLower(value)
	case "BGP.as_path:":
		r.ASPath = value
	case "BGP.next_hop:":
		r.NextHop = value
	case "BGP.local_pref:":
		r.LocalPref = value
	case "BGP.mpls_label_stack:":
		r.Label = number(value)
	case "BGP.ext_community:":
		for c := range strings.SplitSeq(strings.Trim(value, "()"), ") (") {
			f := strings.Split(c, ", ")
			if f[0] == "rt" && len(f) == 3 {
				r.RTs = append(r.RTs, f[1]+":"+f[2])
				continue
			}
			high, err1 := strconv.ParseUint(f[1], 0, 32)
			low, err2 := strconv.ParseUint(f[2], 0, 32)
			if f[0] != "generic" || err1 != nil || err2 != nil {
				return fmt.Errorf("BIRD shows a community in an unknown form: %s", c)
			}
			r.addCommunity(high<<32 | low)
		}
	default:
		return fmt.Errorf("BIRD shows an unexpected attribute %s %s", name, value)
	}
	return nil
}
