// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// needOVS are the programs of tests with Open vSwitch.
var needOVS = []dependency{
	{"ovs-vswitchd", "openvswitch-switch"}, {"ovsdb-server", "openvswitch-switch"}, {"ethtool", "ethtool"},
}

// forwarder is one kind of node in a VPN of nodes with different dataplanes.
type forwarder struct {
	name string
	// section is the text of its IP VPN section.
	section  string
	ovs      bool
	original bool
}

const ovsGRE = "dataplane_driver = ovs\novs_bridge = br-mpls\nmpls_interface = *gre*\n" +
	"gre_tunnel_options = packet_type=legacy_l3\narp_responder = True\n"

var (
	ebpfGRE     = forwarder{name: "eBPF", section: "dataplane_driver = ebpf\nencapsulations = gre\n"}
	ebpfVXLAN   = forwarder{name: "eBPF VXLAN", section: "dataplane_driver = ebpf\nencapsulations = vxlan, gre\n"}
	ovsOurs     = forwarder{name: "ovs", section: ovsGRE, ovs: true}
	ovsVXLAN    = forwarder{name: "ovs VXLAN", section: ovsGRE + "vxlan_encap = True\n", ovs: true}
	ovsOriginal = forwarder{name: "original ovs", section: ovsGRE, ovs: true, original: true}
	origVXLAN   = forwarder{name: "original ovs VXLAN", section: ovsGRE + "vxlan_encap = True\n", ovs: true, original: true}
)

// TestDataplanesTogether has two nodes with different dataplanes in one VPN, with
// routes from BGP: ping and TCP both ways.
func TestDataplanesTogether(t *testing.T) {
	for _, tt := range []struct{ a, b forwarder }{
		{ebpfGRE, ovsOurs}, {ebpfVXLAN, ovsVXLAN}, {ovsOurs, ovsOriginal}, {ovsVXLAN, origVXLAN},
		{ebpfGRE, ovsOriginal}, {ebpfVXLAN, origVXLAN},
	} {
		t.Run(tt.a.name+" and "+tt.b.name, func(t *testing.T) {
			need(t, needOVS)
			together(t, tt.a, tt.b)
		})
	}
}

// together has two nodes in one VPN, whose machines must reach each other.
func together(t *testing.T, kindA, kindB forwarder) {
	t.Helper()
	f := newFabric(t)
	ha, hb := f.host("a", 1), f.host("b", 2)
	rr := newGoBGP(f, ha.v4, hb.v4)
	for _, h := range []*host{ha, hb, rr.host} {
		finished(h.NS, "eth0")
	}
	a, b := kindA.start(ha, 1, rr.v4), kindB.start(hb, 2, rr.v4)
	a.connect(b)
	b.connect(a)
	for _, way := range []struct{ from, to *vpnSite }{{a, b}, {b, a}} {
		way.from.vm.mustReach(way.to.ip.String())
		if err := way.from.sends(way.to); err != nil {
			t.Errorf("TCP %s -> %s: %v", way.from.label, way.to.label, err)
		}
	}
}

// vpnSite is a node with a machine in the VPN.
type vpnSite struct {
	*node
	vm *vm
	ip netip.Addr
}

// start starts a node of a kind and attaches a machine.
func (k forwarder) start(h *host, number int, reflector netip.Addr) *vpnSite {
	h.t.Helper()
	s := &vpnSite{}
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(16 * number)}), 28)
	gw := subnet.Addr().Next()
	s.ip = gw.Next()
	s.vm = h.vm(fmt.Sprintf("vm-%d", number), "tap0", fmt.Sprintf("02:aa:00:00:00:%02x", number), netip.PrefixFrom(s.ip, 28).String())
	s.vm.Run("ip", "link", "set", "eth0", "mtu", "1400")
	s.vm.Run("ip", "route", "add", "default", "via", gw.String())
	finished(s.vm.NS, "eth0")
	port := map[string]any{"linuxif": "tap0"}
	var sw *ovstest.Switch
	s.node, sw = k.startNode(h, reflector)
	if sw != nil {
		sw.Vsctl("add-port", "br-mpls", "tap0")
		port["ovs"] = map[string]any{"plugged": true, "port_name": "tap0"}
	}
	status, body, err := s.call("POST", "/attach_localport", map[string]any{
		"vpn_type": "ipvpn", "vpn_instance_id": "blue", "mac_address": s.vm.mac, "ip_address": netip.PrefixFrom(s.ip, 28).String(),
		"gateway_ip": gw.String(), "local_port": port, "import_rt": []string{"64512:200"}, "export_rt": []string{"64512:200"},
	})
	if err != nil || status != 200 {
		h.t.Fatalf("attach at %s: %d %s %v", h.label, status, body, err)
	}
	return s
}

// startNode starts a node of a kind, with its Open vSwitch if it has one.
func (k forwarder) startNode(h *host, reflector netip.Addr) (n *node, sw *ovstest.Switch) {
	h.t.Helper()
	var env []string
	if k.ovs {
		sw = startSwitch(h)
		h.fabric.onFailure(func() { h.t.Logf("%s:\n%s", h.label, sw.Ofctl("dump-flows", sw.Socket("br-mpls"))) })
		env = []string{"OVS_RUNDIR=" + sw.Dir}
		if !k.original {
			k.section += "[OVS]\nrun_dir = " + sw.Dir + "\n"
		}
	}
	peers := []string{reflector.String()}
	if k.original {
		n = newOriginal(h, originalConfig{peers: peers, ipvpn: k.section, evpnDriver: "dummy", env: env})
		n.waitAPI()
	} else {
		n = newOurs(h, peers, options{"connect_retry_time": "1", ipvpnSection: k.section})
	}
	n.established(reflector.String())
	return n, sw
}

// TestNetworkInVRF has an E-VPN instance plugged into a VRF of Open vSwitch, with the
// VRF as its gateway.
func TestNetworkInVRF(t *testing.T) {
	need(t, needOVS)
	networkInVRF(t, ovsOurs)
}

// networkInVRF has a machine of an E-VPN instance, behind a VRF of a kind, and one of
// another node's VRF reach each other.
func networkInVRF(t *testing.T, kind forwarder) {
	t.Helper()
	f := newFabric(t)
	ha, hb := f.host("a", 1), f.host("b", 2)
	rr := newGoBGP(f, ha.v4, hb.v4)
	for _, h := range []*host{ha, hb, rr.host} {
		finished(h.NS, "eth0")
	}
	far := ebpfGRE.start(hb, 2, rr.v4)
	a, _ := kind.startNode(ha, rr.v4)
	near := &vpnSite{node: a, ip: netip.MustParseAddr("203.0.113.18")}
	near.connect(far)
	gw := near.ip.Prev()
	near.vm = ha.vm("m", "tap1", "02:aa:00:00:00:0c", netip.PrefixFrom(near.ip, 28).String())
	near.vm.Run("ip", "link", "set", "eth0", "mtu", "1400")
	near.vm.Run("ip", "route", "add", "default", "via", gw.String())
	a.attachVM(near.vm, "red", 0, "64512:300")
	plug := map[string]any{
		"vpn_type": "ipvpn", "vpn_instance_id": "blue", "mac_address": near.vm.mac, "ip_address": near.vm.ips[0], "gateway_ip": gw.String(),
		"local_port": map[string]any{"evpn": map[string]any{"id": "red"}}, "import_rt": []string{"64512:200"}, "export_rt": []string{"64512:200"},
	}
	call := func(path string) {
		t.Helper()
		if status, body, err := a.call("POST", path, plug); err != nil || status != 200 {
			t.Fatalf("%s: %d %s %v", path, status, body, err)
		}
	}
	call("/attach_localport")
	near.vm.mustReach(gw.String())
	for _, way := range []struct{ from, to *vpnSite }{{near, far}, {far, near}} {
		way.from.vm.mustReach(way.to.ip.String())
		if err := way.from.sends(way.to); err != nil {
			t.Errorf("TCP %s -> %s: %v", way.from.label, way.to.label, err)
		}
	}
	call("/detach_localport")
	near.vm.mustNotReach(far.ip.String())
	if links := ha.Run("ip", "-brief", "link"); strings.Contains(links, "vrf-") || strings.Contains(links, "evi-") {
		t.Errorf("the pair of devices is left:\n%s", links)
	}
}

// startSwitch starts an Open vSwitch on a host. Its bridge br-phy takes over the host's
// address; br-mpls is for the driver.
func startSwitch(h *host) *ovstest.Switch {
	h.t.Helper()
	sw := ovstest.New(h.t, h.NS)
	h.Run("ovs-appctl", "-t", filepath.Join(sw.Dir, "db.ctl"), "ovsdb-server/add-remote", "ptcp:6640:127.0.0.1")
	sw.Vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type="+ovstest.Datapath(), "--", "add-port", "br-phy", "eth0")
	sw.AddBridge("br-mpls")
	h.Run("ip", "address", "flush", "dev", "eth0")
	h.Run("ip", "address", "add", h.v4.String()+"/24", "dev", "br-phy")
	h.Run("ip", "link", "set", "br-phy", "up")
	return sw
}

// finished has a device of a namespace finish its checksums: a switch in user space
// cannot take packets that leave that to hardware.
func finished(ns *nstest.NS, device string) { ns.Run("ethtool", "-K", device, "tx", "off") }

// connect has the node's host reach the other's once: an Open vSwitch learns by that
// where a tunnel leads.
func (s *vpnSite) connect(to *vpnSite) {
	s.t.Helper()
	nstest.Eventually(s.t, routeTimeout, func() bool {
		_, err := s.Try("ping", "-n", "-c", "1", "-W", "1", to.v4.String())
		return err == nil
	}, func() string { return s.label + " to reach " + to.label + " on the underlay" })
}

// transferSize is what a machine sends to another, in octets.
const transferSize = 1 << 20

// sends sends to another machine by TCP, to any port.
func (s *vpnSite) sends(to *vpnSite) error { return s.sendsTo(to, 0, 0) }

// sendsTo sends from one port to another; 0 is any.
func (s *vpnSite) sendsTo(to *vpnSite, sport, dport uint16) error {
	var l net.Listener
	err := netspace.Do(to.vm.Name, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to.ip, dport).String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	deadline := time.Now().Add(routeTimeout)
	_ = l.(*net.TCPListener).SetDeadline(deadline)
	received := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- err
			return
		}
		_ = c.SetDeadline(deadline)
		// The receiver closes first, so that the sender can have its port again.
		_, err = io.CopyN(io.Discard, c, transferSize)
		received <- errors.Join(err, c.Close())
	}()
	var c net.Conn
	err = netspace.Do(s.vm.Name, func() (err error) {
		c, err = (&net.Dialer{Deadline: deadline, LocalAddr: &net.TCPAddr{Port: int(sport)}}).Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		return err
	}
	_ = c.SetDeadline(deadline)
	if _, err = c.Write(make([]byte, transferSize)); err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	return errors.Join(err, <-received, c.Close())
}
