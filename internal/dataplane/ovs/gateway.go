// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// gatewayFlows answer ARP or ND, and ping, for a gateway. The echo reply is routed.
func (v *vrf) gatewayFlows(gw netip.Addr) []of.Flow {
	used := false
	for _, e := range v.ends {
		used = used || e.Gateway == gw
	}
	if !used || !v.arp && !v.proxy {
		return nil
	}
	f := familyOf(gw)
	echo := of.Actions("").Move(f.src, f.dst).SetAddr(f.src, gw).Set(f.icmpType, f.reply).Set(of.IPTTL, 64).Set(regGuess, echoed).Resubmit(v.table)
	flows := []of.Flow{v.flow(v.table, prioGateway, echo, v.inVRF(), f.is(), of.Is(of.IPProto, f.proto),
		of.Is(f.icmpType, f.request), of.Is(f.icmpCode, 0), of.IsAddr(f.dst, gw))}
	answer := of.Actions("").Move(of.EthSrc, of.EthDst).SetMAC(of.EthSrc, dataplane.GatewayMAC)
	if gw.Is6() && v.punt {
		return append(flows, v.flow(v.table, prioGateway+1, of.Actions("").Output(of.PortController), v.inVRF(), of.Is(of.EthType, typeIPv6),
			of.Is(of.IPProto, icmpv6), of.Is(of.ICMPv6Type, solicitation), of.Is(of.ICMPv6Code, 0), of.IsAddr(of.NDTarget, gw)))
	}
	if gw.Is6() {
		answer = answer.Move(of.IPv6Src, of.IPv6Dst).SetAddr(of.IPv6Src, gw).
			Set(of.ICMPv6Type, 136).Set(of.NDOptionsType, 2).Set(of.NDReserved, naRouter|naSolicited|naOverride).
			Set(regGuess, advertisement).Resubmit(v.table)
		return append(flows, v.flow(v.table, prioGateway+1, answer, v.inVRF(), of.Is(of.EthType, typeIPv6), of.Is(of.IPProto, 58),
			of.Is(of.ICMPv6Type, 135), of.Is(of.ICMPv6Code, 0), of.IsAddr(of.NDTarget, gw)))
	}
	answer = answer.Set(of.ARPOp, 2).Move(of.ARPSrcMAC, of.ARPDstMAC).SetMAC(of.ARPSrcMAC, dataplane.GatewayMAC).
		Move(of.ARPSrcIP, of.ARPDstIP).SetAddr(of.ARPSrcIP, gw).Output(of.PortInPort)
	return append(flows, v.flow(v.table, prioFixed, answer, v.inVRF(), of.Is(of.EthType, typeARP), of.Is(of.ARPOp, 1), of.IsAddr(of.ARPDstIP, gw)))
}

// Values of regGuess for what we answer. A neighbour solicitation that was made an
// advertisement may be given the target's MAC only as such, in another flow. An echo
// reply of a gateway is routed, but not redirected.
const (
	advertisement = 1
	echoed        = 2
)

// Flags of a neighbour advertisement (RFC 4861 §4.4).
const (
	naRouter    = 1 << 31
	naSolicited = 1 << 30
	naOverride  = 1 << 29
)
