// SPDX-License-Identifier: Apache-2.0

package config

import "slices"

// Sections of the file.
const (
	sectionDefault = "DEFAULT"
	sectionCommon  = "COMMON"
	sectionAPI     = "API"
	sectionBGP     = "BGP"
	sectionPeer    = "PEER" // one per neighbour
	sectionBMP     = "BMP"
	sectionIPVPN   = "DATAPLANE_DRIVER_IPVPN"
	sectionEVPN    = "DATAPLANE_DRIVER_EVPN"
)

// table is every option known, in the order of sample file, documentation and
// looking glass.
var table = slices.Concat(
	logOptions, commonOptions, apiOptions, bgpOptions, inBGP(sharedOptions), peerOptions, inPeer(sharedOptions),
	bmpOptions, ipvpnOptions, evpnOptions,
	ignoredLogOptions,
)

var logOptions = []option{
	{
		section: sectionDefault, name: "debug", typ: typeBool, def: "false",
		help:  "Log at level debug instead of info.",
		field: func(c *Config) any { return &c.Log.Debug },
	}, {
		section: sectionDefault, name: "log_file", old: []string{"logfile"},
		defNote: "standard error; with `log_dir`, `bagpipe-bgp.log` in it",
		help:    "File to log to, relative to `log_dir`. A name that ends in `.conf` is ignored with a warning.",
		field:   func(c *Config) any { return &c.Log.File },
	}, {
		section: sectionDefault, name: "log_dir", old: []string{"logdir"},
		help:  "Directory of the log file.",
		field: func(c *Config) any { return &c.Log.Dir },
	}, {
		section: sectionDefault, name: "use_json", typ: typeBool, def: "false",
		help:  "Log one JSON object per line.",
		field: func(c *Config) any { return &c.Log.JSON },
	},
}

var commonOptions = []option{
	{
		section: sectionCommon, name: "root_helper", def: "sudo", ignored: whyRootHelper,
		help: "Command to run others as root.",
	}, {
		section: sectionCommon, name: "root_helper_daemon", ignored: whyRootHelper,
		help: "Command to run others as root, as a daemon.",
	}, {
		section: sectionCommon, name: "sweep_delay", typ: typeSeconds, def: "120", max: 86400, ours: true,
		help: "How long after start the forwarding state left by an earlier run is kept before " +
			"what nobody re-attached is removed. Then it waits for the End-of-RIB of all neighbours, for the longest " +
			"`stale_time` at most.",
		field: func(c *Config) any { return &c.Common.SweepDelay },
	}, {
		section: sectionCommon, name: "state_directory", ours: true,
		help: "Directory in which attachments, route distinguishers, labels and VNIs are kept, so that they are there " +
			"again after a restart; one for each daemon. Empty: where the service has its `StateDirectory=` (systemd), else " +
			"nothing is kept, and agents have to attach again.",
		field: func(c *Config) any { return &c.Common.StateDirectory },
	}, {
		section: sectionCommon, name: "cleanup_on_stop", typ: typeBool, def: "false", ours: true,
		help: "Remove all forwarding state when stopped by SIGTERM or SIGINT, as `bagpipe cleanup` does, and have BGP peers drop our routes at once. " +
			"What is attached stays in `state_directory` and is there again after the next start.",
		field: func(c *Config) any { return &c.Common.CleanupOnStop },
	},
}

var apiOptions = []option{
	{
		section: sectionAPI, name: "host", old: []string{"api_host"}, typ: typeHost, def: "127.0.0.1",
		help:  "Where the REST API listens.",
		field: func(c *Config) any { return &c.API.Host },
	}, {
		section: sectionAPI, name: "port", old: []string{"api_port"}, typ: typePort, def: "8082", max: 65535,
		help:  "TCP port of the REST API. 0: the system chooses one.",
		field: func(c *Config) any { return &c.API.Port },
	}, {
		section: sectionAPI, name: "unix_socket", typ: typeSocket, ours: true,
		help: "Unix socket that the REST API listens at, too, with mode 0660 and the daemon's group. " +
			"Who may write to it needs no token.",
		field: func(c *Config) any { return &c.API.UnixSocket },
	}, {
		section: sectionAPI, name: "tls_certificate", typ: typePath, ours: true,
		help: "PEM file of the certificate and those that it is signed with; with it, the TCP port takes TLS only. " +
			"Requires `tls_key`. The files of TLS are read again when they have changed.",
		field: func(c *Config) any { return &c.API.TLSCertificate },
	}, {
		section: sectionAPI, name: "tls_key", typ: typePath, ours: true,
		help:  "PEM file of the certificate's private key. Requires `tls_certificate`.",
		field: func(c *Config) any { return &c.API.TLSKey },
	}, {
		section: sectionAPI, name: "tls_client_ca", typ: typePath, ours: true,
		help:  "PEM file of certificates; clients need one that is signed with one of these. Requires `tls_certificate`.",
		field: func(c *Config) any { return &c.API.TLSClientCA },
	}, {
		section: sectionAPI, name: "token_file", typ: typePath, ours: true,
		help: "File of bearer tokens, one a line: clients of the TCP port must send one of them, but for `/ping` and `/healthz`. " +
			"It is read again when it has changed.",
		field: func(c *Config) any { return &c.API.TokenFile },
	},
}

var bmpOptions = []option{
	{
		section: sectionBMP, name: "stations", typ: typeStationList, ours: true,
		help:  "BMP stations to connect to (RFC 7854). The port is 11019 unless given.",
		field: func(c *Config) any { return &c.BMP.Stations },
	}, {
		section: sectionBMP, name: "connect_retry_time", typ: typeSeconds, min: 1, max: 3600, def: "30", ours: true,
		help:  "Time between attempts to connect to a station.",
		field: func(c *Config) any { return &c.BMP.ConnectRetryTime },
	}, {
		section: sectionBMP, name: "statistics_interval", typ: typeSeconds, max: 3600, def: "60", ours: true,
		help:  "Time between Statistics Reports of a peer. 0: none.",
		field: func(c *Config) any { return &c.BMP.StatisticsInterval },
	},
}

// ipvpnDrivers and evpnDrivers are the values of dataplane_driver. A driver comes
// into use here when it loses its "absent"; its options are shown from then on.
var (
	ipvpnDrivers = []driver{
		{name: "dummy", old: []string{"DummyDataplaneDriver", "bagpipe.bgp.vpn.ipvpn.DummyDataplaneDriver"}},
		{name: "ovs", old: []string{
			"mpls_ovs_dataplane.MPLSOVSDataplaneDriver",
			"bagpipe.bgp.vpn.ipvpn.mpls_ovs_dataplane.MPLSOVSDataplaneDriver",
		}},
		{name: "linux", old: []string{
			"mpls_linux_dataplane.MPLSLinuxDataplaneDriver",
			"bagpipe.bgp.vpn.ipvpn.mpls_linux_dataplane.MPLSLinuxDataplaneDriver",
		}},
		{name: "ebpf"},
	}
	evpnDrivers = []driver{
		{name: "dummy", old: []string{"DummyDataplaneDriver", "bagpipe.bgp.vpn.evpn.DummyDataplaneDriver"}},
		{name: "linux", old: []string{
			"linux_vxlan.LinuxVXLANDataplaneDriver",
			"bagpipe.bgp.vpn.evpn.linux_vxlan.LinuxVXLANDataplaneDriver",
		}},
		{name: "ovs", absent: true},
		{name: "ebpf", absent: true},
	}
)

var evpnOptions = append(
	dataplaneOptions(sectionEVPN, "E-VPN", evpnDrivers,
		func(c *Config) *Dataplane { return &c.EVPN.Dataplane }),
	option{
		section: sectionEVPN, name: "vxlan_dst_port", typ: typePort, def: "4789", max: 65535,
		help:  "UDP port of VXLAN, local and remote. 0: the kernel's default, 8472.",
		field: func(c *Config) any { return &c.EVPN.VXLANDstPort },
	},
)

// dataplaneOptions returns the options that the dataplanes of all VPN types have.
func dataplaneOptions(section, vpn string, drivers []driver, in func(*Config) *Dataplane) []option {
	return []option{
		{
			section: section, name: "dataplane_driver", typ: typeDriver, def: "dummy", drivers: drivers,
			help:  "Forwarding plane of " + vpn + " instances. `dummy` forwards nothing.",
			field: func(c *Config) any { return &in(c).Driver },
		}, {
			section: section, name: "dataplane_local_address", typ: typeLocalAddress,
			defNote: "the `local_address` of `[BGP]`",
			help:    "Next hop of our routes and source of tunnels.",
			field:   func(c *Config) any { return &in(c).LocalAddress },
		},
	}
}
