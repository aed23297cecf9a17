// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (p *Plan) addNode(i int, name string) {
	number := 11 + i
	address := p.underlay(number)
	ns := p.namespace("node-" + name)
	config := p.file("node-" + name + ".conf")
	node := Node{Address: address.Addr(), Process: Process{
		Name: "node-" + name, Namespace: ns, Log: p.file("node-" + name + ".log"),
		Args: []string{p.Options.Daemon, "--config-file", config}, Config: config,
	}}
	cable := Veth{
		A: End{Namespace: ns, Name: underlayDevice, MTU: underlayMTU, Addresses: []netip.Prefix{address}},
		B: End{Namespace: p.Bridge.Namespace, Name: "to-node-" + name, MTU: underlayMTU, Bridge: p.Bridge.Name},
	}
	if p.Options.Dataplane == DataplaneOVS {
		node.Switch = p.newSwitch(node.Process, i+1, address)
		cable.A.Addresses, cable.A.Switch = nil, bridgeUnderlay
		cable.B.Checksums = true
	}
	node.ConfigText = p.nodeConfig(node, number)
	p.Veths = append(p.Veths, cable)
	p.Nodes = append(p.Nodes, node)
}

func (p *Plan) nodeConfig(n Node, number int) string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by bagpipe lab up.")
	line("[BGP]")
	line("local_address = %s", n.Address)
	if n.Address.Is6() {
		line("router_id = 192.0.2.%d", number)
	}
	line("peers = %s", p.Bridge.Address.Addr())
	line("my_as = %d", as)
	line("connect_retry_time = 1")
	line("\n[API]")
	line("host = 127.0.0.1")
	line("port = 8082")
	for _, vpn := range []string{VPNEVPN, VPNIPVPN} {
		line("\n[DATAPLANE_DRIVER_%s]", strings.ToUpper(vpn))
		switch {
		case vpn == p.Options.VPN:
			line("dataplane_driver = %s", p.Options.Dataplane)
		case p.Options.Scenario != "":
			line("dataplane_driver = %s", DataplaneLinux)
			continue
		default:
			line("dataplane_driver = dummy")
			continue
		}
		for _, option := range p.driverOptions() {
			line("%s", option)
		}
	}
	if n.Switch != nil {
		line("\n[OVS]")
		line("ovsdb_connection = unix:%s", n.Switch.socket())
		line("run_dir = %s", n.Switch.Dir)
	}
	return b.String()
}

// driverOptions are what the driver must be told beside its name.
func (p *Plan) driverOptions() []string {
	if p.Options.VPN != VPNIPVPN {
		return nil
	}
	options := slices.Clone(map[string][]string{
		DataplaneOVS: {
			"ovs_bridge = " + bridgeVPN,
			"mpls_interface = *gre*",
			// Labels right inside GRE, as routers have them.
			"gre_tunnel_options = packet_type=legacy_l3",
			"arp_responder = true",
		},
	}[p.Options.Dataplane])
	if p.Options.Dataplane == DataplaneOVS && p.Options.Scenario != "" {
		options = append(options, "proxy_arp = true")
	}
	return options
}
