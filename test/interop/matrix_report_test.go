// SPDX-License-Identifier: Apache-2.0

package interop

import (
	commandline "flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = commandline.Bool("update", false, "rewrite docs/interop.md")

// A report is the outcome of all peers.
type report []peerReport

// A peerReport has the outcomes of one peer by line and family.
type peerReport struct {
	kind    peerKind
	version string
	cells   map[string]string
}

// note enters an outcome; of several for a cell the worst stays.
func (r *peerReport) note(line, family string, ok bool) {
	key := line + "|" + family
	switch {
	case !ok:
		r.cells[key] = "failed"
	case r.cells[key] == "":
		r.cells[key] = "ok"
	}
}

const reportIntro = `# Interoperation

What ` + "`go test ./test/interop -run TestMatrix -update`" + ` found: our BGP engine with other implementations, each a
black box in a network namespace of its own, from Debian 12 or, where it says so, a Go module. ` + "`make test`" + ` runs the
same and fails when an outcome differs from this page; versions are not compared.

- *our routes arrive*, *their routes arrive*: every field that the other side shows is compared: route distinguisher,
  prefix, MAC and IP address, label or VNI, next hop, route targets of all three forms, other extended communities, origin,
  LOCAL_PREF, PMSI tunnel.
- *route target change*: the routes are announced again with other route targets and LOCAL_PREF, both ways.
- *withdraw*: some routes, then the rest, both ways.
- *peer killed and started*: its routes go with the session, and all routes come back, both ways.
- *peer killed, graceful restart*: its routes stay, marked stale; those that it has no longer go when it is back.
- RTC: *arrive*: one side asks for route targets, the other side knows and sends their routes and no others; *change* and
  *withdraw*: what is asked for changes, and routes appear and disappear.
- ` + "`-`" + `: the peer does not offer it, or, for RTC with graceful restart, it is not tested.

The original, networking-bagpipe 17.0.0, lets no one choose its routes and is not in these tables: TestMixedNetwork
and TestOriginalDialsUs run it beside our daemon, with traffic. The other tests there have the daemon with FRR and GoBGP.

Packets of IP VPNs, each with ping and TCP both ways and with routes from BGP: TestDataplanesTogether has the drivers ebpf and ovs and
the original's ovs in one VPN, over GRE and VXLAN. Under Linux 6.1 (test/vm) the driver linux meets ebpf over GRE and UDP, and ovs over GRE;
and FRR's VRF meets ebpf with VPNv4 and VPNv6 over GRE and with EVPN type 5 over VXLAN, and linux with VPNv4 and VPNv6 over Ethernet.

Service chains: TestMixedChain has a service on an original node (ovs) between two networks on one of ours (ovs, ebpf), and the other way
round; routes re-advertised, and TCP to a port attracted by FlowSpec. Counters show that the traffic passes the service both ways. An
original redirects only if the classifier has one source port and one destination port: at any other it fails, and traffic goes straight.

TestFlowSpec has ExaBGP and GoBGP decode VPN FlowSpec routes of our encoder and our decoder read theirs, IPv4 and IPv6: all components
from 1 to 6 and all operators. What forwarding cannot match, such as fragments, is refused by name.

FRR 8.4 as a PE with IPv4 next hops: for GRE it wants a tunnel device whose peer address is the next hop
(set l3vpn next-hop encapsulation gre in a route map allows it). As next hop of VPNv6 it announces an IPv6 address of the session's interface if there is one,
which a node with an IPv4 underlay cannot use: give it the mapped address (::ffff:192.0.2.1/120), and a route to the mapped address of the other node.

`

// text renders the report.
func (r report) text() string {
	var b strings.Builder
	b.WriteString(reportIntro)
	for _, p := range r {
		fmt.Fprintf(&b, "## %s %s\n\n", p.kind.name, p.version)
		columns := slices.DeleteFunc(slices.Clone(familyNames), func(f string) bool { return !slices.Contains(p.kind.families, f) })
		fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
		for _, line := range lines {
			fmt.Fprintf(&b, "| %s |", line)
			for _, family := range columns {
				cell := p.cells[line+"|"+family]
				if cell == "" {
					cell = "-"
				}
				fmt.Fprintf(&b, " %s |", cell)
			}
			b.WriteString("\n")
		}
		if len(p.kind.options) > 0 {
			fmt.Fprintf(&b, "\nSession options:")
			for i, o := range p.kind.options {
				fmt.Fprintf(&b, "%s %s %s", map[bool]string{true: ","}[i > 0], o, p.cells[o+"|"])
			}
			b.WriteString(".\n")
		}
		b.WriteString("\n")
		for _, n := range p.kind.notes {
			fmt.Fprintf(&b, "- %s\n", n)
		}
		if len(p.kind.notes) > 0 {
			b.WriteString("\n")
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// versions are what differs between headings from machine to machine.
var versions = regexp.MustCompile(`(?m)^(## .*) \S+$`)

// check compares the report with the document, or writes it.
func (r report) check(t *testing.T) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "interop.md")
	text := r.text()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bare := func(s string) string { return versions.ReplaceAllString(s, "$1") }
	if diff := cmp.Diff(bare(string(have)), bare(text)); diff != "" {
		t.Errorf("%s differs from what was found; see -update (-document +found):\n%s", path, diff)
	}
}
