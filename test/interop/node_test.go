// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// A node is a host that runs a bagpipe-bgp daemon, ours or the original: both
// are driven through the same REST API.
type node struct {
	*host
	proc *process
	// local is the BGP local address, routerID what route distinguishers start
	// with, tunnel where VXLAN tunnels end.
	local, routerID, tunnel string
	http                    *http.Client
}

// newNode gives access to the daemon's API at 127.0.0.1:8082 of the namespace.
func newNode(h *host, local, routerID string) *node {
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		h.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) })
		return conn, err
	}
	return &node{
		host: h, local: local, routerID: routerID, tunnel: local,
		http: &http.Client{
			Timeout:   20 * time.Second,
			Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		},
	}
}

// call sends a request and returns status and body of the answer.
func (n *node) call(method, path string, body any) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://127.0.0.1:8082"+path, in)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, out, err
}

// get decodes the looking glass object at path ("bgp/routes") into v.
func (n *node) get(path string, v any) error {
	status, body, err := n.call(http.MethodGet, "/looking-glass/"+path, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: GET %s: %d: %s", n.label, path, status, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s: GET %s: %w in %s", n.label, path, err, body)
	}
	return nil
}

// mustGet is get that fails the test.
func (n *node) mustGet(path string, v any) {
	n.t.Helper()
	if err := n.get(path, v); err != nil {
		n.t.Fatal(err)
	}
}

// An attachment is what attach and detach send, E-VPN only.
type attachment struct {
	VPNType  string   `json:"vpn_type"`
	Instance string   `json:"vpn_instance_id"`
	MAC      string   `json:"mac_address"`
	IP       string   `json:"ip_address,omitempty"`
	Gateway  *string  `json:"gateway_ip"`
	Port     string   `json:"local_port"`
	ImportRT []string `json:"import_rt"`
	ExportRT []string `json:"export_rt"`
	VNI      int      `json:"vni,omitempty"`
}

// evpn returns the attachment of a vm's port, without addresses, to an instance
// that imports and exports the given route targets.
func (v *vm) evpn(instance string, vni int, rts ...string) attachment {
	return attachment{
		VPNType: "evpn", Instance: instance, MAC: v.mac, Port: v.port,
		ImportRT: rts, ExportRT: rts, VNI: vni,
	}
}

// withIP returns the attachment for one address.
func (a attachment) withIP(ip string) attachment {
	a.IP = ip
	return a
}

// attach attaches one endpoint and fails the test if it is refused.
func (n *node) attach(a attachment) {
	n.t.Helper()
	n.mustPost("/attach_localport", a)
}

// attachVM attaches every address of the vm.
func (n *node) attachVM(v *vm, instance string, vni int, rts ...string) {
	n.t.Helper()
	for _, ip := range v.ips {
		n.attach(v.evpn(instance, vni, rts...).withIP(ip))
	}
}

// detach detaches one endpoint and fails the test if it is refused.
func (n *node) detach(a attachment) {
	n.t.Helper()
	n.mustPost("/detach_localport", a)
}

func (n *node) mustPost(path string, a attachment) {
	n.t.Helper()
	status, body, err := n.call(http.MethodPost, path, a)
	if err != nil || status != http.StatusOK {
		n.t.Fatalf("%s: POST %s %+v: status %d, %v: %s", n.label, path, a, status, err, body)
	}
}

// A peerState is the part of the looking glass peer object that tests look at.
type peerState struct {
	AS struct {
		Local, Peer int64
	} `json:"as_info"`
	RTC struct {
		Active, Enabled bool
	} `json:"rtc"`
	Families []string `json:"active_families"`
	Protocol struct {
		State    string
		HoldTime int    `json:"hold_time"`
		Since    string `json:"last_transition_time"`
	} `json:"protocol"`
}

// peer reads the state of the session with the peer of that address.
func (n *node) peer(addr string) (peerState, error) {
	var p peerState
	err := n.get("bgp/peers/"+addr, &p)
	return p, err
}

// established waits until the session with the peer is up and returns its
// state. (The original says so a moment before it has filled in the rest.)
func (n *node) established(addr string) peerState {
	n.t.Helper()
	var p peerState
	var err error
	nstest.Eventually(n.t, startTimeout, func() bool {
		p, err = n.peer(addr)
		return err == nil && p.Protocol.State == "Established" && len(p.Families) > 0
	}, func() string {
		return fmt.Sprintf("%s: session with %s: state %q, %s", n.label, addr, p.Protocol.State, errText(err))
	})
	return p
}

// down waits until the session with the peer is not up.
func (n *node) down(addr string) {
	n.t.Helper()
	var p peerState
	var err error
	nstest.Eventually(n.t, startTimeout, func() bool {
		p, err = n.peer(addr)
		return err == nil && p.Protocol.State != "Established"
	}, func() string {
		return fmt.Sprintf("%s: session with %s: state %q, %s", n.label, addr, p.Protocol.State, errText(err))
	})
}

// instanceVNI returns the VNI the daemon gave to an instance.
func (n *node) instanceVNI(instance string) uint32 {
	n.t.Helper()
	var out struct {
		ID uint32 `json:"instance_dataplane_id"`
	}
	n.mustGet("vpns/instances/"+instance, &out)
	return out.ID
}

// A lookingGlassRoute is a route as the looking glass shows it.
type lookingGlassRoute struct {
	Family     string            `json:"afi-safi"`
	Attributes map[string]string `json:"attributes"`
	NextHop    string            `json:"next_hop"`
	Source     struct {
		ID string `json:"id"`
	} `json:"source"`
	RTs []string `json:"route_targets"`
}

// evpnRoutes returns the E-VPN routes in the node's table whose source is
// wanted: "BGP-10.77.0.254" for those of a peer, "EVI-" for its own.
func (n *node) evpnRoutes(sourcePrefix string) ([]evpnRoute, error) {
	var tables map[string][]map[string]lookingGlassRoute
	if err := n.get("bgp/routes", &tables); err != nil {
		return nil, err
	}
	var out []evpnRoute
	for _, entry := range tables["l2vpn/evpn,*"] {
		for nlri, route := range entry {
			if !strings.HasPrefix(route.Source.ID, sourcePrefix) {
				continue
			}
			r, err := parseLookingGlass(nlri, route)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n.label, err)
			}
			out = append(out, r)
		}
	}
	return sorted(out), nil
}

// from returns a function that reads the E-VPN routes received from a peer.
func (n *node) from(peer string) func() ([]evpnRoute, error) {
	return func() ([]evpnRoute, error) { return n.evpnRoutes("BGP-" + peer) }
}

// own reads the E-VPN routes that the node's instances announce.
func (n *node) own() ([]evpnRoute, error) { return n.evpnRoutes("EVI-") }

// imported returns the names of the entries an instance has received routes for.
func (n *node) imported(instance string) ([]string, error) {
	var out map[string]json.RawMessage
	if err := n.get("vpns/instances/"+instance+"/received_routes", &out); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(out)), nil
}

// multicast waits for the multicast route the node announces for the instance
// with that VNI.
func (n *node) multicast(vni uint32) evpnRoute {
	n.t.Helper()
	var found *evpnRoute
	var routes []evpnRoute
	var err error
	nstest.Eventually(n.t, routeTimeout, func() bool {
		routes, err = n.own()
		for _, r := range routes {
			if r.Kind == kindMulticast && r.PMSILabel == vni {
				found = &r
			}
		}
		return found != nil
	}, func() string {
		return fmt.Sprintf("%s: no multicast route with VNI %d: %v %v", n.label, vni, routes, err)
	})
	return *found
}
