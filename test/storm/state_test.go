// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// state is all that is compared, as sorted lines under headings. A heading
// without lines is left out.
type state map[string][]string

func (s state) add(heading, format string, args ...any) {
	s[heading] = append(s[heading], fmt.Sprintf(format, args...))
}

func (s state) counts(heading string, counts map[wire.Family]int) {
	for f, n := range counts {
		s.add(heading, "%s %d", f, n)
	}
}

func (s state) entry(place int, e dataplane.Entry) {
	slices.SortFunc(e.NextHops, func(a, b dataplane.NextHop) int { return cmp.Compare(a.String(), b.String()) })
	s.add("forwarding of "+places[place].id, "%s", e)
}

func (s state) sorted() state {
	for _, lines := range s {
		slices.Sort(lines)
	}
	return s
}

// state returns what a node must be like.
func (m *model) state() state {
	s := state{}
	received, local := map[wire.Family]int{}, map[wire.Family]int{}
	mine := map[wire.NLRI]announced{}
	for at, i := range m.instances {
		for _, e := range m.forwarding(at) {
			s.entry(at, e)
		}
		for _, r := range i.localRoutes(at) {
			mine[r.NLRI] = r
		}
		for _, rt := range i.imports {
			r := wire.Route{NLRI: wire.RTCRoute(nodeAS, rt)}
			mine[r.NLRI] = announced{r, wire.LocalAttrs{NextHop: nodeAddr}}
		}
	}
	for n := range mine {
		local[n.Kind.Family()]++
	}
	for _, p := range m.peers {
		own := map[wire.Family]int{}
		for n, h := range p.in {
			own[n.Kind.Family()]++
			received[n.Kind.Family()]++
			s.add("routes of "+p.name, "%s %s", h.announced, h.stale)
		}
		s.counts("counts of "+p.name, own)
		for f, stage := range p.waits {
			s.add("kept for "+p.name, "%s %s", f, stage)
		}
		if p.up {
			p.told(s, mine)
		}
	}
	s.counts("counts of peers", received)
	s.counts("counts of local routes", local)
	return s.sorted()
}

// told adds the Adj-RIB-Out of a peer.
func (p *modelPeer) told(s state, mine map[wire.NLRI]announced) {
	counts := map[wire.Family]int{}
	for n, r := range mine {
		if !slices.Contains(p.families, n.Kind.Family()) || !p.wants(n, r) {
			continue
		}
		counts[n.Kind.Family()]++
		s.add("told to "+p.name, "%s label %d %s", n, r.Label, attrsText(r.attrs.Build()))
	}
	s.counts("told to "+p.name+", counts", counts)
	known := !slices.Contains(p.families, wire.RTC) || p.ended[wire.RTC]
	for _, f := range p.families {
		if known {
			s.add("End-of-RIB to "+p.name, "%s", f)
		}
		if p.enhanced && p.asked[f] {
			s.add("refreshed for "+p.name, "%s", f)
		}
	}
}

// wants tells whether a peer gets a route (RFC 4684 §6).
func (p *modelPeer) wants(n wire.NLRI, r announced) bool {
	if n.Kind == wire.KindRTC || !slices.Contains(p.families, wire.RTC) {
		return true
	}
	for asked := range p.in {
		if asked.Kind == wire.KindRTC && (asked.Bits == 0 || slices.Contains(r.attrs.RTs, wire.RT(asked.RD))) {
			return true
		}
	}
	return false
}

// state returns what the node is like, with identifiers that it allocated
// replaced by plain ones.
func (w *world) state() state {
	s := state{}
	names := w.names(s)
	for at, p := range places {
		if i := w.n.Instance(p.id); i != nil {
			for _, e := range i.Forwarding().Entries() {
				s.entry(at, names.entry(e))
			}
		}
	}
	for _, p := range w.players {
		for _, path := range w.n.rib.Paths(rib.FromSource("BGP-" + p.addr.String())) {
			s.add("routes of "+p.name, "%s label %d %s seq %d %s", path.NLRI, path.Label, attrsText(path.Attrs), path.Attrs.MobilitySeq, path.Stale)
		}
		x := w.n.neighbour(p.addr)
		if x == nil {
			continue
		}
		s.counts("counts of "+p.name, x.Received())
		for _, kept := range x.Stale() {
			s.add("kept for "+p.name, "%s %s", kept.Family, kept.Stage)
		}
		if p.f != nil {
			s.counts("told to "+p.name+", counts", x.Announced())
			w.told(s, p, names)
		}
	}
	received, local := w.n.rib.Counts()
	s.counts("counts of peers", received)
	s.counts("counts of local routes", local)
	return s.sorted()
}

// told adds what a peer was told.
func (w *world) told(s state, p *player, names names) {
	for n, r := range p.f.now() {
		text := r.attrs
		if want := names.seqs[n]; r.seq != want {
			text += fmt.Sprintf(" seq %d, and the endpoint has %d", r.seq, want)
		}
		n, label := names.route(n, r.label)
		s.add("told to "+p.name, "%s label %d %s", n, label, text)
	}
	model := w.m.peers[p.number]
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	for _, f := range p.families {
		known := !slices.Contains(p.families, wire.RTC) || model.ended[wire.RTC]
		for range p.f.marks[f] {
			if known {
				s.add("End-of-RIB to "+p.name, "%s", f)
			}
		}
		if p.f.ends[f] > 0 {
			s.add("refreshed for "+p.name, "%s", f)
		}
	}
}

// names tells what the identifiers are that a node allocated.
type names struct {
	rds    map[wire.RD]wire.RD
	labels map[uint32]uint32
	seqs   map[wire.NLRI]uint32 // of MAC mobility, by route
}

func (w *world) names(s state) names {
	x := names{rds: map[wire.RD]wire.RD{}, labels: map[uint32]uint32{}, seqs: map[wire.NLRI]uint32{}}
	for at, p := range places {
		i := w.n.Instance(p.id)
		if i == nil {
			continue
		}
		x.rds[i.RD] = plainRD(at)
		for _, e := range i.Snapshot().Endpoints {
			x.seqs[wire.MACIPRoute(i.RD, e.MAC, e.IP.Addr())] = e.MobilitySeq
			if p.typ == dataplane.IPVPN {
				x.labels[e.Label] = plainLabel(at, int(e.MAC[5]))
			} else if e.Label != p.vni {
				s.add("wrong VNI", "%s %d", p.id, e.Label)
			}
		}
	}
	return x
}

// route replaces what the node allocated in a route.
func (x names) route(n wire.NLRI, label uint32) (wire.NLRI, uint32) {
	if rd, ours := x.rds[n.RD]; ours {
		n.RD = rd
		if n.Kind.Family() != wire.EVPN {
			label = wire.LabelField(x.labels[wire.Route{Label: label}.MPLSLabel()])
		}
	}
	return n, label
}

// entry replaces what the node allocated in an entry.
func (x names) entry(e dataplane.Entry) dataplane.Entry {
	if e.Kind == dataplane.LocalPrefix {
		e.Label = x.labels[e.Label]
	}
	e.NextHops = slices.Clone(e.NextHops)
	for i, hop := range e.NextHops {
		if e.Kind == dataplane.Prefix && hop.Addr == tunnels[dataplane.IPVPN] {
			e.NextHops[i].Label = x.labels[hop.Label]
		}
	}
	return e
}

// equal tells whether two states are the same.
func (s state) equal(o state) bool { return maps.EqualFunc(s, o, slices.Equal) }
