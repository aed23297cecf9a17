// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// node is a namespace with a bagpipe-bgp daemon.
type node struct {
	*nstest.NS
	t      testing.TB
	fabric *fabric
	label  string
	index  int
	addr   netip.Addr
	conf   string
	daemon string // program
	http   *http.Client
	api    *client.Client
	proc   *process
}

// settings change the configuration of a node.
type settings struct {
	// bgp, common and ipvpn are lines of those sections.
	bgp, common, ipvpn []string
	peers              []netip.Addr
	// daemon is the program to run, the one under test when empty.
	daemon string
}

// node adds a node to the fabric and starts its daemon, as a client of the
// reflector.
func (f *fabric) node(label string, number int) *node {
	f.t.Helper()
	return f.nodeWith(label, number, settings{peers: f.reflectors()})
}

func (f *fabric) nodeWith(label string, number int, s settings) *node {
	f.t.Helper()
	n := f.idleNode(label, number)
	n.configure(s)
	n.start()
	return n
}

// idleNode adds a node without configuration, whose daemon is not started.
func (f *fabric) idleNode(label string, number int) *node {
	f.t.Helper()
	n := &node{NS: f.host("node-"+label, number), t: f.t, fabric: f, label: label, index: number, addr: f.addr(number), daemon: program("bagpipe-bgp")}
	n.conf = filepath.Join(f.t.TempDir(), "bgp.conf")
	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext:       netspace.Dialer(n.Name),
		DisableKeepAlives: true, // an open connection would hold the namespace
	}}
	var err error
	if n.api, err = client.New(client.WithHTTPClient(n.http)); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// configure writes the configuration file.
func (n *node) configure(s settings) {
	n.t.Helper()
	if err := os.WriteFile(n.conf, []byte(s.text(n.addr, n.index)), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if s.daemon != "" {
		n.daemon = s.daemon
	}
}

// text returns the configuration file.
func (s settings) text(addr netip.Addr, number int) string {
	bgp := []string{"[BGP]", "local_address = " + addr.String(), fmt.Sprintf("my_as = %d", asn), "connect_retry_time = 1"}
	if addr.Is6() {
		bgp = append(bgp, fmt.Sprintf("router_id = 192.0.2.%d", number))
	}
	if len(s.peers) > 0 {
		var list []string
		for _, p := range s.peers {
			list = append(list, p.String())
		}
		bgp = append(bgp, "peers = "+strings.Join(list, ", "))
	}
	lines := slices.Concat(bgp, s.bgp, []string{"[COMMON]"}, s.common,
		[]string{"[DATAPLANE_DRIVER_IPVPN]"}, s.ipvpn, []string{"[DATAPLANE_DRIVER_EVPN]", "dataplane_driver = linux", ""})
	return strings.Join(lines, "\n")
}

// start starts the daemon and waits for its API.
func (n *node) start() {
	n.t.Helper()
	n.proc = startProcess(n.t, n.NS, "node-"+n.label, n.daemon, "--config-file", n.conf)
	n.proc.show = n.show
	n.proc.ready(func() error {
		_, err := n.api.Ping(n.t.Context())
		return err
	})
}

// restart ends the daemon by a signal and starts it again.
func (n *node) restart(sig syscall.Signal) {
	n.t.Helper()
	n.proc.end(sig)
	n.start()
}

// attach attaches an endpoint and fails the test if it is refused.
func (n *node) attach(r client.AttachRequest) {
	n.t.Helper()
	if err := n.api.Attach(n.t.Context(), r); err != nil {
		n.t.Fatalf("attach %s %s at %s: %v", r.MACAddress, r.IPAddress, n.label, err)
	}
}

// detach detaches an endpoint and fails the test if it is refused.
func (n *node) detach(r client.AttachRequest) {
	n.t.Helper()
	if err := n.api.Detach(n.t.Context(), r.Detach()); err != nil {
		n.t.Fatalf("detach %s %s at %s: %v", r.MACAddress, r.IPAddress, n.label, err)
	}
}

// glass decodes an object of the looking glass.
func (n *node) glass(v any, path ...string) error {
	body, err := n.api.Get(n.t.Context(), n.api.URL(append([]string{"looking-glass"}, path...)...))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("looking glass %v of %s: %w", path, n.label, err)
	}
	return nil
}

// mustGlass is glass that fails the test.
func (n *node) mustGlass(v any, path ...string) {
	n.t.Helper()
	if err := n.glass(v, path...); err != nil {
		n.t.Fatal(err)
	}
}

// session is the state of a BGP session.
type session struct {
	State string `json:"state"`
	Since string `json:"last_transition_time"`
}

// session reads the state of the session with a peer.
func (n *node) session(peer netip.Addr) (session, error) {
	var out struct {
		Protocol session `json:"protocol"`
	}
	err := n.glass(&out, "bgp", "peers", peer.String())
	return out.Protocol, err
}

// stale reads the families of a peer whose routes are kept while it may be restarting.
func (n *node) stale(peer netip.Addr) (list []struct{ Family string }, err error) {
	var out struct {
		Restart struct {
			Stale *[]struct{ Family string } `json:"stale"`
		} `json:"graceful_restart"`
	}
	out.Restart.Stale = &list
	return list, n.glass(&out, "bgp", "peers", peer.String())
}

// established waits for the session with a peer.
func (n *node) established(peer netip.Addr) {
	n.t.Helper()
	eventually(n.t, startTimeout, func() error {
		s, err := n.session(peer)
		if err == nil && s.State != "Established" {
			err = fmt.Errorf("session of %s with %s is %s", n.label, peer, s.State)
		}
		return err
	})
}

// endpoints returns what the looking glass says of a machine's endpoints.
func (n *node) endpoints(of network, v *vm) []endpoint {
	n.t.Helper()
	var ports map[string]struct {
		Endpoints []endpoint `json:"endpoints"`
	}
	n.mustGlass(&ports, "vpns", "instances", of.id, "ports")
	return ports[v.tap].Endpoints
}

// endpoint is a local endpoint in the looking glass.
type endpoint struct {
	MAC      string `json:"mac_address"`
	IP       string `json:"ip_address"`
	Mobility int    `json:"mac_mobility_sequence"`
}

// routes lists the E-VPN routes in the looking glass by the text of their NLRI.
func (n *node) routes() (map[string]route, error) {
	var tables map[string][]map[string]route
	if err := n.glass(&tables, "bgp", "routes"); err != nil {
		return nil, err
	}
	all := map[string]route{}
	for _, entry := range tables["l2vpn/evpn,*"] {
		for nlri, r := range entry {
			all[nlri] = r
		}
	}
	return all, nil
}

// route is a route in the looking glass.
type route struct {
	NextHop    string            `json:"next_hop"`
	Attributes map[string]string `json:"attributes"`
}

// has tells whether the route has an extended community of that text.
func (r route) has(community string) bool {
	return slices.Contains(strings.Fields(r.Attributes["extended-community"]), community)
}

// routesOf lists the routes for a machine's MAC.
func (n *node) routesOf(v *vm) (list []route, err error) {
	all, err := n.routes()
	for nlri, r := range all {
		if strings.Contains(nlri, strings.ToUpper(v.mac)) {
			list = append(list, r)
		}
	}
	return list, err
}

// get reads a path of the API and returns status and body.
func (n *node) get(path string) (int, string) {
	n.t.Helper()
	return n.call(http.MethodGet, path, "")
}

// call sends a request as curl would and returns status and body.
func (n *node) call(method, path, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, client.DefaultBaseURL+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	res, err := n.http.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s at %s: %v", method, path, n.label, err)
	}
	defer func() { _ = res.Body.Close() }()
	var out bytes.Buffer
	if _, err := out.ReadFrom(res.Body); err != nil {
		n.t.Fatalf("%s %s at %s: %v", method, path, n.label, err)
	}
	return res.StatusCode, strings.TrimSpace(out.String())
}

// show logs the state of the node, for a test that has failed.
func (n *node) show() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, path := range []string{"bgp/peers", "bgp/routes", "logs"} {
		body, err := n.api.Get(ctx, client.DefaultBaseURL+"/looking-glass/"+path)
		n.t.Logf("%s: %s: %.3000s %v", n.label, path, body, errors.Unwrap(err))
	}
	for _, args := range [][]string{{"ip", "-br", "link"}, {"bridge", "fdb"}, {"ip", "neigh"}} {
		out, _ := n.Try(args...)
		n.t.Logf("%s: %s:\n%.3000s", n.label, strings.Join(args, " "), out)
	}
}
