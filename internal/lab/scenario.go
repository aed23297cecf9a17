// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// Scenario is a lab that shows a way to use VPNs, with machines and checks of its own.
type Scenario struct {
	Name string
	// Title says what it shows.
	Title string
	// balance is set when both directions of a flow must meet the same copy of a machine.
	balance bool
	build   func(*sketch)
}

// Scenarios lists all, as the original's samples number them.
var Scenarios = []Scenario{
	{"basic", "one machine of each node in an IP VPN, and two more in an E-VPN", false, basic},
	{"evpn2ipvpn", "an E-VPN on each node, joined by an IP VPN", false, evpn2ipvpn},
	{"chain-example1", "two service machines between two networks; static subnets between them", false, chain(chainStatic)},
	{"chain-example1bis", "the same with default routes between the service machines", false, chain(chainDefault)},
	{"chain-example2", "the same with routes re-advertised between the service machines", false, chain(chainReadvertise)},
	{"chain-example3", "the same without a change of the two networks' route targets", false, chain(chainUntouched)},
	{"chain-traffic-redirect", "only TCP to port 80 goes through the service machines", false, chain(chainRedirect)},
	{"chain-redirect-lb", "the same with two copies of the second service machine, one on each node", true, chain(chainBalance)},
	{"chain-redirect-lb2", "the same with three copies on one node", true, chain(chainBalance3)},
}

// ScenarioNames lists the names of all scenarios.
func ScenarioNames() string {
	var names []string
	for _, s := range Scenarios {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

func findScenario(name string) *Scenario {
	for i := range Scenarios {
		if Scenarios[i].Name == name {
			return &Scenarios[i]
		}
	}
	return nil
}

// sketch fills a plan with the parts of a scenario.
type sketch struct {
	*Plan
	number int // of the last machine's interface
}

const (
	nodeA = 0
	nodeB = 1
)

// leg is an interface of a machine, with a port of a node at the other end.
type leg struct {
	sketch *sketch
	node   int
	veth   int // its cable, in Plan.Veths
	port   client.LocalPort
	// namespace and name are those of the interface.
	namespace, name string
	mac             string
	places          []place
}

// targets are what an instance imports and exports, as numbers of route targets.
type targets struct{ imports, exports []int }

func rt(n int) string { return fmt.Sprintf("%d:%d", as, n) }

func rtList(numbers []int) []string {
	out := []string{}
	for _, n := range numbers {
		out = append(out, rt(n))
	}
	return out
}

// leg adds an interface to a machine.
func (s *sketch) leg(node int, namespace, name string, places ...place) *leg {
	s.number++
	l := &leg{
		sketch: s, node: node, veth: len(s.Veths), namespace: namespace, name: name,
		mac: fmt.Sprintf("00:00:5e:00:53:%02d", s.number), places: places,
	}
	end := End{Namespace: namespace, Name: name, MAC: l.mac}
	for _, p := range places {
		end.Addresses = append(end.Addresses, p.address)
	}
	l.port = s.plug(node, fmt.Sprintf("tap%d-%s", s.number, name), end)
	return l
}

// gateways makes the leg the way to everywhere.
func (l *leg) gateways() *leg {
	end := &l.sketch.Veths[l.veth].B
	for _, p := range l.places {
		end.Gateways = append(end.Gateways, p.gateway)
	}
	return l
}

// attach attaches the leg's addresses, and then subnets behind it, to an IP VPN; more changes the
// requests.
func (l *leg) attach(id string, t targets, subnets []netip.Prefix, more ...func(*client.AttachRequest)) {
	s := l.sketch
	request := func(ip netip.Prefix, subnet bool) {
		r := client.AttachRequest{
			VPNType: client.IPVPN, VPNInstanceID: id, ImportRT: rtList(t.imports), ExportRT: rtList(t.exports),
			MACAddress: l.mac, IPAddress: ip.String(), AdvertiseSubnet: subnet, LocalPort: l.port,
			Description: l.namespace + " " + l.name, InstanceDescription: "scenario " + s.Options.Scenario,
		}
		for _, p := range l.places {
			if p.address.Addr().Is4() == ip.Addr().Is4() {
				r.GatewayIP = p.gateway.String()
			}
		}
		for _, change := range more {
			change(&r)
		}
		if r.VPNType == client.EVPN { // switches forward for IP VPNs
			s.Veths[l.veth].A.Switch, r.LocalPort.OVS, r.GatewayIP = "", nil, ""
		}
		s.Attachments = append(s.Attachments, Attachment{Node: l.node, Request: r})
	}
	for _, p := range l.places {
		request(p.address, false)
	}
	for _, p := range subnets {
		request(p, true)
	}
}

// address returns the leg's address of an IP version.
func (l *leg) address(ipv6 bool) netip.Addr {
	for _, p := range l.places {
		if a := p.address.Addr(); a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

// versions lists the IP versions that a leg has.
func (l *leg) versions() (out []bool) {
	for _, p := range l.places {
		out = append(out, p.address.Addr().Is6())
	}
	return out
}

// at is a place in a network.
func at(prefix, gateway string) place {
	return place{address: netip.MustParsePrefix(prefix), gateway: netip.MustParseAddr(gateway)}
}

// pings has two machines ping each other.
func (s *sketch) pings(a, b *leg, ipv6 bool) {
	s.Pings = append(s.Pings,
		Ping{From: a.namespace, To: b.namespace, Address: b.address(ipv6)},
		Ping{From: b.namespace, To: a.namespace, Address: a.address(ipv6)})
}

// machine makes a namespace for a machine.
func (s *sketch) machine(name string) string { return s.namespace("vm-" + name) }

// hints says what to look at.
func (s *sketch) hints(from *leg, to netip.Addr) {
	s.Try = append(s.Try, fmt.Sprintf("ip netns exec %s ping -c 3 %s", from.namespace, to))
	s.looks()
}

// looks are commands that show a scenario.
func (s *sketch) looks() {
	node := s.Nodes[nodeA].Namespace
	s.Try = append(s.Try,
		fmt.Sprintf("ip netns exec %s %s show routes", node, s.Options.Self),
		fmt.Sprintf("ip netns exec %s %s graph", node, s.Options.Self))
	s.addVerbs()
}

func basic(s *sketch) {
	for i, vpn := range []string{VPNIPVPN, VPNEVPN} {
		var legs []*leg
		for node, name := range []string{"a", "b"} {
			l := s.leg(node, s.machine(vpn[:1]+"-"+name), "tovpn", at(fmt.Sprintf("2.2.2.%d/24", node+1), "2.2.2.254"))
			legs = append(legs, l)
			l.attach(vpn+"-bagpipe-test", targets{[]int{512 + i}, []int{512 + i}}, nil, func(r *client.AttachRequest) { r.VPNType = vpn })
		}
		s.pings(legs[0], legs[1], false)
	}
	s.looks()
}

func evpn2ipvpn(s *sketch) {
	var legs []*leg
	for node, name := range []string{"a", "b"} {
		l := s.leg(node, s.machine(name), "tovpn",
			at(fmt.Sprintf("1%d.0.0.1/24", node+1), fmt.Sprintf("1%d.0.0.254", node+1)),
			at(fmt.Sprintf("2001:db8:1%d::1/64", node+1), fmt.Sprintf("2001:db8:1%d::fe", node+1))).gateways()
		legs = append(legs, l)
		l.attach(fmt.Sprintf("evpn-net%d", node+1), targets{[]int{node + 1}, []int{node + 1}}, nil, func(r *client.AttachRequest) { r.VPNType = client.EVPN })
		l.attach("ipvpn", targets{[]int{10}, []int{10}}, nil, func(r *client.AttachRequest) {
			r.LocalPort = client.LocalPort{EVPN: &client.EVPNPort{ID: fmt.Sprintf("evpn-net%d", node+1)}}
		})
	}
	for _, v := range legs[0].versions() {
		s.pings(legs[0], legs[1], v)
	}
	s.hints(legs[0], legs[1].address(false))
}
