// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// TestTolerantForms has requests that are accepted in several forms; each makes
// the same as the plain one, up to what want says.
func TestTolerantForms(t *testing.T) {
	t.Parallel()
	e, v := evpnBody(), ipvpnBody()
	for _, tt := range []struct {
		name string
		in   any
		path string // into the looking glass
		want string // there
	}{
		{"numeric id", e.with("vpn_instance_id", 42), "vpns/instances", `[{"id":"42","name":"EVI-1","href":"http://node.example:8082/looking-glass/vpns/instances/42"}]`},
		{"long numeric id", `{"vpn_type":"evpn","vpn_instance_id":12345678901234567890123,"mac_address":"020000000001","local_port":"tap1","import_rt":[],"export_rt":[]}`, "vpns/instances/12345678901234567890123/external_instance_id", `"12345678901234567890123"`},
		{"route targets as one string", e.with("import_rt", "64512:2,, 64512:1,64512:2"), "vpns/instances/red/route_targets/import", `["target:64512:1","target:64512:2"]`},
		{"empty route targets", e.with("import_rt", "").with("export_rt", []string{}), "vpns/instances/red/route_targets", `{"import":[],"export":[]}`},
		{"empty strings in a list", e.with("import_rt", []string{"", "64512:4"}), "vpns/instances/red/route_targets/import", `["target:64512:4"]`},
		{"other forms of route targets", e.with("import_rt", "70000:1,1.2.3.4:5"), "vpns/instances/red/route_targets/import", `["target:1.2.3.4:5","target:70000:1"]`},
		{"MAC with dashes", e.with("mac_address", "02-00-00-00-00-0A"), "vpns/instances/red/ports/tap1/endpoints", `"mac_address":"02:00:00:00:00:0a"`},
		{"MAC without separators", e.with("mac_address", "02000000000A"), "vpns/instances/red/ports/tap1/endpoints", `"mac_address":"02:00:00:00:00:0a"`},
		{"MAC of four-digit groups", e.with("mac_address", "0200.0000.000a"), "vpns/instances/red/ports/tap1/endpoints", `"mac_address":"02:00:00:00:00:0a"`},
		{"vni as string", e.with("vni", "5001"), "vpns/instances/red/instance_dataplane_id", `5001`},
		{"vni zero", e.with("vni", 0), "vpns/instances/red/instance_dataplane_id", `16`},
		{"vni null", e.with("vni", nil), "vpns/instances/red/instance_dataplane_id", `16`},
		{"wildcard: ip_address null", e.with("ip_address", nil), "vpns/instances/red/ports/tap1/endpoints", `"ip_address":null`},
		{"wildcard: ip_address absent", e.with("ip_address", absent), "vpns/instances/red/ports/tap1/endpoints", `"ip_address":null`},
		{"nulls", e.with("local_pref", nil).with("lb_consistent_hash_order", nil).with("direction", nil).with("linuxbr", nil).with("readvertise", nil).with("attract_traffic", nil).with("fallback", nil).with("description", nil), "vpns/instances/red/ports/tap1/endpoints", `"local_pref":null`},
		{"empty readvertise and attract_traffic", v.with("readvertise", members{}).with("attract_traffic", members{}), "vpns/instances/blue/readvertise", `{}`},
		{"readvertise", v.with("readvertise", members{"from_rt": "64512:1,64512:2", "to_rt": []string{"64512:3"}}), "vpns/instances/blue/readvertise", `{"from":["target:64512:1","target:64512:2"],"to":["target:64512:3"]}`},
		{
			"attract_traffic", v.with("readvertise", members{"from_rt": "64512:1", "to_rt": "64512:3"}).with("attract_traffic", members{"redirect_rts": []string{"64512:4"}, "classifier": members{"destinationPort": 80}}),
			"vpns/instances/blue/attract_traffic", `{"redirect_rts":["target:64512:4"],"classifier":{"destinationPort":80},"to":["target:64512:3"],"static_destination_prefixes":[]}`,
		},
		{
			"attract_traffic, static", v.with("attract_traffic", members{"redirect_rts": []string{"64512:4"}, "to": "64512:3", "classifier": members{"destinationPort": "80", "sourcePort": "1000:2000", "sourcePrefix": "10.0.0.0/8", "protocol": "UDP"}, "static_destination_prefixes": []string{"203.0.113.0/24"}}),
			"vpns/instances/blue/readvertised", `flow destination-ipv4 203.0.113.0/24 source-ipv4 10.0.0.0/8 protocol =udp destination-port =80 source-port [ \u003e=1000\u0026\u003c=2000 ] rd `,
		},
		{
			"attract_traffic of any protocol", v.with("attract_traffic", members{"redirect_rts": "64512:4", "attract_to_rts": "64512:3", "classifier": members{"protocol": nil}, "static_destination_prefixes": []string{"203.0.113.0/24"}}),
			"vpns/instances/blue/readvertised", `flow destination-ipv4 203.0.113.0/24 rd `,
		},
		{"attract_traffic by number", v.with("attract_traffic", members{"redirect_rts": "64512:4", "to_rt": "64512:3", "classifier": members{"protocol": "17"}, "static_destination_prefixes": []string{"203.0.113.1"}}), "vpns/instances/blue/readvertised", `203.0.113.1/32 protocol =udp rd `},
		{"attract_traffic that brings nothing", v.with("attract_traffic", members{"redirect_rts": "64512:4", "classifier": members{}}), "vpns/instances/blue/readvertised", `[]`},
		{"nothing re-advertised any more", v.with("readvertise", members{"from_rt": []string{}, "to_rt": []string{}}).with("attract_traffic", members{"redirect_rts": []string{}}), "vpns/instances/blue/attract_traffic", `{}`},
		{"local_port as object", e.with("local_port", members{"linuxif": "tap1"}), "vpns/instances/red/ports/tap1/endpoints", `"label":16`},
		{"unknown members", e.with("whatever", 1).with("external_instance_id", "x"), "vpns/instances/red/external_instance_id", `"red"`},
		{"linuxbr", e.with("linuxbr", "br0"), "vpns/instances/red/name", `"EVI-1"`},
		{"gateway", v.with("gateway_ip", "192.0.2.1").with("ip_address", "192.0.2.10/24"), "vpns/instances/blue", `"gateway_ip":"192.0.2.1","subnet_prefix_length":24`},
		{"description object", e.with("description", members{"port": "0f6e"}), "vpns/instances/red/ports/tap1/endpoints", `"description":{"port":"0f6e"}`},
		{"instance_description", e.with("instance_description", "<a & b>"), "vpns/instances", `"description":"\u003ca \u0026 b\u003e"`},
		{"local_pref and direction", v.with("local_pref", 150).with("direction", "to-port"), "vpns/instances/blue/ports/tap2/endpoints", `"direction":"to-port"`},
		{"fallback", v.with("fallback", members{"src_mac": "00:00:5e:2a:10:00", "dst_mac": "fa:16:3e:99:99:99", "ovs_port_number": 13}), "vpns/instances/blue/fallback", `{"dst_mac":"fa:16:3e:99:99:99","ovs_port_number":13,"src_mac":"00:00:5e:2a:10:00"}`},
		{"nested as deep as allowed", e.with("description", json.RawMessage(strings.Repeat("[", 100)+strings.Repeat("]", 100))), "vpns/instances/red/ports/tap1/endpoints", "[[[["},
		{"brackets in strings", e.with("description", strings.Repeat(`[{"\`, 500)), "vpns/instances/red/name", `"EVI-1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newServer(t)
				s.accept("/attach_localport", tt.in)
				s.tree() // all of it can be read
				w := s.get("/looking-glass/" + tt.path)
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), tt.want) {
					t.Errorf("GET %s: %d %s, want %s", tt.path, w.Code, w.Body, tt.want)
				}
				s.accept("/detach_localport", tt.in)
				if got := s.plane.String(); got != "" {
					t.Errorf("left after the detach:\n%s", got)
				}
			})
		})
	}
}

// The Neutron agent detaches IPVPN endpoints with local_port evpn though it
// attached them with linuxif (rest-api.md 6.2).
func TestDetachWithPortOfEVPN(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", ipvpnBody())
		s.accept("/detach_localport", ipvpnBody().with("local_port", members{"evpn": members{"id": "red"}}))
		if got := s.plane.String(); got != "" {
			t.Errorf("left after the detach:\n%s", got)
		}
	})
}

// A second detach is an error, a second attach is not.
func TestRepetitions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", evpnBody())
		tree := s.tree()
		s.accept("/attach_localport", evpnBody())
		s.wantTree(tree)
		s.accept("/detach_localport", evpnBody())
		wantFailure(t, s.post("/detach_localport", evpnBody()), http.StatusBadRequest)
	})
}

// The bodies that spec 3.10 shows work as far as the drivers go.
func TestExamplePayloads(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", `{"vpn_type": "ipvpn", "vpn_instance_id": "ipvpn_7d2f", "mac_address": "fa:16:3e:00:00:01",
 "ip_address": "10.20.0.4", "gateway_ip": "10.20.0.1",
 "local_port": {"linuxif": "patch2tun:5", "ovs": {"plugged": true, "port_number": 12, "vlan": 5}},
 "import_rt": ["64512:11"], "export_rt": ["64512:11", "64512:12"],
 "local_pref": 150,
 "fallback": {"src_mac": "00:00:5e:2a:10:00", "dst_mac": "fa:16:3e:99:99:99", "ovs_port_number": 13},
 "description": {"port": "0f6e"}, "instance_description": "L3 associations of network 7d2f"}`)
		s.accept("/attach_localport", `{"vpn_type": "evpn", "vpn_instance_id": "evpn_7d2f", "mac_address": "fa:16:3e:00:00:01",
 "ip_address": "10.20.0.4", "local_port": {"linuxif": "tap0f6e"}, "linuxbr": "brq7d2f",
 "vni": 1007, "import_rt": ["64512:1007"], "export_rt": ["64512:1007"]}`)
		want := []string{"local-mac dev tap0f6e fa:16:3e:00:00:01", "port dev tap0f6e"}
		if diff := cmp.Diff(want, s.plane.Entries(dataplane.EVPN, "evpn_7d2f")); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
	})
}

func TestPing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		const first = "9223372036854775807"
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			for _, path := range []string{"/ping", "/ping/", "/ping.json"} {
				if w := s.call(method, path, nil); w.Code != http.StatusOK || w.Body.String() != first {
					t.Errorf("%s %s: %d %s, want %s", method, path, w.Code, w.Body, first)
				}
			}
		}
	})
}
