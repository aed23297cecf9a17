// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net/netip"
)

// Well-known communities of long-lived graceful restart (RFC 9494 §4).
const (
	communityLLGRStale = 0xffff0006
	communityNoLLGR    = 0xffff0007
)

func (d *attrDecoder) origin(v []byte) *Error {
	if len(v) != 1 {
		return badValue(updAttrLength, "of %d octets: want 1", len(v))
	}
	if v[0] > 2 {
		return badValue(updInvalidOrigin, "%d: want 0 to 2", v[0])
	}
	return nil
}

func (d *attrDecoder) localPref(v []byte) *Error {
	if len(v) != 4 {
		return badValue(updAttrLength, "of %d octets: want 4", len(v))
	}
	d.LocalPref = binary.BigEndian.Uint32(v)
	return nil
}

func (d *attrDecoder) originatorID(v []byte) *Error {
	if len(v) != 4 {
		return badValue(updAttrLength, "of %d octets: want 4", len(v))
	}
	d.OriginatorID = netip.AddrFrom4([4]byte(v))
	return nil
}

// aggregator reads <AS, identifier> (RFC 4271 §4.3).
func (d *attrDecoder) aggregator(v []byte) *Error {
	size := d.rules.asSize()
	if len(v) != size+4 {
		return badValue(updAttrLength, "of %d octets: want %d", len(v), size+4)
	}
	if d.aggregatorAS = asNumber(v[:size]); d.aggregatorAS == 0 { // RFC 7607 §2
		return badValue(updOptionalAttr, "with AS 0: want any other")
	}
	return nil
}

func (d *attrDecoder) as4Aggregator(v []byte) *Error {
	if d.rules.FourOctetAS {
		return nil
	}
	if len(v) != 8 {
		return badValue(updAttrLength, "of %d octets: want 8", len(v))
	}
	if d.aggregatorAS4 = binary.BigEndian.Uint32(v); d.aggregatorAS4 == 0 {
		return badValue(updOptionalAttr, "with AS 0: want any other")
	}
	return nil
}

func (d *attrDecoder) communities(v []byte) *Error {
	if len(v) == 0 || len(v)%4 != 0 {
		return badValue(updAttrLength, "of %d octets: want a multiple of 4, not 0", len(v))
	}
	for ; len(v) > 0; v = v[4:] {
		switch binary.BigEndian.Uint32(v) {
		case communityLLGRStale:
			d.LLGRStale = true
		case communityNoLLGR:
			d.NoLLGR = true
		}
	}
	return nil
}

// extCommunities reads extended communities (RFC 4360). Any type is good.
func (d *attrDecoder) extCommunities(v []byte) *Error {
	if len(v) == 0 || len(v)%8 != 0 {
		return badValue(updAttrLength, "of %d octets: want a multiple of 8, not 0", len(v))
	}
	targets := 0
	for i := 0; i < len(v); i += 8 {
		if ExtCommunity(v[i : i+8]).IsRT() {
			targets++
		}
	}
	d.Communities = make([]ExtCommunity, 0, len(v)/8)
	if targets > 0 {
		d.RTs = make([]RT, 0, targets)
	}
	for ; len(v) > 0; v = v[8:] {
		d.addCommunity(ExtCommunity(v[:8]))
	}
	return nil
}

// pmsi reads flags, type, label and tunnel identifier (RFC 6514 §5).
func (d *attrDecoder) pmsi(v []byte) *Error {
	if len(v) < 5 {
		return badValue(updAttrLength, "of %d octets: want at least 5", len(v))
	}
	p := &PMSI{Flags: v[0], TunnelType: v[1], Label: uint24(v[2:])}
	if p.TunnelType == PMSIIngressReplication {
		end, ok := netip.AddrFromSlice(v[5:])
		if !ok {
			return badValue(updAttrLength, "with a tunnel end of %d octets: want 4 or 16", len(v)-5)
		}
		p.Endpoint = end.Unmap()
	}
	d.PMSI = p
	return nil
}
