// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

const (
	benchTables = 100
	benchPEs    = 500
)

// benchGroup is routes that share attributes, as one UPDATE message brings them.
type benchGroup struct {
	raw    []byte
	nh     netip.Addr
	routes []wire.Route
}

// benchGroups makes n routes, half EVPN type 2 with IP and half VPNv4, for
// benchTables route targets, in groups of 1 to 100.
func benchGroups(n int) []benchGroup {
	var groups []benchGroup
	for done, g := 0, 0; done < n; g++ {
		size := min(1+g*37%100, n-done)
		table, pe := g%benchTables, g*7%benchPEs
		nh := netip.AddrFrom4([4]byte{192, 0, byte(pe >> 8), byte(pe)})
		target := wire.RT{0, 2, 0xfc}
		binary.BigEndian.PutUint32(target[4:], uint32(table))
		a := wire.LocalAttrs{NextHop: nh, RTs: []wire.RT{target}, Communities: []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}, LocalPref: uint32(100 + g%3)}
		d := wire.MakeRD(nh, uint16(table))
		group := benchGroup{raw: a.Build().Raw, nh: nh}
		for i := range size {
			host := netip.AddrFrom4([4]byte{10, byte((done + i) >> 16), byte((done + i) >> 8), byte(done + i)})
			r := wire.Route{NLRI: wire.VPNRoute(d, netip.PrefixFrom(host, 32)), Label: wire.LabelField(17)}
			if g%2 == 0 {
				mac := ethernet.MAC{2, 0}
				binary.BigEndian.PutUint32(mac[2:], uint32(done+i))
				r = wire.Route{NLRI: wire.MACIPRoute(d, mac, host), Label: 5000}
			}
			group.routes = append(group.routes, r)
		}
		groups = append(groups, group)
		done += size
	}
	return groups
}

// benchRIB is a RIB with one peer and an EVI and a VRF for every second table.
func benchRIB(b *testing.B) (*RIB, SourceID, []*Table) {
	b.Helper()
	r := New()
	peer, err := r.AddSource("peer", Peer)
	if err != nil {
		b.Fatal(err)
	}
	var tables []*Table
	for i := range benchTables {
		own, err := r.AddSource("instance", Local)
		if err != nil {
			b.Fatal(err)
		}
		t := r.NewTable(TableConfig{View: View(i % 2), Source: own, ECMP: true})
		target := wire.RT{0, 2, 0xfc}
		binary.BigEndian.PutUint32(target[4:], uint32(i))
		t.SetImports([]wire.RT{target})
		tables = append(tables, t)
	}
	return r, peer, tables
}

// load applies the groups the way a session does.
func load(b *testing.B, r *RIB, peer SourceID, groups []benchGroup) {
	b.Helper()
	in := r.NewInterner()
	var batch Batch
	for _, g := range groups {
		set, err := in.Intern(g.raw, g.nh, wire.Rules{FourOctetAS: true})
		if err != nil {
			b.Fatal(err)
		}
		batch.Hold(set)
		for _, route := range g.routes {
			batch.Announce(route, set)
		}
		if batch.Len() >= 500 {
			r.Apply(peer, &batch)
		}
	}
	r.Apply(peer, &batch)
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkApply100k loads 100k routes into 100 tables. B/path is what the RIB
// and the tables hold per path; the tables have taken everything by then.
func BenchmarkApply100k(b *testing.B) {
	const n = 100_000
	groups := benchGroups(n)
	var bytes float64
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		r, peer, tables := benchRIB(b)
		before := heap()
		b.StartTimer()
		load(b, r, peer, groups)
		b.StopTimer()
		for _, t := range tables {
			var s Selections
			for t.Take(1000, &s) {
			}
		}
		bytes = (heap() - before) / n
		if s := r.Stats(); s.Paths != n {
			b.Fatalf("%d paths, want %d", s.Paths, n)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/route")
	b.ReportMetric(bytes, "B/path")
}

// BenchmarkWithdraw100k purges a peer with 100k routes.
func BenchmarkWithdraw100k(b *testing.B) {
	const n = 100_000
	groups := benchGroups(n)
	for b.Loop() {
		b.StopTimer()
		r, peer, _ := benchRIB(b)
		load(b, r, peer, groups)
		b.StartTimer()
		r.Purge(peer)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/route")
}

// BenchmarkTake selects for all entries of 100k routes, 100 at a time.
func BenchmarkTake(b *testing.B) {
	r, peer, tables := benchRIB(b)
	load(b, r, peer, benchGroups(100_000))
	var keys [][]EntryKey
	total := 0
	for _, t := range tables {
		var all []EntryKey
		for _, e := range t.Entries() {
			all = append(all, e.Key)
		}
		keys, total = append(keys, all), total+len(all)
	}
	b.ReportAllocs()
	var s Selections
	for b.Loop() {
		b.StopTimer()
		for i, t := range tables {
			t.Refresh(keys[i]...)
		}
		b.StartTimer()
		for _, t := range tables {
			for t.Take(100, &s) {
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*total), "ns/entry")
}

// BenchmarkImport adds one route target with 1000 routes to a table of 100k.
func BenchmarkImport(b *testing.B) {
	r, peer, _ := benchRIB(b)
	load(b, r, peer, benchGroups(100_000))
	extra := r.NewTable(TableConfig{View: EVI, Source: 99})
	for b.Loop() {
		extra.SetImports([]wire.RT{{0, 2, 0xfc}})
		extra.SetImports(nil)
	}
}

// BenchmarkNext sends 10k local routes to a peer, 100 at a time.
func BenchmarkNext(b *testing.B) {
	const n = 10_000
	r := New()
	local, err := r.AddSource("instance", Local)
	if err != nil {
		b.Fatal(err)
	}
	peer, err := r.AddSource("peer", Peer)
	if err != nil {
		b.Fatal(err)
	}
	load(b, r, local, benchGroups(n))
	out := make([]Export, 0, 100)
	for b.Loop() {
		e := r.NewExporter(ExporterConfig{Source: peer, Families: wire.Families[:3], Wake: func() {}})
		for more := true; more; {
			out, more = e.Next(100, out[:0])
		}
		e.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/route")
}
