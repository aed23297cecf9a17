// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// vrf is what of an instance is in the switch: its entries, and the numbers that
// their flows have. All its flows follow from it and the layout.
type vrf struct {
	*layout
	id     string
	number uint32
	onLink netip.Prefix

	ports    map[string]port
	ends     map[endKey]dataplane.Entry
	routes   map[netip.Prefix]route
	fallback *dataplane.Entry

	redirects redirects
}

type port struct {
	entry  dataplane.Entry
	number uint32
}

type endKey struct {
	label uint32
	ip    netip.Addr
}

// route is a Prefix entry. Its group is 0 when a single next hop needs none.
type route struct {
	hops  []dataplane.NextHop
	group uint32
}

func newVRF(l *layout, id string, number uint32, gateway netip.Prefix) *vrf {
	v := &vrf{layout: l, id: id, number: number, ports: map[string]port{}, ends: map[endKey]dataplane.Entry{}, routes: map[netip.Prefix]route{}, redirects: redirects{all: map[dataplane.Classifier]*redirect{}}}
	if gateway.IsValid() {
		v.onLink = gateway.Masked()
	}
	return v
}

func (v *vrf) cookie() uint64 { return cookieMark | uint64(v.number) }

func (v *vrf) flow(table uint8, priority uint16, a of.Actions, conds ...of.Cond) of.Flow {
	return of.Flow{Table: table, Priority: priority, Cookie: v.cookie(), Match: of.NewMatch(conds...), Actions: a}
}

// inVRF returns the condition of being a packet of the VRF.
func (v *vrf) inVRF() of.Cond { return of.Is(regInstance, uint64(v.number)) }

// record returns a flow that no packet meets and that keeps an entry.
func (v *vrf) record(e *dataplane.Entry, conds ...of.Cond) of.Flow {
	note, _ := encodeEntry(e) // was possible when the entry was taken
	conds = append(conds, v.inVRF(), of.Is(regRecord, recordMark))
	return v.flow(v.in, prioRecord, of.Actions("").Note(note), conds...)
}

// unit names entries whose flows are made together: ports of one input, endpoints of
// one label, or of one gateway (kind Neighbour), a class.
type unit struct {
	kind  dataplane.Kind
	input input
	label uint32
	addr  netip.Addr
	class dataplane.Classifier
}

func (p *port) unit() unit { return unit{kind: dataplane.LocalPort, input: p.input()} }

func (p *port) input() input { return input{p.number, p.entry.OVS.VLAN} }

// flows returns the flows of a unit, in the order in which they are to be made.
func (v *vrf) flows(u unit) []of.Flow {
	switch u.kind {
	case dataplane.Whole:
		return v.baseFlows()
	case dataplane.LocalPort:
		return v.inputFlows(u.input)
	case dataplane.LocalPrefix:
		return v.labelFlows(u.label)
	case dataplane.Neighbour:
		return v.gatewayFlows(u.addr)
	case dataplane.Fallback:
		return v.fallbackFlows()
	case dataplane.Redirect:
		return v.redirectFlows(u.class)
	}
	return nil
}

// units lists all units but prefixes.
func (v *vrf) units() []unit {
	out := []unit{{kind: dataplane.Whole}}
	seen := map[unit]bool{}
	add := func(u unit) {
		if !seen[u] {
			seen[u] = true
			out = append(out, u)
		}
	}
	for _, p := range v.ports {
		add(p.unit())
	}
	for k, e := range v.ends {
		add(unit{kind: dataplane.LocalPrefix, label: k.label})
		if e.Gateway.IsValid() {
			add(unit{kind: dataplane.Neighbour, addr: e.Gateway})
		}
	}
	if v.fallback != nil {
		add(unit{kind: dataplane.Fallback})
	}
	for c := range v.redirects.all {
		add(unit{kind: dataplane.Redirect, class: c})
	}
	return out
}

// baseFlows keep the instance's id, and answer ARP for every address if that is wanted.
func (v *vrf) baseFlows() []of.Flow {
	flows := []of.Flow{v.flow(v.in, prioRecord, of.Actions("").Note(encodeID(v.id)), v.inVRF(), of.Is(regRecord, recordMark))}
	if !v.proxy {
		return flows
	}
	arp := of.Actions("").Move(of.EthSrc, of.EthDst).SetMAC(of.EthSrc, dataplane.GatewayMAC).Set(of.ARPOp, 2).
		Move(of.ARPSrcMAC, of.ARPDstMAC).SetMAC(of.ARPSrcMAC, dataplane.GatewayMAC).
		Move(of.ARPSrcIP, regGuess).Move(of.ARPDstIP, of.ARPSrcIP).Move(regGuess, of.ARPDstIP).Output(of.PortInPort)
	return append(flows, v.flow(v.table, prioFixed, arp, v.inVRF(), of.Is(of.EthType, typeARP), of.Is(of.ARPOp, 1)))
}

func sends(d dataplane.Direction) bool    { return d != dataplane.ToPort }
func receives(d dataplane.Direction) bool { return d != dataplane.FromPort }

// portsOf returns the names of the ports whose traffic enters by one input: several
// when they are behind one port of the bridge.
func (v *vrf) portsOf(in input) (names []string) {
	for name, p := range v.ports {
		if p.input() == in {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// inputFlows let traffic of ports into the VRF. ARP and neighbour solicitations
// keep port and tag, so that an answer goes back as they came; of all else the
// port is forgotten, because a packet may leave by the port it came from.
func (v *vrf) inputFlows(in input) (flows []of.Flow) {
	inPort := of.Is(of.InPort, uint64(in.port))
	tag, enter := of.Untagged(), of.Actions("")
	if in.vlan != 0 {
		tag, enter = of.Tagged(in.vlan), enter.PopVLAN()
	}
	ask := of.Actions("").Set(regInstance, uint64(v.number)).Resubmit(v.table)
	enter = enter.Set(of.InPort16, 0).Set(regInstance, uint64(v.number)).Resubmit(v.table)
	for _, name := range v.portsOf(in) {
		p := v.ports[name]
		flows = append(flows, v.record(&p.entry, inPort, of.Is(regLabel, uint64(hashOf(name)))))
		if !sends(p.entry.Direction) {
			continue
		}
		flows = append(flows,
			v.flow(v.input, prioFixed, ask, inPort, tag, of.Is(of.EthType, typeARP)),
			v.flow(v.input, prioFixed+1, ask, inPort, tag, of.Is(of.EthType, typeIPv6), of.Is(of.IPProto, 58), of.Is(of.ICMPv6Type, 135), of.Is(of.ICMPv6Code, 0)))
		for _, src := range v.sources(name) {
			f := familyOf(src.Addr())
			flows = append(flows, v.flow(v.input, prioFixed, enter, inPort, tag, f.is(), of.In(f.src, src)))
		}
		if v.proxy {
			flows = append(flows, v.probeFlows(name, inPort)...)
		}
	}
	return uniqueFlows(flows)
}

// probeFlows drop ARP requests for an address from where it is: they are no question
// to us, but probes for duplicates.
func (v *vrf) probeFlows(name string, inPort of.Cond) (flows []of.Flow) {
	for _, e := range v.endsOf(name) {
		if e.IP.Is4() {
			flows = append(flows, v.flow(v.table, prioFixed+1, "", v.inVRF(), inPort, of.Is(of.EthType, typeARP), of.Is(of.ARPOp, 1), of.IsAddr(of.ARPDstIP, e.IP)))
		}
	}
	return flows
}

func hashOf(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return h.Sum32()
}

// uniqueFlows drops flows whose key another one before has.
func uniqueFlows(flows []of.Flow) []of.Flow {
	seen := make(map[of.FlowKey]bool, len(flows))
	return slices.DeleteFunc(flows, func(f of.Flow) bool {
		was := seen[f.Key()]
		seen[f.Key()] = true
		return was
	})
}

// endsOf returns the endpoints behind a port, by label and address.
func (v *vrf) endsOf(name string) (out []dataplane.Entry) {
	for _, e := range v.ends {
		if e.Port == name {
			out = append(out, e)
		}
	}
	sortEnds(out)
	return out
}

func sortEnds(list []dataplane.Entry) {
	slices.SortFunc(list, func(a, b dataplane.Entry) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), a.IP.Compare(b.IP))
	})
}

// sources returns what may be sent from a port: by one that forwards for others anything of
// the IP versions of its endpoints.
func (v *vrf) sources(name string) (out []netip.Prefix) {
	for _, e := range v.endsOf(name) {
		switch {
		case !sends(e.Direction):
		case v.ports[name].entry.Transit:
			out = append(out, netip.PrefixFrom(e.IP, 0).Masked())
		default:
			out = append(out, netip.PrefixFrom(e.IP, e.IP.BitLen()), e.Prefix.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(out)
}

// labelFlows deliver what arrives with a label, or is routed to it on this node.
//
// What is below a label is not known from the label: OVS must be told with
// pop_mpls whether it is IPv4 or IPv6. When endpoints of both have the label, it is
// first taken as IPv4; what then has no endpoint's IPv4 address as destination, as
// an IPv6 packet does not, gets a label again and is taken as IPv6 by a group.
func (v *vrf) labelFlows(label uint32) []of.Flow {
	var flows []of.Flow
	var list []dataplane.Entry
	for k, e := range v.ends {
		if k.label == label {
			list = append(list, e)
		}
	}
	sortEnds(list)
	first := map[*family]*dataplane.Entry{}
	for i := range list {
		e := &list[i]
		f := familyOf(e.IP)
		flows = append(flows, v.record(e, of.Is(regLabel, uint64(label)), f.is(), of.IsAddr(f.dst, e.IP)))
		if _, attached := v.ports[e.Port]; attached && receives(e.Direction) && first[f] == nil {
			first[f] = e
		}
	}
	if len(list) == 0 {
		return nil
	}
	labelled := []of.Cond{of.Is(of.EthType, typeMPLS), of.Is(of.MPLSLabel, uint64(label)), of.Is(of.MPLSBoS, 1)}
	var popped of.Actions
	switch {
	case len(first) == 2:
		guess := of.Is(regGuess, uint64(label))
		popped = of.Actions("").Set(regGuess, uint64(label)).PopMPLS(typeIPv4).Resubmit(v.in)
		flows = append(flows, v.flow(v.in, prioFixed-1, of.Actions("").PushMPLS(explicitNull6).Group(groupGuess), guess, ipv4.is()))
		for i := range list {
			e := &list[i]
			if _, attached := v.ports[e.Port]; !attached || !receives(e.Direction) {
				continue
			}
			f := familyOf(e.IP)
			for _, dst := range []netip.Prefix{netip.PrefixFrom(e.IP, e.IP.BitLen()), e.Prefix} {
				flows = append(flows, v.flow(v.in, prioFixed, v.deliver("", e), guess, f.is(), of.In(f.dst, dst)))
			}
		}
	case first[&ipv4] != nil:
		popped = v.deliver(of.Actions("").PopMPLS(typeIPv4), first[&ipv4])
	case first[&ipv6] != nil:
		popped = v.deliver(of.Actions("").PopMPLS(typeIPv6), first[&ipv6])
	}
	flows = append(flows, v.flow(v.in, prioFixed, popped, labelled...))
	for _, f := range []*family{&ipv4, &ipv6} {
		e := first[f]
		if e == nil {
			continue
		}
		flows = append(flows, v.flow(v.in, prioFixed, v.deliver("", e), of.Is(regLabel, uint64(label)), f.is()))
		if v.vxlan != 0 {
			flows = append(flows, v.flow(v.in, prioFixed, v.deliver("", e), of.Is(of.TunnelID, uint64(label)), of.Is(of.InPort, uint64(v.vxlan)), f.is()))
		}
	}
	return uniqueFlows(flows)
}

// deliver appends what hands a packet to an endpoint.
func (v *vrf) deliver(a of.Actions, e *dataplane.Entry) of.Actions {
	p := v.ports[e.Port]
	a = a.SetMAC(of.EthSrc, dataplane.GatewayMAC).SetMAC(of.EthDst, e.MAC)
	if vlan := p.entry.OVS.VLAN; vlan != 0 {
		a = a.PushVLAN(vlan)
	}
	return a.Output(p.number)
}
