// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// ebpfNode adds a node with the IP VPN driver ebpf.
func (f *fabric) ebpfNode(label string, number int, lines ...string) *node {
	f.t.Helper()
	return f.nodeWith(label, number, settings{
		peers: f.reflectors(), ipvpn: append([]string{"dataplane_driver = ebpf"}, lines...),
	})
}

// TestVRF has two VRFs with the same addresses over two nodes, by each encapsulation
// and IP version of the underlay, with routes from BGP: packets reach their own VRF
// and no other.
func TestVRF(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		encap  string
		family int
	}{
		{"mpls-udp", 4}, {"gre", 4}, {"vxlan", 4}, {"mpls-udp", 6}, {"gre", 6}, {"vxlan", 6},
	} {
		t.Run(fmt.Sprintf("%s over IPv%d", tt.encap, tt.family), func(t *testing.T) {
			t.Parallel()
			f := bareFabric(t, tt.family, 1600)
			f.startReflector()
			only := "encapsulations = " + tt.encap
			a, b := f.ebpfNode("a", 11, only), f.ebpfNode("b", 12, only)
			a1, a2, b1 := a.routed("a1", 1, 1500), a.routed("a2", 2, 1500), b.routed("b1", 3, 1500)
			other := vrf{id: "other", imports: "64512:300", exports: "64512:300"}
			o1, o3 := a.routed("o1", 1, 1500), b.routed("o3", 4, 1500)
			for _, v := range []*vm{a1, a2, b1} {
				v.join(blue)
			}
			o1.join(other)
			o3.join(other)
			a1.reaches(a2, b1)
			b1.reaches(a1, a2)
			o1.reaches(o3)
			o3.cutOff(b1.v4.Addr())
			a1.cutOff(o3.v4.Addr())
			a1.transfers(b1)
			a1.transfers(a2)
			b1.transfers(a2)
			b1.leave(blue)
			eventually(t, routeTimeout, func() error {
				if err := pings(t, a1, b1.v4.Addr()); err == nil {
					return fmt.Errorf("%s still reaches %s, which is detached", a1.tap, b1.v4.Addr())
				}
				return nil
			})
			o3.reaches(o1)
		})
	}
}

// TestVRFRestart ends the daemon of a node under traffic, for longer than others keep
// its routes, and starts it again: what the node forwards itself never stops.
func TestVRFRestart(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.ebpfNode("a", 11), f.ebpfNode("b", 12)
	a1, a2, b1 := a.routed("a1", 1, 1500), a.routed("a2", 2, 1500), b.routed("b1", 3, 1500)
	for _, v := range []*vm{a1, a2, b1} {
		v.join(blue)
	}
	a1.reaches(a2, b1)
	tr := startTraffic(t, a1, a2, b1)
	for range 2 {
		a.proc.end(syscall.SIGKILL)
		tr.within.flows(40)
		tr.from.flows(40)
		a.start()
		a1.join(blue)
		a2.join(blue)
		tr.flows(40)
	}
	tr.within.noLoss()
	tr.from.noLoss()
	tr.to.stop()
}

// TestRouteLeaking has two VRFs of one node import each other's routes.
func TestRouteLeaking(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a := f.ebpfNode("a", 11)
	left := vrf{id: "left", imports: "64512:2", exports: "64512:1"}
	right := vrf{id: "right", imports: "64512:1", exports: "64512:2"}
	a1, a2, a3 := a.routed("a1", 1, 1500), a.routed("a2", 2, 1500), a.routed("a3", 3, 1500)
	a1.join(left)
	a2.join(right)
	a3.join(left)
	a1.reaches(a2, a3) // a3 without its route target being imported: it is in the VRF
	a1.transfers(a2)
	a2.leave(right)
	a2.join(vrf{id: "right", imports: "64512:9", exports: "64512:9"})
	eventually(t, routeTimeout, func() error {
		if pings(t, a1, a2.v4.Addr()) == nil {
			return fmt.Errorf("%s still reaches %s without its route target", a1.tap, a2.tap)
		}
		return nil
	})
}

// TestEVPNInVRF plugs an E-VPN into a VRF of each of two nodes: machines of the E-VPN
// reach those of the VRF by the gateway, on the same node and on others.
func TestEVPNInVRF(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b, c := f.ebpfNode("a", 11), f.ebpfNode("b", 12), f.ebpfNode("c", 13)
	b1 := b.routed("b1", 3, 1400)
	b1.join(blue)
	gw := gateway4(1)
	bridged := func(n *node, label string, host int) *vm {
		v := n.vmOf(label, host, 1400)
		v.v4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(16 + host)}), 28)
		ip(t, v.NS, "address flush dev eth0", fmt.Sprintf("address add %s dev eth0", v.v4), "route add default via "+gw.Addr().String())
		r := v.request(red, v.v4.String())
		n.attach(r)
		return v
	}
	plug := func(v *vm) client.AttachRequest {
		r := v.request(red, v.v4.String())
		r.VPNType, r.VPNInstanceID, r.VNI = client.IPVPN, blue.id, 0
		r.ImportRT, r.ExportRT, r.GatewayIP = []string{blue.imports}, []string{blue.exports}, gw.Addr().String()
		r.LocalPort = client.LocalPort{EVPN: &client.EVPNPort{ID: red.id}}
		return r
	}
	a2, a3, c4 := bridged(a, "a2", 2), bridged(a, "a3", 3), bridged(c, "c4", 4)
	for _, v := range []*vm{a2, a3, c4} {
		v.node.attach(plug(v))
	}
	for _, v := range []*vm{a2, a3, c4} {
		eventually(t, routeTimeout, func() error { return pings(t, v, b1.v4.Addr()) })
		eventually(t, routeTimeout, func() error { return pings(t, b1, v.v4.Addr()) })
		eventually(t, routeTimeout, func() error { return pings(t, v, gw.Addr()) })
		if err := v.transfer(b1, b1.v4.Addr()); err != nil {
			t.Errorf("TCP %s -> %s: %v", v.tap, b1.tap, err)
		}
	}
	eventually(t, routeTimeout, func() error { return pings(t, a2, c4.v4.Addr()) })
	var evi struct {
		GatewayPort struct {
			Interface string `json:"interface"`
			IPVPN     struct {
				ID string `json:"external_instance_id"`
			} `json:"ipvpn"`
		} `json:"gateway_port"`
	}
	a.mustGlass(&evi, "vpns", "instances", red.id)
	if evi.GatewayPort.IPVPN.ID != blue.id || !strings.HasPrefix(evi.GatewayPort.Interface, "'evpn-") {
		t.Errorf("gateway_port of %s: %+v, want the bridge and %s", red.id, evi.GatewayPort, blue.id)
	}
	for _, v := range []*vm{a2, a3} {
		if err := a.api.Detach(t.Context(), plug(v).Detach()); err != nil {
			t.Error(err)
		}
		if err := a.api.Detach(t.Context(), v.request(red, v.v4.String()).Detach()); err != nil {
			t.Error(err)
		}
	}
	a.showsNothing()
}

// TestPrefixRoutes has a VRF exchange its prefixes by EVPN type 5.
func TestPrefixRoutes(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.ebpfNode("a", 11), f.ebpfNode("b", 12)
	a1, b1, b2 := a.routed("a1", 1, 1500), b.routed("b1", 2, 1500), b.routed("b2", 3, 1500)
	five, plain := blue, blue
	five.advertiseAs, five.vni = "evpn", 5000
	a1.join(five)
	b1.join(plain) // announces VPNv4 and VPNv6, imports both
	b2.join(plain)
	a1.reaches(b1, b2)
	b1.reaches(a1)
	a1.transfers(b1)
	all, err := b.routes()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for nlri := range all {
		found = found || strings.Contains(nlri, "prefix") && strings.Contains(nlri, a1.v4.Addr().String())
	}
	if !found {
		t.Errorf("no EVPN prefix route for %s at b: %v", a1.v4.Addr(), all)
	}
}
