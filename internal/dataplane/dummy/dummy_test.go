// SPDX-License-Identifier: Apache-2.0

package dummy

import (
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/google/go-cmp/cmp"
)

var _ dataplane.Driver = (*Driver)(nil)

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ    dataplane.VPNType
		encaps []encap.Type
	}{
		{dataplane.EVPN, []encap.Type{encap.VXLAN}},
		{dataplane.IPVPN, []encap.Type{encap.Default, encap.MPLS}},
	} {
		c := New(tt.typ, netip.MustParseAddr("192.0.2.1")).Capabilities()
		if diff := cmp.Diff(tt.encaps, c.Encaps); diff != "" {
			t.Errorf("%s encapsulations (-want +got):\n%s", tt.typ, diff)
		}
		if c.ECMP || c.IPv6Underlay {
			t.Errorf("%s: claims ECMP or an IPv6 underlay: %+v", tt.typ, c)
		}
		if diff := cmp.Diff([]dataplane.Direction{dataplane.Both}, c.Directions); diff != "" {
			t.Errorf("%s directions (-want +got):\n%s", tt.typ, diff)
		}
	}
}

func TestOpenRefusesOtherType(t *testing.T) {
	t.Parallel()
	d := New(dataplane.IPVPN, netip.Addr{})
	if _, err := d.Open(t.Context(), dataplane.Instance{ID: "a", Type: dataplane.EVPN}); err == nil {
		t.Error("ipvpn dummy opened an evpn instance")
	}
}

func TestHandleCountsAndKeepsNothing(t *testing.T) {
	t.Parallel()
	d := New(dataplane.EVPN, netip.MustParseAddr("192.0.2.1"))
	h, err := d.Open(t.Context(), dataplane.Instance{ID: "a", Type: dataplane.EVPN})
	if err != nil {
		t.Fatal(err)
	}
	mac, flood := dataplane.Entry{Kind: dataplane.RemoteMAC}, dataplane.Entry{Kind: dataplane.Flood}
	errs := h.Apply(t.Context(), []dataplane.Change{{Entry: mac}, {Entry: mac}, {Entry: flood}, {Delete: true, Entry: mac}, {Entry: dataplane.Entry{Kind: 200}}})
	if diff := cmp.Diff(make([]error, 5), errs); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	want := []dataplane.Member{
		{Name: "mac_set", Value: uint64(2)}, {Name: "mac_deleted", Value: uint64(1)},
		{Name: "flood_set", Value: uint64(1)}, {Name: "flood_deleted", Value: uint64(0)},
	}
	if diff := cmp.Diff(want, h.Describe()); diff != "" {
		t.Errorf("Describe (-want +got):\n%s", diff)
	}
	if m := d.Describe(); len(m) != 0 {
		t.Errorf("Describe of the driver = %v; the API shows the address itself", m)
	}
	if repaired, err := h.Repair(t.Context()); repaired || err != nil {
		t.Errorf("Repair = %v, %v; want nothing to do", repaired, err)
	}
	installed, err := h.Installed(t.Context())
	if len(installed) != 0 || err != nil {
		t.Errorf("Installed = %v, %v; want nothing", installed, err)
	}
}

func TestApplyAllocatesOnlyResults(t *testing.T) {
	d := New(dataplane.EVPN, netip.Addr{})
	h, _ := d.Open(t.Context(), dataplane.Instance{Type: dataplane.EVPN})
	changes := make([]dataplane.Change, 1000)
	for i := range changes {
		changes[i].Entry.Kind = dataplane.RemoteMAC
	}
	if n := testing.AllocsPerRun(10, func() { h.Apply(t.Context(), changes) }); n > 1 {
		t.Errorf("Apply of 1000 changes makes %v allocations, want 1", n)
	}
}
