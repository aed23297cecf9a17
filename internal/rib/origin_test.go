// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

func TestImportsMakeRTCRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Local, Peer)
	evi := w.rib.NewTable(TableConfig{View: EVI, Source: 90})
	vrf := w.rib.NewTable(TableConfig{View: VRF, Source: 91})
	e := w.rib.NewExporter(ExporterConfig{Source: w.sources[1].id, Families: []wire.Family{wire.RTC}, Wake: func() {}})
	const plus1, minus1 = "+rtc 64512:target:64512:1", "-rtc 64512:target:64512:1"
	const plus2, minus2 = "+rtc 64512:target:64512:2", "-rtc 64512:target:64512:2"
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{name: "before OriginateRTC", do: func() { evi.SetImports([]wire.RT{rt(1)}) }},
		{name: "what is imported already", do: func() {
			w.rib.OriginateRTC(w.sources[0].id, 64512, wire.LocalAttrs{NextHop: pe1}.Build())
		}, want: []string{plus1}},
		{name: "second table, one new target", do: func() { vrf.SetImports([]wire.RT{rt(1), rt(2)}) }, want: []string{plus2}},
		{name: "first table gone, second stays", do: evi.Close},
		{name: "target dropped", do: func() { vrf.SetImports([]wire.RT{rt(2)}) }, want: []string{minus1}},
		{name: "routes with the target do not count", do: func() { w.put(1, route10(1), withRTs(rt(1))) }},
		{name: "last table gone", do: vrf.Close, want: []string{minus2}},
	}
	for _, s := range steps {
		s.do()
		if diff := gocmp.Diff(s.want, said(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	w.purge(w.sources[1])
	w.checkEmpty(t)
}

func TestRTCRoutesCarryGivenAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Local)
	attrs := wire.LocalAttrs{NextHop: pe1}.Build()
	w.rib.OriginateRTC(w.sources[0].id, 64512, attrs)
	table := w.rib.NewTable(TableConfig{View: EVI, Source: 90})
	table.SetImports([]wire.RT{rt(1)})
	got := w.rib.Paths(func(Path) bool { return true })
	if len(got) != 1 || got[0].Attrs != attrs || got[0].NLRI != wire.RTCRoute(64512, rt(1)) || got[0].Kind != Local {
		t.Errorf("paths %+v", got)
	}
}
