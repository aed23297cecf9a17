// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// families are those that the tests' sessions have.
var families = []wire.Family{wire.EVPN, wire.VPNv4, wire.VPNv6}

// remoteRD is the route distinguisher of a remote node.
func remoteRD(node int) wire.RD {
	return wire.MakeRD(addr(fmt.Sprintf("10.77.0.%d", node)), 5)
}

// remoteMAC is a type 2 route of a remote node, with VNI 99.
func remoteMAC(node, m int, ip string) wire.Route {
	var a netip.Addr
	if ip != "" {
		a = addr(ip)
	}
	return wire.Route{NLRI: wire.MACIPRoute(remoteRD(node), mac(m), a), Label: 99}
}

// remoteFlood is a type 3 route of a remote node.
func remoteFlood(node int) wire.Route {
	return wire.Route{NLRI: wire.IMETRoute(remoteRD(node), addr(fmt.Sprintf("10.77.0.%d", node)))}
}

// remotePrefix is a VPN route of a remote node with label 99.
func remotePrefix(node int, p string) wire.Route {
	return wire.Route{NLRI: wire.VPNRoute(remoteRD(node), prefix(p)), Label: wire.LabelField(99)}
}

// remoteAttrs are what a node's EVPN routes carry.
func remoteAttrs(node int, targets ...string) wire.LocalAttrs {
	return wire.LocalAttrs{
		NextHop: addr(fmt.Sprintf("10.77.1.%d", node)), RTs: rts(targets...),
		Communities: []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)},
	}
}

// withPMSI adds an ingress replication tunnel.
func withPMSI(a wire.LocalAttrs, end string, label uint32) wire.LocalAttrs {
	a.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: label, Endpoint: addr(end)}
	return a
}

// withSeq adds a MAC mobility sequence number.
func withSeq(a wire.LocalAttrs, seq uint32) wire.LocalAttrs {
	a.Communities = append(a.Communities, wire.MobilityCommunity(seq))
	return a
}

// withEncaps replaces the encapsulations.
func withEncaps(a wire.LocalAttrs, types ...encap.Type) wire.LocalAttrs {
	a.Communities = nil
	for _, t := range types {
		a.Communities = append(a.Communities, wire.EncapCommunity(t))
	}
	return a
}
