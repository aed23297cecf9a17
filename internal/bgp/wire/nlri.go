// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Kind is the form of an NLRI: one per family, and one per route type of EVPN.
type Kind uint8

// Kinds of NLRI.
const (
	KindVPNv4 Kind = iota + 1
	KindVPNv6
	KindAD     // EVPN type 1, Ethernet auto-discovery
	KindMACIP  // EVPN type 2, MAC/IP advertisement
	KindIMET   // EVPN type 3, inclusive multicast Ethernet tag
	KindES     // EVPN type 4, Ethernet segment
	KindPrefix // EVPN type 5, IP prefix (RFC 9136)
	KindFlowVPNv4
	KindFlowVPNv6
	KindRTC
)

var kindFamily = [...]Family{
	KindVPNv4: VPNv4, KindVPNv6: VPNv6, KindAD: EVPN, KindMACIP: EVPN, KindIMET: EVPN, KindES: EVPN,
	KindPrefix: EVPN, KindFlowVPNv4: FlowVPNv4, KindFlowVPNv6: FlowVPNv6, KindRTC: RTC,
}

// Family returns the address family that carries this kind.
func (k Kind) Family() Family {
	if int(k) < len(kindFamily) {
		return kindFamily[k]
	}
	return Family{}
}

// Opaque tells whether an NLRI of this kind does not fit the members of NLRI:
// then Addr holds a digest of its octets, and Route.Raw the octets.
func (k Kind) Opaque() bool { return k == KindES || k.IsFlow() }

// IsFlow tells whether an NLRI of this kind is one of VPN FlowSpec.
func (k Kind) IsFlow() bool { return k == KindFlowVPNv4 || k == KindFlowVPNv6 }

// NLRI identifies a route: what must be equal for one announcement to replace
// another. Labels, ESI and next hop are not part of it. It has a fixed size
// and no pointers, and is comparable. Members that a kind does not use are zero.
type NLRI struct {
	Kind Kind
	// Bits is the prefix length (VPN, EVPN type 5, RTC: 0 to 96), or the length
	// of the IP address: 0, 32 or 128 (EVPN types 2 and 3).
	Bits uint8
	MAC  ethernet.MAC
	// Tag is the Ethernet tag (EVPN) or the origin AS (RTC).
	Tag uint32
	// RD is the route distinguisher; of an RTC route it is the route target.
	RD RD
	// Addr is the address, IPv4 in the first four octets; the ESI of EVPN type
	// 1; a digest when the kind is opaque.
	Addr [16]byte
}

// Route is one NLRI with what goes along with it on the wire.
type Route struct {
	NLRI NLRI
	// Label is the 24-bit label field as on the wire: a VNI, or an MPLS label
	// shifted by four bits with the bottom-of-stack bit.
	Label uint32
	// MultiLabel is set when a VPN route carries more than one label.
	MultiLabel bool
	// Raw holds the octets after the RD of an opaque NLRI, and of an EVPN type 5
	// route with an ESI or a gateway, else nil. It points into the message.
	Raw []byte
}

// Recursive tells whether a route is one of EVPN type 5 that names an ESI or a
// gateway: where its prefix is has to be found through other routes (RFC 9136 §3.2).
func (r Route) Recursive() bool { return r.NLRI.Kind == KindPrefix && r.Raw != nil }

// MPLSLabel returns the 20-bit MPLS label of the label field.
func (r Route) MPLSLabel() uint32 { return r.Label >> 4 }

// LabelField returns the 24-bit label field of a single MPLS label.
func LabelField(label uint32) uint32 { return label<<4 | 1 }

// withdrawnLabel is what RFC 8277 §2.4 puts in the label field of a withdraw.
const withdrawnLabel = 0x800000

// IP returns the address of the NLRI, or the invalid address when it has none.
func (n NLRI) IP() netip.Addr {
	switch n.Kind {
	case KindVPNv4:
		return netip.AddrFrom4([4]byte(n.Addr[:4]))
	case KindVPNv6:
		return netip.AddrFrom16(n.Addr)
	case KindMACIP, KindIMET:
		return sizedAddr(n.Addr, n.Bits)
	case KindPrefix:
		if n.Tag&prefixIPv6 != 0 {
			return netip.AddrFrom16(n.Addr)
		}
		return netip.AddrFrom4([4]byte(n.Addr[:4]))
	}
	return netip.Addr{}
}

// prefixIPv6 marks, in NLRI.Tag of EVPN type 5, an IPv6 prefix: the Ethernet
// tag has 24 significant bits at most (RFC 7432 §3, VLAN or I-SID).
const prefixIPv6 = 1 << 31

// Prefix returns the prefix of a VPN or EVPN type 5 route, else the invalid one.
func (n NLRI) Prefix() netip.Prefix {
	switch n.Kind {
	case KindVPNv4, KindVPNv6, KindPrefix:
		return netip.PrefixFrom(n.IP(), int(n.Bits))
	}
	return netip.Prefix{}
}

func sizedAddr(b [16]byte, bits uint8) netip.Addr {
	switch bits {
	case 32:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 128:
		return netip.AddrFrom16(b)
	}
	return netip.Addr{}
}

func setAddr(n *NLRI, a netip.Addr) {
	if a.Is4() {
		a4 := a.As4()
		copy(n.Addr[:], a4[:])
	} else if a.Is6() {
		n.Addr = a.As16()
	}
}

// VPNRoute returns the NLRI of a VPNv4 or VPNv6 prefix; host bits are cleared.
func VPNRoute(rd RD, p netip.Prefix) NLRI {
	p = p.Masked()
	n := NLRI{Kind: KindVPNv4, Bits: uint8(p.Bits()), RD: rd}
	if p.Addr().Is6() {
		n.Kind = KindVPNv6
	}
	setAddr(&n, p.Addr())
	return n
}

// PrefixRoute returns the NLRI of an EVPN type 5 route with Ethernet tag 0; host
// bits are cleared.
func PrefixRoute(rd RD, p netip.Prefix) NLRI {
	p = p.Masked()
	n := NLRI{Kind: KindPrefix, Bits: uint8(p.Bits()), RD: rd}
	if p.Addr().Is6() {
		n.Tag = prefixIPv6
	}
	setAddr(&n, p.Addr())
	return n
}

// MACIPRoute returns the NLRI of an EVPN type 2 route; ip may be invalid.
func MACIPRoute(rd RD, mac ethernet.MAC, ip netip.Addr) NLRI {
	n := NLRI{Kind: KindMACIP, RD: rd, MAC: mac}
	if ip.IsValid() {
		n.Bits = uint8(ip.BitLen())
		setAddr(&n, ip)
	}
	return n
}

// IMETRoute returns the NLRI of an EVPN type 3 route.
func IMETRoute(rd RD, originator netip.Addr) NLRI {
	n := NLRI{Kind: KindIMET, RD: rd, Bits: uint8(originator.BitLen())}
	setAddr(&n, originator)
	return n
}

// RTCRoute returns the NLRI that asks for routes with rt (RFC 4684 §4).
func RTCRoute(originAS uint32, rt RT) NLRI {
	return NLRI{Kind: KindRTC, Bits: 96, Tag: originAS, RD: RD(rt)}
}

// AppendNLRI appends the wire form of r, as announced or as withdrawn.
func AppendNLRI(b []byte, r Route, withdraw bool) []byte {
	n := r.NLRI
	label := r.Label
	switch n.Kind {
	case KindVPNv4, KindVPNv6:
		if withdraw {
			label = withdrawnLabel
		}
		b = append(b, 24+64+n.Bits)
		b = appendUint24(b, label)
		b = append(b, n.RD[:]...)
		return append(b, n.Addr[:(n.Bits+7)/8]...)
	case KindRTC:
		return appendRTC(b, n)
	case KindFlowVPNv4, KindFlowVPNv6:
		b = appendFlowLength(b, 8+len(r.Raw))
		return append(append(b, n.RD[:]...), r.Raw...)
	}
	return appendEVPN(b, r, label)
}

func appendEVPN(b []byte, r Route, label uint32) []byte {
	n := r.NLRI
	start := len(b)
	b = append(b, byte(n.Kind-KindAD+1), 0)
	b = append(b, n.RD[:]...)
	switch n.Kind {
	case KindAD:
		b = append(b, n.Addr[:10]...)
		b = binary.BigEndian.AppendUint32(b, n.Tag)
		b = appendUint24(b, label)
	case KindMACIP:
		b = append(b, make([]byte, 10)...)
		b = binary.BigEndian.AppendUint32(b, n.Tag)
		b = append(append(b, 48), n.MAC[:]...)
		b = append(append(b, n.Bits), n.Addr[:n.Bits/8]...)
		b = appendUint24(b, label)
	case KindIMET:
		b = binary.BigEndian.AppendUint32(b, n.Tag)
		b = append(append(b, n.Bits), n.Addr[:n.Bits/8]...)
	case KindES:
		b = append(b, r.Raw...)
	case KindPrefix:
		if r.Raw != nil {
			b = append(b, r.Raw...)
			break
		}
		size := 4
		if n.Tag&prefixIPv6 != 0 {
			size = 16
		}
		b = append(b, make([]byte, 10)...)
		b = binary.BigEndian.AppendUint32(b, n.Tag&^prefixIPv6)
		b = append(append(b, n.Bits), n.Addr[:size]...)
		b = append(b, make([]byte, size)...)
		b = appendUint24(b, label)
	}
	b[start+1] = byte(len(b) - start - 2)
	return b
}

func appendRTC(b []byte, n NLRI) []byte {
	var full [12]byte
	binary.BigEndian.PutUint32(full[:], n.Tag)
	copy(full[4:], n.RD[:])
	return append(append(b, n.Bits), full[:(n.Bits+7)/8]...)
}

// appendFlowLength appends the one- or two-octet length of RFC 8955 §4.1.
func appendFlowLength(b []byte, l int) []byte {
	if l < 0xf0 {
		return append(b, byte(l))
	}
	return append(b, 0xf0|byte(l>>8), byte(l))
}

func appendUint24(b []byte, v uint32) []byte { return append(b, byte(v>>16), byte(v>>8), byte(v)) }

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
