// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// key and value hold one entry of remote origin (RemoteMAC, Neighbour, Flood,
// Prefix) without pointers and in 44 octets: a node may have a million of them.
// Next hops beyond the first, and one that does not fit, are kept aside.
type key struct {
	kind Kind
	bits uint8 // prefix length, or 32 or 128
	id   [6]byte
	addr [16]byte
}

type value struct {
	addr  [16]byte // next hop, or the MAC of a neighbour
	label [3]byte
	how   uint8 // of the next hop: encapsulation in the low bits, and flags
}

// Bits of value.how.
const (
	howEncap = 1<<6 - 1
	howIPv6  = 1 << 6
	howHop   = 1 << 7 // there is a next hop
)

// isRemote tells whether entries of this kind are stored compactly.
func (k Kind) isRemote() bool {
	return k == RemoteMAC || k == Neighbour || k == Flood || k == Prefix
}

// compact splits an entry into key and value; more are the next hops but the first.
func compact(e *Entry) (k key, v value, more []NextHop) {
	k.kind = e.Kind
	switch e.Kind {
	case RemoteMAC:
		k.id = e.MAC
	case Neighbour:
		k.bits, k.addr = packAddr(e.IP)
		copy(v.addr[:], e.MAC[:])
		return k, v, nil
	case Prefix:
		_, k.addr = packAddr(e.Prefix.Addr())
		k.bits = uint8(e.Prefix.Bits())
		if e.Prefix.Addr().Is6() {
			k.id[0] = 1
		}
	case Flood:
		nh := e.firstHop()
		k.bits, k.addr = packAddr(nh.Addr)
		binary.BigEndian.PutUint32(k.id[2:], nh.Label)
	}
	if len(e.NextHops) == 0 {
		return k, v, nil
	}
	nh := e.NextHops[0]
	_, v.addr = packAddr(nh.Addr)
	v.label = [3]byte{byte(nh.Label >> 16), byte(nh.Label >> 8), byte(nh.Label)}
	v.how = howHop | uint8(nh.Encap&howEncap)
	if nh.Addr.Is6() {
		v.how |= howIPv6
	}
	if len(e.NextHops) > 1 || nh.Order != 0 || !nh.RouterMAC.IsZero() || nh.Label != v.labelOf() || nh.Encap > howEncap {
		more = e.NextHops
	}
	return k, v, more
}

func (v *value) labelOf() uint32 {
	return uint32(v.label[0])<<16 | uint32(v.label[1])<<8 | uint32(v.label[2])
}

func (e *Entry) firstHop() NextHop {
	if len(e.NextHops) == 0 {
		return NextHop{}
	}
	return e.NextHops[0]
}

// expand is the inverse of compact.
func expand(k key, v value, more []NextHop) Entry {
	e := Entry{Kind: k.kind}
	switch k.kind {
	case RemoteMAC:
		e.MAC = k.id
	case Neighbour:
		e.IP, e.MAC = unpackAddr(k.addr, k.bits == 128), ethernet.MAC(v.addr[:6])
		return e
	case Prefix:
		e.Prefix = netip.PrefixFrom(unpackAddr(k.addr, k.id[0] == 1), int(k.bits))
	}
	switch {
	case more != nil:
		e.NextHops = more
	case v.how&howHop != 0:
		e.NextHops = []NextHop{{Addr: unpackAddr(v.addr, v.how&howIPv6 != 0), Label: v.labelOf(), Encap: encap.Type(v.how & howEncap)}}
	}
	return e
}

func packAddr(a netip.Addr) (bits uint8, b [16]byte) {
	if a.Is4() {
		a4 := a.As4()
		copy(b[:], a4[:])
		return 32, b
	}
	return 128, a.As16()
}

func unpackAddr(b [16]byte, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}
