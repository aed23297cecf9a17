// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// world is a RIB and, beside it, the plain list of paths that it must hold.
type world struct {
	rib     *RIB
	sources []worldSource
	paths   map[pathKey]worldPath
	intern  *Interner
}

type worldSource struct {
	id   SourceID
	name string
	kind SourceKind
}

type worldPath struct {
	route wire.Route
	attrs *wire.Attrs
	apart bool
}

func newWorld(t rapid.TB, kinds ...SourceKind) *world {
	t.Helper()
	w := &world{rib: New(), paths: map[pathKey]worldPath{}}
	w.intern = w.rib.NewInterner()
	for i, kind := range kinds {
		name := fmt.Sprintf("source-%d", i)
		id, err := w.rib.AddSource(name, kind)
		if err != nil {
			t.Fatal(err)
		}
		w.sources = append(w.sources, worldSource{id, name, kind})
	}
	return w
}

// announce adds a route to a batch and to the model. Attributes are interned
// the way of the kind of source.
func (w *world) announce(b *Batch, s worldSource, r wire.Route, l wire.LocalAttrs, apart bool) {
	a := l.Build()
	set := (*Set)(nil)
	if s.kind == Local {
		set = w.intern.InternLocal(a)
	} else {
		var err *wire.Error
		if set, err = w.intern.Intern(a.Raw, l.NextHop, wire.Rules{FourOctetAS: true}); err != nil {
			panic(err)
		}
	}
	b.Hold(set)
	if apart {
		b.AnnounceApart(r, set)
	} else {
		b.Announce(r, set)
	}
	w.paths[pathKey{s.id, r.NLRI}] = worldPath{r, a, apart}
}

func (w *world) withdraw(b *Batch, s worldSource, n wire.NLRI) {
	b.Withdraw(n)
	delete(w.paths, pathKey{s.id, n})
}

// purge withdraws all of a source.
func (w *world) purge(s worldSource) {
	w.rib.Purge(s.id)
	for k := range w.paths {
		if k.source == s.id {
			delete(w.paths, k)
		}
	}
}

func (w *world) name(id SourceID) string { return w.sources[id].name }

// The small domains that routes are drawn from.
var (
	someAddrs = []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
	}
	someIPs = []netip.Addr{
		{}, netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:1::1"),
	}
	somePrefixes = []netip.Prefix{
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("203.0.113.0/25"),
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("2001:db8::/32"),
	}
	someRTs = []wire.RT{rt(1), rt(2), rt(3), {2, 2, 0, 1, 0, 0, 0, 4}}
)

func rt(n byte) wire.RT { return wire.RT{0, 2, 0xfc, 0, 0, 0, 0, n} }

func rd(source SourceID, n byte) wire.RD { return wire.RD{0, 0, 0xfc, 0, 0, 0, byte(source), n} }

// drawAttrs draws attributes.
func drawAttrs(t *rapid.T) wire.LocalAttrs {
	l := wire.LocalAttrs{
		NextHop:   rapid.SampledFrom(someAddrs).Draw(t, "next hop"),
		LocalPref: rapid.SampledFrom([]uint32{100, 100, 200}).Draw(t, "local pref"),
		RTs:       rapid.SliceOfNDistinct(rapid.SampledFrom(someRTs), 0, 3, rapid.ID[wire.RT]).Draw(t, "RTs"),
	}
	switch rapid.IntRange(0, 4).Draw(t, "mobility") {
	case 0:
		l.Communities = append(l.Communities, wire.MobilityCommunity(1))
	case 1:
		l.Communities = append(l.Communities, wire.MobilityCommunity(2))
	case 2:
		l.Communities = append(l.Communities, wire.ExtCommunity{6, 0, 1})
	}
	if rapid.IntRange(0, 4).Draw(t, "unusable") == 0 {
		l.Communities = append(l.Communities, wire.EncapCommunity(encap.GRE))
	}
	if rapid.Bool().Draw(t, "PMSI") {
		l.PMSI = &wire.PMSI{
			TunnelType: rapid.SampledFrom([]uint8{wire.PMSIIngressReplication, wire.PMSIIngressReplication, 3}).Draw(t, "tunnel"),
			Label:      rapid.SampledFrom([]uint32{5000, 5001}).Draw(t, "VNI"),
			Endpoint:   rapid.SampledFrom(someAddrs).Draw(t, "tunnel end"),
		}
		if l.PMSI.TunnelType != wire.PMSIIngressReplication {
			l.PMSI.Endpoint = netip.Addr{}
		}
	}
	return l
}

// usable is the filter of the tables: it refuses GRE, and type 5 routes that have
// to be resolved.
func usable(r wire.Route, a *wire.Attrs) bool {
	return a.EncapBits&encap.GRE.Bit() == 0 && !r.Recursive()
}

// drawRoute draws a route. Sources never share a route distinguisher when they
// are local, as instances do not.
func drawRoute(t *rapid.T, s worldSource) wire.Route {
	owner := SourceID(0xff)
	if s.kind == Local {
		owner = s.id
	}
	r := wire.Route{Label: rapid.SampledFrom([]uint32{16<<4 | 1, 17<<4 | 1}).Draw(t, "label")}
	d := rd(owner, rapid.ByteRange(1, 2).Draw(t, "RD"))
	switch rapid.IntRange(0, 12).Draw(t, "kind") {
	case 0, 1, 2:
		r.NLRI = wire.VPNRoute(d, rapid.SampledFrom(somePrefixes).Draw(t, "prefix"))
		r.MultiLabel = rapid.IntRange(0, 5).Draw(t, "labels") == 0
	case 3, 4, 5, 6:
		mac := ethernet.MAC{2, 0, 0, 0, 0, rapid.ByteRange(1, 2).Draw(t, "MAC")}
		r.NLRI = wire.MACIPRoute(d, mac, rapid.SampledFrom(someIPs).Draw(t, "IP"))
		r.NLRI.Tag = rapid.Uint32Range(0, 1).Draw(t, "tag")
	case 7, 8:
		r.NLRI, r.Label = wire.IMETRoute(d, rapid.SampledFrom(someAddrs).Draw(t, "originator")), 0
	case 9:
		r.Label = 0
		r.Raw = []byte{3, 0x81, rapid.ByteRange(1, 3).Draw(t, "protocol")}
		r.NLRI = wire.NLRI{Kind: wire.KindFlowVPNv4, RD: d, Addr: [16]byte{r.Raw[2]}}
	case 10, 11, 12:
		r.NLRI = wire.PrefixRoute(d, rapid.SampledFrom(somePrefixes).Draw(t, "type 5 prefix"))
		if gw := rapid.ByteRange(0, 8).Draw(t, "gateway"); gw < 3 {
			r.Raw = []byte{gw}
		}
	}
	return r
}

func drawApart(t *rapid.T, s worldSource) bool {
	return s.kind == Local && rapid.IntRange(0, 3).Draw(t, "apart") == 0
}

// drawBatch changes some routes of a source.
func (w *world) drawBatch(t *rapid.T, s worldSource) {
	var b Batch
	for range rapid.IntRange(1, 6).Draw(t, "changes") {
		switch rapid.IntRange(0, 3).Draw(t, "change") {
		case 0:
			w.withdraw(&b, s, drawRoute(t, s).NLRI)
		case 1: // other attributes or label for a route that is there
			if have := w.of(s); len(have) > 0 {
				r := rapid.SampledFrom(have).Draw(t, "route")
				r.Label ^= rapid.SampledFrom([]uint32{0, 1 << 8}).Draw(t, "other label")
				if r.NLRI.Kind == wire.KindPrefix && rapid.Bool().Draw(t, "other gateway") {
					r.Raw = map[bool][]byte{true: {1, 2}}[r.Raw == nil]
				}
				w.announce(&b, s, r, drawAttrs(t), drawApart(t, s))
			}
		default:
			w.announce(&b, s, drawRoute(t, s), drawAttrs(t), drawApart(t, s))
		}
	}
	w.rib.Apply(s.id, &b)
	if b.Len() != 0 {
		t.Fatalf("batch has %d changes after Apply", b.Len())
	}
}

// of lists the routes of a source.
func (w *world) of(s worldSource) []wire.Route {
	var routes []wire.Route
	for k, p := range w.paths {
		if k.source == s.id {
			routes = append(routes, p.route)
		}
	}
	slices.SortFunc(routes, func(a, b wire.Route) int { return slices.Compare([]byte(fmt.Sprint(a)), []byte(fmt.Sprint(b))) })
	return routes
}

// checkEmpty looks for anything left behind when all was withdrawn.
func (w *world) checkEmpty(t rapid.TB, tables ...*Table) {
	t.Helper()
	r := w.rib
	if r.paths.Len() != 0 || r.paths.End() != 0 || len(r.raw) != 0 || len(r.local) != 0 || len(r.dying) != 0 {
		t.Errorf("left: %d paths, %d positions, %d raw, %d local, %d dying sets", r.paths.Len(), r.paths.End(), len(r.raw), len(r.local), len(r.dying))
	}
	for _, s := range r.live {
		if s != nil {
			t.Errorf("left: set %d with %d paths", s.id, s.count)
		}
	}
	for key := range r.byRT {
		t.Errorf("left: route target %v", key)
	}
	sets := 0
	if r.rtc.on {
		sets = 1
	}
	if len(r.sets.byKey) != sets || len(r.sets.free)+sets != int(r.sets.next) {
		t.Errorf("left: %d sets of %d, %d free, want %d", len(r.sets.byKey), r.sets.next, len(r.sets.free), sets)
	}
	if s := r.Stats(); s.Paths != 0 || s.Sets != 0 || s.Announced < s.Withdrawn {
		t.Errorf("left: %+v", s)
	}
	received, local := r.Counts()
	if len(received)+len(local) != 0 {
		t.Errorf("left: counts %v %v", received, local)
	}
	for i, table := range tables {
		free := 0
		for at := table.links.free; at != 0; at = table.links.items[at-1].next {
			free++
		}
		if table.entries.Len() != 0 || table.dirty.len() != 0 || free != len(table.links.items) {
			t.Errorf("left in table %d: %d entries, %d dirty, %d links", i, table.entries.Len(), table.dirty.len(), len(table.links.items)-free)
		}
	}
}
