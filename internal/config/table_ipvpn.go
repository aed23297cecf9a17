// SPDX-License-Identifier: Apache-2.0

package config

import "slices"

// sectionOVS is that of the original's OVSDB library.
const sectionOVS = "OVS"

// encapsulations are the choices of Encapsulation, by value.
var encapsulations = []string{"mpls", "gre", "mpls-udp", "vxlan"}

var ipvpnOptions = slices.Concat(
	dataplaneOptions(sectionIPVPN, "IP VPN", ipvpnDrivers, func(c *Config) *Dataplane { return &c.IPVPN.Dataplane }),
	[]option{
		{
			section: sectionIPVPN, name: "encapsulations", typ: typeChoiceList, choices: encapsulations, ours: true,
			of: []string{"ebpf", "linux"},
			defNote: "`ebpf`: `mpls-udp, gre, vxlan`; `linux`: `mpls` with a device as `mpls_interface`, " +
				"otherwise `gre`",
			help: "How packets travel to other nodes, best first: all are announced and accepted. `ebpf` has `mpls-udp` " +
				"(RFC 7510), `gre` (MPLS in GRE) and `vxlan`; `linux` has `mpls` (over Ethernet), `gre` and `mpls-udp`.",
			field: func(c *Config) any { return &c.IPVPN.Encapsulations },
		}, {
			section: sectionIPVPN, name: "default_encapsulation", typ: typeChoice, choices: encapsulations, def: "gre", ours: true,
			of:    []string{"ebpf"},
			help:  "How packets travel to the next hop of a route that names no encapsulation.",
			field: func(c *Config) any { return &c.IPVPN.DefaultEncapsulation },
		}, {
			section: sectionIPVPN, name: "underlay_interfaces", typ: typeList, ours: true,
			of:      []string{"ebpf"},
			defNote: "the interface that has `dataplane_local_address`",
			help:    "Interfaces where packets of other nodes arrive. Required when the address is one of the loopback interface.",
			field:   func(c *Config) any { return &c.IPVPN.UnderlayInterfaces },
		}, {
			section: sectionIPVPN, name: "vxlan_dst_port", typ: typePort, min: 1, max: 65535, def: "4789", ours: true,
			of:    []string{"ebpf"},
			help:  "UDP port of VXLAN, local and remote.",
			field: func(c *Config) any { return &c.IPVPN.VXLANDstPort },
		}, {
			section: sectionIPVPN, name: "anti_spoofing", typ: typeBool, def: "false", ours: true,
			of:    []string{"ebpf"},
			help:  "Drop what comes from a port with a MAC and IP address that no endpoint of the port has.",
			field: func(c *Config) any { return &c.IPVPN.AntiSpoofing },
		}, {
			section: sectionIPVPN, name: "max_routes_per_vrf", typ: typeInteger, min: 1, max: 1 << 24, def: "1048576", ours: true,
			of:    []string{"ebpf"},
			help:  "Routes that a VRF may have, for each IP version.",
			field: func(c *Config) any { return &c.IPVPN.MaxRoutes },
		}, {
			section: sectionIPVPN, name: "mpls_interface", of: []string{"ovs", "linux"},
			defNote: "MPLS over GRE",
			help: "Interface for MPLS over Ethernet to nodes on the same link; `ovs`: a port of the bridge. " +
				"`*gre*`: MPLS over GRE.",
			field: func(c *Config) any { return &c.IPVPN.MPLSInterface },
		},
	},
	ovsOptions,
)

// ovsOptions are those of the driver ovs.
var ovsOptions = []option{
	{
		section: sectionIPVPN, name: "mpls_over_gre", typ: typeChoice, choices: autoBools, def: "auto", of: []string{"ovs"},
		help:  "MPLS over GRE. `auto`: if `mpls_interface` says so.",
		field: func(c *Config) any { return &c.IPVPN.OVS.MPLSOverGRE },
	}, {
		section: sectionIPVPN, name: "proxy_arp", typ: typeBool, def: "false", of: []string{"ovs"},
		help:  "Answer ARP requests of ports for every address, not only for the gateway.",
		field: func(c *Config) any { return &c.IPVPN.OVS.ProxyARP },
	}, {
		section: sectionIPVPN, name: "arp_responder", typ: typeBool, def: "false", of: []string{"ovs"},
		help:  "Answer ARP and ND requests of ports for the gateway.",
		field: func(c *Config) any { return &c.IPVPN.OVS.ARPResponder },
	}, {
		section: sectionIPVPN, name: "vxlan_encap", typ: typeBool, def: "false", of: []string{"ovs"},
		help:  "Also send and receive packets in VXLAN, with the label as VNI; it is preferred.",
		field: func(c *Config) any { return &c.IPVPN.OVS.VXLANEncap },
	}, {
		section: sectionIPVPN, name: "ovs_bridge", def: "br-mpls", of: []string{"ovs"},
		help:  "Bridge that forwards. It must exist.",
		field: func(c *Config) any { return &c.IPVPN.OVS.Bridge },
	}, {
		section: sectionIPVPN, name: "input_table", typ: typeInteger, max: 253, def: "0", of: []string{"ovs"},
		help:  "OpenFlow table where packets come in.",
		field: func(c *Config) any { return &c.IPVPN.OVS.InputTable },
	}, {
		section: sectionIPVPN, name: "ovs_table_id_start", typ: typeInteger, max: 252, def: "1", of: []string{"ovs"},
		help:  "OpenFlow table for packets of other nodes; the next one is that of the VRFs. Neither may be `input_table`.",
		field: func(c *Config) any { return &c.IPVPN.OVS.TableStart },
	}, {
		section: sectionIPVPN, name: "gre_tunnel", def: "mpls_gre", of: []string{"ovs"},
		help:  "Name of the GRE port.",
		field: func(c *Config) any { return &c.IPVPN.OVS.GRETunnel },
	}, {
		section: sectionIPVPN, name: "gre_tunnel_options", typ: typeList, of: []string{"ovs"},
		help: "Options of the GRE port, `key=value`. With `packet_type=legacy_l3` packets have the form that routers and other " +
			"drivers expect; without it there is an Ethernet header inside, as with the original.",
		field: func(c *Config) any { return &c.IPVPN.OVS.GRETunnelOptions },
	}, {
		section: sectionIPVPN, name: "ovsbr_interfaces_mtu", typ: typeInteger, max: 65535, of: []string{"ovs"},
		help:  "MTU to give to ports that are plugged by name.",
		field: func(c *Config) any { return &c.IPVPN.OVS.InterfacesMTU },
	}, {
		section: sectionIPVPN, name: "hash_method", typ: typeChoice, choices: hashMethods, def: "dp_hash", of: []string{"ovs"},
		help:  "How a flow chooses among several next hops (`selection_method` of groups).",
		field: func(c *Config) any { return &c.IPVPN.OVS.HashMethod },
	}, {
		section: sectionIPVPN, name: "hash_method_param", typ: typeInteger, max: 1<<63 - 1, def: "0", of: []string{"ovs"},
		help:  "Parameter of the hash method.",
		field: func(c *Config) any { return &c.IPVPN.OVS.HashMethodParam },
	}, {
		section: sectionIPVPN, name: "hash_fields", typ: typeList, of: []string{"ovs"},
		help:  "Fields that `hash` takes into account, such as `ip_src`, `ip_dst`.",
		field: func(c *Config) any { return &c.IPVPN.OVS.HashFields },
	}, {
		section: sectionOVS, name: "ovsdb_connection", of: []string{"ovs"}, def: "tcp:127.0.0.1:6640",
		help:  "Where ovsdb-server listens, `tcp:address:port` or `unix:path`.",
		field: func(c *Config) any { return &c.IPVPN.OVS.Connection },
	}, {
		section: sectionOVS, name: "run_dir", of: []string{"ovs"}, def: "/var/run/openvswitch", ours: true,
		help:  "Directory of the management sockets of bridges.",
		field: func(c *Config) any { return &c.IPVPN.OVS.RunDir },
	},
}
