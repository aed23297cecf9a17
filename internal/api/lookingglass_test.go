// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/golden"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

const glass = "http://node.example:8082/looking-glass"

// announce makes routes of a peer, which is also a neighbour of the server.
func (s *server) announce(peer string, list map[*wire.LocalAttrs]wire.Route) {
	s.tb.Helper()
	src, err := s.RIB.AddSource("BGP-"+peer, rib.Peer)
	if err != nil {
		s.tb.Fatal(err)
	}
	in := s.RIB.NewInterner()
	var b rib.Batch
	for a, r := range list {
		set := in.InternLocal(a.Build())
		b.Hold(set)
		b.Announce(r, set)
	}
	s.RIB.Apply(src, &b)
	settle()
}

func target(s string) wire.RT {
	rt, err := wire.ParseRT(s)
	if err != nil {
		panic(err)
	}
	return rt
}

// filled returns a server with a bit of everything.
func filled(t *testing.T) *server {
	t.Helper()
	s := newServer(t, "10.77.0.9", "10.77.0.254")
	s.accept("/attach_localport", evpnBody().with("mac_address", "02:00:00:00:00:03").with("ip_address", nil))
	s.accept("/attach_localport", evpnBody().with("description", members{"port": "0f6e"}).with("instance_description", "a network"))
	s.accept("/attach_localport", ipvpnBody().with("gateway_ip", "192.0.2.1").with("ip_address", "192.0.2.10/24").with("local_pref", 150))
	s.accept("/attach_localport", ipvpnBody().with("ip_address", "192.0.2.20/24").with("local_port", "tap3").with("mac_address", "02:00:00:00:00:04").with("advertise_subnet", true))
	rd := wire.MakeRD(addr("10.77.0.9"), 1)
	vxlan, mpls := []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}, []wire.ExtCommunity{wire.EncapCommunity(encap.MPLS)}
	red, blue, hop := []wire.RT{target("64512:300")}, []wire.RT{target("64512:100")}, addr("10.77.0.9")
	s.announce("10.77.0.9", map[*wire.LocalAttrs]wire.Route{
		{NextHop: hop, RTs: red, Communities: append(vxlan, wire.MobilityCommunity(3))}:                                                   {NLRI: wire.MACIPRoute(rd, ethernet.MAC{2, 0, 0, 0, 0, 0xaa}, addr("198.51.100.7")), Label: 99},
		{NextHop: hop, RTs: red, Communities: vxlan, PMSI: &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: 99, Endpoint: hop}}: {NLRI: wire.IMETRoute(rd, hop)},
		{NextHop: hop, RTs: blue, Communities: mpls}:                                                                                      {NLRI: wire.VPNRoute(rd, netip.MustParsePrefix("203.0.113.0/24")), Label: wire.LabelField(77)},
	})
	s.Log.Warn("something \"odd\"", "instance", "red", "err", "none")
	time.Sleep(time.Second)
	s.Log.Error("worse", "peer", "10.77.0.254")
	return s
}

// TestWholeTree walks the looking glass: every link resolves, is absolute, and
// extends the path of its page unless it goes to a fixed place (7.1).
func TestWholeTree(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		fixed := regexp.MustCompile(`^` + glass + `/(bgp/workers/|vpns/dataplane/drivers/|vpns/instances/)[^/]+$`)
		seen := map[string]bool{}
		queue := []string{glass}
		for len(queue) > 0 {
			page := queue[0]
			queue = queue[1:]
			if seen[page] {
				continue
			}
			seen[page] = true
			w := s.get(strings.TrimPrefix(page, "http://node.example:8082"))
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("GET %s: %d %s", page, w.Code, w.Body)
			}
			for _, href := range hrefs(wantJSON[any](t, w)) {
				if !strings.HasPrefix(href, page+"/") && !fixed.MatchString(href) {
					t.Errorf("link %s in %s does not extend it", href, page)
				}
				queue = append(queue, href)
			}
		}
		for _, want := range []string{
			"/config", "/logs", "/bgp/peers/10.77.0.254/logs", "/bgp/workers/BGPManager", "/bgp/workers/EVI-1/ports", "/bgp/workers/BGP-10.77.0.9",
			"/vpns/instances/blue/readvertised", "/vpns/instances/red/dataplane/entries", "/vpns/dataplane/drivers/ipvpn/logs", "/vpns/dataplane/ids",
		} {
			if !seen[glass+want] {
				t.Errorf("no link leads to %s", want)
			}
		}
	})
}

// TestGolden pins members and their order (7.2 to 7.5); -update writes the files.
func TestGolden(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		for _, path := range []string{
			"", "summary", "config", "logs", "bgp", "bgp/peers", "bgp/peers/10.77.0.254", "bgp/peers/10.77.0.9/adv_routes", "bgp/workers",
			"bgp/routes", "bgp/adv_routes", "vpns", "vpns/instances", "vpns/instances/red", "vpns/instances/blue", "vpns/instances/red/ports",
			"vpns/instances/blue/ports", "vpns/instances/red/received_routes", "vpns/instances/red/best_routes", "vpns/instances/blue/best_routes",
			"vpns/instances/red/adv_routes", "vpns/instances/blue/adv_routes", "vpns/instances/blue/readvertised", "vpns/instances/red/dataplane",
			"vpns/instances/red/dataplane/entries", "vpns/instances/red/logs", "vpns/dataplane", "vpns/dataplane/ids", "vpns/dataplane/drivers",
			"vpns/dataplane/drivers/evpn", "bgp/peers/10.77.0.254/logs",
		} {
			w := s.get("/looking-glass/" + path)
			if w.Code != http.StatusOK {
				t.Errorf("GET %q: %d %s", path, w.Code, w.Body)
				continue
			}
			checkPage(t, path, w.Body.Bytes())
		}
	})
}

// kernel is what depends on the machine.
var kernel = regexp.MustCompile(`"kernel_release": "[^"]+"`)

func checkPage(t *testing.T, path string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", " "); err != nil {
		t.Fatal(err)
	}
	got := kernel.ReplaceAllString(b.String(), `"kernel_release": "x"`) + "\n"
	name := strings.ReplaceAll(path, "/", ".")
	if name == "" {
		name = "root"
	}
	golden.Check(t, name, got)
}

// TestRouteObjects has the examples of 7.5 and routes.md.
func TestRouteObjects(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", ipvpnBody()) // label 17 is its MAC's
		s.accept("/attach_localport", evpnBody().with("vni", 16).with("vpn_instance_id", "x").with("vni", 5000))
		for path, want := range map[string]string{
			"/looking-glass/vpns/instances/blue/adv_routes": `[{"192.0.2.10/32 label 17 next-hop 10.77.0.1 rd 10.77.0.1:0":{"afi-safi":"ipv4/mpls-vpn",` +
				`"attributes":{"extended-community":"[ target:64512:100 encap:MPLS ]","local-preference":"100"},"next_hop":"10.77.0.1",` +
				`"source":{"id":"VRF-1","href":"http://node.example:8082/looking-glass/bgp/workers/VRF-1"},"route_targets":["target:64512:100"]}}]`,
			"/looking-glass/bgp/adv_routes": `[{"rtc 64512:target:64512:100":{"afi-safi":"ipv4/rtc","attributes":{"local-preference":"100"},"next_hop":"10.77.0.1",` +
				`"source":{"id":"BGPManager","href":"http://node.example:8082/looking-glass/bgp/workers/BGPManager"}}},` +
				`{"rtc 64512:target:64512:300":{"afi-safi":"ipv4/rtc","attributes":{"local-preference":"100"},"next_hop":"10.77.0.1",` +
				`"source":{"id":"BGPManager","href":"http://node.example:8082/looking-glass/bgp/workers/BGPManager"}}}]`,
			"/looking-glass/vpns/instances/x/adv_routes": `[{"evpn:macadv::10.77.0.1:1:-:0:02:00:00:00:00:01/48:198.51.100.10: label 312 (5000)":{"afi-safi":"l2vpn/evpn",` +
				`"attributes":{"extended-community":"[ target:64512:300 encap:VXLAN ]","local-preference":"100"},"next_hop":"10.77.0.1",` +
				`"source":{"id":"EVI-2","href":"http://node.example:8082/looking-glass/bgp/workers/EVI-2"},"route_targets":["target:64512:300"]}},` +
				`{"evpn:multicast::10.77.0.1:1:0:10.77.0.1":{"afi-safi":"l2vpn/evpn",` +
				`"attributes":{"extended-community":"[ target:64512:300 encap:VXLAN ]","local-preference":"100","pmsi-tunnel":"pmsi:ingressreplication:0:312(5000):10.77.0.1"},"next_hop":"10.77.0.1",` +
				`"source":{"id":"EVI-2","href":"http://node.example:8082/looking-glass/bgp/workers/EVI-2"},"route_targets":["target:64512:300"]}}]`,
		} {
			if diff := cmp.Diff(want, s.get(path).Body.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	})
}

// Paths lead on into what is shown inline; lists have no elements to go to.
func TestInlinedPaths(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		for _, tt := range []struct{ in, want string }{
			{"summary/route_counts/local_routes_count", "5"},
			{"summary/route_counts/received_routes_count", "3"},
			{"summary/vpn_instances_count", "2"},
			{"summary/BGP_established_peers", "0"},
			{"summary/version", `"1.2.3"`},
			{"vpns/instances/blue/route_targets/import", `["target:64512:100"]`},
			{"vpns/instances_per_vni/16/external_instance_id", `"red"`},
			{"config/BGP/my_as", "64512"},
			{"bgp/route_counts/local_routes_count", "5"},
			{"vpns/dataplane/ids/17", `"VRF-2"`},
			{"vpns/instances/red/gateway_ip", "null"},
		} {
			if w := s.get("/looking-glass/" + tt.in); w.Code != 200 || w.Body.String() != tt.want {
				t.Errorf("%s: %d %s, want %s", tt.in, w.Code, w.Body, tt.want)
			}
		}
		for in, want := range map[string]string{
			"none":                  "No such looking glass object: none at " + glass + "/none",
			"summary/none":          "No such looking glass object: none at " + glass + "/summary/none",
			"logs/0":                "No such looking glass object: 0 at " + glass + "/logs/0",
			"bgp/peers/192.0.2.1":   "No such looking glass object: 192.0.2.1 at " + glass + "/bgp/peers/192.0.2.1",
			"vpns/instances/a%20b":  "No such looking glass object: a b at " + glass + "/vpns/instances/a%20b",
			"vpns/instances/x.json": "No such looking glass object: x at " + glass + "/vpns/instances/x",
			"summary/version/x":     "No such looking glass object: x at " + glass + "/summary/version/x",
		} {
			if f := wantFailure(t, s.get("/looking-glass/"+in), http.StatusNotFound); f.Description != want {
				t.Errorf("%s: description %q, want %q", in, f.Description, want)
			}
		}
	})
}

// Paths lead on into what a client gave us to keep.
func TestPathsIntoDescriptions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", evpnBody().with("vpn_instance_id", "x").with("instance_description", members{"team": members{"name": "net", "floor": nil}}))
		for in, want := range map[string]string{
			"team/name":  `"net"`,
			"team/floor": "null",
			"team":       `{"floor":null,"name":"net"}`,
		} {
			if w := s.get("/looking-glass/vpns/instances/x/description/" + in); w.Code != 200 || w.Body.String() != want {
				t.Errorf("%s: %d %s, want %s", in, w.Code, w.Body, want)
			}
		}
		wantFailure(t, s.get("/looking-glass/vpns/instances/x/description/team/none"), http.StatusNotFound)
		wantFailure(t, s.get("/looking-glass/vpns/instances/x/description/team/name/x"), http.StatusNotFound)
	})
}

// Whatever an id is, the link to its instance leads to it.
func TestIDsThatNeedEscaping(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"a b", "a/b", "a/b/c", "/a", "a/", "a//b", ".", "..", "a/../b", "x.json", "50%", "a?b=c#d", "a&b;c", "ü-网", `"quoted"`, "<script>", "a+b", "a\nb", "ports", "a/ports", "%2F",
	} {
		t.Run(url.QueryEscape(id), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newServer(t)
				s.accept("/attach_localport", evpnBody().with("vpn_instance_id", "a"))
				s.accept("/attach_localport", evpnBody().with("vpn_instance_id", id))
				found := false
				for _, e := range wantJSON[[]map[string]string](t, s.get("/looking-glass/vpns/instances")) {
					if e["id"] != id {
						continue
					}
					found = true
					for tail, member := range map[string]string{"": "external_instance_id", "/": "external_instance_id", ".json": "external_instance_id", "/ports": "tap1", "/route_targets": "import"} {
						w := s.get(strings.TrimPrefix(e["href"], "http://node.example:8082") + tail)
						got := wantJSON[map[string]any](t, w)
						if member == "external_instance_id" && got[member] != id || got[member] == nil {
							t.Errorf("%s%s: %s, want that of %q", e["href"], tail, w.Body, id)
						}
						for _, href := range hrefs(got) {
							if c := s.get(strings.TrimPrefix(href, "http://node.example:8082")); c.Code != http.StatusOK {
								t.Errorf("link %s in %s%s: %d", href, e["href"], tail, c.Code)
							}
						}
					}
				}
				if !found {
					t.Errorf("instance %q is not listed", id)
				}
			})
		})
	}
}

// Links are built from the request's Host header.
func TestHostOfLinks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		for _, href := range hrefs(wantJSON[any](t, s.get("/looking-glass"))) {
			if !strings.HasPrefix(href, glass+"/") {
				t.Errorf("link %s does not begin with %s", href, glass)
			}
		}
	})
}
