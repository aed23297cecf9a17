// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLookingGlassSamples holds the tool to the samples in the specification
// and in the documentation of the original, byte for byte.
func TestLookingGlassSamples(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{
			name: "nested object and blank after its name",
			args: []string{"summary"},
			want: "BGP_established_peers: 1\nroute_counts: \n  local_routes_count: 3\n  received_routes_count: 0\n" +
				"vpn_instances_count: 2\nwarnings_and_errors: 0\nstart_time: 2026-01-02 03:04:05\nversion: 17.0.0\n",
		},
		{
			name: "collection",
			args: []string{"vpns", "instances"},
			want: "* vrf-blue (...)\n  name: VRF-1\n  description: blue net\n* evi-red (...)\n  name: EVI-2\n" +
				"* going (...)\n  name: EVI-3\n",
		},
		{
			name: "single value",
			args: []string{"summary", "vpn_instances_count"},
			want: "2\n",
		},
		{
			name: "references without id, two blanks",
			args: nil,
			want: "summary: \n  BGP_established_peers: 1\n  route_counts: \n    local_routes_count: 3\n    received_routes_count: 0\n" +
				"config:  (...)\nbgp:  (...)\nvpns:  (...)\nlogs:  (...)\n",
		},
		{
			name: "routes",
			args: []string{"bgp", "routes"},
			want: "ipv4/mpls-vpn,*: -\n" +
				"l2vpn/evpn,*: \n" +
				"  * evpn:multicast::192.0.2.1:1:0:192.0.2.1: \n" +
				"      afi-safi: l2vpn/evpn\n" +
				"      attributes: \n" +
				"        pmsi-tunnel: pmsi:ingressreplication:-:100:192.0.2.1\n" +
				"        extended-community: [ target:64512:100 encap:VXLAN ]\n" +
				"      next_hop: 192.0.2.1\n" +
				"      source: EVI-2 (...)\n" +
				"      route_targets: \n" +
				"        * target:64512:100\n" +
				"ipv4/rtc,*: \n" +
				"  * rtc 64512:target:64512:100: \n" +
				"      afi-safi: ipv4/rtc\n" +
				"      attributes: \n" +
				"        local-preference: 100\n" +
				"      next_hop: 192.0.2.1\n" +
				"      source: BGPManager (...)\n" +
				"ipv4/flow-vpn,*: \n" +
				"  * flow destination-ipv4 203.0.113.0/24 rd 192.0.2.1:3: \n" +
				"      afi-safi: ipv4/flow-vpn\n" +
				"      attributes: -\n" +
				"      next_hop: None\n",
		},
		{
			name: "list of plain objects",
			args: []string{"logs"},
			want: "* level: WARNING\n  time: 2026-01-02 03:04:06,678\n  name: bgp\n  message: peer 'x' is\nslow\n" +
				"* level: ERROR\n  time: 2026-01-02 03:04:05,001\n  name: vpn\n  message: \n",
		},
		{
			name: "booleans, null, numbers",
			args: []string{"config"},
			want: "COMMON: \n  root_helper: sudo\n  sweep_delay: 1.5\n" +
				"BGP: \n  peers: \n    * 192.0.2.254\n  enable_rtc: True\n  listen: False\n  router_id: None\n",
		},
		{
			name: "reference to another place is taken",
			args: []string{"moved"},
			want: "gateway_port: \n  interface: 'evpn1-ipvpn2'\n  ipvpn: VRF-1 (...)\n    external_instance_id: vrf-blue\n" +
				"name: EVI-2\ninstance_type: EVI\nexternal_instance_id: evi-red\ndescription: None\n" +
				"route_targets: \n  import: \n    * target:64512:100\n  export: \n    * target:64512:100\n" +
				"instance_dataplane_id: 100\nports:  (...)\n",
		},
		{
			name: "empty things",
			args: []string{"empty"},
			want: "object: -\nlist: -\ndeep: \n  * \n    * 1\n    * \n      * 2\n  * -\n  * -\n  * a: \n      b: -\n",
		},
		{
			name: "empty at the top",
			args: []string{"vpns", "instances", "vrf-blue", "ports"},
			want: "-\n",
		},
		{
			name: "recursion goes below the path only",
			args: []string{"-r", "bgp"},
			want: "peers: \n  * 192.0.2.254\n    peeringAddresses: \n      peer_address: 192.0.2.254\n      local_address: 192.0.2.1\n" +
				"    as_info: \n      local: 64512\n      peer: 64512\n    rtc: \n      active: True\n      enabled: True\n" +
				"    active_families: \n      * (l2vpn, evpn)\n      * (ipv4, rtc)\n" +
				"    protocol: \n      state: Established\n      previous_state: (OpenConfirm)\n      hold_time: 90\n" +
				"      last_transition_time: 2026-01-02 03:04:05\n    name: BGP-192.0.2.254\n    adv_routes: -\n" +
				"workers:  (...)\nelsewhere: e (...)\n",
		},
		{
			name: "words with slashes, prefix in full",
			args: []string{"--prefix=/looking-glass/vpns", "instances/vrf-blue/ports"},
			want: "-\n",
		},
		{
			name: "unknown path",
			args: []string{"vpns", "no thing"},
			want: "No such looking glass path: vpns no thing\nhttp://HOST/looking-glass/vpns/no%20thing\n",
		},
		{
			name: "other errors",
			args: []string{"broken"},
			want: "Error code 500: {\"code\": 500, \"title\": \"Internal Server Error\", \"description\": \"Server error\"}\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := d.call(t, append([]string{"/usr/bin/bagpipe-looking-glass"}, tt.args...)...)
			if diff := cmp.Diff(tt.want, got.stdout); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if got.status != 0 || got.stderr != "" {
				t.Errorf("status %d, errors %q", got.status, got.stderr)
			}
		})
	}
}

func TestLookingGlassWithoutServer(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.Close()
	got := d.call(t, "bagpipe-looking-glass", "summary")
	if want := (outcome{0, "No server at http://HOST\n", ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLookingGlassFollowsNoCircle(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	if got := d.call(t, "bagpipe-looking-glass", "circle"); got.status != 1 || got.stderr == "" {
		t.Errorf("got %+v", got)
	}
}

func TestLookingGlassCommandLine(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"server and port", []string{"--server", "localhost", "--port", d.port(), "summary", "vpn_instances_count"}, 0, "2\n"},
		{"prefixes of options", []string{"--serv=127.0.0.1", "--po", d.port(), "summary", "vpn_instances_count"}, 0, "2\n"},
		{"bad port", []string{"--port", "many"}, 2, ""},
		{"ambiguous", []string{"--p", "1"}, 2, ""},
		{"unknown option", []string{"--loud"}, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := call(t, Env{}, append([]string{"bagpipe-looking-glass"}, tt.args...)...)
			if got.status != tt.status || got.stdout != tt.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}
