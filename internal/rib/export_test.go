// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// said drains an exporter and returns what it says, "+" before announcements
// and "-" before withdraws, in order.
func said(e *Exporter) []string {
	var said []string
	for more := true; more; {
		var out []Export
		out, more = e.Next(3, nil)
		for _, x := range out {
			sign := "+"
			if x.Attrs == nil {
				sign = "-"
			}
			said = append(said, sign+x.NLRI.String())
		}
	}
	return said
}

func sorted(s []string) []string { slices.Sort(s); return s }

// route10 is 10.0.0.n/32.
func route10(n byte) wire.Route {
	return wire.Route{NLRI: wire.VPNRoute(rd(0, 1), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32)), Label: wire.LabelField(17)}
}

func withRTs(rts ...wire.RT) wire.LocalAttrs { return wire.LocalAttrs{NextHop: pe1, RTs: rts} }

func TestInterestInRouteTargets(t *testing.T) {
	t.Parallel()
	full := func(as uint32, rt wire.RT) wire.NLRI { return wire.RTCRoute(as, rt) }
	short := func(bits uint8, rd wire.RD) wire.NLRI {
		return wire.NLRI{Kind: wire.KindRTC, Bits: bits, Tag: 64512, RD: rd}
	}
	const r1, r2, r9, none = "10.0.0.1/32", "10.0.0.2/32", "10.0.0.9/32", "10.0.0.99/32"
	tests := []struct {
		name string
		in   []wire.NLRI
		want []string
	}{
		{name: "nothing"},
		{name: "one target", in: []wire.NLRI{full(64512, rt(1))}, want: []string{r1}},
		{name: "other origin AS", in: []wire.NLRI{full(7, rt(1))}, want: []string{r1}},
		{name: "two targets", in: []wire.NLRI{full(64512, rt(1)), full(64512, rt(2))}, want: []string{r1, r2}},
		{name: "unknown target", in: []wire.NLRI{full(64512, rt(77))}},
		{name: "default", in: []wire.NLRI{{Kind: wire.KindRTC}}, want: []string{r1, r2, r9, none}},
		{name: "origin AS only", in: []wire.NLRI{short(32, wire.RD{})}, want: []string{r1, r2, r9, none}},
		{name: "type and sub-type", in: []wire.NLRI{short(48, wire.RD{0, 2})}, want: []string{r1, r2}},
		{name: "type, sub-type and AS", in: []wire.NLRI{short(64, wire.RD{0, 2, 0xfc})}, want: []string{r1, r2}},
		{name: "other AS", in: []wire.NLRI{short(64, wire.RD{0, 2, 0xfd})}},
		{name: "all but the last bit", in: []wire.NLRI{short(95, wire.RD{0, 2, 0xfc, 0, 0, 0, 0, 2})}, want: []string{r2}},
		{name: "first bit", in: []wire.NLRI{short(33, wire.RD{})}, want: []string{r1, r2, r9}},
		{name: "first bit set", in: []wire.NLRI{short(33, wire.RD{0x80})}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, Peer, Local)
			w.put(1, route10(1), withRTs(rt(1), rt(50)))
			w.put(1, route10(2), withRTs(rt(2)))
			w.put(1, route10(9), withRTs(wire.RT{2, 2, 0, 1, 0, 0, 0, 4}))
			w.put(1, route10(99), withRTs())
			e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.VPNv4, wire.RTC}, Wake: func() {}})
			for _, n := range tt.in {
				w.put(0, wire.Route{NLRI: n}, withRTs())
			}
			var want, back []string
			for _, p := range tt.want {
				want, back = append(want, "+64512:1 "+p), append(back, "-64512:1 "+p)
			}
			if diff := gocmp.Diff(want, sorted(said(e))); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
			for _, n := range tt.in {
				w.drop(0, n)
			}
			if diff := gocmp.Diff(back, sorted(said(e))); diff != "" {
				t.Errorf("withdrawn when interest goes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInterestWithSeveralOriginASesEndsWithTheLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	w.put(1, route10(1), withRTs(rt(1)))
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.VPNv4, wire.RTC}, Wake: func() {}})
	one, two := wire.RTCRoute(64512, rt(1)), wire.RTCRoute(64513, rt(1))
	w.put(0, wire.Route{NLRI: one}, withRTs())
	w.put(0, wire.Route{NLRI: two}, withRTs())
	w.put(0, wire.Route{NLRI: two}, wire.LocalAttrs{NextHop: pe2}) // replaced, not one more
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{name: "both", do: func() {}, want: []string{"+64512:1 10.0.0.1/32"}},
		{name: "first withdrawn", do: func() { w.drop(0, one) }},
		{name: "withdrawn twice", do: func() { w.drop(0, one) }},
		{name: "last withdrawn", do: func() { w.drop(0, two) }, want: []string{"-64512:1 10.0.0.1/32"}},
		{name: "wanted again", do: func() { w.put(0, wire.Route{NLRI: one}, withRTs()) }, want: []string{"+64512:1 10.0.0.1/32"}},
	}
	for _, s := range steps {
		s.do()
		if diff := gocmp.Diff(s.want, said(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

func TestWhatAPeerGets(t *testing.T) {
	t.Parallel()
	mac := wire.Route{NLRI: wire.MACIPRoute(rd(0, 1), macA, netip.Addr{}), Label: 16}
	rtc := wire.Route{NLRI: wire.RTCRoute(64512, rt(1))}
	all := []string{"+64512:1 10.0.0.1/32", "+rtc 64512:target:64512:1", "+type 2 64512:1 02:00:00:00:00:01"}
	tests := []struct {
		name string
		in   []wire.Family
		want []string
	}{
		{name: "one family", in: []wire.Family{wire.VPNv4}, want: all[:1]},
		{name: "two families", in: []wire.Family{wire.VPNv4, wire.EVPN}, want: []string{all[0], all[2]}},
		{name: "RTC routes at once, nothing else before the peer asks", in: []wire.Family{wire.VPNv4, wire.EVPN, wire.RTC}, want: all[1:2]},
		{name: "no family"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, Peer, Local, Peer)
			w.put(1, route10(1), withRTs(rt(1)))
			w.put(1, mac, withRTs(rt(1)))
			w.put(1, rtc, withRTs())
			w.put(2, route10(2), withRTs(rt(1))) // of another peer: never reflected
			w.put(0, route10(3), withRTs(rt(1))) // its own
			e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: tt.in, Wake: func() {}})
			if diff := gocmp.Diff(tt.want, sorted(said(e))); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRTCRoutesComeFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	for i := range byte(20) {
		w.put(1, route10(i), withRTs(rt(1)))
		w.put(1, wire.Route{NLRI: wire.RTCRoute(64512, rt(i))}, withRTs())
	}
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.VPNv4, wire.RTC}, Wake: func() {}})
	w.put(0, wire.Route{NLRI: wire.NLRI{Kind: wire.KindRTC}}, withRTs())
	got := said(e)
	if len(got) != 40 {
		t.Fatalf("%d routes, want 40", len(got))
	}
	for i, s := range got {
		if rtc := s[:4] == "+rtc"; rtc != (i < 20) {
			t.Errorf("route %d is %s", i, s)
		}
	}
}

func TestResendAnnouncesAFamilyAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	flow := wire.Route{NLRI: wire.NLRI{Kind: wire.KindFlowVPNv4, RD: rd(0, 1)}, Raw: []byte{3, 0x81, 6}}
	w.put(1, route10(1), withRTs(rt(1)))
	w.put(1, flow, withRTs(rt(1)))
	wakes := 0
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.VPNv4, wire.FlowVPNv4}, Wake: func() { wakes++ }})
	said(e)
	wakes = 0
	e.Resend(wire.VPNv4)
	e.Resend(wire.EVPN)
	if diff := gocmp.Diff([]string{"+64512:1 10.0.0.1/32"}, said(e)); diff != "" || wakes != 1 {
		t.Errorf("%d calls of Wake, want 1; announced (-want +got):\n%s", wakes, diff)
	}
	e.Resend(wire.VPNv4)
	w.drop(1, route10(1).NLRI)
	if diff := gocmp.Diff([]string{"-64512:1 10.0.0.1/32"}, said(e)); diff != "" {
		t.Errorf("withdrawn meanwhile (-want +got):\n%s", diff)
	}
	e.Resend(wire.FlowVPNv4)
	w.drop(1, flow.NLRI)
	out, _ := e.Next(10, nil)
	if diff := gocmp.Diff([]Export{{Route: flow}}, out); diff != "" {
		t.Errorf("withdraw of a FlowSpec route (-want +got):\n%s", diff)
	}
}

func TestExporterTellsOnlyChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Local)
	wakes := 0
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.VPNv4}, Wake: func() { wakes++ }})
	relabelled := route10(1)
	relabelled.Label = wire.LabelField(18)
	pref := withRTs(rt(1))
	pref.LocalPref = 200
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{name: "nothing", do: func() {}},
		{name: "new", do: func() { w.put(1, route10(1), withRTs(rt(1))) }, want: []string{"+64512:1 10.0.0.1/32"}},
		{name: "same", do: func() { w.put(1, route10(1), withRTs(rt(1))) }},
		{name: "other label", do: func() { w.put(1, relabelled, withRTs(rt(1))) }, want: []string{"+64512:1 10.0.0.1/32"}},
		{name: "other attributes", do: func() { w.put(1, relabelled, pref) }, want: []string{"+64512:1 10.0.0.1/32"}},
		{name: "come and gone", do: func() { w.put(1, route10(2), pref); w.drop(1, route10(2).NLRI) }},
		{name: "gone", do: func() { w.drop(1, route10(1).NLRI) }, want: []string{"-64512:1 10.0.0.1/32"}},
		{name: "other family", do: func() { w.put(1, wire.Route{NLRI: wire.IMETRoute(rd(0, 1), pe1)}, pref) }},
	}
	for _, s := range steps {
		s.do()
		if diff := gocmp.Diff(s.want, said(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	w.put(1, route10(3), pref)
	e.Close()
	if out, more := e.Next(10, nil); len(out) != 0 || more {
		t.Errorf("closed exporter tells %v", out)
	}
	before := wakes
	w.put(1, route10(4), pref)
	if wakes != before {
		t.Error("closed exporter was woken")
	}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Peer, Peer)
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: []wire.Family{wire.EVPN, wire.RTC}, Wake: func() {}})
	plain := w.rib.NewExporter(ExporterConfig{Source: w.sources[1].id, Families: []wire.Family{wire.EVPN}, Wake: func() {}})
	w.put(0, wire.Route{NLRI: wire.RTCRoute(64512, rt(1))}, withRTs())
	w.put(0, wire.Route{NLRI: wire.NLRI{Kind: wire.KindRTC, Bits: 64, Tag: 1, RD: wire.RD{0, 2, 0xfc}}}, withRTs())
	want := []string{"match:ipv4/rtc,*", "match:l2vpn/evpn,target:64512:0/32", "match:l2vpn/evpn,target:64512:1"}
	if diff := gocmp.Diff(want, e.Subscriptions()); diff != "" {
		t.Errorf("with RTC (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff([]string{"match:l2vpn/evpn,*"}, plain.Subscriptions()); diff != "" {
		t.Errorf("without RTC (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff("map[l2vpn/evpn:0]", fmt.Sprint(map[wire.Family]int{wire.EVPN: plain.Announced()[wire.EVPN]})); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}
