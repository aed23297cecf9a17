// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// Constants of bpf/layout.h.
const (
	maxHops = 64
	slots   = 128

	configIPv6         = 1
	configAntiSpoofing = 2

	portFrom    = 1
	portPeer    = 2
	portBridge  = 4
	portTransit = 8
	portClasses = 16

	classSteps  = 64
	classPorts  = 1
	anyProtocol = 256

	txDefault = 0
	txMPLSUDP = 1
	txMPLSGRE = 2
	txVXLAN   = 3

	hopSelf = 1

	routeDefault = 1
	routeOnLink  = 2

	spaceMPLS  = 0
	spaceVXLAN = 1

	targetPort = 0
	targetVRF  = 1
)

// The keys and values of bpf/layout.h. Members are exported because only so the
// library passes them to the kernel without a copy.
type (
	configValue struct {
		Local     [16]byte
		RouterMAC [6]byte
		VXLANPort [2]byte // big endian
		Flags     uint32
		DefaultTx uint32
	}
	portValue struct {
		VRF   uint32
		Flags uint32
	}
	labelKey struct {
		Space uint32
		Label uint32
	}
	targetValue struct {
		VRF   uint32
		Index uint32
		Kind  uint32
		MAC   [6]byte
		Pad   [2]byte
	}
	hopValue struct {
		Remote    [16]byte
		Label     uint32
		Order     uint32
		RouterMAC [6]byte
		Tx        uint8
		Flags     uint8
	}
	routeValue struct {
		Hop   hopValue
		Group uint32
		Flags uint32
	}
	key4 struct {
		Bits uint32
		Addr [4]byte
	}
	key6 struct {
		Bits uint32
		Addr [16]byte
	}
	groupKey struct {
		VRF uint32
		ID  uint32
	}
	groupValue struct {
		Addr  [16]byte
		Bits  uint32
		Count uint32
		Slot  [slots]uint8
		Hop   [maxHops]hopValue
	}
	gatewayKey struct {
		VRF  uint32
		Addr [16]byte
	}
	sourceKey struct {
		Bits  uint32
		Index uint32
		MAC   [6]byte
		Pad   [2]byte
		Addr  [16]byte
	}
	sourceValue struct {
		VRF     uint32
		Gateway [16]byte
	}
	classKey struct {
		Bits uint32
		VRF  uint32
		V6   uint32
		Addr [16]byte
	}
	classList struct {
		First uint32
		Bits  uint32
	}
	classValue struct {
		Next             uint32
		Target           uint32
		VRF              uint32
		V6               uint32
		Destination      [16]byte
		Source           [16]byte
		DestinationBits  uint32
		SourceBits       uint32
		DestinationPorts [2]uint16
		SourcePorts      [2]uint16
		Protocol         uint16
		Flags            uint16
	}
	fallbackValue struct {
		MACs  [12]byte
		Index uint32
		Port  [16]byte
	}
	portStats struct {
		RxPackets, RxBytes, TxPackets, TxBytes uint64
	}
	dropStats struct {
		Of [16]struct{ Packets, Bytes uint64 } // by reason
	}
	vrfValue struct {
		VNI         uint32
		Gateway     [16]byte
		GatewayBits uint8
		HasGateway  uint8
		L3VNI       uint8
		IDLength    uint8
		ID          [256]byte
	}
	plugKey struct {
		VRF  uint32
		Name [16]byte
	}
	plugValue struct {
		Index     uint32
		Direction uint32
	}
	endpointKey struct {
		VRF   uint32
		Label uint32
		Addr  [16]byte
	}
	endpointValue struct {
		Port       [16]byte
		Index      uint32
		MAC        [6]byte
		Direction  uint8
		HasGateway uint8
		Prefix     [16]byte
		Gateway    [16]byte
		PrefixBits uint32
	}
)

// mappedBits is what an IPv4 prefix is longer by when its address has 16 octets.
const mappedBits = 96

// prefix16 returns a prefix with an address of 16 octets.
func prefix16(p netip.Prefix) (addr [16]byte, bits uint32) {
	bits = uint32(p.Bits())
	if p.Addr().Is4() {
		bits += mappedBits
	}
	return p.Addr().As16(), bits
}

// prefixOf is the reverse of prefix16; an invalid prefix for what no prefix16 gives.
func prefixOf(addr [16]byte, bits uint32) netip.Prefix {
	a := netip.AddrFrom16(addr)
	if !a.Is4In6() {
		return netip.PrefixFrom(a, int(min(bits, 255)))
	}
	if bits < mappedBits {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a.Unmap(), int(min(bits-mappedBits, 255)))
}

// addrOf returns the address of 16 octets.
func addrOf(addr [16]byte) netip.Addr { return netip.AddrFrom16(addr).Unmap() }

var directions = []dataplane.Direction{dataplane.Both, dataplane.ToPort, dataplane.FromPort}

// directionCode returns the number that stands for a direction in the kernel, and
// false for what is none.
func directionCode(d dataplane.Direction) (uint8, bool) {
	for i, known := range directions {
		if d == known {
			return uint8(i + 1), true
		}
	}
	return 0, d == ""
}

// directionOf is the reverse of directionCode.
func directionOf(code uint8) dataplane.Direction {
	if code == 0 || int(code) > len(directions) {
		return ""
	}
	return directions[code-1]
}

func sends(d uint8) bool    { return directionOf(d) != dataplane.ToPort }
func receives(d uint8) bool { return directionOf(d) != dataplane.FromPort }

// name16 returns a device name as the kernel has it; names are at most 15 octets.
func name16(s string) (out [16]byte) {
	copy(out[:15], s)
	return out
}

func nameOf(b [16]byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b[:])
}
