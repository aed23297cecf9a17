// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// rtaNexthop is RTA_NH_ID (kernel 5.3).
const rtaNexthop = 30

// Route is a route of the kernel to a nexthop object; or, without one, a route that
// makes its packets unreachable.
type Route struct {
	Dst   netip.Prefix
	Table uint32
	// Metric is the priority: of routes to one Dst the least is used.
	Metric uint32
	// Protocol tells who made it.
	Protocol uint8
	// Nexthop is the id of the nexthop object, 0 for none.
	Nexthop uint32
}

// RouteRequest makes or replaces a route, or deletes the one with its Dst, Table
// and Metric.
type RouteRequest struct {
	Delete bool
	Route
}

// String returns the request in the words of ip-route(8).
func (r RouteRequest) String() string {
	op := "route replace "
	if r.Delete {
		op = "route del "
	}
	return op + r.Route.String()
}

// String returns the route in the words of ip-route(8).
func (r Route) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s table %d metric %d", r.Dst, r.Table, r.Metric)
	if r.Protocol != 0 {
		fmt.Fprintf(&b, " proto %d", r.Protocol)
	}
	if r.Nexthop != 0 {
		fmt.Fprintf(&b, " nhid %d", r.Nexthop)
	}
	return b.String()
}

func familyOf(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// appendTo implements Request.
func (r RouteRequest) appendTo(b []byte, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	scope, kind := uint8(unix.RT_SCOPE_UNIVERSE), uint8(unix.RTN_UNICAST)
	switch {
	case r.Delete:
		typ, flags, scope, kind = unix.RTM_DELROUTE, 0, unix.RT_SCOPE_NOWHERE, 0
	case r.Nexthop == 0:
		kind = unix.RTN_UNREACHABLE
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	// rtm_family, dst_len, src_len, tos, table, protocol, scope, type, flags
	ip := r.Dst.Addr()
	b = append(b, familyOf(ip), uint8(r.Dst.Bits()), 0, 0, unix.RT_TABLE_UNSPEC, r.Protocol, scope, kind, 0, 0, 0, 0)
	if ip.Is4() {
		a := ip.As4()
		b = appendAttr(b, unix.RTA_DST, a[:])
	} else {
		a := ip.As16()
		b = appendAttr(b, unix.RTA_DST, a[:])
	}
	b = appendAttr32(b, unix.RTA_TABLE, r.Table)
	b = appendAttr32(b, unix.RTA_PRIORITY, r.Metric)
	if r.Nexthop != 0 && !r.Delete {
		b = appendAttr32(b, rtaNexthop, r.Nexthop)
	}
	return endMessage(b, start)
}

// Routes lists the routes of a family, AF_INET or AF_INET6, that protocol made, in
// one table or, when table is 0, in all. With protocol 0 it lists those of all owners.
func (c *Conn) Routes(family uint8, table uint32, protocol uint8) ([]Route, error) {
	body := []byte{family, 0, 0, 0, unix.RT_TABLE_UNSPEC, protocol, 0, 0, 0, 0, 0, 0}
	if table != 0 {
		body = appendAttr32(body, unix.RTA_TABLE, table)
	}
	var list []Route
	err := c.dump(unix.RTM_GETROUTE, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		if typ != unix.RTM_NEWROUTE || len(b) == 0 || b[0] != family {
			return nil
		}
		r, err := parseRoute(b)
		if err == nil && (table == 0 || r.Table == table) && (protocol == 0 || r.Protocol == protocol) {
			list = append(list, r)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // there is no such table
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return list, nil
}

// parseRoute reads the body of an RTM_NEWROUTE message of IPv4 or IPv6.
func parseRoute(b []byte) (Route, error) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, errShort
	}
	r := Route{Table: uint32(b[4]), Protocol: b[5]}
	dst := netip.IPv6Unspecified()
	if b[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	v4 := dst.Is4()
	a := attrs{b: b[unix.SizeofRtMsg:]}
	for a.next() {
		switch a.typ {
		case unix.RTA_DST:
			dst = a.addr()
		case unix.RTA_TABLE:
			r.Table = a.uint32()
		case unix.RTA_PRIORITY:
			r.Metric = a.uint32()
		case rtaNexthop:
			r.Nexthop = a.uint32()
		}
	}
	if a.err != nil {
		return r, a.err
	}
	if r.Dst = netip.PrefixFrom(dst, int(b[1])); !r.Dst.IsValid() || dst.Is4() != v4 {
		return r, errShort
	}
	return r, nil
}
