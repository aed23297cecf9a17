// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// plane is a dataplane driver with the VPN type that it is for.
type plane struct {
	name string
	vpn  string
	// ipvpn are lines of the IP VPN section, or of what follows it.
	ipvpn []string
	ovs   bool
	// changes tells of the calls that change the forwarding plane.
	changes func(faultcall.Call) bool
}

var (
	linuxEVPN = plane{
		name: "linux, E-VPN", vpn: client.EVPN,
		changes: func(c faultcall.Call) bool { return c.Class == faultcall.Netlink && c.Change },
	}
	linuxIPVPN = plane{name: "linux, IP VPN", vpn: client.IPVPN, ipvpn: []string{"dataplane_driver = linux"}}
	ebpfPlane  = plane{
		name: "ebpf", vpn: client.IPVPN, ipvpn: []string{"dataplane_driver = ebpf"},
		changes: func(c faultcall.Call) bool {
			return (c.Class == faultcall.BPF || c.Class == faultcall.Netlink) && c.Change
		},
	}
	ovsPlane = plane{name: "ovs", vpn: client.IPVPN, ovs: true, ipvpn: []string{
		"dataplane_driver = ovs", "ovs_bridge = br-mpls", "mpls_interface = *gre*", "gre_tunnel_options = packet_type=legacy_l3", "arp_responder = True",
	}, changes: func(c faultcall.Call) bool { return c.Class == faultcall.Unix }}
)

// planeNode is a node with a dataplane, and with an Open vSwitch if it needs one.
type planeNode struct {
	*node
	plane
	sw *ovstest.Switch
}

// planeNode adds a node with a dataplane to the fabric and starts its daemon.
func (f *fabric) planeNode(p plane, label string, number int, s settings) *planeNode {
	f.t.Helper()
	n := f.idlePlaneNode(p, label, number, s)
	n.start()
	return n
}

// idlePlaneNode is planeNode without the start.
func (f *fabric) idlePlaneNode(p plane, label string, number int, s settings) *planeNode {
	f.t.Helper()
	n := &planeNode{plane: p, node: f.idleNode(label, number)}
	s.ipvpn = append(s.ipvpn, p.ipvpn...)
	if p.ovs {
		n.sw = ovstest.New(f.t, n.NS)
		n.sw.Vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type="+ovstest.Datapath(), "--", "add-port", "br-phy", "eth0")
		n.sw.AddBridge("br-mpls")
		finished(n.NS, "eth0")
		finished(f.hub, "underlay")
		ip(f.t, n.NS, "address flush dev eth0", fmt.Sprintf("address add %s dev br-phy nodad", f.prefix(number)), "link set br-phy up")
		s.ipvpn = append(s.ipvpn, "[OVS]", "ovsdb_connection = "+n.sw.DB(), "run_dir = "+n.sw.Dir)
	}
	n.configure(s)
	return n
}

// finished has a device finish its checksums: a switch in user space cannot take packets
// that leave that to hardware.
func finished(ns *nstest.NS, device string) { ns.Run("ethtool", "-K", device, "tx", "off") }

// machine adds a machine, not attached yet.
func (n *planeNode) machine(label string, number int) *vm {
	n.t.Helper()
	if n.vpn == client.EVPN {
		return n.vm(label, number)
	}
	v := n.routed(label, number, 1400)
	if n.ovs {
		finished(v.NS, "eth0")
		n.sw.Vsctl("add-port", "br-mpls", v.tap)
		v.port.OVS = &client.OVSPort{Plugged: true, PortName: v.tap}
	}
	return v
}

// requests are the attachments of a machine's addresses.
func (p plane) requests(v *vm) []client.AttachRequest {
	if p.vpn == client.EVPN {
		return v.requests(red)
	}
	return v.vrfRequests(blue)
}

// enter attaches a machine to the VPN of the dataplane's type.
func (n *planeNode) enter(v *vm) {
	n.t.Helper()
	for _, r := range n.requests(v) {
		n.attach(r)
	}
}

// quit undoes enter.
func (n *planeNode) quit(v *vm) {
	n.t.Helper()
	for _, r := range n.requests(v) {
		n.detach(r)
	}
}

// meet has two nodes look for each other on the underlay: a switch in user space that has
// tunnels learns by it where they lead.
func meet(a, b *node) {
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		eventually(a.t, startTimeout, func() error {
			way[0].Run("ip", "neigh", "flush", "all")
			_, err := way[0].Try("ping", "-n", "-c", "1", "-W", "1", way[1].addr.String())
			return err
		})
	}
}
