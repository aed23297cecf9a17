// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// DefaultLocalPref is the LOCAL_PREF of routes that carry none.
const DefaultLocalPref = 100

// PMSI tunnel type of ingress replication (RFC 6514 §5).
const PMSIIngressReplication = 6

// Attrs is a decoded set of path attributes. It is immutable once it is shared.
type Attrs struct {
	// Raw holds the attributes as on the wire, without MP_REACH_NLRI.
	Raw []byte
	// NextHop is that of MP_REACH_NLRI; invalid for FlowSpec.
	NextHop      netip.Addr
	LocalPref    uint32
	RTs          []RT
	Communities  []ExtCommunity // extended communities, route targets included
	PMSI         *PMSI
	OriginatorID netip.Addr
	// ASPathLen is the number of ASes of AS_PATH (RFC 4271 §9.1.2.2 a).
	ASPathLen int
	// EncapBits has encap.Type.Bit of each encapsulation named; 0 when none is.
	EncapBits uint64
	// MobilitySeq is the MAC mobility sequence number, 0 when absent (RFC 7432 §15).
	MobilitySeq uint32
	// Sticky is set for MACs that must not move (RFC 7432 §15.2).
	Sticky bool
}

// PMSI is a P-Multicast Service Interface tunnel attribute (RFC 6514 §5).
type PMSI struct {
	Flags, TunnelType uint8
	// Label is the 24-bit field: a VNI for VXLAN (RFC 8365 §5.1.3).
	Label uint32
	// Endpoint is the tunnel end for ingress replication; else invalid.
	Endpoint netip.Addr
}

// HashOrder returns the consistent-hash sort order, 0 when absent.
func (a *Attrs) HashOrder() uint32 {
	for _, c := range a.Communities {
		if c[0] == 0x03 && c[1] == 0x14 {
			return binary.BigEndian.Uint32(c[2:])
		}
	}
	return 0
}

// DecodeAttrs decodes raw path attributes as Update.Attrs has them; raw is
// copied. As4 tells whether AS numbers have four octets (RFC 6793). The error
// is the most severe one found, of class TreatAsWithdraw or SessionReset;
// attributes to be discarded are left out of Raw.
func DecodeAttrs(raw []byte, nextHop netip.Addr, as4 bool) (*Attrs, *Error) {
	a := &Attrs{NextHop: nextHop, LocalPref: DefaultLocalPref, Raw: make([]byte, 0, len(raw))}
	opt := &bgp.MarshallingOption{Use2ByteAS: !as4}
	for rest := raw; len(rest) > 0; {
		_, typ, value, size, ok := splitAttr(rest)
		if !ok {
			return nil, newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "path attribute cut off")
		}
		err := a.decode(typ, value, rest[:size], opt)
		if err == nil {
			a.Raw = append(a.Raw, rest[:size]...)
		} else if err.Class != AttributeDiscard {
			return nil, err
		}
		rest = rest[size:]
	}
	return a, nil
}

// decode reads one attribute; value is without header, whole with it.
func (a *Attrs) decode(typ byte, value, whole []byte, opt *bgp.MarshallingOption) *Error {
	const both = flagOptional | flagTransitive
	switch typ {
	case attrExtComms, attrPMSI:
		if whole[0]&both != both { // RFC 7606 §3 c
			return newError(TreatAsWithdraw, CodeUpdate, updAttrFlags, nil, "attribute %d with flags %#02x", typ, whole[0])
		}
		if typ == attrPMSI {
			return a.decodePMSI(value)
		}
		return a.decodeCommunities(value)
	case attrNextHop: // of IPv4 unicast; meaningless beside MP_REACH_NLRI (RFC 4760 §3)
		return nil
	}
	attr, err := bgp.GetPathAttribute(whole)
	if err == nil {
		err = attr.DecodeFromBytes(whole, opt)
	}
	if err != nil {
		return attrError(typ, err)
	}
	switch v := attr.(type) {
	case *bgp.PathAttributeOrigin:
		if v.Value > 2 { // RFC 7606 §7.1
			return newError(TreatAsWithdraw, CodeUpdate, updInvalidOrigin, nil, "ORIGIN %d: want 0 to 2", v.Value)
		}
	case *bgp.PathAttributeLocalPref:
		a.LocalPref = v.Value
	case *bgp.PathAttributeOriginatorId:
		a.OriginatorID = v.Value
	case *bgp.PathAttributeAsPath:
		for _, seg := range v.Value {
			a.ASPathLen += seg.ASLen()
		}
	}
	return nil
}

// attrError gives an error of the codec the class of RFC 7606 §7, RFC 7311
// (AIGP) and RFC 8669 (Prefix-SID): malformed attributes that do not select
// routes here are discarded, all others mean withdraw.
func attrError(typ byte, err error) *Error {
	class, sub := TreatAsWithdraw, uint8(updMalformedList)
	switch bgp.BGPAttrType(typ) {
	case bgp.BGP_ATTR_TYPE_ATOMIC_AGGREGATE, bgp.BGP_ATTR_TYPE_AGGREGATOR, bgp.BGP_ATTR_TYPE_AS4_AGGREGATOR, bgp.BGP_ATTR_TYPE_AS4_PATH,
		bgp.BGP_ATTR_TYPE_AIGP, bgp.BGP_ATTR_TYPE_PREFIX_SID:
		class = AttributeDiscard
	}
	var me *bgp.MessageError
	if errors.As(err, &me) {
		sub = me.SubTypeCode
	}
	return newError(class, CodeUpdate, sub, nil, "attribute %d: %v", typ, err)
}

// decodeCommunities reads extended communities (RFC 4360; errors RFC 7606 §7.14).
func (a *Attrs) decodeCommunities(v []byte) *Error {
	if len(v) == 0 || len(v)%8 != 0 {
		return newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "extended communities of %d octets", len(v))
	}
	a.Communities = make([]ExtCommunity, 0, len(v)/8)
	for ; len(v) > 0; v = v[8:] {
		a.addCommunity(ExtCommunity(v[:8]))
	}
	return nil
}

func (a *Attrs) addCommunity(c ExtCommunity) {
	a.Communities = append(a.Communities, c)
	switch {
	case c.IsRT():
		a.RTs = append(a.RTs, RT(c))
	case c[0] == 0x03 && c[1] == 0x0c:
		a.EncapBits |= EncapOf(c).Bit()
	case c[0] == 0x06 && c[1] == 0x00:
		a.MobilitySeq = binary.BigEndian.Uint32(c[4:])
		a.Sticky = c[2]&1 != 0
	}
}

// decodePMSI reads flags, type, label and tunnel identifier (RFC 6514 §5).
func (a *Attrs) decodePMSI(v []byte) *Error {
	if len(v) < 5 {
		return newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "PMSI tunnel of %d octets", len(v))
	}
	p := &PMSI{Flags: v[0], TunnelType: v[1], Label: uint24(v[2:])}
	if p.TunnelType == PMSIIngressReplication {
		end, ok := netip.AddrFromSlice(v[5:])
		if !ok {
			return newError(TreatAsWithdraw, CodeUpdate, updAttrLength, nil, "PMSI tunnel end of %d octets: want 4 or 16", len(v)-5)
		}
		p.Endpoint = end.Unmap()
	}
	a.PMSI = p
	return nil
}

// LocalAttrs describes attributes of a route that we originate.
type LocalAttrs struct {
	NextHop     netip.Addr
	LocalPref   uint32 // 0 means DefaultLocalPref
	Communities []ExtCommunity
	RTs         []RT
	PMSI        *PMSI
}

// Build encodes the attributes, in the order ORIGIN, AS_PATH (empty), LOCAL_PREF,
// extended communities (RTs last), PMSI tunnel.
func (l LocalAttrs) Build() *Attrs {
	pref := l.LocalPref
	if pref == 0 {
		pref = DefaultLocalPref
	}
	a := &Attrs{NextHop: l.NextHop, LocalPref: pref, PMSI: l.PMSI}
	for _, c := range l.Communities {
		a.addCommunity(c)
	}
	for _, rt := range l.RTs {
		a.addCommunity(ExtCommunity(rt))
	}
	b := []byte{flagTransitive, attrOrigin, 1, 0, flagTransitive, attrASPath, 0, flagTransitive, attrLocalPref, 4}
	b = binary.BigEndian.AppendUint32(b, pref)
	if len(a.Communities) > 0 {
		value := make([]byte, 0, 8*len(a.Communities))
		for _, c := range a.Communities {
			value = append(value, c[:]...)
		}
		b = appendAttr(b, flagOptional|flagTransitive, attrExtComms, value)
	}
	if p := l.PMSI; p != nil {
		value := appendUint24([]byte{p.Flags, p.TunnelType}, p.Label)
		b = appendAttr(b, flagOptional|flagTransitive, attrPMSI, append(value, p.Endpoint.AsSlice()...))
	}
	a.Raw = b
	return a
}

func appendAttr(b []byte, flags, typ byte, value []byte) []byte {
	if len(value) > 255 {
		b = append(b, flags|flagExtLen, typ)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	} else {
		b = append(b, flags, typ, byte(len(value)))
	}
	return append(b, value...)
}

// Others returns name and text of the attributes that the looking glass shows
// beside those of Attrs: MED, communities, cluster list.
func (a *Attrs) Others() [][2]string {
	var out [][2]string
	names := map[byte]string{attrMED: "med", attrCommunities: "community", attrClusterList: "cluster-list"}
	for rest := a.Raw; len(rest) > 0; {
		_, typ, value, size, ok := splitAttr(rest)
		if !ok {
			break
		}
		if name := names[typ]; name != "" {
			out = append(out, [2]string{name, attrText(typ, value)})
		}
		rest = rest[size:]
	}
	return out
}
