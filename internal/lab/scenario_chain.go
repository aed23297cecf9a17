// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// chainKind is a way to make a chain of two service machines between two networks:
//
//	vm1 (node a) - x1 svc1 h1 (node b) - h2 svc2 x2 (node a) - vm2 (node b)
//
// The legs x face a network each, the legs h face each other. Route targets: 1 and 2 are the
// networks', 120 and 210 bring routes of the far network, 121 and 211 go between h1 and h2.
type chainKind struct {
	// ends are what the networks import beside their own.
	ends [2][]int
	// outer and inner are what the legs x and h of each service do.
	outer, inner [2]legKind
	// copies are the nodes that the second service is on.
	copies []int
	// classified is set when only TCP to port 80 passes.
	classified bool
}

// legKind is what the VRF of a leg does.
type legKind struct {
	targets
	subnets  []string
	from, to []int // re-advertised
	redirect []int // attracted
	sports   string
	dports   string
}

var (
	net1    = []string{"11.0.0.0/24", "2001:db8:11::/64"}
	net2    = []string{"12.0.0.0/24", "2001:db8:12::/64"}
	allNets = []string{"0.0.0.0/0", "::/0"}
	onA     = []int{nodeA}

	chainStatic = chainKind{
		ends: [2][]int{{120}, {210}}, copies: onA,
		outer: [2]legKind{
			{targets: targets{imports: []int{1}}, from: []int{121}, to: []int{120}},
			{targets: targets{imports: []int{2}}, from: []int{211}, to: []int{210}},
		},
		inner: [2]legKind{
			{targets: targets{[]int{121}, []int{211}}, subnets: net1},
			{targets: targets{[]int{211}, []int{121}}, subnets: net2},
		},
	}
	chainDefault = chainKind{
		ends: chainStatic.ends, copies: onA,
		outer: [2]legKind{
			{targets: targets{imports: []int{1}}, from: []int{2}, to: []int{120}},
			{targets: targets{imports: []int{2}}, from: []int{1}, to: []int{210}},
		},
		inner: [2]legKind{
			{targets: targets{[]int{121}, []int{211}}, subnets: allNets},
			{targets: targets{[]int{211}, []int{121}}, subnets: allNets},
		},
	}
	chainReadvertise = chainKind{
		ends: chainStatic.ends, outer: chainStatic.outer, copies: onA,
		inner: [2]legKind{
			{targets: targets{imports: []int{121}}, from: []int{1}, to: []int{211}},
			{targets: targets{imports: []int{211}}, from: []int{2}, to: []int{121}},
		},
	}
	chainUntouched = chainKind{
		copies: onA, inner: chainReadvertise.inner,
		outer: [2]legKind{
			{targets: targets{imports: []int{1}}, from: []int{121}, to: []int{1}},
			{targets: targets{imports: []int{2}}, from: []int{211}, to: []int{2}},
		},
	}
	chainRedirect = chainKind{
		ends: chainStatic.ends, copies: onA, classified: true, inner: chainDefault.inner,
		outer: [2]legKind{
			{targets: targets{imports: []int{1}}, from: []int{2}, to: []int{300}, redirect: []int{120}, dports: "80"},
			{targets: targets{imports: []int{2}}, from: []int{1}, to: []int{400}, redirect: []int{210}, sports: "80"},
		},
	}
	chainBalance  = balanced(nodeA, nodeB)
	chainBalance3 = balanced(nodeA, nodeA, nodeA)
)

func balanced(copies ...int) chainKind {
	k := chainRedirect
	k.copies = copies
	return k
}

// chain returns what builds a chain.
func chain(k chainKind) func(*sketch) {
	return func(s *sketch) {
		end := func(node int, name, v4, v6 string, number int) *leg {
			l := s.leg(node, s.machine(name), "eth0", at(v4+".1/24", v4+".254"), at(v6+"::1/64", v6+"::fe")).gateways()
			l.attach(name, targets{append([]int{number}, k.ends[number-1]...), []int{number}}, nil)
			return l
		}
		vm1 := end(nodeA, "vm1", "11.0.0", "2001:db8:11", 1)
		vm2 := end(nodeB, "vm2", "12.0.0", "2001:db8:12", 2)
		first := Hop{s.service("svc1", nodeB, 1, 0, 0, &k)}
		second := make(Hop, len(k.copies))
		for i := len(k.copies) - 1; i >= 0; i-- { // the last first: the order of attachment must not matter
			name := "svc2"
			if len(k.copies) > 1 {
				name += string(rune('a' + i))
			}
			second[i] = s.service(name, k.copies[i], 2, i, uint32(i), &k)
		}
		back := make(Hop, len(second))
		for i, c := range second { // they meet traffic to vm2 by their leg h
			back[i] = Service{c.Namespace, c.Out, c.In}
		}
		for _, v6 := range vm1.versions() {
			s.cross(vm1, vm2, v6, k.classified, first, back)
			if !k.classified {
				s.pings(vm1, vm2, v6)
				continue
			}
			s.Pings = append(s.Pings, Ping{From: vm1.namespace, To: vm2.namespace, Address: vm2.address(v6), Fails: true})
		}
		if k.classified {
			s.looks()
			return
		}
		s.hints(vm1, vm2.address(false))
	}
}

// cross checks TCP traffic from one machine to another through hops: to port 80, and, when that
// is no class of its own, to another.
func (s *sketch) cross(from, to *leg, ipv6, classified bool, hops ...Hop) {
	ports := []uint16{80}
	if !classified {
		ports = append(ports, transferPort)
	}
	runs := 1
	for _, h := range hops {
		if len(h) > 1 {
			runs = flowsPerCopy * len(h)
		}
	}
	for _, port := range ports {
		s.Crossings = append(s.Crossings, Crossing{
			Transfer: Transfer{
				From: from.namespace, To: to.namespace, Address: netip.AddrPortFrom(to.address(ipv6), port), Bytes: crossingBytes,
			},
			Hops: hops, Runs: runs,
		})
	}
}

// service adds a service machine, which forwards between its legs x and h. Number is 1 or 2, copy
// counts copies of it.
func (s *sketch) service(name string, node, number, copy int, order uint32, k *chainKind) Service {
	ns := s.machine(name)
	subnet := 10*number + 2*copy
	add := func(prefix string, n int) *leg {
		return s.leg(node, ns, fmt.Sprintf("%s%d", prefix, number),
			at(fmt.Sprintf("10.0.%d.1/24", n), fmt.Sprintf("10.0.%d.254", n)),
			at(fmt.Sprintf("2001:db8:10:%d::1/64", n), fmt.Sprintf("2001:db8:10:%d::fe", n)))
	}
	x, h := add("x", subnet), add("h", subnet+1)
	for _, part := range []struct {
		leg  *leg
		kind *legKind
	}{{x, &k.outer[number-1]}, {h, &k.inner[number-1]}} {
		var subnets []netip.Prefix
		for _, p := range part.kind.subnets {
			subnets = append(subnets, netip.MustParsePrefix(p))
		}
		part.leg.attach(part.leg.name, part.kind.targets, subnets, func(r *client.AttachRequest) { part.kind.ask(r, order) })
	}
	s.Setup = append(s.Setup, forwardBetween(ns, x, h)...)
	return Service{ns, x.name, h.name}
}

// ask puts what a leg does beside importing and exporting into a request.
func (k *legKind) ask(r *client.AttachRequest, order uint32) {
	r.LBConsistentHashOrder = order
	if len(k.to) == 0 {
		return
	}
	r.Readvertise = &client.Readvertise{FromRT: rtList(k.from), ToRT: rtList(k.to)}
	if len(k.redirect) > 0 {
		r.AttractTraffic = &client.AttractTraffic{
			RedirectRTs: rtList(k.redirect), Classifier: client.Classifier{SourcePort: k.sports, DestinationPort: k.dports},
		}
	}
}

// forwardBetween has a machine forward what comes by one leg to the gateway of the other.
func forwardBetween(ns string, a, b *leg) (commands [][]string) {
	ip := func(args ...string) { commands = append(commands, append([]string{"ip", "-n", ns}, args...)) }
	for i, pair := range [][2]*leg{{a, b}, {b, a}} {
		table := fmt.Sprint(11 + i)
		for _, p := range pair[1].places {
			version := "-4"
			if p.gateway.Is6() {
				version = "-6"
			}
			ip(version, "route", "add", "default", "via", p.gateway.String(), "dev", pair[1].name, "table", table)
			ip(version, "rule", "add", "iif", pair[0].name, "lookup", table, "prio", "1000")
		}
	}
	const forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; " +
		"for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done"
	return append(commands, []string{"ip", "netns", "exec", ns, "sh", "-c", forward})
}
