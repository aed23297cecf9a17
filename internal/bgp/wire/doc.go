// SPDX-License-Identifier: Apache-2.0

// Package wire reads and writes BGP messages (RFC 4271) for VPN address
// families.
//
// Framing, the split of an UPDATE into its parts, and the NLRIs of VPNv4,
// VPNv6 (RFC 4364, RFC 4659), EVPN (RFC 7432, RFC 9136), VPN FlowSpec (RFC
// 8955, RFC 8956) and Route Target Constraint (RFC 4684) are decoded here,
// with bounds checks, without allocation and into values of fixed size. OPEN
// and the path attributes go through GoBGP's codec, with two exceptions whose
// raw octets we need and whose format is trivial: extended communities (RFC
// 4360) and the PMSI tunnel (RFC 6514), where a VXLAN VNI stands in place of an
// MPLS label (RFC 8365 §5.1.3).
//
// Input is never trusted: each decoder returns an *Error with the class of
// RFC 7606 that the session has to act on, and none panics.
package wire
