// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// Priorities of flows, as of the original driver: fixed ones, and fallback. A
// prefix of length n has prioFixed - (128-n). Redirects are above all of these, and what
// gateways answer is above redirects.
const (
	prioGateway  = 0xf000 // above redirects
	prioFixed    = 0x9000
	prioFallback = 0x8f00
	prioRecord   = 1
)

// What is ours: cookies with that upper half, whose lower half is the number of
// the instance, and groups with that upper octet.
const (
	cookieMark  uint64 = 0xba61be00_00000000
	cookieMask  uint64 = 0xffffffff_00000000
	groupFirst  uint32 = 0x42000000
	groupLast   uint32 = 0x42ffffff
	recordMark         = 0xba61be00 // in reg3: no packet has it
	exactCookie        = ^uint64(0)
)

// Ethernet types.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
	typeMPLS = 0x8847
)

// Registers: the instance, a label of this node, and such a label of a packet
// whose IP version is a guess.
const (
	regInstance = of.Reg0
	regLabel    = of.Reg1
	regGuess    = of.Reg2
	regRecord   = of.Reg3
)

const (
	minLabel = 16
	maxLabel = 1<<20 - 1
	maxVNI   = 1<<24 - 1
)

// layout is all that flows depend on beside entries.
type layout struct {
	local            netip.Addr
	input, in, table uint8  // incoming, encap_in, vrf
	gre, vxlan, phys uint32 // ports, 0 for none
	own              ethernet.MAC
	arp, proxy       bool
	punt             bool // neighbour solicitations come to us
	method           string
	param            uint64
	fields           []of.Field
	// nextHopMAC returns the MAC of a next hop for MPLS over Ethernet, if it is known.
	nextHopMAC func(netip.Addr) (ethernet.MAC, bool)
}

// shared returns the flows that belong to no instance.
func (l *layout) shared() []of.Flow {
	fixed := func(table uint8, m of.Match, a of.Actions) of.Flow {
		return of.Flow{Table: table, Priority: prioFixed, Cookie: cookieMark, Match: m, Actions: a}
	}
	flows := []of.Flow{
		// Neither link-local nor multicast traffic is routed, not even by a default route.
		fixed(l.table, of.NewMatch(of.Is(of.EthType, typeIPv6), of.In(of.IPv6Dst, netip.MustParsePrefix("fe80::/10"))), ""),
		fixed(l.table, of.NewMatch(of.Is(of.EthType, typeIPv6), of.In(of.IPv6Dst, netip.MustParsePrefix("ff00::/8"))), ""),
	}
	if (l.arp || l.proxy) && !l.punt {
		f := fixed(l.table, of.NewMatch(of.Is(regGuess, advertisement), of.Is(of.EthType, typeIPv6), of.Is(of.IPProto, 58),
			of.Is(of.ICMPv6Type, 136), of.Is(of.ICMPv6Code, 0)), of.Actions("").SetMAC(of.NDTLL, dataplane.GatewayMAC).Output(of.PortInPort))
		f.Priority = prioGateway + 2
		flows = append(flows, f)
	}
	if port := cmp.Or(l.gre, l.phys); port != 0 {
		flows = append(flows, fixed(l.input, of.NewMatch(of.Is(of.EthType, typeMPLS), of.Is(of.InPort, uint64(port))), of.Actions("").Resubmit(l.in)))
	}
	if l.vxlan != 0 {
		flows = append(flows, fixed(l.input, of.NewMatch(of.Is(of.InPort, uint64(l.vxlan))), of.Actions("").Resubmit(l.in)))
	}
	return flows
}

// groupGuess is the group that takes what is below a label as IPv6. It has one
// bucket: a group with dp_hash has OVS write out the label that was pushed before,
// and parse the packet again. Without, a push and a pop would cancel each other and
// leave the Ethernet type as it was.
const groupGuess = groupFirst

// explicitNull6 is the label "IPv6 explicit null" (RFC 4182).
const explicitNull6 = 2

func (l *layout) guess() of.Group {
	return of.Group{ID: groupGuess, Method: "dp_hash", Buckets: []of.Bucket{{Actions: of.Actions("").PopMPLS(typeIPv6).Resubmit(l.in)}}}
}

// family is what of IPv4 and IPv6 differs in flows.
type family struct {
	ethType        uint16
	src, dst       of.Field
	tunnelDst      of.Field
	proto          uint64
	icmpType       of.Field
	icmpCode       of.Field
	request, reply uint64
}

var (
	ipv4 = family{typeIPv4, of.IPSrc, of.IPDst, of.TunnelDst, 1, of.ICMPType, of.ICMPCode, 8, 0}
	ipv6 = family{typeIPv6, of.IPv6Src, of.IPv6Dst, of.TunnelDst6, 58, of.ICMPv6Type, of.ICMPv6Code, 128, 129}
)

func familyOf(a netip.Addr) *family {
	if a.Is4() {
		return &ipv4
	}
	return &ipv6
}

func (f *family) is() of.Cond { return of.Is(of.EthType, uint64(f.ethType)) }

// orderHops returns next hops in the order of their buckets, with the id of each:
// that of the route's order if it is free, else the next free one. It depends on
// nothing but the hops, so that all nodes choose alike.
func orderHops(hops []dataplane.NextHop) ([]dataplane.NextHop, []uint32) {
	sorted := slices.Clone(hops)
	slices.SortStableFunc(sorted, func(a, b dataplane.NextHop) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), a.Addr.Compare(b.Addr), cmp.Compare(a.Label, b.Label), cmp.Compare(a.Encap, b.Encap))
	})
	taken := map[uint32]bool{}
	ids := make([]uint32, len(sorted))
	var again []int
	for i, h := range sorted {
		if taken[h.Order] || h.Order > maxBucket {
			again = append(again, i)
			continue
		}
		taken[h.Order], ids[i] = true, h.Order
	}
	next := uint32(0)
	for _, i := range again {
		for taken[next] {
			next++
		}
		taken[next], ids[i] = true, next
	}
	order := make([]int, len(sorted))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ids[a], ids[b]) })
	out, outIDs := make([]dataplane.NextHop, len(sorted)), make([]uint32, len(sorted))
	for to, from := range order {
		out[to], outIDs[to] = sorted[from], ids[from]
	}
	return out, outIDs
}

// maxBucket is the largest bucket id (OFPG_BUCKET_MAX).
const maxBucket = 0xffffff00

// checkHop refuses a next hop that no flow can be made for.
func (l *layout) checkHop(h *dataplane.NextHop) error {
	if !h.Addr.IsValid() || h.Addr.Is4() != l.local.Is4() || h.Addr.Zone() != "" {
		return fmt.Errorf("next hop address %q is not valid: want one of the IP version of our %s", h.Addr, l.local)
	}
	vxlan := h.Encap == encap.VXLAN && l.vxlan != 0 && h.Addr != l.local
	limit := uint32(maxLabel)
	if vxlan {
		limit = maxVNI
	}
	if h.Label > limit || h.Addr == l.local && h.Label < minLabel {
		return fmt.Errorf("label %d of next hop %s is not valid: want up to %d, and at least %d for one of our own", h.Label, h.Addr, limit, minLabel)
	}
	if h.Addr == l.local || l.encap(h.Encap) != 0 {
		return nil
	}
	return fmt.Errorf("encapsulation %s of next hop %s is not possible: want %s", h.Encap, h.Addr, l.encapNames())
}

func (l *layout) encapNames() string {
	s := encap.MPLS.String()
	if l.gre != 0 {
		s = encap.GRE.String()
	}
	if l.vxlan != 0 {
		s += " or " + encap.VXLAN.String()
	}
	return s
}

// encap returns the port for an encapsulation, or 0.
func (l *layout) encap(t encap.Type) uint32 {
	switch t {
	case encap.VXLAN:
		return l.vxlan
	case encap.GRE:
		return l.gre
	case encap.MPLS:
		return l.phys
	case encap.Default:
		return cmp.Or(l.gre, l.phys)
	}
	return 0
}

// toHop appends what sends a packet to a next hop; ok is false when the MAC of
// the next hop is not known. The hop is one that checkHop takes.
func (l *layout) toHop(a of.Actions, h *dataplane.NextHop) (out of.Actions, ok bool) {
	if h.Addr == l.local {
		return a.Set(regLabel, uint64(h.Label)).Resubmit(l.in), true
	}
	port := l.encap(h.Encap)
	switch port {
	case 0:
		return a, false
	case l.vxlan:
		mac := h.RouterMAC
		if mac.IsZero() {
			mac = dataplane.GatewayMAC
		}
		a = a.SetMAC(of.EthSrc, dataplane.GatewayMAC).SetMAC(of.EthDst, mac).Set(of.TunnelID, uint64(h.Label))
		return a.SetAddr(familyOf(h.Addr).tunnelDst, h.Addr).Output(port), true
	case l.gre:
		return a.PushMPLS(h.Label).SetAddr(familyOf(h.Addr).tunnelDst, h.Addr).Output(port), true
	}
	mac, ok := l.nextHopMAC(h.Addr)
	if !ok {
		return a, false
	}
	return a.PushMPLS(h.Label).SetMAC(of.EthSrc, l.own).SetMAC(of.EthDst, mac).Output(port), true
}
