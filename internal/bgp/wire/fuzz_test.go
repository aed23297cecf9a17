// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func FuzzHeader(f *testing.F) {
	for typ := byte(0); typ < 7; typ++ {
		f.Add(header(19, typ), false)
		f.Add(header(29, typ), true)
		f.Add(header(65535, typ), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, extended bool) {
		if len(b) < HeaderLen {
			return
		}
		maxLen := MaxMessage
		if extended {
			maxLen = MaxExtMessage
		}
		typ, length, err := ParseHeader(b, maxLen)
		if err != nil {
			if err.Class != SessionReset || err.Code != CodeHeader {
				t.Errorf("error %v, want a header error", err)
			}
			return
		}
		if length < HeaderLen || length > maxLen {
			t.Errorf("length %d outside of %d to %d", length, HeaderLen, maxLen)
		}
		if again := AppendHeader(nil, typ, length-HeaderLen); !bytes.Equal(again, b[:HeaderLen]) {
			t.Errorf("header written again: %x, want %x", again, b[:HeaderLen])
		}
	})
}

// FuzzStream cuts a byte stream into messages as a session does, and reads each.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, m := range peerMessages(f) {
		all = append(all, m.msg...)
	}
	f.Add(all, true)
	all = nil
	for _, m := range originalMessages {
		all = append(all, unhex(f, m.hex)...)
		f.Add(unhex(f, m.hex), false)
	}
	f.Add(append(unhex(f, originalOpen), Keepalive()...), true)
	f.Add(append(all, RouteRefresh(EVPN, RefreshEnd)...), true)
	f.Add(append(HardReset(Shutdown(CeaseAdminReset, "bye")).Message(), 0xff), false)
	f.Add(must(fullOpen().Message())(f), false)
	f.Fuzz(func(t *testing.T, b []byte, extended bool) {
		maxLen := MaxMessage
		if extended {
			maxLen = MaxExtMessage
		}
		for len(b) >= HeaderLen {
			typ, length, err := ParseHeader(b, maxLen)
			if err != nil || length > len(b) {
				return
			}
			var peer bgp.BGPHeader
			if perr := peer.DecodeFromBytes(b); perr != nil || int(peer.Len) != length || peer.Type != uint8(typ) {
				t.Fatalf("%v of length %d: GoBGP reads %+v, %v", typ, length, peer, perr)
			}
			body := b[HeaderLen:length]
			switch typ {
			case MsgOpen:
				_, _ = ParseOpen(body)
			case MsgNotification:
				_, _ = ParseNotification(body)
			case MsgRouteRefresh:
				_, _, _ = ParseRouteRefresh(body)
			case MsgUpdate:
				_ = outcome(body, Rules{FourOctetAS: extended})
			}
			b = b[length:]
		}
	})
}

// FuzzOpen compares with GoBGP, and writes again what was read.
func FuzzOpen(f *testing.F) {
	for _, b := range peerBodies(f, MsgOpen) {
		f.Add(b)
	}
	f.Add(unhex(f, originalOpen)[HeaderLen:])
	f.Add(gobgpOpen(f, 23456, allCapabilities()...))
	f.Add(must(fullOpen().Message())(f)[HeaderLen:])
	f.Add(openBody(4, 64512, 90, "192.0.2.1", 2, 4, 250, 2, 0xca, 0xfe))
	f.Add(openBody(4, 64512, 90, "192.0.2.1", 2, 0, 2, 6, 1, 4, 0, 25, 0, 70))
	f.Add(extendedBody(255, 2, 0, 6, 1, 4, 0, 25, 0, 70))
	for _, h := range originalsElsewhere {
		if msg := unhex(f, h); MsgType(msg[18]) == MsgOpen {
			f.Add(msg[HeaderLen:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOpen(b)
		if err != nil && (err.Class != SessionReset || err.Code != CodeOpen && err.Code != CodeHeader) {
			t.Errorf("error %v, want an OPEN error", err)
		}
		compareOpen(t, b, o, err)
		if err != nil {
			return
		}
		msg, merr := o.Message()
		if merr != nil { // next hops and all families of a message need not fit one
			return
		}
		again, err := ParseOpen(msg[HeaderLen:])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, again, byValue); diff != "" {
			t.Errorf("OPEN written and read again:\n%s", diff)
		}
	})
}

// compareOpen has GoBGP read an OPEN that we took or refused.
func compareOpen(t *testing.T, b []byte, o Open, err *Error) {
	t.Helper()
	var peer bgp.BGPOpen
	perr := peer.DecodeFromBytes(b)
	switch {
	case len(b) > 10 && b[9] > 0 && b[10] == paramExtended: // RFC 9072, which GoBGP does not have
	case err == nil && perr != nil && !lenientOpen(b):
		t.Errorf("GoBGP refuses: %v", perr)
	case err != nil && perr == nil && !strictOpen(err, b, peer):
		t.Errorf("GoBGP takes what we refuse: %v", err)
	case err == nil && perr == nil:
		sameOpen(t, o, peer)
	}
}

// lenientOpen tells whether b has a capability that GoBGP refuses when it is
// malformed, and we disregard, or a parameter of 254 octets or more, which GoBGP
// does not read.
func lenientOpen(b []byte) bool {
	for params := b[10:]; len(params) > 2; {
		value := params[2 : 2+int(params[1])]
		if len(value) >= 254 {
			return true
		}
		for ; len(value) > 1; value = value[2+int(value[1]):] {
			switch value[0] {
			case capMultiprotocol, capFourOctetAS:
			default:
				var o Open
				if _, err := bgp.DecodeCapability(value); err != nil && o.addCapability(value[0], value[2:2+int(value[1])]) == nil {
					return true
				}
			}
		}
		params = params[2+int(params[1]):]
	}
	return false
}

// strictOpen tells whether the refusal is of a value that GoBGP judges elsewhere
// (version, hold time, identifier, AS, kind of parameter) or not at all: octets
// behind the parameters, a single one behind the capabilities, and lengths of
// capabilities that are fixed.
func strictOpen(err *Error, b []byte, peer bgp.BGPOpen) bool {
	return err.Subcode != 0 || int(peer.OptParamLen) != len(b)-10 || strings.Contains(err.Text, ": want 4") ||
		strings.Contains(err.Text, ": 1 octets left")
}

// sameOpen compares what both read.
func sameOpen(t *testing.T, o Open, peer bgp.BGPOpen) {
	t.Helper()
	want := Open{AS: uint32(peer.MyAS), HoldTime: peer.HoldTime, RouterID: peer.ID}
	for _, p := range peer.OptParams {
		for _, c := range p.(*bgp.OptionParameterCapability).Capability {
			size := capabilitySize(c)
			raw := must(c.Serialize())(t)
			if size > 0 && len(raw) != size { // malformed, and GoBGP takes the part that fits
				continue
			}
			if err := want.addCapability(raw[0], raw[2:]); err != nil {
				t.Fatal(err)
			}
			switch v := c.(type) {
			case *bgp.CapMultiProtocol:
				if f := (Family{v.CapValue.Afi(), v.CapValue.Safi()}); !slices.Contains(o.Families, f) {
					t.Errorf("family %v is missing", f)
				}
			case *bgp.CapGracefulRestart:
				if want.GracefulRestart.Time != v.Time || len(want.GracefulRestart.Families) != len(v.Tuples) {
					t.Errorf("graceful restart %+v, GoBGP has %+v", want.GracefulRestart, v)
				}
			}
		}
	}
	if want.GracefulRestart == nil {
		want.LongLived = nil
	}
	// GoBGP cuts reserved bits and octets, which have no meaning here either.
	if diff := cmp.Diff(want, o, byValue); diff != "" {
		t.Errorf("OPEN (-gobgp +ours):\n%s", diff)
	}
}

// capabilitySize returns the octets that a capability was read from, where GoBGP
// takes malformed ones; else 0.
func capabilitySize(c bgp.ParameterCapabilityInterface) int {
	switch c := c.(type) {
	case *bgp.CapGracefulRestart:
		return 2 + int(c.CapLen)
	case *bgp.CapFQDN:
		return 2 + int(c.CapLen)
	}
	return 0
}

func FuzzRouteRefresh(f *testing.F) {
	f.Add([]byte{0, 25, 0, 70})
	f.Add([]byte{0, 1, 1, 128})
	f.Add([]byte{0, 1, 2, 128, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		fam, subtype, err := ParseRouteRefresh(b)
		var peer bgp.BGPRouteRefresh
		if perr := peer.DecodeFromBytes(b); err == nil && (perr != nil || peer.AFI != fam.AFI || peer.SAFI != fam.SAFI || peer.Demarcation != subtype) {
			t.Errorf("%v subtype %d, GoBGP reads %+v, %v", fam, subtype, peer, perr)
		} else if err != nil && perr == nil && len(b) == 4 { // GoBGP ignores what is behind
			t.Errorf("GoBGP takes what we refuse: %v", err)
		}
		if err != nil {
			if err.Notification().Code != CodeRefresh || len(err.Data) != HeaderLen+len(b) {
				t.Errorf("error %v, data %x", err, err.Data)
			}
			return
		}
		if again := RouteRefresh(fam, subtype)[HeaderLen:]; !bytes.Equal(again, b) {
			t.Errorf("written again: %x, want %x", again, b)
		}
	})
}

func FuzzNotification(f *testing.F) {
	for _, b := range peerBodies(f, MsgNotification) {
		f.Add(b)
	}
	f.Add(Shutdown(CeaseAdminShutdown, "maintenance").Message()[HeaderLen:])
	f.Add(HardReset(Shutdown(CeaseAdminReset, "maintenance")).Message()[HeaderLen:])
	f.Add(HardReset(HardReset(MaxPrefixes(EVPN, 9))).Message()[HeaderLen:])
	f.Add([]byte{6, 2, 3, 'a', 'b'})
	f.Add([]byte{6, 4, 2, 0xc3, 0x28})
	f.Add([]byte{6, 9, 6})
	f.Add([]byte{1, 2, 0, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNotification(b)
		var peer bgp.BGPNotification
		if perr := peer.DecodeFromBytes(b); (err == nil) != (perr == nil) {
			t.Fatalf("error %v, GoBGP has %v", err, perr)
		}
		if err != nil {
			return
		}
		if n.Code != peer.ErrorCode || n.Subcode != peer.ErrorSubcode || !bytes.Equal(n.Data, peer.Data) {
			t.Errorf("%v, GoBGP has %+v", n, peer)
		}
		_ = n.String()
		inner, hard := n.Hard()
		if hard && len(n.Data) >= 2 && !bytes.Equal(HardReset(inner).Data, n.Data) {
			t.Errorf("hard reset of %v written again differs from %x", inner, n.Data)
		}
		if text := n.Communication(); text != "" && !hard {
			if again := Shutdown(n.Subcode, text); again.Communication() != text {
				t.Errorf("communication %q written and read again: %q", text, again.Communication())
			}
		}
		msg := n.Message()
		if _, length, err := ParseHeader(msg, MaxMessage); err != nil || length != len(msg) {
			t.Errorf("header of length %d for %d octets: %v", length, len(msg), err)
		}
	})
}

// seedUpdates adds messages of the original, of GoBGP, and malformed ones.
func seedUpdates(f *testing.F) {
	for _, m := range originalMessages {
		f.Add(unhex(f, m.hex)[HeaderLen:], true, false)
		f.Add(unhex(f, m.hex)[HeaderLen:], false, false)
	}
	for _, h := range originalsElsewhere {
		if msg := unhex(f, h); MsgType(msg[18]) == MsgUpdate {
			f.Add(msg[HeaderLen:], false, true)
		}
	}
	for _, tt := range faultCases() {
		f.Add(tt.body, tt.rules.FourOctetAS, tt.rules.External)
	}
	nh := netip.MustParseAddr("192.0.2.1")
	attrs := slices.Collect(maps.Values(localAttrs(f)))
	for i, r := range gobgpRoutes(f) {
		fam := r.want.NLRI.Kind.Family()
		nlri := must(r.in.Serialize())(f)
		reach := attr(flagOptional, attrMPReach, mpReach(fam, appendNextHop(nil, fam, nh)[1:], nlri)...)
		f.Add(updateBody(reach, attrs[i%len(attrs)].Build().Raw), true, false)
	}
	f.Add(EndOfRIBMessage(EVPN)[HeaderLen:], true, false)
}

func FuzzUpdate(f *testing.F) {
	seedUpdates(f)
	for _, m := range peerMessages(f) {
		if m.typ() == MsgUpdate {
			f.Add(m.body(), true, m.external())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, as4, external bool) {
		rules := Rules{FourOctetAS: as4, External: external}
		before := bytes.Clone(b)
		u, err := ParseUpdate(b, nil)
		if err != nil {
			if err.Class != SessionReset && err.Class != DisableFamily {
				t.Errorf("error %v, want a session reset or AFI/SAFI disable", err)
			}
			if err.Class == SessionReset {
				return
			}
		}
		reach := fuzzNLRIs(t, u.Reach, false)
		fuzzNLRIs(t, u.Unreach, true)
		a, err := DecodeAttrs(u.Attrs, u.NextHop, rules)
		if err != nil {
			if err.Class != TreatAsWithdraw && err.Subcode != updUnknownAttr {
				t.Errorf("error %v, want treat-as-withdraw", err)
			}
		} else {
			fuzzAttrs(t, a, rules)
			fuzzRepack(t, u, a, reach)
		}
		if !bytes.Equal(before, b) {
			t.Error("the message was changed")
		}
	})
}

// fuzzNLRIs reads the NLRIs, writes them and reads them again.
func fuzzNLRIs(t *testing.T, part MPNLRI, withdraw bool) []Route {
	routes, _, err := readAll(part.Family, part.NLRI, withdraw)
	if err != nil && err.Class != DisableFamily {
		t.Errorf("error %v: the rest cannot be framed", err)
	}
	var again []byte
	for _, r := range routes {
		_, _ = r.NLRI.String(), r.Text(netip.Addr{})
		if r.MultiLabel && !withdraw {
			r.Label |= 1
		}
		again = AppendNLRI(again, r, withdraw)
	}
	got, skipped, err := readAll(part.Family, again, withdraw)
	if err != nil || skipped != 0 {
		t.Fatalf("routes written cannot be read: %d skipped, %v", skipped, err)
	}
	ignored := cmpopts.IgnoreFields(Route{}, "MultiLabel")
	if withdraw {
		ignored = cmpopts.IgnoreFields(Route{}, "MultiLabel", "Label")
	}
	want := routes
	if diff := cmp.Diff(want, got, ignored, cmpopts.EquateEmpty(), cmp.FilterPath(isLabelOf(want), cmp.Ignore())); diff != "" {
		t.Errorf("routes written and read again:\n%s", diff)
	}
	return routes
}

// isLabelOf leaves out the labels of routes with a label stack: only the first
// label is kept, and then it is the bottom of the stack.
func isLabelOf(routes []Route) func(cmp.Path) bool {
	return func(p cmp.Path) bool {
		if len(p) < 3 || p.Last().String() != ".Label" {
			return false
		}
		i, ok := p[1].(cmp.SliceIndex)
		return ok && i.Key() >= 0 && i.Key() < len(routes) && routes[i.Key()].MultiLabel
	}
}

// fuzzAttrs decodes what was kept again, and makes attributes for eBGP of it.
func fuzzAttrs(t *testing.T, a *Attrs, r Rules) {
	_, _, _ = a.HashOrder(), a.Others(), a.EncapBits
	again, err := DecodeAttrs(a.Raw, a.NextHop, r)
	if err != nil {
		t.Fatalf("attributes kept cannot be decoded: %v", err)
	}
	if again.Discarded != nil {
		t.Errorf("attribute kept is discarded the next time: %v", again.Discarded)
	}
	if diff := cmp.Diff(a, again, byValue, cmpopts.IgnoreFields(Attrs{}, "Discarded")); diff != "" {
		t.Errorf("attributes decoded again:\n%s", diff)
	}
	for _, as4 := range []bool{false, true} {
		out, err := DecodeAttrs(ExternalAttrs(a, 4200000001, as4), a.NextHop, Rules{FourOctetAS: as4, External: true})
		if err != nil || out.Discarded != nil {
			t.Fatalf("attributes for eBGP cannot be decoded: %v %v", err, out)
		}
		if hasType(a.Raw, attrASPath) && out.HasAS(4200000001) == 0 {
			t.Errorf("attributes for eBGP have the path %v", out.ASPath)
		}
	}
}

func hasType(raw []byte, typ byte) bool { return slices.Contains(attrTypesOf(raw), typ) }

// fuzzRepack sends announced routes through a Packer.
func fuzzRepack(t *testing.T, u Update, a *Attrs, routes []Route) {
	if len(routes) == 0 || u.Withdraw != nil {
		return
	}
	p := NewPacker(MaxExtMessage)
	p.Announce(u.Reach.Family, a.Raw, u.NextHop)
	for _, r := range routes {
		if r.MultiLabel {
			return
		}
		if !p.Add(r) {
			return
		}
	}
	var got []Route
	for rest := p.Flush(); len(rest) > 0; {
		_, length, err := ParseHeader(rest, MaxExtMessage)
		if err != nil {
			t.Fatal(err)
		}
		again, part := readMessage(t, rest[:length])
		if !bytes.Equal(again.Attrs, a.Raw) || u.Reach.Family.SAFI != 134 && again.NextHop != u.NextHop {
			t.Errorf("next hop %v, want %v; attributes %x, want %x", again.NextHop, u.NextHop, again.Attrs, a.Raw)
		}
		got, rest = append(got, part...), rest[length:]
	}
	if diff := cmp.Diff(routes, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("routes packed and read again:\n%s", diff)
	}
}
