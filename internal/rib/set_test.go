// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

func TestInternSharesEqualSets(t *testing.T) {
	t.Parallel()
	raw := via(pe1, 100).Build().Raw
	other := via(pe1, 200).Build().Raw
	// An attribute of 16 octets that is a next hop at the same time.
	tail := append([]byte{0xc0, 222, 13}, make([]byte, 13)...)
	tests := []struct {
		name string
		raw  []byte
		nh   netip.Addr
		as4  bool
		want bool // the same set as raw, pe1, true
	}{
		{name: "same", raw: raw, nh: pe1, as4: true, want: true},
		{name: "mapped next hop of another family", raw: raw, nh: netip.AddrFrom16(pe1.As16()), as4: true, want: true},
		{name: "other next hop", raw: raw, nh: pe2, as4: true},
		{name: "no next hop", raw: raw, as4: true},
		{name: "other AS size", raw: raw, nh: pe1},
		{name: "other attributes", raw: other, nh: pe1, as4: true},
		{name: "attribute in place of a next hop", raw: append(append([]byte{}, raw...), tail...), as4: true},
		{name: "next hop in place of an attribute", raw: raw, nh: netip.AddrFrom16([16]byte(tail)), as4: true},
	}
	r := New()
	in := r.NewInterner()
	base, err := in.Intern(raw, pe1, wire.Rules{FourOctetAS: true})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*Set]string{base: "the first"}
	for _, tt := range tests {
		s, err := in.Intern(tt.raw, tt.nh, wire.Rules{FourOctetAS: tt.as4})
		if err != nil {
			t.Fatal(err)
		}
		if (s == base) != tt.want {
			t.Errorf("%s: same set %v, want %v", tt.name, s == base, tt.want)
		}
		if before := seen[s]; before != "" && !tt.want {
			t.Errorf("%s: same set as %s", tt.name, before)
		}
		seen[s] = tt.name
	}
}

func TestInternLocalSharesWithReceived(t *testing.T) {
	t.Parallel()
	r := New()
	in := r.NewInterner()
	a := via(pe1, 100).Build()
	local := in.InternLocal(a)
	received, err := in.Intern(a.Raw, pe1, wire.Rules{FourOctetAS: true})
	if err != nil || local != received || local.refs != 2 {
		t.Errorf("same set %v with %d references, %v", local == received, local.refs, err)
	}
}

func TestInternKeepsNothingOfMalformedAttributes(t *testing.T) {
	t.Parallel()
	r := New()
	_, err := r.NewInterner().Intern([]byte{0x40, 1, 2, 0, 0}, pe1, wire.Rules{FourOctetAS: true})
	if err == nil || err.Class != wire.TreatAsWithdraw || len(r.sets.byKey) != 0 {
		t.Errorf("error %v, %d sets", err, len(r.sets.byKey))
	}
}

func TestSetNumbersAreUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer)
	for range 3 {
		for pref := range uint32(10) {
			w.put(0, route10(byte(pref)), via(pe1, pref+1))
		}
		if s := w.rib.Stats(); s.Sets != 10 || s.Paths != 10 {
			t.Errorf("%d sets and %d paths, want 10", s.Sets, s.Paths)
		}
		w.purge(w.sources[0])
	}
	if w.rib.sets.next > 11 {
		t.Errorf("%d numbers for 10 sets at once", w.rib.sets.next)
	}
	w.checkEmpty(t)
}

func TestSourcesAndCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	w.put(0, route10(1), via(pe1, 100))
	w.put(0, route10(2), via(pe1, 100))
	w.put(0, wire.Route{NLRI: wire.IMETRoute(rd(0, 1), pe1)}, via(pe1, 100))
	w.put(1, route10(3), via(pe1, 100))
	received, local := w.rib.Counts()
	type counts map[wire.Family]int
	want := []counts{{wire.VPNv4: 2, wire.EVPN: 1}, {wire.VPNv4: 1}, {wire.VPNv4: 2, wire.EVPN: 1}}
	if diff := gocmp.Diff(want, []counts{received, local, w.rib.SourceCounts(w.sources[0].id)}); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	w.rib.RemoveSource(w.sources[0].id)
	received, _ = w.rib.Counts()
	if diff := gocmp.Diff(counts{}, counts(received)); diff != "" {
		t.Errorf("counts without the source (-want +got):\n%s", diff)
	}
	id, err := w.rib.AddSource("new", Local)
	if err != nil || id != w.sources[0].id {
		t.Errorf("new source has id %d, %v; want the free one, %d", id, err, w.sources[0].id)
	}
	if s := w.rib.Stats(); s.Announced != 4 || s.Withdrawn != 3 || s.Paths != 1 || s.Sets != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestNoMoreThan65536Sources(t *testing.T) {
	t.Parallel()
	r := New()
	r.sources = make([]source, 65536)
	for i := range r.sources {
		r.sources[i].used = true
	}
	if id, err := r.AddSource("one too many", Peer); err == nil {
		t.Errorf("got id %d", id)
	}
}
