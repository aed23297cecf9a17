// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Family is an address family and subsequent address family (RFC 4760).
type Family struct {
	AFI  uint16
	SAFI uint8
}

// Address families that the daemon speaks.
var (
	VPNv4     = Family{1, 128}
	VPNv6     = Family{2, 128}
	EVPN      = Family{25, 70}
	FlowVPNv4 = Family{1, 134}
	FlowVPNv6 = Family{2, 134}
	RTC       = Family{1, 132}
)

// Families lists all families of the daemon in the order they are offered and
// shown.
var Families = []Family{VPNv4, VPNv6, EVPN, FlowVPNv4, FlowVPNv6, RTC}

// String returns "afi/safi" with the usual names, e.g. "l2vpn/evpn".
func (f Family) String() string {
	afi, ok := map[uint16]string{1: "ipv4", 2: "ipv6", 25: "l2vpn"}[f.AFI]
	if !ok {
		afi = strconv.Itoa(int(f.AFI))
	}
	safi, ok := map[uint8]string{128: "mpls-vpn", 70: "evpn", 134: "flow-vpn", 132: "rtc", 1: "unicast"}[f.SAFI]
	if !ok {
		safi = strconv.Itoa(int(f.SAFI))
	}
	return afi + "/" + safi
}

// RD is a route distinguisher (RFC 4364 §4.2) as on the wire.
type RD [8]byte

// MakeRD returns a type 1 route distinguisher "addr:number". Addr must be IPv4.
func MakeRD(addr netip.Addr, number uint16) RD {
	rd := RD{0, 1}
	a := addr.As4()
	copy(rd[2:6], a[:])
	binary.BigEndian.PutUint16(rd[6:], number)
	return rd
}

// String returns the administrator and number, e.g. "192.0.2.1:5".
func (rd RD) String() string {
	return adminText(binary.BigEndian.Uint16(rd[:2]), rd[2:])
}

// adminText renders six octets as "administrator:number" for the three common
// types of RDs and extended communities (two-octet AS, IPv4, four-octet AS).
func adminText(form uint16, b []byte) string {
	switch form {
	case 0:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:]))
	case 1:
		return fmt.Sprintf("%s:%d", netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:]))
	case 2:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:]))
	}
	return fmt.Sprintf("%#04x:%x", form, b)
}

// ExtCommunity is an extended community (RFC 4360) as on the wire.
type ExtCommunity [8]byte

// RT is a route target extended community (RFC 4360 §4) as on the wire.
type RT ExtCommunity

// ParseRT reads "as:number" (two- or four-octet AS) or "a.b.c.d:number". The
// error names the text and what is allowed.
func ParseRT(s string) (RT, error) {
	bad := fmt.Errorf("route target %q is not valid: want <0..65535>:<0..4294967295>, <65536..4294967295>:<0..65535> or <IPv4 address>:<0..65535>", s)
	admin, num, ok := strings.Cut(s, ":")
	if !ok {
		return RT{}, bad
	}
	n, err := strconv.ParseUint(num, 10, 32)
	if err != nil {
		return RT{}, bad
	}
	if strings.Contains(admin, ".") {
		a, err := netip.ParseAddr(admin)
		if err != nil || !a.Is4() || n > 65535 {
			return RT{}, bad
		}
		rt := RT{0x01, 0x02}
		a4 := a.As4()
		copy(rt[2:], a4[:])
		binary.BigEndian.PutUint16(rt[6:], uint16(n))
		return rt, nil
	}
	as, err := strconv.ParseUint(admin, 10, 32)
	if err != nil {
		return RT{}, bad
	}
	if as <= 65535 {
		rt := RT{0x00, 0x02}
		binary.BigEndian.PutUint16(rt[2:], uint16(as))
		binary.BigEndian.PutUint32(rt[4:], uint32(n))
		return rt, nil
	}
	if n > 65535 {
		return RT{}, bad
	}
	rt := RT{0x02, 0x02}
	binary.BigEndian.PutUint32(rt[2:], uint32(as))
	binary.BigEndian.PutUint16(rt[6:], uint16(n))
	return rt, nil
}

// String returns the form that ParseRT reads, e.g. "64512:100".
func (rt RT) String() string { return adminText(uint16(rt[0]), rt[2:]) }

// IsRT tells whether the community is a transitive route target of one of the
// three forms.
func (c ExtCommunity) IsRT() bool { return c[0] <= 2 && c[1] == 0x02 }

// Known reports the well-known meaning of a community as kind and value text:
// target, rtrecord, redirect, encap, mac-mobility, router-mac and so on, or kind
// "" when unknown.
func (c ExtCommunity) Known() (kind, value string) {
	if target, ok := c.RedirectTarget(); ok {
		return "redirect", target.String()
	}
	switch {
	case c.IsRT():
		return "target", RT(c).String()
	case c.IsRTRecord():
		return "rtrecord", adminText(uint16(c[0]), c[2:])
	case c[0] == 0x03 && c[1] == 0x0c:
		return "encap", EncapOf(c).String()
	case c[0] == 0x03 && c[1] == 0x14:
		return "consistentHashSortOrder", strconv.FormatUint(uint64(binary.BigEndian.Uint32(c[2:])), 10)
	case c[0] == 0x06 && c[1] == 0x00:
		return "mac-mobility", strconv.FormatUint(uint64(binary.BigEndian.Uint32(c[4:])), 10)
	case c[0] == 0x06 && c[1] == 0x03:
		return "router-mac", RouterMACOf(c).String()
	}
	return "", ""
}

// String returns "kind:value" for known communities and hexadecimal otherwise.
func (c ExtCommunity) String() string {
	if kind, value := c.Known(); kind != "" {
		return kind + ":" + value
	}
	return fmt.Sprintf("0x%x", c[:])
}
