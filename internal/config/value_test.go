// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"
)

func TestLoadBad(t *testing.T) {
	t.Parallel()
	const (
		wantLocal   = "want an IP address or the name of an interface that has one"
		wantHosts   = "want IP addresses or host names, separated by commas"
		otherFamily = " is not of the address family of BGP.local_address, 192.0.2.1; want that family"
		wantBool    = "want true, false, yes, no, on, off, 1 or 0"
	)
	tests := []struct {
		name string
		in   string // one file
		want []string
	}{
		{"bad nothing set", "", []string{
			"BGP.local_address: required but not set; " + wantLocal,
			"BGP.my_as: required but not set; want an integer from 1 to 4294967295"}},
		{"bad required set to nothing", "[BGP]\nlocal_address = 192.0.2.1\nmy_as =", []string{
			"0.conf:3: BGP.my_as: required but not set; want an integer from 1 to 4294967295"}},
		{"bad all at once, sorted", "[BGP]\nmy_as = 0\nlocal_address = 192.0.2.300\nbgp_port = 0\nlisten = maybe\n" +
			"hold_time = 2\nconnect_retry_time = 1s\n[API]\nport = 65536\nhost = a b\njunk\n[COMMON]\nsweep_delay = -1",
			[]string{
				`0.conf:2: BGP.my_as: value "0": want an integer from 1 to 4294967295`,
				`0.conf:3: BGP.local_address: value "192.0.2.300": look up interface: no 192.0.2.300; ` + wantLocal,
				`0.conf:4: BGP.bgp_port: value "0": want an integer from 1 to 65535`,
				`0.conf:5: BGP.listen: value "maybe": ` + wantBool,
				`0.conf:6: BGP.hold_time: value "2": want whole seconds, 0 or from 3 to 65535`,
				`0.conf:7: BGP.connect_retry_time: value "1s": want whole seconds, from 1 to 3600`,
				`0.conf:9: API.port: value "65536": want an integer from 0 to 65535`,
				`0.conf:10: API.host: value "a b": want an IP address or a host name`,
				`0.conf:11: line "junk": want "name = value", a [section] or a # comment`,
				`0.conf:13: COMMON.sweep_delay: value "-1": want whole seconds, from 0 to 86400`,
			}},
		{"bad comment behind value", minimal + "bgp_port = 179 # BGP", []string{
			`0.conf:4: BGP.bgp_port: value "179 # BGP": want an integer from 1 to 65535 (a comment needs a line of its own)`}},
		{"bad number too large for any type", minimal + "my_as = 99999999999999999999", []string{
			`0.conf:4: BGP.my_as: value "99999999999999999999": want an integer from 1 to 4294967295`}},
		{"bad AS number of five octets", minimal + "my_as = 4294967296", []string{
			`0.conf:4: BGP.my_as: value "4294967296": want an integer from 1 to 4294967295`}},
		{"bad hold time", minimal + "hold_time = 65536", []string{
			`0.conf:4: BGP.hold_time: value "65536": want whole seconds, 0 or from 3 to 65535`}},
		{"bad local address", minimal + "local_address = 0.0.0.0", []string{
			`0.conf:4: BGP.local_address: value "0.0.0.0": the address is not one host's; ` + wantLocal}},
		{"bad local address with zone", minimal + "local_address = fe80::1%eth0", []string{
			`0.conf:4: BGP.local_address: value "fe80::1%eth0": the address is not one host's; ` + wantLocal}},
		{"bad interface without address", minimal + "local_address = empty", []string{
			`0.conf:4: BGP.local_address: value "empty": the interface has no usable address; ` + wantLocal}},
		{"bad interface with link-local address", minimal + "local_address = local", []string{
			`0.conf:4: BGP.local_address: value "local": the interface has no usable address; ` + wantLocal}},
		{"bad no router id for IPv6", minimal + "local_address = 2001:db8::1", []string{
			"BGP.router_id: required but not set, because BGP.local_address is the IPv6 address 2001:db8::1; want an IPv4 address"}},
		{"bad router id", minimal + "router_id = 2001:db8::1", []string{
			`0.conf:4: BGP.router_id: value "2001:db8::1": want an IPv4 address`}},
		{"bad router id zero", minimal + "router_id = 0.0.0.0", []string{
			`0.conf:4: BGP.router_id: value "0.0.0.0": the address is not one host's; want an IPv4 address`}},
		{"bad peers", minimal + "peers = 192.0.2.300, 192.0.2.7:179, a b, 224.0.0.1, ::, nowhere, none.example.org", []string{
			`0.conf:4: BGP.peers: value "192.0.2.300": ` + wantHosts,
			`0.conf:4: BGP.peers: value "192.0.2.7:179": ` + wantHosts,
			`0.conf:4: BGP.peers: value "a b": ` + wantHosts,
			`0.conf:4: BGP.peers: value "224.0.0.1": 224.0.0.1 is not the address of one host; ` + wantHosts,
			`0.conf:4: BGP.peers: value "::": :: is not the address of one host; ` + wantHosts,
			`0.conf:4: BGP.peers: value "nowhere": look up host: no nowhere`,
			`0.conf:4: BGP.peers: value "none.example.org": look up host: none.example.org has no address`}},
		{"bad peer twice", minimal + "peers = 192.0.2.101, 192.0.2.7, rr1.example.org, ::ffff:192.0.2.7", []string{
			`0.conf:4: BGP.peers: value "rr1.example.org": the same peer as "192.0.2.101" (192.0.2.101); want each peer once`,
			`0.conf:4: BGP.peers: value "::ffff:192.0.2.7": the same peer as "192.0.2.7" (192.0.2.7); want each peer once`}},
		{"bad family of peers", minimal + "listen = 1\npeers = [2001:db8::7], rr6.example.org\ndynamic_neighbors = 2001:db8::/32", []string{
			`0.conf:5: BGP.peers: value "[2001:db8::7]": 2001:db8::7` + otherFamily,
			`0.conf:5: BGP.peers: value "rr6.example.org": 2001:db8::106` + otherFamily,
			`0.conf:6: BGP.dynamic_neighbors: value "2001:db8::/32": 2001:db8::` + otherFamily}},
		{"bad passive peer", minimal + "listen = 1\npeers = 192.0.2.7\npassive_peers = 192.0.2.8", []string{
			`0.conf:6: BGP.passive_peers: value "192.0.2.8": want only hosts that BGP.peers or a section has, too`}},
		{"bad passive and dynamic without listen", minimal + "peers = 192.0.2.7\npassive_peers = 192.0.2.7\ndynamic_neighbors = 192.0.2.0/24",
			[]string{
				`0.conf:5: BGP.passive_peers: value "192.0.2.7": has no sense unless BGP.listen is true`,
				`0.conf:6: BGP.dynamic_neighbors: value "192.0.2.0/24": has no sense unless BGP.listen is true`}},
		{"bad listen raises no further problem", minimal + "peers = 192.0.2.7\npassive_peers = 192.0.2.7\nlisten = x", []string{
			`0.conf:6: BGP.listen: value "x": ` + wantBool}},
		{"bad prefix", minimal + "listen = 1\ndynamic_neighbors = 192.0.2.0/24, 192.0.2.0/33", []string{
			`0.conf:5: BGP.dynamic_neighbors: value "192.0.2.0/24, 192.0.2.0/33": "192.0.2.0/33" is no prefix; want IP prefixes, separated by commas`}},
		{"bad prefix with host bits", minimal + "listen = 1\ndynamic_neighbors = 192.0.2.7/24", []string{
			`0.conf:5: BGP.dynamic_neighbors: value "192.0.2.7/24": "192.0.2.7/24" has bits set after its length; want 192.0.2.0/24`}},
		{"bad prefix of mapped addresses", minimal + "listen = 1\ndynamic_neighbors = ::ffff:192.0.2.0/120", []string{
			`0.conf:5: BGP.dynamic_neighbors: value "::ffff:192.0.2.0/120": "::ffff:192.0.2.0/120" is no prefix; want IP prefixes, separated by commas`}},
		{"bad driver", minimal + "[dataplane_driver_evpn]\ndataplane_driver = vpp", []string{
			`0.conf:5: DATAPLANE_DRIVER_EVPN.dataplane_driver: value "vpp": want one of dummy, linux`}},
		{"bad driver of another build", minimal + "[dataplane_driver_evpn]\ndataplane_driver = ovs", []string{
			`0.conf:5: DATAPLANE_DRIVER_EVPN.dataplane_driver: value "ovs": this build lacks the driver; want one of dummy, linux`}},
		{"bad encapsulation", minimal + "[dataplane_driver_ipvpn]\ndataplane_driver = ebpf\nencapsulations = gre, ipip", []string{
			`0.conf:6: DATAPLANE_DRIVER_IPVPN.encapsulations: value "gre, ipip": "ipip" is unknown; want one or more of mpls, gre, mpls-udp, vxlan, separated by commas`}},
		{"bad encapsulation of the driver", minimal + "[dataplane_driver_ipvpn]\ndataplane_driver = ebpf\nencapsulations = gre, mpls", []string{
			`0.conf:6: DATAPLANE_DRIVER_IPVPN.encapsulations: value "gre, mpls": driver ebpf has no mpls; want some of mpls-udp, gre, vxlan`}},
		{"bad default encapsulation", minimal + "[dataplane_driver_ipvpn]\ndataplane_driver = ebpf\nencapsulations = gre\ndefault_encapsulation = vxlan", []string{
			`0.conf:7: DATAPLANE_DRIVER_IPVPN.default_encapsulation: value "vxlan": not one of DATAPLANE_DRIVER_IPVPN.encapsulations; want gre`}},
		{"bad tables", minimal + "[dataplane_driver_ipvpn]\ndataplane_driver = ovs\ninput_table = 2", []string{
			`0.conf:6: DATAPLANE_DRIVER_IPVPN.input_table: value "2": is one of the two tables from DATAPLANE_DRIVER_IPVPN.ovs_table_id_start (1 and 2)`}},
		{"bad tunnel option", minimal + "[dataplane_driver_ipvpn]\ndataplane_driver = ovs\ngre_tunnel_options = key", []string{
			`0.conf:6: DATAPLANE_DRIVER_IPVPN.gre_tunnel_options: value "key": "key" is no key=value`}},
		{"bad dataplane address", minimal + "[dataplane_driver_evpn]\ndataplane_local_address = eth9", []string{
			`0.conf:5: DATAPLANE_DRIVER_EVPN.dataplane_local_address: value "eth9": look up interface: no eth9; ` + wantLocal}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := loadText(t, tt.in)
			r.warnings = nil
			r.check(t, nil, nil, tt.want)
		})
	}
}

func TestIsHostName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want bool
	}{
		{"OK one label", "rr1", true},
		{"OK dots", "rr_1.example-2.org.", true},
		{"OK number inside", "1.rr", true},
		{"bad empty", "", false},
		{"bad number", "300", false},
		{"bad address", "192.0.2.300", false},
		{"bad address with dot", "192.0.2.300.", false},
		{"bad empty label", "a..b", false},
		{"bad character", "a/b", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := isHostName(tt.in); got != tt.want {
				t.Errorf("isHostName(%q) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

// When the driver itself is refused, its options are not blamed on the choice.
func TestOptionsOfRefusedDriver(t *testing.T) {
	t.Parallel()
	r := loadText(t, minimal+"[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = vpp\novs_bridge = br0")
	r.check(t, nil, nil,
		[]string{`0.conf:5: DATAPLANE_DRIVER_IPVPN.dataplane_driver: value "vpp": want one of dummy, ovs, linux, ebpf`})
}
