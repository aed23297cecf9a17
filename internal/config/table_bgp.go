// SPDX-License-Identifier: Apache-2.0

package config

var bgpOptions = []option{
	{
		section: sectionBGP, name: "local_address", typ: typeLocalAddress, required: true, example: "192.0.2.1",
		help: "Source of BGP sessions and, unless set otherwise, router id and dataplane address. " +
			"Of an interface, the first IPv4 address is taken, else the first global IPv6 address, at start.",
		field: func(c *Config) any { return &c.BGP.LocalAddress },
	}, {
		section: sectionBGP, name: "router_id", typ: typeIPv4, ours: true,
		defNote: "`local_address` if that is IPv4; required if it is IPv6",
		help:    "Our BGP identifier, also the administrator field of route distinguishers.",
		field:   func(c *Config) any { return &c.BGP.RouterID },
	}, {
		section: sectionBGP, name: "my_as", typ: typeInteger, min: 1, max: 1<<32 - 1, required: true, example: "64512",
		help:  "Our AS number, and that of peers without `peer_as`.",
		field: func(c *Config) any { return &c.BGP.MyAS },
	}, {
		section: sectionBGP, name: "peers", typ: typeHostList,
		help: "Peers to connect to, usually route reflectors. An IPv6 address may stand in brackets. " +
			"Host names are resolved at start and at reload. Each peer may be listed once.",
		show: showPeers,
	}, {
		section: sectionBGP, name: "passive_peers", typ: typeHostList, ours: true,
		help: "Those of the peers that we do not connect to but wait for. Requires `listen`.",
		show: showPassivePeers,
	}, {
		section: sectionBGP, name: "bgp_port", typ: typePort, min: 1, max: 65535, def: "179",
		help:  "TCP port of peers without `port`.",
		field: func(c *Config) any { return &c.BGP.Port },
	}, {
		section: sectionBGP, name: "enable_rtc", typ: typeBool, def: "true",
		help:  "Ask peers only for routes that some VPN imports (RT constraint, RFC 4684).",
		field: func(c *Config) any { return &c.BGP.EnableRTC },
	}, {
		section: sectionBGP, name: "listen", typ: typeBool, def: "false", ours: true,
		help:  "Accept connections of peers at `local_address`.",
		field: func(c *Config) any { return &c.BGP.Listen },
	}, {
		section: sectionBGP, name: "listen_port", typ: typePort, max: 65535, ours: true,
		defNote: "`bgp_port`",
		help:    "TCP port to accept connections at. 0: the system chooses one.",
		field:   func(c *Config) any { return &c.BGP.ListenPort },
	}, {
		section: sectionBGP, name: "dynamic_neighbors", typ: typePrefixList, ours: true,
		help: "Prefixes to accept sessions from besides `peers`. Requires `listen`.",
		show: showDynamicNeighbors,
	}, {
		section: sectionBGP, name: "evpn_accept_no_encapsulation", typ: typeBool, def: "true", ours: true,
		help:  "Take an EVPN route without Encapsulation Extended Community (RFC 9012) as VXLAN.",
		field: func(c *Config) any { return &c.BGP.EVPNAcceptNoEncapsulation },
	},
}

func showPeers(c *Config) any {
	return texts(c.BGP.Peers, func(p Peer) string { return p.Host })
}

func showPassivePeers(c *Config) any {
	hosts := []string{}
	for _, p := range c.BGP.Peers {
		if p.Passive {
			hosts = append(hosts, p.Host)
		}
	}
	return hosts
}

func showDynamicNeighbors(c *Config) any {
	return texts(c.BGP.Groups, func(g Group) string { return g.Prefix.String() })
}
