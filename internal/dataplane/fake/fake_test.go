// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

var _ dataplane.Driver = (*fake.Driver)(nil)

var red = dataplane.Instance{Number: 1, ID: "red", Type: dataplane.EVPN, VNI: 100}

func open(t *testing.T, d *fake.Driver) dataplane.Handle {
	t.Helper()
	h, err := d.Open(t.Context(), red)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func change(e dataplane.Entry) []dataplane.Change { return []dataplane.Change{{Entry: e}} }

func flood() dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Flood, NextHops: []dataplane.NextHop{{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Label: 100, Encap: encap.VXLAN}}}
}

func TestPlaneOutlivesDriver(t *testing.T) {
	t.Parallel()
	p := fake.NewPlane()
	first := p.Driver(dataplane.EVPN)
	e := flood()
	open(t, first).Apply(t.Context(), change(e))
	e.NextHops[0].Label = 7 // the caller's buffer is not kept
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := p.Driver(dataplane.EVPN)
	ids, err := second.Orphans(t.Context())
	if diff := cmp.Diff([]string{"red"}, ids); diff != "" || err != nil {
		t.Errorf("Orphans() %v (-want +got):\n%s", err, diff)
	}
	found, err := open(t, second).Installed(t.Context())
	if err != nil || len(found) != 1 || !found[0].Equal(flood()) {
		t.Errorf("Installed() = %v, %v, want the flood entry", found, err)
	}
	if err := second.RemoveOrphan(t.Context(), "red"); err == nil {
		t.Error("an open instance was removed as an orphan")
	}
	if b := p.Breaches(); len(b) > 0 {
		t.Errorf("breaches: %v", b)
	}
}

func TestBreachesAreNoted(t *testing.T) {
	t.Parallel()
	two := flood()
	two.NextHops = append(two.NextHops, two.NextHops...)
	other := flood()
	other.NextHops[0].Encap = encap.GRE
	for _, tt := range []struct {
		name string
		in   func(d *fake.Driver, h dataplane.Handle)
	}{
		{"nothing to apply", func(_ *fake.Driver, h dataplane.Handle) { h.Apply(t.Context(), nil) }},
		{"two next hops", func(_ *fake.Driver, h dataplane.Handle) { h.Apply(t.Context(), change(two)) }},
		{"encapsulation", func(_ *fake.Driver, h dataplane.Handle) { h.Apply(t.Context(), change(other)) }},
		{"port without name", func(_ *fake.Driver, h dataplane.Handle) {
			h.Apply(t.Context(), change(dataplane.Entry{Kind: dataplane.LocalPort}))
		}},
		{"unknown kind", func(_ *fake.Driver, h dataplane.Handle) { h.Apply(t.Context(), change(dataplane.Entry{Kind: 99})) }},
		{"after the end of the instance", func(_ *fake.Driver, h dataplane.Handle) {
			_ = h.Remove(t.Context())
			h.Apply(t.Context(), change(flood()))
		}},
		{"after the end of the driver", func(d *fake.Driver, h dataplane.Handle) {
			_ = d.Close()
			h.Apply(t.Context(), change(flood()))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := fake.NewPlane()
			d := p.Driver(dataplane.EVPN)
			tt.in(d, open(t, d))
			if b := p.Breaches(); len(b) != 1 {
				t.Errorf("breaches %v, want one", b)
			}
		})
	}
}

func TestOverlappingCallsAreNoted(t *testing.T) {
	t.Parallel()
	p := fake.NewPlane()
	h := open(t, p.Driver(dataplane.EVPN))
	leave := fake.Hold(h)
	h.Apply(t.Context(), change(flood()))
	leave()
	if b := p.Breaches(); len(b) != 1 {
		t.Errorf("breaches %v, want one", b)
	}
	h.Apply(t.Context(), change(flood()))
	if b := p.Breaches(); len(b) != 1 {
		t.Errorf("breaches %v, want still one", b)
	}
}
