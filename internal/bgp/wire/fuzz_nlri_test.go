// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// FuzzNLRI compares our reader with GoBGP's: when both accept the octets of
// one route, they must see the same route.
func FuzzNLRI(f *testing.F) {
	for _, r := range gobgpRoutes(f) {
		b := must(r.in.Serialize())(f)
		for i, fam := range Families {
			if fam == r.want.NLRI.Kind.Family() {
				f.Add(byte(i), false, b)
				f.Add(byte(i), true, AppendNLRI(nil, r.want, true))
			}
		}
	}
	for _, body := range peerBodies(f, MsgUpdate) {
		if u, err := ParseUpdate(body, nil); err == nil {
			f.Add(byte(slices.Index(Families, u.Reach.Family)), false, u.Reach.NLRI)
			f.Add(byte(slices.Index(Families, u.Unreach.Family)), true, u.Unreach.NLRI)
		}
	}
	f.Fuzz(func(t *testing.T, index byte, withdraw bool, b []byte) {
		fam := Families[int(index)%len(Families)]
		r := NewNLRIReader(fam, b, withdraw)
		var got Route
		ok, err := r.Next(&got)
		peer, perr := bgp.NLRIFromSlice(gobgpFamily(fam), b)
		if perr != nil || err != nil || !ok || r.Skipped() > 0 {
			return
		}
		used := b[:len(b)-len(r.rest)]
		if peer.Len() != len(used) && !flowWithLongLength(got, used) {
			if !regularStack(got, withdraw) {
				return
			}
			t.Errorf("%d octets read, GoBGP read %d", len(used), peer.Len())
		}
		switch v := peer.(type) {
		case *bgp.LabeledVPNIPAddrPrefix:
			if regularStack(got, withdraw) {
				compareVPN(t, got, v)
			}
		case *bgp.EVPNNLRI:
			compareEVPN(t, got, v.RouteTypeData)
		case *bgp.RouteTargetMembershipNLRI:
			compareRTC(t, got.NLRI, v)
		case *bgp.FlowSpecNLRI:
			sameRD(t, got.NLRI.RD, v.RD())
			if !bytes.HasSuffix(used, got.Raw) {
				t.Errorf("components %x are not the end of %x", got.Raw, used)
			}
		}
	})
}

// regularStack tells whether the first label ends the stack for everybody.
// GoBGP takes 0 and 0x800000 as the end also in announcements.
func regularStack(r Route, withdraw bool) bool {
	return !r.MultiLabel && (r.Label&1 == 1 || withdraw)
}

// flowWithLongLength tells whether a length below 240 takes two octets: GoBGP
// forgets how long the length was.
func flowWithLongLength(r Route, used []byte) bool {
	return r.NLRI.Kind.Family().SAFI == 134 && used[0] >= 0xf0
}

func same(t *testing.T, what string, ours, gobgp []byte) {
	t.Helper()
	if !bytes.Equal(ours, gobgp) {
		t.Errorf("%s %x, GoBGP has %x", what, ours, gobgp)
	}
}

// sameRD compares route distinguishers of the three common types: GoBGP does
// not keep the octets of others.
func sameRD(t *testing.T, ours RD, gobgp bgp.RouteDistinguisherInterface) {
	t.Helper()
	if ours[0] == 0 && ours[1] <= 2 {
		same(t, "RD", ours[:], must(gobgp.Serialize())(t))
	}
}

func compareVPN(t *testing.T, r Route, v *bgp.LabeledVPNIPAddrPrefix) {
	t.Helper()
	sameRD(t, r.NLRI.RD, v.RD)
	if want := v.Prefix.Masked(); r.NLRI.Prefix() != want {
		t.Errorf("prefix %v, GoBGP has %v", r.NLRI.Prefix(), want)
	}
	label := r.MPLSLabel()
	if r.Label == withdrawnLabel || r.Label == 0 {
		label = r.Label
	}
	if len(v.Labels.Labels) != 1 || v.Labels.Labels[0] != label {
		t.Errorf("label %d, GoBGP has %v", label, v.Labels.Labels)
	}
}

func compareEVPN(t *testing.T, r Route, data bgp.EVPNRouteTypeInterface) {
	t.Helper()
	n := r.NLRI
	rd := func(v bgp.RouteDistinguisherInterface) { sameRD(t, n.RD, v) }
	tagged := func(tag uint32) {
		if n.Tag != tag {
			t.Errorf("tag %d, GoBGP has %d", n.Tag, tag)
		}
	}
	address := func(a netip.Addr) {
		if n.IP() != a {
			t.Errorf("address %v, GoBGP has %v", n.IP(), a)
		}
	}
	labelled := func(label uint32) {
		if r.Label != label {
			t.Errorf("label %d, GoBGP has %d", r.Label, label)
		}
	}
	switch v := data.(type) {
	case *bgp.EVPNEthernetAutoDiscoveryRoute:
		rd(v.RD)
		tagged(v.ETag)
		labelled(v.Label)
		same(t, "ESI", n.Addr[:10], must(v.ESI.Serialize())(t))
	case *bgp.EVPNMacIPAdvertisementRoute:
		rd(v.RD)
		tagged(v.ETag)
		same(t, "MAC", n.MAC[:], v.MacAddress)
		address(v.IPAddress)
		labelled(v.Labels[0])
	case *bgp.EVPNMulticastEthernetTagRoute:
		rd(v.RD)
		tagged(v.ETag)
		address(v.IPAddress)
	case *bgp.EVPNEthernetSegmentRoute:
		rd(v.RD)
		want := append(must(v.ESI.Serialize())(t), v.IPAddressLength)
		same(t, "segment", r.Raw, append(want, v.IPAddress.AsSlice()...))
	case *bgp.EVPNIPPrefixRoute:
		rd(v.RD)
		tag := v.ETag &^ prefixIPv6
		if v.IPPrefix.Is6() {
			tag |= prefixIPv6
		}
		tagged(tag)
		labelled(v.Label)
		if want := netip.PrefixFrom(v.IPPrefix, int(v.IPPrefixLength)).Masked(); n.Prefix() != want {
			t.Errorf("prefix %v, GoBGP has %v", n.Prefix(), want)
		}
		if want := !v.GWIPAddress.IsUnspecified() || !allZero(must(v.ESI.Serialize())(t)); r.Recursive() != want {
			t.Errorf("ESI or gateway: %v, GoBGP has %v and %v", r.Recursive(), v.ESI, v.GWIPAddress)
		}
	}
}

func compareRTC(t *testing.T, n NLRI, v *bgp.RouteTargetMembershipNLRI) {
	t.Helper()
	if n.Bits != v.Length || v.Length > 0 && n.Tag != v.AS {
		t.Errorf("length %d AS %d, GoBGP has %d and %d", n.Bits, n.Tag, v.Length, v.AS)
	}
	// GoBGP does not keep the octets of other communities in this place.
	if v.RouteTarget != nil && ExtCommunity(n.RD).IsRT() {
		same(t, "route target", n.RD[:], must(v.RouteTarget.Serialize())(t))
	}
}
