// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
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
	// ASPath lists all ASes of AS_PATH, first the neighbour's, those of sets and
	// confederation segments included; from a session with two-octet ASes with
	// AS4_PATH merged (RFC 6793 §4.2.3).
	ASPath []uint32
	// LLGRStale and NoLLGR tell of these communities (RFC 9494 §4).
	LLGRStale, NoLLGR bool
	// EncapBits has encap.Type.Bit of each encapsulation named; 0 when none is.
	EncapBits uint64
	// MobilitySeq is the MAC mobility sequence number, 0 when absent (RFC 7432 §15).
	MobilitySeq uint32
	// Sticky is set for MACs that must not move (RFC 7432 §15.2).
	Sticky bool
	// RouterMAC is that of the Router's MAC community, the first usable one; zero
	// when there is none.
	RouterMAC ethernet.MAC
	// Discarded is the first fault because of which an attribute was left out of
	// Raw, for the log (RFC 7606 §6); nil when there was none.
	Discarded *Error
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

// HasAS counts how often an AS is in the AS path.
func (a *Attrs) HasAS(as uint32) int {
	n := 0
	for _, x := range a.ASPath {
		if x == as {
			n++
		}
	}
	return n
}

// Rules are facts of a session that decide how attributes are read.
type Rules struct {
	// FourOctetAS: AS numbers in AS_PATH and AGGREGATOR have four octets (RFC 6793).
	FourOctetAS bool
	// External: the peer is in another AS; attributes of iBGP are discarded.
	External bool
}

// DecodeAttrs decodes raw path attributes as Update.Attrs has them; raw is
// copied. The error is the most severe one found, of class TreatAsWithdraw or
// SessionReset. Attributes to be discarded, and optional non-transitive ones
// that are not known here (RFC 4271 §9), are left out of Raw.
func DecodeAttrs(raw []byte, nextHop netip.Addr, r Rules) (*Attrs, *Error) {
	a := &Attrs{NextHop: nextHop, LocalPref: DefaultLocalPref, Raw: make([]byte, 0, len(raw))}
	d := attrDecoder{Attrs: a, rules: r}
	var worst *Error
	for rest := raw; len(rest) > 0; {
		flags, typ, value, size, ok := splitAttr(rest)
		if !ok {
			worst = stronger(worst, attrCutOff(rest))
			break
		}
		keep, err := d.decode(flags, typ, value)
		switch {
		case err == nil:
		case err.Class == AttributeDiscard:
			a.Discarded = stronger(a.Discarded, err)
		default:
			if err.Class == SessionReset {
				err.Data = bytes.Clone(rest[:size])
			}
			worst = stronger(worst, err)
		}
		if keep {
			a.Raw = append(a.Raw, rest[:size]...)
		}
		rest = rest[size:]
	}
	if worst != nil {
		return nil, worst
	}
	d.finishPath()
	return a, nil
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
	case c[0] == 0x06 && c[1] == 0x03:
		if mac := RouterMACOf(c); a.RouterMAC.IsZero() && !mac.IsMulticast() {
			a.RouterMAC = mac
		}
	}
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
