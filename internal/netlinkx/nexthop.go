// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of MPLS encapsulation (linux/lwtunnel.h, linux/mpls_iptunnel.h),
// which x/sys does not have.
const (
	lwtunnelMPLS    = 1
	mplsIPTunnelDst = 1
)

// Sizes of struct nhmsg and struct nexthop_grp (linux/nexthop.h).
const (
	sizeofNhMsg  = 8
	sizeofMember = 8
)

// Nexthop is a nexthop object: a way that routes may share, or a group of them.
type Nexthop struct {
	ID uint32
	// Protocol tells who made it.
	Protocol uint8
	// Index is the device.
	Index int
	// Via is the gateway; an IPv4 address mapped to IPv6 is one that IPv6 routes can
	// have (RFC 4798), with a label.
	Via netip.Addr
	// Label is the MPLS label to push, 0 for none.
	Label uint32
	// OnLink takes Via to be on the device's link without looking it up.
	OnLink bool
	// Group has the members' ids, and then nothing but ID and Protocol is set besides.
	Group []uint32
}

// NexthopRequest makes or replaces a nexthop object, or deletes the one with its ID,
// and with it the routes that have it.
type NexthopRequest struct {
	Delete bool
	Nexthop
}

// String returns the request in the words of ip-nexthop(8).
func (n NexthopRequest) String() string {
	if n.Delete {
		return fmt.Sprintf("nexthop del id %d", n.ID)
	}
	return "nexthop replace " + n.Nexthop.String()
}

// String returns the object in the words of ip-nexthop(8), with the device as its index.
func (n Nexthop) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "id %d", n.ID)
	if len(n.Group) > 0 {
		b.WriteString(" group " + strings.Trim(strings.ReplaceAll(fmt.Sprint(n.Group), " ", "/"), "[]"))
	} else {
		if n.Label != 0 {
			fmt.Fprintf(&b, " encap mpls %d", n.Label)
		}
		if n.Via.IsValid() {
			fmt.Fprintf(&b, " via %s", n.Via)
		}
		fmt.Fprintf(&b, " dev #%d", n.Index)
		if n.OnLink {
			b.WriteString(" onlink")
		}
	}
	if n.Protocol != 0 {
		fmt.Fprintf(&b, " proto %d", n.Protocol)
	}
	return b.String()
}

// appendTo implements Request.
func (n NexthopRequest) appendTo(b []byte, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWNEXTHOP), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if n.Delete {
		typ, flags = unix.RTM_DELNEXTHOP, 0
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	family, protocol, bits := uint8(unix.AF_UNSPEC), n.Protocol, uint32(0)
	if n.Via.IsValid() && !n.Delete {
		family = familyOf(n.Via)
	}
	if n.Delete {
		protocol = 0
	} else if n.OnLink {
		bits = unix.RTNH_F_ONLINK
	}
	b = append(b, family, 0, protocol, 0) // family, scope, protocol, reserved
	b = native.AppendUint32(b, bits)
	b = appendAttr32(b, unix.NHA_ID, n.ID)
	switch {
	case n.Delete:
	case len(n.Group) > 0:
		members := make([]byte, 0, sizeofMember*len(n.Group))
		for _, id := range n.Group {
			members = native.AppendUint32(members, id)
			members = append(members, 0, 0, 0, 0) // weight less 1, reserved
		}
		b = appendAttr(b, unix.NHA_GROUP, members)
	default:
		b = n.appendHop(b)
	}
	return endMessage(b, start)
}

func (n *Nexthop) appendHop(b []byte) []byte {
	b = appendAttr32(b, unix.NHA_OIF, uint32(n.Index))
	if n.Via.IsValid() {
		b = appendAttr(b, unix.NHA_GATEWAY, n.Via.AsSlice())
	}
	if n.Label == 0 {
		return b
	}
	b = native.AppendUint16(b, unix.SizeofRtAttr+2)
	b = native.AppendUint16(b, unix.NHA_ENCAP_TYPE)
	b = native.AppendUint16(b, lwtunnelMPLS)
	b = append(b, 0, 0)
	return appendNested(b, unix.NHA_ENCAP, func(b []byte) []byte {
		return appendAttr(b, mplsIPTunnelDst, labelStack(n.Label))
	})
}

// Nexthops lists the nexthop objects of all owners.
func (c *Conn) Nexthops() ([]Nexthop, error) {
	var list []Nexthop
	err := c.dump(unix.RTM_GETNEXTHOP, make([]byte, sizeofNhMsg), func() { list = list[:0] }, func(typ uint16, b []byte) error {
		n, err := parseNexthop(b)
		if err == nil && typ == unix.RTM_NEWNEXTHOP {
			list = append(list, n)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list nexthop objects: %w", err)
	}
	return list, nil
}

// Nexthop returns the nexthop object with an id; ok is false when there is none.
func (c *Conn) Nexthop(id uint32) (n Nexthop, ok bool, err error) {
	body := appendAttr32(make([]byte, sizeofNhMsg), unix.NHA_ID, id)
	err = c.request(unix.RTM_GETNEXTHOP, 0, body, func(typ uint16, b []byte) error {
		var err error
		n, err = parseNexthop(b)
		ok = err == nil && typ == unix.RTM_NEWNEXTHOP
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return Nexthop{}, false, nil
	}
	if err != nil {
		return n, false, fmt.Errorf("find nexthop object %d: %w", id, err)
	}
	return n, ok, nil
}

// parseNexthop reads the body of an RTM_NEWNEXTHOP message.
func parseNexthop(b []byte) (Nexthop, error) {
	if len(b) < sizeofNhMsg {
		return Nexthop{}, errShort
	}
	n := Nexthop{Protocol: b[2], OnLink: native.Uint32(b[4:])&unix.RTNH_F_ONLINK != 0}
	a := attrs{b: b[sizeofNhMsg:]}
	for a.next() && a.err == nil {
		switch a.typ {
		case unix.NHA_ID:
			n.ID = a.uint32()
		case unix.NHA_OIF:
			n.Index = int(a.uint32())
		case unix.NHA_GATEWAY:
			n.Via = a.addr()
		case unix.NHA_GROUP:
			for m := a.data; len(m) >= sizeofMember; m = m[sizeofMember:] {
				n.Group = append(n.Group, native.Uint32(m))
			}
		case unix.NHA_ENCAP:
			nested := attrs{b: a.data}
			for nested.next() {
				if nested.typ == mplsIPTunnelDst {
					n.Label = parseLabel(nested.data)
				}
			}
			a.err = nested.err
		}
	}
	return n, a.err
}
