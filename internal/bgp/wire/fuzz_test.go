// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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

func FuzzOpen(f *testing.F) {
	f.Add(unhex(f, originalOpen)[HeaderLen:])
	f.Add(gobgpOpen(f, 23456, allCapabilities()...))
	f.Add(openBody(4, 64512, 90, "192.0.2.1", 2, 4, 250, 2, 0xca, 0xfe))
	f.Add(openBody(4, 64512, 90, "192.0.2.1", 255, 255, 0, 4, 2, 0, 1, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOpen(b)
		if err != nil {
			if err.Class != SessionReset || err.Code != CodeOpen && err.Code != CodeHeader {
				t.Errorf("error %v, want an OPEN error", err)
			}
			return
		}
		// More than 31 families do not fit the one parameter that Message writes.
		if len(o.Families) > 31 {
			return
		}
		msg, merr := o.Message()
		if merr != nil {
			t.Fatal(merr)
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

func FuzzNotification(f *testing.F) {
	f.Add(Shutdown(CeaseAdminShutdown, "maintenance").Message()[HeaderLen:])
	f.Add([]byte{6, 2, 3, 'a', 'b'})
	f.Add([]byte{6, 4, 2, 0xc3, 0x28})
	f.Add([]byte{1, 2, 0, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNotification(b)
		if err != nil {
			return
		}
		_ = n.String()
		if text := n.Communication(); text != "" {
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
		f.Add(unhex(f, m.hex)[HeaderLen:], true)
		f.Add(unhex(f, m.hex)[HeaderLen:], false)
	}
	nh := netip.MustParseAddr("192.0.2.1")
	attrs := slices.Collect(maps.Values(localAttrs(f)))
	for i, r := range gobgpRoutes(f) {
		fam := r.want.NLRI.Kind.Family()
		nlri := must(r.in.Serialize())(f)
		reach := attr(flagOptional, attrMPReach, mpReach(fam, appendNextHop(nil, fam, nh)[1:], nlri)...)
		f.Add(updateBody(reach, attrs[i%len(attrs)].Build().Raw), true)
	}
	f.Add(updateBody(attrReach, []byte{0x40, 5, 4, 0}), true)
	f.Add(updateBody(attrDown, attrReach, attr(0xc0, 7, 1, 2)), true)
	f.Add(EndOfRIBMessage(EVPN)[HeaderLen:], true)
}

func FuzzUpdate(f *testing.F) {
	seedUpdates(f)
	f.Fuzz(func(t *testing.T, b []byte, as4 bool) {
		before := bytes.Clone(b)
		u, err := ParseUpdate(b, nil)
		if err != nil {
			if err.Class != SessionReset {
				t.Errorf("error %v, want a session reset", err)
			}
			return
		}
		reach := fuzzNLRIs(t, u.Reach, false)
		fuzzNLRIs(t, u.Unreach, true)
		a, err := DecodeAttrs(u.Attrs, u.NextHop, as4)
		if err != nil {
			if err.Class != TreatAsWithdraw {
				t.Errorf("error %v, want treat-as-withdraw", err)
			}
		} else {
			fuzzAttrs(t, a, as4)
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
	if err != nil && err.Class != SessionReset && err.Class != DisableFamily {
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

// fuzzAttrs decodes what was kept again.
func fuzzAttrs(t *testing.T, a *Attrs, as4 bool) {
	_, _, _ = a.HashOrder(), a.Others(), a.EncapBits
	again, err := DecodeAttrs(a.Raw, a.NextHop, as4)
	if err != nil {
		t.Fatalf("attributes kept cannot be decoded: %v", err)
	}
	if diff := cmp.Diff(a, again, byValue); diff != "" {
		t.Errorf("attributes decoded again:\n%s", diff)
	}
}

// fuzzRepack sends announced routes through a Packer.
func fuzzRepack(t *testing.T, u Update, a *Attrs, routes []Route) {
	if len(routes) == 0 {
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
