// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// peerOptions are those that only a section PEER has.
var peerOptions = []option{
	{
		section: sectionPeer, name: "description", ours: true,
		help:    "Text for the operator.",
		setting: func(s *Settings) any { return &s.Description },
	}, {
		section: sectionPeer, name: "peer_as", typ: typeInteger, min: 1, max: 1<<32 - 1, base: "my_as", ours: true,
		help:    "AS number of the neighbour. If it is not ours, the session is an external one.",
		setting: func(s *Settings) any { return &s.PeerAS },
	}, {
		section: sectionPeer, name: "port", typ: typePort, min: 1, max: 65535, base: "bgp_port", ours: true,
		help: "TCP port of the peer. Not for a prefix.",
		peer: func(p *Peer) any { return &p.Port },
	}, {
		section: sectionPeer, name: "passive", typ: typeBool, ours: true,
		defNote: "`true` if in `passive_peers`, else `false`",
		help:    "Wait for the peer to connect to us. Requires `listen`. Not for a prefix.",
		peer:    func(p *Peer) any { return &p.Passive },
	}, {
		section: sectionPeer, name: "shutdown", typ: typeBool, def: "false", ours: true,
		help:    "Keep the neighbour down until the operator enables it.",
		setting: func(s *Settings) any { return &s.Shutdown },
	},
}

// sharedOptions are those of section BGP, for all neighbours, and of section
// PEER, for one.
var sharedOptions = []option{
	{
		name: "password", typ: typeSecret, min: 1, max: 80,
		help:    "Key of TCP-MD5 signatures (RFC 2385), never shown. A dollar sign is written `$$`.",
		setting: func(s *Settings) any { return &s.Password },
	}, {
		name: "ttl_security", typ: typeInteger, max: 254, def: "0",
		help: "How many hops away a neighbour may be: packets that come from farther are dropped " +
			"(GTSM, RFC 5082). 0: no check.",
		setting: func(s *Settings) any { return &s.TTLSecurity },
	}, {
		name: "device", typ: typeDevice,
		help:    "Interface or VRF that sessions are bound to.",
		setting: func(s *Settings) any { return &s.Device },
	}, {
		name: "families", typ: typeChoiceList, choices: familyNames, def: strings.Join(familyNames, ", "),
		help:    "Address families to offer. `rtc` is left out where `enable_rtc` is false.",
		setting: func(s *Settings) any { return &s.Families },
	}, {
		name: "hold_time", typ: typeSeconds, min: 3, max: 65535, zero: true, def: "90",
		help:    "Hold time we propose (RFC 4271 §4.2). 0: the session needs no keepalives.",
		setting: func(s *Settings) any { return &s.HoldTime },
	}, {
		name: "connect_retry_time", typ: typeSeconds, min: 1, max: 3600, def: "5",
		help:    "Time between attempts to connect to a peer (RFC 4271 §8).",
		setting: func(s *Settings) any { return &s.ConnectRetryTime },
	}, {
		name: "max_prefixes", typ: typeInteger, max: 1<<32 - 1, def: "0",
		help:    "Most routes that a neighbour may have in a family, else it goes down. 0: no bound.",
		setting: func(s *Settings) any { return &s.MaxPrefixes },
	}, {
		name: "max_prefixes_warning", typ: typeInteger, min: 1, max: 100, def: "80",
		help:    "Percentage of `max_prefixes` that is warned about.",
		setting: func(s *Settings) any { return &s.MaxPrefixesWarning },
	}, {
		name: "max_prefixes_pause", typ: typeSeconds, max: 86400, def: "300",
		help:    "How long a neighbour stays down beyond `max_prefixes`. 0: until the operator enables it.",
		setting: func(s *Settings) any { return &s.MaxPrefixesPause },
	}, {
		name: "allow_own_as", typ: typeInteger, max: 10, def: "0",
		help:    "How often our AS may be in the AS_PATH of a route.",
		setting: func(s *Settings) any { return &s.AllowOwnAS },
	}, {
		name: "irrelevant_routes", typ: typeChoice, choices: irrelevantNames, def: "auto",
		help: "What becomes of routes that no VPN imports. `keep`: they are kept. `drop`: they are dropped where the " +
			"neighbour has route refresh, with which they can be asked for again. `auto`: as `drop`, but kept where " +
			"the session has RT constraint.",
		setting: func(s *Settings) any { return &s.IrrelevantRoutes },
	}, {
		name: "graceful_restart", typ: typeChoice, choices: restartNames, def: "helper",
		help: "Graceful restart (RFC 4724). `helper`: keep the routes of a neighbour that restarts, and ask it to keep " +
			"none of ours. `full`: ask it to keep ours, too.",
		setting: func(s *Settings) any { return &s.Restart.Mode },
	}, {
		name: "restart_time", typ: typeSeconds, min: 1, max: 4095, def: "120",
		help:    "How long neighbours keep our routes, with graceful restart `full`.",
		setting: func(s *Settings) any { return &s.Restart.Time },
	}, {
		name: "stale_time", typ: typeSeconds, min: 1, max: 3600, def: "360",
		help: "How long stale routes of a neighbour wait for its End-of-RIB once it is back, and stale forwarding state for " +
			"it after our own restart.",
		setting: func(s *Settings) any { return &s.Restart.StaleTime },
	}, {
		name: "long_lived_stale_time", typ: typeSeconds, max: 1<<24 - 1, def: "86400",
		help:    "Upper bound of the times of long-lived graceful restart (RFC 9494). 0: none of it.",
		setting: func(s *Settings) any { return &s.Restart.LongLivedTime },
	}, {
		name: "graceful_notification", typ: typeBool, def: "true",
		help:    "Keep routes after a NOTIFICATION, too (RFC 8538).",
		setting: func(s *Settings) any { return &s.Restart.Notification },
	}, {
		name: "bfd", typ: typeChoice, choices: bfdNames, def: "off",
		help:    "Watch the path to the neighbour with BFD (RFC 5880): `single-hop` (RFC 5881) or `multihop` (RFC 5883).",
		setting: func(s *Settings) any { return &s.BFD.Mode },
	}, {
		name: "bfd_min_tx", typ: typeMilliseconds, min: 10, max: 60000, def: "300",
		help:    "Time between BFD packets that we would like to send.",
		setting: func(s *Settings) any { return &s.BFD.MinTx },
	}, {
		name: "bfd_min_rx", typ: typeMilliseconds, min: 10, max: 60000, def: "300",
		help:    "Time between BFD packets that we can receive.",
		setting: func(s *Settings) any { return &s.BFD.MinRx },
	}, {
		name: "bfd_multiplier", typ: typeInteger, min: 1, max: 255, def: "3",
		help:    "How many BFD packets in a row must be lost before the neighbour takes the path for down.",
		setting: func(s *Settings) any { return &s.BFD.Multiplier },
	}, {
		name: "bfd_min_ttl", typ: typeInteger, min: 1, max: 255, def: "1",
		help:    "Lowest TTL of BFD packets received, with `multihop`: 254 allows one router on the path.",
		setting: func(s *Settings) any { return &s.BFD.MinTTL },
	},
}

// inBGP returns the rows of section BGP for options that PEER has, too.
func inBGP(rows []option) []option {
	out := make([]option, 0, len(rows))
	for _, o := range rows {
		setting := o.setting
		o.section, o.shared, o.ours = sectionBGP, true, true
		o.field = func(c *Config) any { return setting(&c.BGP.Settings) }
		out = append(out, o)
	}
	return out
}

// inPeer returns the rows of section PEER for options that BGP has, too.
func inPeer(rows []option) []option {
	out := make([]option, 0, len(rows))
	for _, o := range rows {
		o.section, o.shared, o.ours = sectionPeer, true, true
		o.base, o.def = o.name, ""
		out = append(out, o)
	}
	return out
}
