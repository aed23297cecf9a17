// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var exabgpKind = peerKind{
	name: "ExaBGP", version: debianVersion("exabgp"), needs: []dependency{{"exabgp", "exabgp"}},
	families:    []string{"VPNv4", "VPNv6", "EVPN", "FlowSpec VPNv4", "FlowSpec VPNv6"},
	receiveOnly: []string{"EVPN"}, graceful: true, new: newExabgp,
	notes: []string{
		"ExaBGP's configuration has no E-VPN routes and no RT constraint; it decodes E-VPN routes.",
		"It encodes the text `target:192.0.2.1:9` wrongly (as a four-octet AS); the test gives it route targets as numbers.",
		"It closes the session when a FlowSpec route redirects to a route target with a four-octet AS; and an IPv6 FlowSpec route without a prefix it sends as an IPv4 one.",
	},
}

// An exabgp is ExaBGP with a process that hands it commands from a pipe and
// writes down what it reports.
type exabgp struct {
	*host
	peerSetup
	dir    string
	proc   *process
	pipe   *os.File
	routes []vpnRoute
}

func newExabgp(h *host, s peerSetup) peer {
	e := &exabgp{host: h, peerSetup: s, dir: workDir(h.t)}
	h.t.Cleanup(e.closePipe)
	return e
}

// newPipe makes a pipe for commands. One of its own for each run: the driver of
// a killed ExaBGP lives until its pipe is closed.
func (e *exabgp) newPipe(t testing.TB) {
	t.Helper()
	e.closePipe()
	path := e.path("commands")
	_ = os.Remove(path)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if e.pipe, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
}

func (e *exabgp) closePipe() {
	if e.pipe != nil {
		_ = e.pipe.Close()
	}
}

func (e *exabgp) path(name string) string { return filepath.Join(e.dir, name) }

// exabgpFamily is a family's name in configuration and reports.
var exabgpFamily = map[string]string{
	"VPNv4": "ipv4 mpls-vpn", "VPNv6": "ipv6 mpls-vpn", "EVPN": "l2vpn evpn",
	"FlowSpec VPNv4": "ipv4 flow-vpn", "FlowSpec VPNv6": "ipv6 flow-vpn",
}

func (e *exabgp) start(t testing.TB) {
	t.Helper()
	// A new log: what it has received in this session.
	_ = os.Remove(e.path("reports"))
	e.newPipe(t)
	script := writeFile(t, e.dir, "driver", fmt.Sprintf("cat <%s &\nexec cat >%s\n", e.path("commands"), e.path("reports")))
	var c strings.Builder
	fmt.Fprintf(&c, "process driver {\n  run /bin/sh %s;\n  encoder json;\n}\nneighbor %s {\n", script, e.engine.v4)
	fmt.Fprintf(&c, "  router-id %s; local-address %s; local-as %d; peer-as %d; hold-time 90;\n", e.v4, e.v4, e.as, e.engineAS)
	if e.passive {
		c.WriteString("  passive true; listen 179;\n")
	}
	c.WriteString("  capability { asn4; route-refresh;")
	if e.graceful {
		c.WriteString(" graceful-restart 60;")
	}
	c.WriteString(" }\n  family {")
	for _, f := range e.families {
		fmt.Fprintf(&c, " %s;", exabgpFamily[f])
	}
	c.WriteString(" }\n  api { processes [ driver ]; receive { parsed; update; } neighbor-changes; }\n}\n")
	conf := writeFile(t, e.dir, "exabgp.conf", c.String())
	env := []string{"env", "exabgp.daemon.user=root", "exabgp.api.ack=false", "exabgp.api.cli=false", "exabgp.log.level=INFO"}
	if e.passive {
		env = append(env, "exabgp.tcp.bind="+e.v4.String(), "exabgp.tcp.port=179")
	}
	e.proc = startProcess(e.t, e.NS, e.dir, "exabgp", nil, append(env, "exabgp", conf)...)
	e.proc.ready(func() error {
		_, err := os.Stat(e.path("reports"))
		return err
	})
	for _, r := range e.routes {
		e.command(t, "announce", r)
	}
}

func (e *exabgp) kill() { e.proc.kill() }

func (e *exabgp) set(t testing.TB, routes []vpnRoute) {
	t.Helper()
	gone, news := difference(e.routes, routes)
	e.routes = slices.Clone(routes)
	if e.proc == nil || e.proc.exited() {
		return
	}
	for _, r := range gone {
		e.command(t, "withdraw", r)
	}
	for _, r := range news {
		e.command(t, "announce", r)
	}
}

// command writes a line of ExaBGP's API.
func (e *exabgp) command(t testing.TB, verb string, r vpnRoute) {
	t.Helper()
	var list []string
	for _, rt := range r.RTs {
		list = append(list, fmt.Sprintf("0x%016x", targetNumber(t, rt)))
	}
	for _, c := range r.Communities {
		list = append(list, fmt.Sprintf("0x%016x", communityNumber(t, c)))
	}
	communities := "extended-community [ " + strings.Join(list, " ") + " ]"
	line := fmt.Sprintf("%s route %s rd %s label %d next-hop %s origin igp local-preference %s %s",
		verb, r.Prefix, r.RD, r.Label, r.NextHop, r.LocalPref, communities)
	if r.Flow != "" {
		match := exabgpMatch(r.Flow)
		if r.Family == "FlowSpec VPNv6" {
			match = strings.Replace(match, "protocol", "next-header", 1)
		}
		line = fmt.Sprintf("%s flow route { rd %s; match { %s; } then { %s; } }", verb, r.RD, match, communities)
	}
	if _, err := e.pipe.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

// exabgpMatch writes components in ExaBGP's language: lists of values in brackets.
func exabgpMatch(flow string) string {
	parts := strings.Split(flow, "; ")
	for i, part := range parts {
		name, values, _ := strings.Cut(part, " ")
		if strings.Contains(values, " ") {
			parts[i] = name + " [ " + values + " ]"
		}
	}
	return strings.Join(parts, "; ")
}

// sends: a flow has no LOCAL_PREF of its own.
func (e *exabgp) sends(r vpnRoute) vpnRoute {
	if r.Flow != "" {
		r.LocalPref = "100"
	}
	return r
}

func (e *exabgp) shows(r vpnRoute) vpnRoute { return r }

// An exabgpReport is a line that ExaBGP writes.
type exabgpReport struct {
	Neighbor struct {
		State   string `json:"state"`
		Message struct {
			Update struct {
				Attribute struct {
					Origin      string `json:"origin"`
					ASPath      []int  `json:"as-path"`
					LocalPref   int    `json:"local-preference"`
					PMSI        string `json:"pmsi"`
					Communities []struct {
						Value uint64 `json:"value"`
					} `json:"extended-community"`
				} `json:"attribute"`
				Announce map[string]map[string][]exabgpNLRI `json:"announce"`
				Withdraw map[string][]exabgpNLRI            `json:"withdraw"`
			} `json:"update"`
		} `json:"message"`
	} `json:"neighbor"`
}

type exabgpNLRI struct {
	Code              int
	RD, NLRI, IP, MAC string
	Label             [][]uint32
	Dest4             []string `json:"destination-ipv4"`
	Dest6             []string `json:"destination-ipv6"`
	Source4           []string `json:"source-ipv4"`
	Source6           []string `json:"source-ipv6"`
	Protocol          []string `json:"protocol"`
	NextHeader        []string `json:"next-header"`
	Port              []string `json:"port"`
	DestinationPort   []string `json:"destination-port"`
	SourcePort        []string `json:"source-port"`
}

// received replays the reports of the present session.
func (e *exabgp) received(_ testing.TB, family string) ([]vpnRoute, error) {
	f, err := os.Open(e.path("reports"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	held := map[string]vpnRoute{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r exabgpReport
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			continue // the end of a line is not there yet
		}
		if r.Neighbor.State == "down" {
			clear(held)
		}
		u := r.Neighbor.Message.Update
		for _, n := range u.Withdraw[exabgpFamily[family]] {
			delete(held, n.route(family).key())
		}
		for nextHop, list := range u.Announce[exabgpFamily[family]] {
			for _, n := range list {
				route := n.route(family)
				route.addExabgp(r, nextHop)
				held[route.key()] = route
			}
		}
	}
	var routes []vpnRoute
	for _, r := range held {
		routes = append(routes, r)
	}
	return routes, in.Err()
}

// route brings an NLRI into the common form.
func (n exabgpNLRI) route(family string) vpnRoute {
	r := vpnRoute{Family: family, RD: n.RD, Prefix: n.NLRI, MAC: strings.ToLower(n.MAC), IP: n.IP}
	r.Kind = map[int]string{2: "mac-ip", 3: "imet"}[n.Code]
	if len(n.Label) == 1 && len(n.Label[0]) > 0 {
		r.Label = n.Label[0][len(n.Label[0])-1] // E-VPN: [label, raw]
	}
	var parts []string
	for _, c := range []struct {
		name   string
		values []string
	}{
		{"destination", slices.Concat(n.Dest4, n.Dest6)}, {"source", slices.Concat(n.Source4, n.Source6)},
		{"protocol", slices.Concat(n.Protocol, n.NextHeader)}, {"port", n.Port},
		{"destination-port", n.DestinationPort}, {"source-port", n.SourcePort},
	} {
		if len(c.values) > 0 {
			text := protocolNumbers(strings.Join(c.values, " "))
			if c.name == "destination" || c.name == "source" {
				text = strings.TrimSuffix(text, "/0") // the offset of IPv6
			}
			parts = append(parts, c.name+" "+text)
		}
	}
	r.Flow = strings.Join(parts, "; ")
	return r
}

// addExabgp enters the attributes of a report.
func (r *vpnRoute) addExabgp(report exabgpReport, nextHop string) {
	a := report.Neighbor.Message.Update.Attribute
	if r.NextHop = unmapped(nextHop); nextHop == "no-nexthop" {
		r.NextHop = ""
	}
	r.Origin, r.LocalPref = a.Origin, fmt.Sprint(a.LocalPref)
	r.ASPath = strings.Trim(fmt.Sprint(a.ASPath), "[]")
	for _, c := range a.Communities {
		r.addCommunity(c.Value)
	}
	if m := pmsiText.FindStringSubmatch(a.PMSI); m != nil {
		r.PMSI = fmt.Sprintf("ingress-replication %s %s", m[2], m[3])
	}
}
