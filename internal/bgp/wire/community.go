// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// EncapCommunity returns the Encapsulation Extended Community (RFC 9012 §4.1).
func EncapCommunity(t encap.Type) ExtCommunity {
	c := ExtCommunity{0x03, 0x0c}
	binary.BigEndian.PutUint16(c[6:], uint16(t))
	return c
}

// EncapOf returns the tunnel type of an Encapsulation Extended Community.
func EncapOf(c ExtCommunity) encap.Type {
	return encap.Type(binary.BigEndian.Uint16(c[6:]))
}

// MobilityCommunity returns the MAC Mobility Extended Community (RFC 7432
// §7.7) with the given sequence number.
func MobilityCommunity(seq uint32) ExtCommunity {
	c := ExtCommunity{0x06, 0x00}
	binary.BigEndian.PutUint32(c[4:], seq)
	return c
}

// RouterMACCommunity returns the EVPN Router's MAC Extended Community (RFC 9135
// §8.1).
func RouterMACCommunity(mac ethernet.MAC) ExtCommunity {
	c := ExtCommunity{0x06, 0x03}
	copy(c[2:], mac[:])
	return c
}

// RouterMACOf returns the address of an EVPN Router's MAC Extended Community.
func RouterMACOf(c ExtCommunity) ethernet.MAC { return ethernet.MAC(c[2:]) }

// HashOrderCommunity returns the consistent-hash sort order community
// (draft-ietf-bess-service-chaining §2.7; opaque, sub-type 0x14).
func HashOrderCommunity(order uint32) ExtCommunity {
	c := ExtCommunity{0x03, 0x14}
	binary.BigEndian.PutUint32(c[2:], order)
	return c
}

// RTRecord returns the RT-record of a route target: a route that carries it has been
// announced with that target before (draft-ietf-bess-service-chaining; sub-type 0x13,
// else as the route target).
func RTRecord(rt RT) ExtCommunity {
	c := ExtCommunity(rt)
	c[1] = 0x13
	return c
}

// IsRTRecord tells whether the community is an RT-record.
func (c ExtCommunity) IsRTRecord() bool { return c[0] <= 2 && c[1] == 0x13 }

// RedirectCommunity returns the action that redirects a flow to the VRFs that import a
// route target (RFC 8955 §7.4).
func RedirectCommunity(rt RT) ExtCommunity {
	c := ExtCommunity(rt)
	c[0], c[1] = 0x80|c[0], 0x08
	return c
}

// RedirectTarget returns the route target of a redirect action.
func (c ExtCommunity) RedirectTarget() (RT, bool) {
	if !c.IsFlowAction() || c[1] != 0x08 {
		return RT{}, false
	}
	rt := RT(c)
	rt[0], rt[1] = c[0]&^0x80, 0x02
	return rt, true
}

// IsFlowAction tells whether the community is an action of a FlowSpec route, of
// whatever kind (RFC 8955 §7: types 0x80 to 0x82).
func (c ExtCommunity) IsFlowAction() bool { return c[0] >= 0x80 && c[0] <= 0x82 }
