// SPDX-License-Identifier: Apache-2.0

//go:build vm

package interop

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// These tests need a kernel with VRFs and MPLS, which FRR forwards with: test/vm runs them in one.

// vrfSite is a machine in a VRF, by IPv4 and IPv6.
type vrfSite struct {
	*vm
	gateways [2]netip.Addr
}

// site makes machine number n behind a port of a host, in subnets of its own.
func (h *host) site(label string, n int) *vrfSite {
	h.t.Helper()
	four := netip.AddrFrom4([4]byte{198, 51, 100, byte(16*n + 1)})
	six := netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::1", n))
	s := &vrfSite{
		vm: h.vm(label, "tap-"+label, fmt.Sprintf("02:aa:00:00:00:%02x", n),
			netip.PrefixFrom(four.Next(), 28).String(), netip.PrefixFrom(six.Next(), 64).String()),
		gateways: [2]netip.Addr{four, six},
	}
	s.Run("ip", "link", "set", "eth0", "mtu", "1400")
	for _, gw := range s.gateways {
		s.Run("ip", "route", "add", "default", "via", gw.String())
	}
	return s
}

// attachSite puts a site's machine into a VRF of ours; more are members of the request.
func (n *node) attachSite(verb string, s *vrfSite, more map[string]any) {
	n.t.Helper()
	for i, ip := range s.ips {
		request := map[string]any{
			"vpn_type": "ipvpn", "vpn_instance_id": "blue", "mac_address": s.mac, "ip_address": ip, "gateway_ip": s.gateways[i].String(),
			"local_port": map[string]any{"linuxif": s.port}, "import_rt": []string{"64512:200"}, "export_rt": []string{"64512:200"},
		}
		maps.Copy(request, more)
		if status, body, err := n.call("POST", "/"+verb+"_localport", request); err != nil || status != 200 {
			n.t.Fatalf("%s at %s: %d %s %v", verb, n.label, status, body, err)
		}
	}
}

// customer makes the VRF red of an FRR host with a machine behind it.
func (f *frr) customer() *vrfSite {
	f.t.Helper()
	s := f.site("ce", 2)
	f.Run("sh", "-c", strings.Join([]string{
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
		"ip link add red type vrf table 10", "ip link set red up", "ip link set " + s.port + " master red",
		fmt.Sprintf("ip addr add %s/28 dev %s", s.gateways[0], s.port), fmt.Sprintf("ip addr add %s/64 dev %s nodad", s.gateways[1], s.port),
	}, " && "))
	return s
}

// exchange is what both tests see when routes have gone both ways.
func exchange(t *testing.T, a *node, mine, theirs *vrfSite, pe *frr) {
	t.Helper()
	pe.fabric.onFailure(func() {
		out, _ := pe.Try("sh", "-c", "ip route show vrf red; ip -6 route show vrf red; ip -f mpls route; ip neigh; bridge fdb | grep dst; ip -s link show tun0")
		t.Logf("FRR's kernel:\n%s", out)
		out, _ = pe.Try("vtysh", "--vty_socket", pe.dir, "-c", "show bgp ipv4 vpn", "-c", "show bgp ipv6 vpn", "-c", "show bgp l2vpn evpn",
			"-c", "show ip route vrf red", "-c", "show ipv6 route vrf red")
		t.Logf("FRR:\n%s", out)
	})
	for i := range mine.ips {
		mine.mustReach(theirs.ip(i))
		theirs.mustReach(mine.ip(i))
	}
	for _, way := range [][2]*vrfSite{{mine, theirs}, {theirs, mine}} {
		from := &vpnSite{node: a, vm: way[0].vm}
		for i := range mine.ips {
			to := &vpnSite{node: a, vm: way[1].vm, ip: netip.MustParseAddr(way[1].ip(i))}
			if err := from.sends(to); err != nil {
				t.Errorf("TCP %s -> %s: %v", way[0].ip(i), to.ip, err)
			}
		}
	}
}

// TestKernelFRRProviderEdge has FRR's VRF and ours in one VPN, with VPNv4 and VPNv6
// routes, and packets in MPLS over GRE or over Ethernet.
func TestKernelFRRProviderEdge(t *testing.T) {
	for _, tt := range []struct {
		kind forwarder
		gre  bool
	}{{ebpfGRE, true}, {linuxMPLS, false}} {
		t.Run(tt.kind.name, func(t *testing.T) {
			f := newFabric(t)
			ha, pe := f.host("node", 1), newFRR(f.host("pe", 254))
			ce := pe.customer()
			tunnel, session := ha.v4.String(), "10.77.0.101"
			ha.Run("ip", "address", "add", session+"/24", "dev", "eth0")
			device := "eth0"
			if tt.gre {
				// FRR finds the next hop by the tunnel, and the tunnel by its device.
				device = "tun0"
				pe.Run("sh", "-c", fmt.Sprintf("ip link add tun0 type gre local %s remote %s ttl 64 dev eth0 && ip link set tun0 up && "+
					"ip address add %[1]s/32 peer %[2]s dev tun0", pe.v4, tunnel))
			}
			// FRR takes the link's IPv6 address as next hop of VPNv6, here its mapped IPv4
			// address, and asks the kernel for the mapped one of the other node.
			pe.Run("sh", "-c", fmt.Sprintf("ip address del %s/64 dev eth0 && ip address add ::ffff:%s/120 dev eth0 nodad && "+
				"ip -6 route add ::ffff:%s/128 dev %s && sysctl -qw net.mpls.platform_labels=100000 net.mpls.conf.%[4]s.input=1",
				pe.v6, pe.v4, tunnel, device))
			pe.startProviderEdge(netip.MustParseAddr(session))
			peer := pe.v4.String()
			a := newOurs(ha, []string{peer}, options{"connect_retry_time": "1", "local_address": session,
				ipvpnSection: tt.kind.section + "dataplane_local_address = " + tunnel + "\n"})
			a.established(peer)
			vm := ha.site("vm", 1)
			a.attachSite("attach", vm, nil)
			exchange(t, a, vm, ce, pe)
			if tt.gre {
				pe.carried("tun0")
			}
			a.attachSite("detach", vm, nil)
			pe.withdrawn()
		})
	}
}

// routes returns the routes from BGP in the kernel's VRF red, of one family: "-4" or "-6".
func (f *frr) routes(family string) string {
	f.t.Helper()
	return f.Run("ip", family, "route", "show", "vrf", "red", "proto", "bgp")
}

// withdrawn waits until FRR has no route of the node's in VRF red any more.
func (f *frr) withdrawn() {
	f.t.Helper()
	nstest.Eventually(f.t, routeTimeout, func() bool { return f.routes("-4")+f.routes("-6") == "" },
		func() string { return "FRR to have no route of ours; it has " + f.routes("-4") + f.routes("-6") })
}

// carried checks that most of the megabytes that exchange sends went through a tunnel's
// device, each way.
func (f *frr) carried(device string) {
	f.t.Helper()
	for _, way := range []string{"rx", "tx"} {
		text := strings.TrimSpace(f.Run("cat", "/sys/class/net/"+device+"/statistics/"+way+"_bytes"))
		if n, err := strconv.ParseUint(text, 10, 64); err != nil || n < 2<<20 {
			f.t.Errorf("%s_bytes of %s: %s, %v; want at least %d", way, device, text, err, 2<<20)
		}
	}
}

// startProviderEdge runs zebra and bgpd with VRF red, for a node of ours that dials.
func (f *frr) startProviderEdge(node netip.Addr) {
	f.t.Helper()
	f.ownDir()
	socket := f.startZebra()
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\nroute-map gre permit 10\n set l3vpn next-hop encapsulation gre\n", f.label)
	fmt.Fprintf(&b, "router bgp 64512\n bgp router-id %s\n no bgp default ipv4-unicast\n neighbor %s remote-as 64512\n neighbor %[2]s passive\n", f.v4, node)
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s vpn\n  neighbor %s activate\n  neighbor %[2]s route-map gre in\n exit-address-family\n", family, node)
	}
	fmt.Fprintf(&b, "router bgp 64512 vrf red\n bgp router-id %s\n", f.v4)
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  redistribute connected\n  label vpn export auto\n  rd vpn export 64512:1\n", family)
		b.WriteString("  rt vpn both 64512:200\n  export vpn\n  import vpn\n exit-address-family\n")
	}
	f.startBGPD(b.String(), "--socket", socket)
}

// TestKernelFRRPrefixRoutes has FRR's VRF and ours in one VPN by EVPN type 5 routes,
// with packets in VXLAN.
func TestKernelFRRPrefixRoutes(t *testing.T) {
	const vni = 5000
	f := newFabric(t)
	ha, pe := f.host("node", 1), newFRR(f.host("pe", 254))
	ce := pe.customer()
	pe.Run("sh", "-c", strings.Join([]string{
		"ip link add l3 type bridge stp_state 0", "ip link set l3 master red addrgenmode none", "ip link set l3 up",
		fmt.Sprintf("ip link add vx0 type vxlan id %d local %s dstport 4789 nolearning", vni, pe.v4),
		"ip link set vx0 master l3 addrgenmode none", "ip link set vx0 up",
	}, " && "))
	pe.ownDir()
	socket := pe.startZebra(fmt.Sprintf("vrf red\n vni %d\nexit-vrf\n", vni))
	var b strings.Builder
	fmt.Fprintf(&b, "hostname %s\nrouter bgp 64512\n bgp router-id %s\n no bgp default ipv4-unicast\n neighbor %s remote-as 64512\n neighbor %[3]s passive\n",
		pe.label, pe.v4, ha.v4)
	fmt.Fprintf(&b, " address-family l2vpn evpn\n  neighbor %s activate\n  advertise-all-vni\n exit-address-family\n", ha.v4)
	fmt.Fprintf(&b, "router bgp 64512 vrf red\n bgp router-id %s\n", pe.v4)
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  redistribute connected\n exit-address-family\n", family)
	}
	b.WriteString(" address-family l2vpn evpn\n  advertise ipv4 unicast\n  advertise ipv6 unicast\n  rd 64512:1\n")
	b.WriteString("  route-target import 64512:200\n  route-target export 64512:200\n exit-address-family\n")
	pe.startBGPD(b.String(), "--socket", socket)
	peer := pe.v4.String()
	a := newOurs(ha, []string{peer}, options{"connect_retry_time": "1", ipvpnSection: "dataplane_driver = ebpf\nencapsulations = vxlan\n"})
	a.established(peer)
	vm := ha.site("vm", 1)
	prefixRoutes := map[string]any{"advertise_as": "evpn", "vni": vni}
	a.attachSite("attach", vm, prefixRoutes)
	exchange(t, a, vm, ce, pe)
	pe.carried("vx0")
	a.attachSite("detach", vm, prefixRoutes)
	pe.withdrawn()
}
