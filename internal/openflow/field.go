// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Field is a packet or pipeline field (OXM or NXM).
type Field uint8

// The fields in use. Their order is that in a match: what a field needs (the
// Ethernet type for an address, say) comes before it.
const (
	InPort Field = iota
	// InPort16 is InPort as actions may set it.
	InPort16
	Reg0
	Reg1
	Reg2
	Reg3
	TunnelID
	TunnelDst
	TunnelDst6
	EthDst
	EthSrc
	EthType
	VLAN
	MPLSLabel
	MPLSBoS
	IPProto
	IPTTL
	IPFrag
	IPSrc
	IPDst
	IPv6Src
	IPv6Dst
	TCPSrc
	TCPDst
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSLL
	NDTLL
	NDReserved
	NDOptionsType
	ARPOp
	ARPSrcIP
	ARPDstIP
	ARPSrcMAC
	ARPDstMAC
	numFields
)

type form uint8

const (
	decimal form = iota
	hexadecimal
	macAddress
	ipAddress
)

// fieldInfo is how a field is on the wire (class, number, octets) and in text:
// its name in matches, and, where that differs, in actions and selection methods.
type fieldInfo struct {
	class  uint16
	number uint8
	size   uint8
	form   form
	name   string
	action string
}

var fields = [numFields]fieldInfo{
	InPort:        {0x8000, 0, 4, decimal, "in_port", ""},
	InPort16:      {0x0000, 0, 2, decimal, "in_port", ""},
	Reg0:          {0x0001, 0, 4, hexadecimal, "reg0", ""},
	Reg1:          {0x0001, 1, 4, hexadecimal, "reg1", ""},
	Reg2:          {0x0001, 2, 4, hexadecimal, "reg2", ""},
	Reg3:          {0x0001, 3, 4, hexadecimal, "reg3", ""},
	TunnelID:      {0x8000, 38, 8, hexadecimal, "tun_id", ""},
	TunnelDst:     {0x0001, 32, 4, ipAddress, "tun_dst", ""},
	TunnelDst6:    {0x0001, 110, 16, ipAddress, "tun_ipv6_dst", ""},
	EthDst:        {0x8000, 3, 6, macAddress, "dl_dst", "eth_dst"},
	EthSrc:        {0x8000, 4, 6, macAddress, "dl_src", "eth_src"},
	EthType:       {0x8000, 5, 2, hexadecimal, "dl_type", "eth_type"},
	VLAN:          {0x8000, 6, 2, hexadecimal, "vlan_vid", ""},
	MPLSLabel:     {0x8000, 34, 4, decimal, "mpls_label", ""},
	MPLSBoS:       {0x8000, 36, 1, decimal, "mpls_bos", ""},
	IPProto:       {0x8000, 10, 1, decimal, "nw_proto", "ip_proto"},
	IPTTL:         {0x0001, 29, 1, decimal, "nw_ttl", ""},
	IPFrag:        {0x0001, 26, 1, decimal, "ip_frag", ""},
	IPSrc:         {0x8000, 11, 4, ipAddress, "nw_src", "ip_src"},
	IPDst:         {0x8000, 12, 4, ipAddress, "nw_dst", "ip_dst"},
	IPv6Src:       {0x8000, 26, 16, ipAddress, "ipv6_src", ""},
	IPv6Dst:       {0x8000, 27, 16, ipAddress, "ipv6_dst", ""},
	TCPSrc:        {0x8000, 13, 2, decimal, "tcp_src", ""},
	TCPDst:        {0x8000, 14, 2, decimal, "tcp_dst", ""},
	UDPSrc:        {0x8000, 15, 2, decimal, "udp_src", ""},
	UDPDst:        {0x8000, 16, 2, decimal, "udp_dst", ""},
	SCTPSrc:       {0x8000, 17, 2, decimal, "sctp_src", ""},
	SCTPDst:       {0x8000, 18, 2, decimal, "sctp_dst", ""},
	ICMPType:      {0x8000, 19, 1, decimal, "icmp_type", ""},
	ICMPCode:      {0x8000, 20, 1, decimal, "icmp_code", ""},
	ICMPv6Type:    {0x8000, 29, 1, decimal, "icmpv6_type", ""},
	ICMPv6Code:    {0x8000, 30, 1, decimal, "icmpv6_code", ""},
	NDTarget:      {0x8000, 31, 16, ipAddress, "nd_target", ""},
	NDSLL:         {0x8000, 32, 6, macAddress, "nd_sll", ""},
	NDTLL:         {0x8000, 33, 6, macAddress, "nd_tll", ""},
	NDReserved:    {0x1000, 1, 4, decimal, "nd_reserved", ""},
	NDOptionsType: {0x1000, 2, 1, decimal, "nd_options_type", ""},
	ARPOp:         {0x8000, 21, 2, decimal, "arp_op", ""},
	ARPSrcIP:      {0x8000, 22, 4, ipAddress, "arp_spa", ""},
	ARPDstIP:      {0x8000, 23, 4, ipAddress, "arp_tpa", ""},
	ARPSrcMAC:     {0x8000, 24, 6, macAddress, "arp_sha", ""},
	ARPDstMAC:     {0x8000, 25, 6, macAddress, "arp_tha", ""},
}

var byWire = func() map[uint32]Field {
	m := make(map[uint32]Field, numFields)
	for i, f := range fields {
		m[uint32(f.class)<<8|uint32(f.number)] = Field(i)
	}
	return m
}()

// HashField returns the field of that name for Group.Fields, e.g. "ip_src".
func HashField(name string) (Field, error) {
	for i, f := range fields {
		if name == f.name || name != "" && name == f.action {
			return Field(i), nil
		}
	}
	return 0, fmt.Errorf("hash field %q is not known: want names like ip_src, ip_dst, ipv6_src, ipv6_dst, tcp_dst", name)
}

// String returns the field's name in a match of ovs-ofctl, e.g. "nw_dst".
func (f Field) String() string {
	if f < numFields {
		return fields[f].name
	}
	return fmt.Sprintf("field-%d", uint8(f))
}

// action returns the field's name in an action.
func (f Field) action() string {
	if f < numFields && fields[f].action != "" {
		return fields[f].action
	}
	return f.String()
}

// oxm appends the header of a field whose value, and mask if any, has n octets.
func (f Field) oxm(b []byte, masked bool, n int) []byte {
	i := &fields[f]
	m := byte(0)
	if masked {
		m = 1
	}
	b = be.AppendUint16(b, i.class)
	return append(b, i.number<<1|m, byte(n))
}

// value appends a field with a value, right-aligned in the size of the field.
func (f Field) value(b []byte, v uint64) []byte {
	size := int(fields[f].size)
	b = f.oxm(b, false, size)
	for i := size - 1; i >= 0; i-- {
		if i > 7 {
			b = append(b, 0)
		} else {
			b = append(b, byte(v>>(8*i)))
		}
	}
	return b
}

func (f Field) format(v []byte) string {
	switch fields[f].form {
	case macAddress:
		if len(v) == 6 {
			return ethernet.MAC(v).String()
		}
	case ipAddress:
		if a, ok := netip.AddrFromSlice(v); ok {
			return a.String()
		}
	}
	var n uint64
	for _, o := range v {
		n = n<<8 | uint64(o)
	}
	if fields[f].form == decimal {
		return strconv.FormatUint(n, 10)
	}
	return "0x" + strconv.FormatUint(n, 16)
}

// formatMasked returns value and mask, that of an address as a prefix length.
func (f Field) formatMasked(v, mask []byte) string {
	if fields[f].form == ipAddress {
		ones := 0
		for ones < 8*len(mask) && mask[ones/8]&(0x80>>(ones%8)) != 0 {
			ones++
		}
		if bytes.Equal(mask, maskOf(len(mask), ones)) {
			return f.format(v) + "/" + strconv.Itoa(ones)
		}
	}
	return f.format(v) + "/" + f.format(mask)
}

func maskOf(size, ones int) []byte {
	m := make([]byte, size)
	for i := range ones {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}
