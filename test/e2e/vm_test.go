// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// network is an E-VPN as attachments name it.
type network struct {
	id  string
	vni uint32
	// imports and exports are route targets; one of each here.
	imports, exports string
}

// red is the network of most tests.
var red = network{id: "red", vni: 100, imports: "64512:100", exports: "64512:100"}

// vm is a namespace that stands for a virtual machine, with a cable to a node.
type vm struct {
	*nstest.NS
	node    *node
	tap     string // the cable's end on the node
	mac     string
	v4, v6  netip.Prefix
	number  int // of a machine in a VRF
	port    client.LocalPort
	echoing []netip.Addr
}

// vmMAC and the functions below give the addresses of the machine of a number.
func vmMAC(number int) string { return fmt.Sprintf("00:00:5e:00:53:%02x", number) }

func vmIPv4(number int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(number)}) }

func vmIPv6(number int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", number))
}

// vm adds a machine to the node, not attached yet. Machines of one number have
// the same addresses.
func (n *node) vm(label string, number int) *vm {
	n.t.Helper()
	return n.vmOf(label, number, 1500)
}

func (n *node) vmOf(label string, number, mtu int) *vm {
	n.t.Helper()
	v := &vm{
		NS: newNS(n.t, "vm-"+label), node: n, tap: "tap-" + label, mac: vmMAC(number),
		port: client.LocalPort{LinuxIF: "tap-" + label},
		v4:   netip.PrefixFrom(vmIPv4(number), 24), v6: netip.PrefixFrom(vmIPv6(number), 64),
	}
	ip(n.t, n.NS, fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address %s netns %s", v.tap, mtu, mtu, v.mac, v.Name),
		fmt.Sprintf("link set %s up", v.tap))
	ip(n.t, v.NS,
		fmt.Sprintf("address add %s dev eth0", v.v4),
		fmt.Sprintf("address add %s dev eth0 nodad", v.v6),
		"link set eth0 up")
	return v
}

// request returns the attachment of the machine with an address, or of its MAC
// alone when ip is empty.
func (v *vm) request(to network, ip string) client.AttachRequest {
	return client.AttachRequest{
		VPNType: client.EVPN, VPNInstanceID: to.id, VNI: to.vni,
		ImportRT: []string{to.imports}, ExportRT: []string{to.exports},
		MACAddress: v.mac, IPAddress: ip, LocalPort: v.port,
	}
}

// requests returns the attachments of the machine's two addresses.
func (v *vm) requests(to network) []client.AttachRequest {
	return []client.AttachRequest{v.request(to, v.v4.String()), v.request(to, v.v6.String())}
}

// attach attaches the machine with its IPv4 and its IPv6 address.
func (v *vm) attach(to network) {
	v.node.t.Helper()
	for _, r := range v.requests(to) {
		v.node.attach(r)
	}
}

// detach undoes attach.
func (v *vm) detach(from network) {
	v.node.t.Helper()
	for _, r := range v.requests(from) {
		v.node.detach(r)
	}
}

// forgetNeighbours empties the machine's ARP and ND caches.
func (v *vm) forgetNeighbours() {
	v.node.t.Helper()
	v.Run("ip", "neigh", "flush", "dev", "eth0")
}
