// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// FuzzDecodeAttrs reads one attribute of any type, as we do and as GoBGP does:
// what one accepts and the other refuses must be explained, and where both
// accept it, they must see the same.
func FuzzDecodeAttrs(f *testing.F) {
	add := func(raw []byte, as4, external bool) {
		for len(raw) > 0 {
			flags, typ, value, size, ok := splitAttr(raw)
			if !ok {
				return
			}
			if typ != attrMPReach && typ != attrMPUnreach {
				f.Add(flags, typ, value, as4, external)
			}
			raw = raw[size:]
		}
	}
	for _, tt := range faultCases() {
		if attrs, _, err := updateFields(tt.body); err == nil {
			add(attrs, tt.rules.FourOctetAS, tt.rules.External)
		}
	}
	for _, a := range localAttrs(f) {
		add(a.Build().Raw, true, false)
	}
	for _, m := range exabgpMessages {
		attrs, _, _ := updateFields(unhex(f, m.hex)[HeaderLen:])
		add(attrs, true, false)
	}
	for _, m := range peerMessages(f) {
		if m.typ() == MsgUpdate {
			attrs, _, _ := updateFields(m.body())
			add(attrs, true, m.external())
		}
	}
	f.Fuzz(func(t *testing.T, flags, typ byte, value []byte, as4, external bool) {
		if typ == attrMPReach || typ == attrMPUnreach || len(value) > 65535 {
			return
		}
		rules := Rules{FourOctetAS: as4, External: external}
		raw := appendAttr(nil, flags&^flagExtLen, typ, value)
		a, err := DecodeAttrs(raw, netip.Addr{}, rules)
		attr, perr := gobgpAttr(raw, as4)
		refused := err != nil || a.Discarded != nil
		switch {
		case refused && perr == nil && !strictAttr(flags, typ, value, rules):
			t.Errorf("GoBGP takes what we refuse: %v %v", err, a)
		case !refused && perr != nil && !lenientAttr(flags, typ, value, rules):
			t.Errorf("GoBGP refuses what we take: %v", perr)
		}
		if err != nil {
			if err.Class != TreatAsWithdraw && (err.Class != SessionReset || err.Subcode != updUnknownAttr) {
				t.Errorf("error %v, want treat-as-withdraw", err)
			}
			return
		}
		fuzzAttrs(t, a, rules)
		if !refused && perr == nil {
			compareAttr(t, a, attr)
		}
	})
}

// gobgpAttr decodes one attribute with GoBGP.
func gobgpAttr(raw []byte, as4 bool) (bgp.PathAttributeInterface, error) {
	attr, err := bgp.GetPathAttribute(raw)
	if err != nil {
		return nil, err
	}
	return attr, attr.DecodeFromBytes(raw, &bgp.MarshallingOption{Use2ByteAS: !as4})
}

// strictAttr tells whether we have a reason to refuse what GoBGP takes.
func strictAttr(flags, typ byte, v []byte, r Rules) bool {
	spec := attrSpecs[typ]
	switch {
	case spec == nil: // unknown well-known attribute: GoBGP leaves it to the session
		return flags&flagOptional == 0
	case spec.internal && r.External, flags&transitive != spec.flags: // GoBGP does not know the session, nor all flags
		return true
	case len(v) == 0: // RFC 7606 §4: GoBGP takes empty lists
		return true
	}
	switch typ {
	case attrOrigin: // the value is judged by another function of GoBGP
		return v[0] > 2
	case attrASPath, attrAS4Path: // AS 0, empty segments and confederations too
		size := r.asSize()
		if typ == attrAS4Path {
			size = 4
		}
		err := checkPath(v, size, !r.External)
		return err != nil
	case attrAggregator: // either length, and AS 0
		return len(v) != r.asSize()+4 || asNumber(v[:r.asSize()]) == 0
	case attrAS4Aggregator:
		return asNumber(v[:4]) == 0
	case attrAIGP: // a metric of more octets
		return aigp(nil, v) != nil
	case attrPMSI: // GoBGP has no tunnel end then
		return v[1] == PMSIIngressReplication
	case attrTunnelEncap: // what is behind the last TLV of 5 octets or more
		return tunnelEncap(nil, v) != nil
	case attrSet: // not known to GoBGP
		return true
	case attrPrefixSID:
		return prefixSID(nil, v) != nil
	}
	return false
}

// lenientAttr tells whether we have a reason to take what GoBGP refuses.
func lenientAttr(flags, typ byte, v []byte, r Rules) bool {
	const partial, unused = 0x20, 0x0f
	if flags&unused != 0 { // RFC 4271 §4.3: ignored
		return true
	}
	if flags&partial != 0 && flags&transitive != transitive { // RFC 7606 §3 c has only the two other bits
		return true
	}
	if attrSpecs[typ] == nil { // of no use here: kept or dropped unread
		return true
	}
	switch typ {
	case attrTunnelEncap, attrPrefixSID, attrSet, attrAIGP, attrIPv6ExtComms, attrExtComms:
		// GoBGP looks into elements that we keep as they are.
		return true
	case attrAS4Path, attrAS4Aggregator: // dropped unread
		return r.FourOctetAS
	}
	return false
}

// compareAttr compares what both read.
func compareAttr(t *testing.T, a *Attrs, attr bgp.PathAttributeInterface) {
	t.Helper()
	want := &Attrs{LocalPref: DefaultLocalPref, Raw: a.Raw}
	switch v := attr.(type) {
	case *bgp.PathAttributeLocalPref:
		want.LocalPref = v.Value
	case *bgp.PathAttributeOriginatorId:
		want.OriginatorID = v.Value
	case *bgp.PathAttributeAsPath:
		for _, segment := range v.Value {
			want.ASPath = append(want.ASPath, segment.GetAS()...)
			want.ASPathLen += segment.ASLen()
		}
	case *bgp.PathAttributeCommunities:
		want.LLGRStale = slices.Contains(v.Value, uint32(bgp.COMMUNITY_LLGR_STALE))
		want.NoLLGR = slices.Contains(v.Value, uint32(bgp.COMMUNITY_NO_LLGR))
	case *bgp.PathAttributeExtendedCommunities:
		_, _, value, _, _ := splitAttr(a.Raw)
		if len(v.Value) != len(a.Communities) || len(value) != 8*len(a.Communities) {
			t.Errorf("%d communities, GoBGP has %d", len(a.Communities), len(v.Value))
		}
		for i, c := range v.Value {
			raw := ExtCommunity(value[8*i:])
			if b, err := c.Serialize(); err == nil && raw.IsRT() && !bytes.Equal(b, raw[:]) {
				t.Errorf("community %x, GoBGP has %x", raw, b)
			}
			want.addCommunity(raw)
			if m, ok := c.(*bgp.RouterMacExtended); ok && want.RouterMAC.IsZero() && m.Mac[0]&1 == 0 && !allZero(m.Mac) {
				t.Errorf("no router's MAC, GoBGP has %s", m.Mac)
			}
		}
	case *bgp.PathAttributePmsiTunnel:
		want.PMSI = &PMSI{Flags: a.PMSI.Flags, TunnelType: uint8(v.TunnelType), Label: v.Label}
		if (a.PMSI.Flags&1 != 0) != v.IsLeafInfoRequired {
			t.Errorf("PMSI flags %d, GoBGP has leaf information %v", a.PMSI.Flags, v.IsLeafInfoRequired)
		}
		if id, ok := v.TunnelID.(*bgp.IngressReplTunnelID); ok {
			want.PMSI.Endpoint = id.Value.Unmap()
		}
	}
	if diff := cmp.Diff(want, a, byValue, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("attribute (-gobgp +ours):\n%s", diff)
	}
}
