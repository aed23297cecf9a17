// SPDX-License-Identifier: Apache-2.0

// Package encap names the tunnel encapsulations of the IANA registry "BGP
// Tunnel Encapsulation Attribute Tunnel Types" that VPN routes announce in
// the Encapsulation Extended Community (RFC 9012 §4.1) and dataplanes offer.
package encap

import "fmt"

// Type is a tunnel type of the IANA registry.
type Type uint16

// Tunnel types in use. Default is not on the wire: it stands for a route
// without Encapsulation Extended Community.
const (
	Default   Type = 0
	GRE       Type = 2
	VXLAN     Type = 8
	MPLS      Type = 10
	MPLSInUDP Type = 13
)

// String returns the name that the looking glass shows, e.g. "VXLAN".
func (t Type) String() string {
	switch t {
	case Default:
		return "Default"
	case GRE:
		return "GRE"
	case VXLAN:
		return "VXLAN"
	case MPLS:
		return "MPLS"
	case MPLSInUDP:
		return "MPLS-in-UDP"
	}
	return fmt.Sprintf("encap-%d", uint16(t))
}

// Bit returns the type as a bit for sets of types. Types from 63 on share the
// top bit: none of them is ever ours.
func (t Type) Bit() uint64 { return 1 << min(t, 63) }
