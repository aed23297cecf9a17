// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// vrf is an IP VPN as attachments name it.
type vrf struct {
	id               string
	imports, exports string
	// advertiseAs is "vpn" when empty; vni goes with "evpn" and "both".
	advertiseAs string
	vni         uint32
}

// blue is the VRF of most tests.
var blue = vrf{id: "blue", imports: "64512:200", exports: "64512:200"}

// gateway4 and gateway6 are the gateways of the machine of a number, which has
// subnets of its own.
func gateway4(number int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(number*16 + 1)}), 28)
}

func gateway6(number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::1/64", number))
}

// routed adds a machine to the node, not attached yet, that reaches all others
// by its gateways. Machines of one number have the same addresses.
func (n *node) routed(label string, number, mtu int) *vm {
	n.t.Helper()
	v := &vm{NS: newNS(n.t, "vm-"+label), node: n, tap: "tap-" + label, mac: vmMAC(number), number: number, port: client.LocalPort{LinuxIF: "tap-" + label}}
	v.v4 = netip.PrefixFrom(gateway4(number).Addr().Next(), 28)
	v.v6 = netip.PrefixFrom(gateway6(number).Addr().Next(), 64)
	ip(n.t, n.NS, fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address %s netns %s", v.tap, mtu, mtu, v.mac, v.Name),
		fmt.Sprintf("link set %s up", v.tap))
	ip(n.t, v.NS,
		fmt.Sprintf("address add %s dev eth0", v.v4),
		fmt.Sprintf("address add %s dev eth0 nodad", v.v6),
		"link set eth0 up", "link set lo up",
		"route add default via "+gateway4(number).Addr().String(),
		"route add default via "+gateway6(number).Addr().String())
	return v
}

// vrfRequests returns the attachments of the machine's two addresses.
func (v *vm) vrfRequests(to vrf) (list []client.AttachRequest) {
	for _, p := range []struct {
		ip netip.Prefix
		gw netip.Prefix
	}{{v.v4, gateway4(v.number)}, {v.v6, gateway6(v.number)}} {
		list = append(list, client.AttachRequest{
			VPNType: client.IPVPN, VPNInstanceID: to.id, VNI: to.vni, AdvertiseAs: to.advertiseAs,
			ImportRT: []string{to.imports}, ExportRT: []string{to.exports},
			MACAddress: v.mac, IPAddress: p.ip.String(), GatewayIP: p.gw.Addr().String(),
			LocalPort: v.port,
		})
	}
	return list
}

// join attaches the machine to a VRF with its IPv4 and its IPv6 address.
func (v *vm) join(to vrf) {
	v.node.t.Helper()
	for _, r := range v.vrfRequests(to) {
		v.node.attach(r)
	}
}

// leave undoes join.
func (v *vm) leave(from vrf) {
	v.node.t.Helper()
	for _, r := range v.vrfRequests(from) {
		v.node.detach(r)
	}
}

// cutOff checks that a machine does not reach an address.
func (v *vm) cutOff(a netip.Addr) {
	v.node.t.Helper()
	if err := pings(v.node.t, v, a); err == nil {
		v.node.t.Errorf("%s reaches %s: want it cut off", v.tap, a)
	}
}

// transferSize is what a transfer sends: many segments of full size.
const transferSize = 8 << 20

// transfers sends bytes by TCP to another machine and back, and checks them.
func (v *vm) transfers(to *vm) {
	v.node.t.Helper()
	for _, a := range []netip.Addr{to.v4.Addr(), to.v6.Addr()} {
		if err := v.transfer(to, a); err != nil {
			v.node.t.Errorf("TCP %s -> %s: %v", v.tap, a, err)
		}
	}
}

func (v *vm) transfer(to *vm, address netip.Addr) error {
	var l net.Listener
	err := netspace.Do(to.Name, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	failed := make(chan error, 1)
	go func() { failed <- echoOnce(l) }()
	deadline := time.Now().Add(startTimeout)
	var c net.Conn
	err = netspace.Do(v.Name, func() (err error) {
		c, err = (&net.Dialer{Deadline: deadline}).Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(deadline)
	data := make([]byte, transferSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	back, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent, <-failed); err != nil {
		return err
	}
	want := sha256.Sum256(data)
	if got := sha256.Sum256(back); !bytes.Equal(got[:], want[:]) {
		return fmt.Errorf("%d octets came back otherwise than the %d sent", len(back), len(data))
	}
	return nil
}

// echoOnce sends one connection's octets back.
func echoOnce(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(startTimeout))
	_, err = io.Copy(c, c)
	return err
}
