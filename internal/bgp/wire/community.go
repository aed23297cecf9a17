// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
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

// HashOrderCommunity returns the consistent-hash sort order community
// (draft-ietf-bess-service-chaining §2.7; opaque, sub-type 0x14).
func HashOrderCommunity(order uint32) ExtCommunity {
	c := ExtCommunity{0x03, 0x14}
	binary.BigEndian.PutUint32(c[2:], order)
	return c
}
