// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// TestConcurrentUse has all users of a RIB at work at once; the race detector
// and the checks at the end are the test.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	const rounds = 60
	w := newWorld(t, Peer, Peer, Local, Local)
	w.rib.OriginateRTC(w.sources[3].id, 64512, wire.LocalAttrs{NextHop: pe1}.Build())
	evi := w.rib.NewTable(TableConfig{View: EVI, Source: w.sources[2].id, Usable: usable, Dirty: func() {}})
	vrf := w.rib.NewTable(TableConfig{View: VRF, Source: w.sources[2].id, ECMP: true, Dirty: func() {}})
	var work sync.WaitGroup
	stop := make(chan struct{})
	var readers sync.WaitGroup
	reader := func(f func()) {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	for _, s := range w.sources[:3] {
		work.Go(func() { churn(w.rib, s, rounds) })
	}
	work.Go(func() {
		for i := range rounds {
			for _, table := range []*Table{evi, vrf} {
				table.SetImports([]wire.RT{rt(byte(i % 3)), rt(byte(i % 5))})
			}
		}
	})
	work.Go(func() {
		for range rounds {
			e := w.rib.NewExporter(ExporterConfig{Source: w.sources[0].id, Families: wire.Families, Wake: func() {}})
			for range 5 {
				_, _ = e.Next(10, nil)
				e.Resend(wire.VPNv4)
				e.Announced()
			}
			e.Close()
		}
	})
	for _, table := range []*Table{evi, vrf} {
		reader(func() {
			var s Selections
			table.Take(7, &s)
			for _, item := range s.Items {
				for _, p := range item.Best {
					_ = pathText(p)
				}
			}
		})
	}
	reader(func() {
		for _, p := range w.rib.Paths(FromSource("source-0")) {
			_ = pathText(p)
		}
		for _, e := range evi.Entries() {
			vrf.Refresh(e.Key)
		}
		evi.Mobility(macA)
		w.rib.Counts()
		w.rib.Stats()
		w.rib.SourceCounts(w.sources[0].id)
	})
	work.Wait()
	close(stop)
	readers.Wait()
	for _, table := range []*Table{evi, vrf} {
		table.Close()
		best(table)
	}
	for _, s := range w.sources {
		w.rib.RemoveSource(s.id)
	}
	for _, table := range []*Table{evi, vrf} {
		best(table)
	}
	w.checkEmpty(t, evi, vrf)
}

// churn announces and withdraws routes of a source like a session.
func churn(r *RIB, s worldSource, rounds int) {
	in := r.NewInterner()
	var b Batch
	for i := range rounds {
		for j := range byte(10) {
			l := via(pe1, uint32(100+i%7))
			l.RTs = []wire.RT{rt(j % 4)}
			a := l.Build()
			set := in.InternLocal(a)
			b.Hold(set)
			b.Announce(wire.Route{NLRI: wire.VPNRoute(rd(s.id, j), netA)}, set)
			b.Announce(wire.Route{NLRI: wire.MACIPRoute(rd(s.id, j), macA, hostIP)}, set)
			b.Announce(wire.Route{NLRI: wire.PrefixRoute(rd(s.id, j), netA), Raw: [][]byte{nil, {j}}[i%2]}, set)
			if s.kind == Peer {
				b.Announce(wire.Route{NLRI: wire.RTCRoute(64512, rt(j))}, set)
			}
			if i%3 == 0 {
				b.Withdraw(wire.VPNRoute(rd(s.id, j), netA))
				b.Withdraw(wire.PrefixRoute(rd(s.id, j), netA))
				b.Withdraw(wire.RTCRoute(64512, rt(j)))
			}
		}
		r.Apply(s.id, &b)
		if i%20 == 19 {
			r.Purge(s.id)
		}
	}
}
