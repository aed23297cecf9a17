// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// attrText renders the value of MED, communities and cluster list.
func attrText(typ byte, v []byte) string {
	if len(v)%4 != 0 {
		return fmt.Sprintf("0x%x", v)
	}
	var words []string
	for ; len(v) > 0; v = v[4:] {
		switch typ {
		case attrMED:
			words = append(words, strconv.FormatUint(uint64(binary.BigEndian.Uint32(v)), 10))
		case attrCommunities:
			words = append(words, fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(v), binary.BigEndian.Uint16(v[2:])))
		default:
			words = append(words, netip.AddrFrom4([4]byte(v[:4])).String())
		}
	}
	if len(words) == 1 {
		return words[0]
	}
	return "[ " + strings.Join(words, " ") + " ]"
}

// String returns the route's identity for logs, e.g.
// "type 2 192.0.2.1:5 02:00:00:00:00:01 198.51.100.10".
func (n NLRI) String() string {
	switch n.Kind {
	case KindVPNv4, KindVPNv6:
		return n.RD.String() + " " + n.Prefix().String()
	case KindMACIP:
		s := fmt.Sprintf("type 2 %s %s", n.RD, n.MAC)
		if ip := n.IP(); ip.IsValid() {
			s += " " + ip.String()
		}
		return s
	case KindIMET:
		return fmt.Sprintf("type 3 %s %s", n.RD, n.IP())
	case KindPrefix:
		return fmt.Sprintf("type 5 %s %s", n.RD, n.Prefix())
	case KindRTC:
		return n.rtcText()
	}
	return fmt.Sprintf("%s %s %x", n.Kind.Family(), n.RD, n.Addr)
}

// overlayText names the ESI and the gateway of an EVPN type 5 route; "" without.
func (r Route) overlayText() (s string) {
	size := 4
	if r.NLRI.Tag&prefixIPv6 != 0 {
		size = 16
	}
	if !r.Recursive() || len(r.Raw) != 10+4+1+2*size+3 {
		return ""
	}
	if esi := r.Raw[:10]; !allZero(esi) {
		s += fmt.Sprintf(" esi %x", esi)
	}
	if gw, _ := netip.AddrFromSlice(r.Raw[15+size : 15+2*size]); !gw.IsUnspecified() {
		s += " gateway " + gw.String()
	}
	return s
}

func (n NLRI) rtcText() string {
	if n.Bits == 0 {
		return "rtc wildcard"
	}
	s := fmt.Sprintf("rtc %d:%s", n.Tag, ExtCommunity(n.RD))
	if n.Bits < 96 {
		s += fmt.Sprintf("/%d", n.Bits)
	}
	return s
}

// routeTypeName is the middle part of the looking glass's EVPN texts.
var routeTypeName = map[Kind]string{KindAD: "ethad", KindMACIP: "macadv", KindIMET: "multicast", KindES: "ethseg", KindPrefix: "prefix"}

// Text returns the route as the looking glass of the original shows it; nh is
// the next hop.
func (r Route) Text(nh netip.Addr) string {
	n := r.NLRI
	switch n.Kind {
	case KindVPNv4, KindVPNv6:
		return fmt.Sprintf("%s label %d next-hop %s rd %s", n.Prefix(), r.MPLSLabel(), nh, n.RD)
	case KindMACIP:
		ip := ""
		if a := n.IP(); a.IsValid() {
			ip = a.String()
		}
		return fmt.Sprintf("evpn:macadv::%s:-:%d:%s/48:%s: label %d (%d)", n.RD, n.Tag,
			strings.ToUpper(n.MAC.String()), ip, r.Label>>4, r.Label)
	case KindIMET:
		return fmt.Sprintf("evpn:multicast::%s:%d:%s", n.RD, n.Tag, n.IP())
	case KindPrefix:
		return fmt.Sprintf("evpn:prefix::%s:-:%d:%s: label %d (%d)%s", n.RD, n.Tag&^prefixIPv6, n.Prefix(), r.Label>>4, r.Label, r.overlayText())
	case KindRTC:
		return n.rtcText()
	case KindFlowVPNv4, KindFlowVPNv6:
		return fmt.Sprintf("flow %s rd %s", FlowText(r.Raw, n.Kind == KindFlowVPNv6), n.RD)
	}
	return fmt.Sprintf("evpn:%s::%s:0x%x", routeTypeName[n.Kind], n.RD, n.Addr)
}
