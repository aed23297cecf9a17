// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// TestMixedChain has a service between two networks, with an original node on either
// side of the re-advertisement: the service is on one node, the networks on the other.
// Counters tell that TCP passes the service both ways; where only port 80 is
// attracted, nothing else does. (An original fails at a classifier that has not both
// ports.)
func TestMixedChain(t *testing.T) {
	for _, tt := range []struct{ services, networks forwarder }{
		{ovsOriginal, ovsOurs}, {ovsOriginal, ebpfGRE}, {ovsOurs, ovsOriginal}, {ebpfGRE, ovsOriginal},
	} {
		t.Run(tt.services.name+" serves "+tt.networks.name, func(t *testing.T) {
			need(t, needOVS)
			mixedChain(t, tt.services, tt.networks)
		})
	}
}

// chainSite is a node of a mixed chain with its switch, if it has one.
type chainSite struct {
	*node
	sw    *ovstest.Switch
	ports int
}

// leg attaches an interface of a machine to a VPN of its own; more adds to the request.
func (s *chainSite) leg(v *vm, instance string, gateway netip.Addr, imports, exports []string, more map[string]any) {
	s.t.Helper()
	request := map[string]any{
		"vpn_type": "ipvpn", "vpn_instance_id": instance, "mac_address": v.mac, "ip_address": v.ips[0], "gateway_ip": gateway.String(),
		"import_rt": imports, "export_rt": exports,
	}
	port := map[string]any{"linuxif": v.port}
	if s.sw != nil {
		s.sw.Vsctl("add-port", "br-mpls", v.port)
		port["ovs"] = map[string]any{"plugged": true, "port_name": v.port}
	}
	request["local_port"] = port
	for k, value := range more {
		request[k] = value
	}
	if status, body, err := s.call("POST", "/attach_localport", request); err != nil || status != 200 {
		s.t.Fatalf("attach %s at %s: %d %s %v", instance, s.label, status, body, err)
	}
}

// machine makes a machine with an address of a /28, whose first address is the gateway.
func (s *chainSite) machine(subnet byte) (v *vm, gateway netip.Addr) {
	s.ports++
	gateway = netip.AddrFrom4([4]byte{198, 51, 100, subnet + 1})
	v = s.vm(fmt.Sprintf("vm-%d", subnet), fmt.Sprintf("tap%d", s.ports), fmt.Sprintf("02:aa:00:00:00:%02x", subnet),
		netip.PrefixFrom(gateway.Next(), 28).String())
	v.Run("ip", "link", "set", "eth0", "mtu", "1400")
	v.Run("ip", "route", "add", "default", "via", gateway.String())
	finished(v.NS, "eth0")
	return v, gateway
}

// mixedChain starts the two nodes, and makes a chain of each kind.
func mixedChain(t *testing.T, services, networks forwarder) {
	f := newFabric(t)
	ha, hb := f.host("services", 1), f.host("networks", 2)
	rr := newGoBGP(f, ha.v4, hb.v4)
	for _, h := range []*host{ha, hb, rr.host} {
		finished(h.NS, "eth0")
	}
	a, b := &chainSite{}, &chainSite{}
	a.node, a.sw = services.startNode(ha, rr.v4)
	b.node, b.sw = networks.startNode(hb, rr.v4)
	(&vpnSite{node: a.node}).connect(&vpnSite{node: b.node})
	(&vpnSite{node: b.node}).connect(&vpnSite{node: a.node})
	t.Run("re-advertised", func(t *testing.T) { crossService(t, a, b, 0, false) })
	t.Run("attracted", func(t *testing.T) { crossService(t, a, b, 128, true) })
}

// crossService makes a service on node a between two networks on node b, and has TCP
// cross it. Base is added to subnets and, in hundreds, to route targets.
func crossService(t *testing.T, a, b *chainSite, base byte, attract bool) {
	rt := func(n int) []string { return []string{fmt.Sprintf("64512:%d", 100*int(base)+n)} }
	name := func(s string) string { return fmt.Sprintf("%s-%d", s, base) }
	toLeft, toRight := append(rt(1), rt(120)...), append(rt(2), rt(210)...)
	if attract { // what is not attracted goes straight
		toLeft, toRight = append(toLeft, rt(2)...), append(toRight, rt(1)...)
	}
	left, leftGateway := b.machine(base + 16)
	right, rightGateway := b.machine(base + 32)
	b.leg(left, name("left"), leftGateway, toLeft, rt(1), nil)
	b.leg(right, name("right"), rightGateway, toRight, rt(2), nil)
	service, in := a.machine(base + 48)
	out := service.second(a, base+64)
	// What goes to the network of from is attracted at the one that imports attracted.
	asks := func(from, to, attracted int, sport, dport string) map[string]any {
		if !attract {
			return map[string]any{"readvertise": map[string]any{"from_rt": rt(from), "to_rt": rt(attracted)}}
		}
		return map[string]any{
			"readvertise": map[string]any{"from_rt": rt(from), "to_rt": rt(to)},
			"attract_traffic": map[string]any{
				"redirect_rts": rt(attracted),
				"classifier":   map[string]any{"protocol": "tcp", "sourcePort": sport, "destinationPort": dport},
			},
		}
	}
	a.leg(service, name("svc-left"), in, rt(1), []string{}, asks(2, 300, 120, "40000", "80"))
	a.leg(out.vm, name("svc-right"), out.gateway, rt(2), []string{}, asks(1, 400, 210, "80", "40000"))

	from, to := &vpnSite{node: b.node, vm: left, ip: leftGateway.Next()}, &vpnSite{node: b.node, vm: right, ip: rightGateway.Next()}
	crosses := func(port uint16, want bool) {
		t.Helper()
		var last string
		nstest.Eventually(t, routeTimeout, func() bool {
			before := received(t, service.NS)
			err := from.sendsTo(to, 40000, port)
			after := received(t, service.NS)
			there, back := after["eth0"]-before["eth0"], after["eth1"]-before["eth1"]
			last = fmt.Sprintf("port %d: %d octets entered the service and %d came back, %v", port, there, back, err)
			return err == nil && (there >= transferSize) == want && (back >= transferSize/1000) == want
		}, func() string { return last })
	}
	crosses(80, true)
	crosses(8080, !attract)
}

// secondLeg is another interface of a machine, with its gateway.
type secondLeg struct {
	vm      *vm
	gateway netip.Addr
}

// second gives a machine a second interface, eth1, in another /28, and has it forward
// what comes by one to the gateway of the other.
func (v *vm) second(s *chainSite, subnet byte) secondLeg {
	s.ports++
	gateway := netip.AddrFrom4([4]byte{198, 51, 100, subnet + 1})
	w := *v
	w.port, w.mac = fmt.Sprintf("tap%d", s.ports), fmt.Sprintf("02:aa:00:00:00:%02x", subnet)
	w.ips = []string{netip.PrefixFrom(gateway.Next(), 28).String()}
	nstest.Connect(v.NS, "eth1", s.NS, w.port)
	v.Run("ip", "link", "set", "eth1", "address", w.mac, "mtu", "1400")
	v.Run("ip", "address", "add", w.ips[0], "dev", "eth1")
	finished(v.NS, "eth1")
	v.Run("ip", "route", "add", "default", "via", gateway.String(), "table", "11")
	v.Run("ip", "rule", "add", "iif", "eth0", "lookup", "11", "prio", "1000")
	v.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")
	return secondLeg{&w, gateway}
}

// received reads how many octets came in by each interface of a machine.
func received(t *testing.T, ns *nstest.NS) map[string]uint64 {
	t.Helper()
	var links []struct {
		Name  string `json:"ifname"`
		Stats struct {
			RX struct {
				Bytes uint64 `json:"bytes"`
			} `json:"rx"`
		} `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(ns.Run("ip", "-s", "-j", "link")), &links); err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, l := range links {
		out[l.Name] = l.Stats.RX.Bytes
	}
	return out
}
