// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// machine is a virtual machine before it is spread over the plan.
type machine struct {
	name, namespace string
	node            int
	// number is the end of the MAC address.
	number int
	places []place
}

// place is where a machine is in one IP version.
type place struct {
	address netip.Prefix
	// gateway is how it reaches other networks; invalid in an E-VPN, where all are
	// in the same one.
	gateway netip.Addr
}

// place gives a machine its addresses. In an IP VPN each has subnets of its own,
// by its index from 1.
func (m *machine) place(vpn string, index int) {
	if vpn == VPNEVPN {
		m.places = []place{
			{address: netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/24", m.number))},
			{address: netip.MustParsePrefix(fmt.Sprintf("2001:db8:1::%d/64", m.number))},
		}
		return
	}
	for _, text := range []string{
		fmt.Sprintf("198.51.100.%d/28", 16*index+1), fmt.Sprintf("2001:db8:%d::1/64", index),
	} {
		gateway := netip.MustParsePrefix(text)
		m.places = append(m.places, place{
			address: netip.PrefixFrom(gateway.Addr().Next(), gateway.Bits()), gateway: gateway.Addr(),
		})
	}
}

func (m *machine) mac() string { return fmt.Sprintf("00:00:5e:00:53:%02d", m.number) }

func (m *machine) tap() string { return "tap-" + m.name }

// plug adds a cable from an interface of a machine, of which all but the MTU is said, to a device
// of a node, and returns the port that it makes.
func (p *Plan) plug(node int, tap string, end End) client.LocalPort {
	v := Veth{A: End{Namespace: p.Nodes[node].Namespace, Name: tap, MTU: vmMTU}, B: end}
	v.B.MTU = vmMTU
	port := client.LocalPort{LinuxIF: tap}
	if p.Nodes[node].Switch != nil {
		v.A.Switch, v.B.Checksums = bridgeVPN, true
		port.OVS = &client.OVSPort{Plugged: true, PortName: tap}
	}
	p.Veths = append(p.Veths, v)
	return port
}

func (p *Plan) addMachine(m machine) {
	end := End{Namespace: m.namespace, Name: "eth0", MAC: m.mac()}
	for _, at := range m.places {
		end.Addresses = append(end.Addresses, at.address)
		if p.Options.VPN == VPNIPVPN {
			end.Gateways = append(end.Gateways, at.gateway)
		}
	}
	port, targets := p.plug(m.node, m.tap(), end), rtList([]int{vni})
	for _, at := range m.places {
		r := client.AttachRequest{
			VPNType: client.EVPN, VPNInstanceID: instance, VNI: vni, ImportRT: targets, ExportRT: targets,
			MACAddress: m.mac(), IPAddress: at.address.String(), LocalPort: port,
			Description: "machine " + m.name, InstanceDescription: "made by bagpipe lab",
		}
		if p.Options.VPN == VPNIPVPN {
			r.VPNType, r.VNI, r.GatewayIP = client.IPVPN, 0, at.gateway.String()
		}
		p.Attachments = append(p.Attachments, Attachment{Node: m.node, Request: r})
	}
}

// addChecks has every machine ping every other by both IP versions, and the
// first send bytes to the last, which is on another node.
func (p *Plan) addChecks(machines []machine) {
	for _, from := range machines {
		for _, to := range machines {
			if from.name == to.name {
				continue
			}
			for _, at := range to.places {
				p.Pings = append(p.Pings, Ping{From: from.namespace, To: to.namespace, Address: at.address.Addr()})
			}
		}
	}
	first, last := machines[0], machines[len(machines)-1]
	for _, at := range last.places {
		p.Transfers = append(p.Transfers, Transfer{
			From: first.namespace, To: last.namespace,
			Address: netip.AddrPortFrom(at.address.Addr(), transferPort), Bytes: transferBytes,
		})
	}
}

// addHints says what to look at once the lab is up.
func (p *Plan) addHints(machines []machine) {
	first, last, node := machines[0], machines[len(machines)-1], p.Nodes[0]
	hint := func(namespace, format string, args ...any) {
		p.Try = append(p.Try, "ip netns exec "+namespace+" "+fmt.Sprintf(format, args...))
	}
	for _, at := range last.places {
		hint(first.namespace, "ping -c 3 %s", at.address.Addr())
	}
	hint(node.Namespace, "%s show routes", p.Options.Self)
	hint(node.Namespace, "%s show vpns instances %s dataplane entries", p.Options.Self, instance)
	if node.Switch != nil {
		p.Try = append(p.Try, "ovs-ofctl -O OpenFlow15 dump-flows "+node.Switch.management(bridgeVPN))
	}
	p.addVerbs()
}

// addVerbs says how to go on with the lab.
func (p *Plan) addVerbs() {
	for _, verb := range []string{"status", "down"} {
		p.Try = append(p.Try, strings.Replace(p.Options.command(verb), "bagpipe", p.Options.Self, 1))
	}
}
