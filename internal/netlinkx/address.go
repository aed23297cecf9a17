// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO (kernel 5.18), which x/sys may not have.
const ifaProto = 11

// Address is an address of a device, without a route to its subnet.
type Address struct {
	Index  int
	Prefix netip.Prefix
	// Protocol tells who set it; kernels before 5.18 do not keep it.
	Protocol uint8
}

// AddressRequest sets or removes an address. An IPv6 address is not looked for
// on the link before it is used (no DAD).
type AddressRequest struct {
	Delete bool
	Address
}

// String returns the request in the words of ip-address(8), with the device as its index.
func (a AddressRequest) String() string {
	op := "replace"
	if a.Delete {
		op = "del"
	}
	return fmt.Sprintf("addr %s %s dev #%d proto %d", op, a.Prefix, a.Index, a.Protocol)
}

// appendTo implements Request.
func (a AddressRequest) appendTo(b []byte, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWADDR), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if a.Delete {
		typ, flags = unix.RTM_DELADDR, 0
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	ip := a.Prefix.Addr()
	scope := uint8(unix.RT_SCOPE_UNIVERSE)
	if ip.IsLinkLocalUnicast() && ip.Is6() {
		scope = unix.RT_SCOPE_LINK
	}
	b = append(b, familyOf(ip), uint8(a.Prefix.Bits()), 0, scope)
	b = native.AppendUint32(b, uint32(a.Index))
	b = appendAttr(b, unix.IFA_LOCAL, ip.AsSlice())
	b = appendAttr(b, unix.IFA_ADDRESS, ip.AsSlice())
	if !a.Delete {
		f := uint32(unix.IFA_F_NOPREFIXROUTE)
		if ip.Is6() {
			f |= unix.IFA_F_NODAD
		}
		b = appendAttr32(b, unix.IFA_FLAGS, f)
		if a.Protocol != 0 {
			b = appendAttr8(b, ifaProto, a.Protocol)
		}
	}
	return endMessage(b, start)
}

// Addresses lists the addresses of the device with that index.
func (c *Conn) Addresses(index int) ([]Address, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	native.PutUint32(body[4:], uint32(index))
	var list []Address
	err := c.dump(unix.RTM_GETADDR, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		if typ != unix.RTM_NEWADDR {
			return nil
		}
		a, err := parseAddress(b)
		if err == nil && a.Index == index && a.Prefix.IsValid() {
			list = append(list, a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// parseAddress reads the body of an RTM_NEWADDR message.
func parseAddress(b []byte) (Address, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Address{}, errShort
	}
	out := Address{Index: int(native.Uint32(b[4:]))}
	var ip, local netip.Addr
	a := attrs{b: b[unix.SizeofIfAddrmsg:]}
	for a.next() {
		switch a.typ {
		case unix.IFA_ADDRESS:
			ip = a.addr()
		case unix.IFA_LOCAL:
			local = a.addr()
		case ifaProto:
			out.Protocol = a.uint8()
		}
	}
	if local.IsValid() {
		ip = local
	}
	out.Prefix = netip.PrefixFrom(ip, int(b[1]))
	return out, a.err
}
