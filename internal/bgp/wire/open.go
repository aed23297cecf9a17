// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// asTrans stands in the two-octet AS field for a larger AS number (RFC 6793 §9).
const asTrans = 23456

// Open is the content of an OPEN message that sessions act on.
type Open struct {
	// AS is the four-octet AS number if the capability is there, else the two-octet one.
	AS       uint32
	HoldTime uint16 // seconds
	RouterID netip.Addr
	Families []Family
	// FourOctetAS, RouteRefresh and ExtendedMessage tell which capabilities are there.
	FourOctetAS, RouteRefresh, ExtendedMessage bool
}

// Message returns the whole OPEN message.
func (o Open) Message() ([]byte, error) {
	var caps []bgp.ParameterCapabilityInterface
	for _, f := range o.Families {
		caps = append(caps, bgp.NewCapMultiProtocol(bgp.NewFamily(f.AFI, f.SAFI)))
	}
	if o.RouteRefresh {
		caps = append(caps, bgp.NewCapRouteRefresh())
	}
	if o.ExtendedMessage {
		caps = append(caps, bgp.NewCapExtendedMessage())
	}
	as := uint16(asTrans)
	if o.AS <= 65535 {
		as = uint16(o.AS)
	}
	if o.FourOctetAS {
		caps = append(caps, bgp.NewCapFourOctetASNumber(o.AS))
	}
	m, err := bgp.NewBGPOpenMessage(as, o.HoldTime, o.RouterID,
		[]bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		return nil, err
	}
	return m.Serialize()
}

// ParseOpen reads the body of an OPEN message. Values that RFC 4271 §6.2
// forbids are errors; whether the AS is the expected one is for the caller.
// Unknown capabilities are ignored (RFC 5492 §3).
func ParseOpen(body []byte) (Open, *Error) {
	var m bgp.BGPOpen
	if len(body) < 10 {
		return Open{}, newError(SessionReset, CodeHeader, 2, nil, "OPEN body of %d octets", len(body))
	}
	if body[0] != 4 {
		return Open{}, newError(SessionReset, CodeOpen, OpenBadVersion, []byte{0, 4}, "BGP version %d: want 4", body[0])
	}
	if err := m.DecodeFromBytes(body); err != nil {
		return Open{}, newError(SessionReset, CodeOpen, 0, nil, "%v", err)
	}
	o := Open{AS: uint32(m.MyAS), HoldTime: m.HoldTime, RouterID: m.ID}
	for _, p := range m.OptParams {
		param, ok := p.(*bgp.OptionParameterCapability)
		if !ok {
			return Open{}, newError(SessionReset, CodeOpen, OpenUnsupportedParam, nil, "optional parameter that is not a capability")
		}
		for _, c := range param.Capability {
			o.addCapability(c)
		}
	}
	switch {
	case o.HoldTime == 1 || o.HoldTime == 2:
		return o, newError(SessionReset, CodeOpen, OpenBadHoldTime, binary.BigEndian.AppendUint16(nil, o.HoldTime), "hold time %d s: want 0 or at least 3", o.HoldTime)
	case !o.RouterID.IsValid() || o.RouterID.IsUnspecified():
		return o, newError(SessionReset, CodeOpen, OpenBadIdentifier, nil, "BGP identifier 0.0.0.0")
	case o.AS == 0:
		return o, newError(SessionReset, CodeOpen, OpenBadPeerAS, nil, "AS number 0")
	}
	return o, nil
}

func (o *Open) addCapability(c bgp.ParameterCapabilityInterface) {
	switch v := c.(type) {
	case *bgp.CapMultiProtocol:
		if f := (Family{v.CapValue.Afi(), v.CapValue.Safi()}); !slices.Contains(o.Families, f) {
			o.Families = append(o.Families, f)
		}
	case *bgp.CapFourOctetASNumber:
		o.FourOctetAS, o.AS = true, v.CapValue
	case *bgp.CapRouteRefresh:
		o.RouteRefresh = true
	case *bgp.CapExtendedMessage:
		o.ExtendedMessage = true
	}
}
