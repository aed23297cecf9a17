// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documentedAttach returns the request body that docs/rest-api.md shows.
func documentedAttach(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "rest-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile("(?s)## attach_localport\n.*?```json\n(.*?)```").FindSubmatch(text)
	if section == nil {
		t.Fatal("docs/rest-api.md shows no request for attach_localport")
	}
	return string(section[1])
}

// step is a request, and what its answer must be.
type step struct {
	method, path, body string
	status             int
	contains           string
}

func (n *node) steps(list ...step) {
	n.t.Helper()
	for _, s := range list {
		status, body := n.call(s.method, s.path, s.body)
		if status != s.status || !strings.Contains(body, s.contains) {
			n.t.Errorf("%s %s %s: %d %s, want %d with %q", s.method, s.path, s.body, status, body, s.status, s.contains)
		}
	}
}

// TestDocumentedRequests sends what the documentation shows, as curl would, and
// uses what comes of it.
func TestDocumentedRequests(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	attach := documentedAttach(t)
	var r struct {
		MAC  string `json:"mac_address"`
		IP   string `json:"ip_address"`
		Port struct {
			LinuxIf string `json:"linuxif"`
		} `json:"local_port"`
	}
	if err := json.Unmarshal([]byte(attach), &r); err != nil {
		t.Fatal(err)
	}
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	ip(t, a1.NS, "link set eth0 address "+r.MAC)
	a1.mac = r.MAC
	ip(t, a.NS, fmt.Sprintf("link set %s name %s", a1.tap, r.Port.LinuxIf))
	ip(t, a.NS, fmt.Sprintf("link set %s up", r.Port.LinuxIf))
	b1.attach(red)

	a.steps(
		step{"GET", "/", "", 200, "{}"},
		step{"GET", "/ping", "", 200, a.number()},
		step{"GET", "/healthz", "", 200, "ok"},
		step{"GET", "/attach_localport", "", 200, "{}"},
		step{"POST", "/attach_localport", attach, 200, "null"},
		step{"POST", "/attach_localport", attach, 200, "null"}, // idempotent
		step{"GET", "/looking-glass/summary/vpn_instances_count", "", 200, "1"},
		step{"GET", "/looking-glass/vpns/instances/red/ports", "", 200, `"mac_address":"` + r.MAC + `"`},
		step{"GET", "/looking-glass/vpns/instances/red/route_targets", "", 200, "target:64512:100"},
		step{"GET", "/looking-glass/vpns/dataplane/problems", "", 200, "[]"},
	)
	if r.IP != a1.v4.String() {
		t.Errorf("the documented address %s is not the machine's", r.IP)
	}
	eventually(t, routeTimeout, func() error { return pings(t, b1, a1.v4.Addr()) })
	eventually(t, routeTimeout, func() error {
		if status, body := a.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", status, body)
		}
		return nil
	})
	a.steps(
		step{"GET", "/readyz", "", 200, `"ready":true`},
		step{"GET", "/metrics", "", 200, `bagpipe_bgp_peer_up{peer="192.0.2.1"} 1`},
		step{"GET", "/metrics", "", 200, `bagpipe_vpn_endpoints{vpn_type="evpn"} 1`},
		step{"GET", "/looking-glass/bgp/peers/192.0.2.1", "", 200, `"state":"Established"`},
		step{"GET", "/looking-glass/vpns/instances/red/best_routes", "", 200, strings.ToUpper(b1.mac)},
		step{"POST", "/detach_localport", attach, 200, "null"},
		step{"POST", "/detach_localport", attach, 400, "could not be found"},
		step{"GET", "/looking-glass/vpns/instances", "", 200, "[]"},
	)
	b.forwards(red, forwarding{})
}

// TestRefusedRequests: what is refused says why, in the documented form, and
// leaves no trace.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a := f.node("a", 11)
	a1, a2 := a.vm("a1", 11), a.vm("a2", 12)
	a.established(f.addr(reflectorNumber))
	empty := a.stableDump()
	body := func(change ...string) string { // of a good request, with members replaced
		text := documentedAttach(t)
		text = strings.ReplaceAll(text, `"tap1"`, `"`+a1.tap+`"`)
		return strings.NewReplacer(change...).Replace(text)
	}
	refused := func(body, contains string, status int) step {
		return step{"POST", "/attach_localport", body, status, contains}
	}
	bad := []step{
		refused("no JSON", "API error: ", 400),
		refused("{}", "vpn_type", 400),
		refused(body(`"evpn"`, `"l2vpn"`), "unknown vpn_type: l2vpn", 400),
		refused(body(`00:00:5e:00:53:01`, `nonsense`), "mac_address", 400),
		refused(body(`198.51.100.11/24`, `198.51.100.999`), "198.51.100.999", 400),
		refused(body(`"64512:100"`, `"red"`), "import_rt", 400),
		refused(body(`100,`, `16777216,`), "vni", 400),
		refused(body(a1.tap, "missing", "198.51.100.11/24", "198.51.100.77"), "local_port: device missing does not exist", 400),
		{"PUT", "/attach_localport", body(), 405, "405"},
		{"GET", "/nowhere", "", 404, `"title":"Not Found"`},
		{"GET", "/looking-glass/nowhere", "", 404, "No such looking glass object: nowhere"},
	}
	a.steps(bad...)
	a.looksUntouched(empty)
	a.showsNothing()

	a1.attach(red)
	full := a.stableDump()
	a.steps(bad...)
	a.steps(
		refused(fmt.Sprintf(`{"vpn_type":"evpn","vpn_instance_id":"red","mac_address":%q,"ip_address":"198.51.100.12","local_port":{"linuxif":%q},"import_rt":[],"export_rt":[]}`, a1.mac, a2.tap),
			"Port information is not consistent", 400),
		refused(fmt.Sprintf(`{"vpn_type":"evpn","vpn_instance_id":"red","mac_address":%q,"ip_address":"198.51.100.11","local_port":{"linuxif":%q},"import_rt":[],"export_rt":[]}`, a2.mac, a2.tap),
			"already bound to a MAC address", 400),
		refused(fmt.Sprintf(`{"vpn_type":"evpn","vpn_instance_id":"green","vni":100,"mac_address":%q,"local_port":%q,"import_rt":[],"export_rt":[]}`, a2.mac, a2.tap),
			"vni 100 already exists", 400),
	)
	a.looksUntouched(full)
}
