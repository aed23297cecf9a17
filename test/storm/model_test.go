// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"maps"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// model says in the plainest terms what a node must hold and do: the routes of
// each peer, and instances with endpoints. It knows nothing of sets, tables and
// queues.
type model struct {
	peers     []*modelPeer
	instances map[int]*modelInstance // by index of places
}

// modelPeer is one peer.
type modelPeer struct {
	role
	up     bool
	open   opening
	in     map[wire.NLRI]held            // what the node must hold
	out    map[wire.NLRI]announced       // what the peer stands by in this session
	waits  map[wire.Family]rib.Staleness // families that stale routes are kept of
	ended  map[wire.Family]bool          // End-of-RIB sent in this session
	asked  map[wire.Family]bool          // refreshes asked for in this session
	number int
}

// held is a route that the node holds.
type held struct {
	announced
	stale rib.Staleness
}

// modelInstance is one instance.
type modelInstance struct {
	imports, exports []wire.RT
	endpoints        map[int]vpn.Attachment // by index of the place's endpoints
}

func newModel() *model {
	m := &model{instances: map[int]*modelInstance{}}
	for i, r := range roles {
		p := &modelPeer{role: r, in: map[wire.NLRI]held{}, waits: map[wire.Family]rib.Staleness{}, number: i}
		m.peers = append(m.peers, p)
	}
	return m
}

// can tells whether an event makes sense now.
func (m *model) can(e event) bool {
	p := m.peers[e.peer]
	switch e.op {
	case "settle", "restart", "restart gracefully", "attach":
		return true
	case "detach":
		i := m.instances[e.place]
		return i != nil && i.endpoints[e.spot].Port != ""
	case "up":
		return !p.up
	case "cut":
		return p.up && !p.graceful()
	case "reopen": // else a clock of no time runs beside it
		return p.up && p.graceful() && !p.open.immediate
	case "resync", "half resync": // RFC 7313 §4: not before End-of-RIB
		_, waiting := p.waits[e.family]
		return p.up && p.enhanced && !waiting
	}
	return p.up
}

func (p *modelPeer) graceful() bool { return p.open.graceful && len(p.restarts) > 0 }

// do carries out an event that makes sense.
func (m *model) do(e event) {
	p := m.peers[e.peer]
	switch e.op {
	case "restart", "restart gracefully":
		for _, p := range m.peers {
			p.reset()
		}
	case "attach":
		m.attach(e)
	case "detach":
		if i := m.instances[e.place]; len(i.endpoints) > 1 {
			delete(i.endpoints, e.spot)
		} else {
			delete(m.instances, e.place)
		}
	case "up":
		p.opened(e.open)
	case "reopen":
		p.down(true)
		p.opened(e.open)
	case "fin":
		p.down(true)
	case "notify", "cut", "reset":
		p.down(false)
	case "announce":
		p.announce(e.routes)
	case "withdraw":
		for _, r := range e.routes {
			delete(p.out, r.NLRI)
			delete(p.in, r.NLRI)
		}
	case "End-of-RIB":
		p.endOfRIB(e.family)
	case "refresh":
		p.asked[e.family] = true
	case "resync":
		p.resync(e)
		p.purgeStale(e.family)
	case "half resync":
		p.resync(e)
		p.down(true)
	}
	m.forgetIrrelevant()
}

func (m *model) attach(e event) {
	i := m.instances[e.place]
	if i == nil {
		i = &modelInstance{endpoints: map[int]vpn.Attachment{}}
		m.instances[e.place] = i
	}
	p := places[e.place]
	i.imports, i.exports = e.rts[0], e.rts[1]
	i.endpoints[e.spot] = p.attachment(p.endpoints[e.spot], i.imports, i.exports, e.pref)
}

func (p *modelPeer) announce(routes []announced) {
	for _, r := range routes {
		p.out[r.NLRI] = r
		p.in[r.NLRI] = held{r, rib.Fresh}
	}
}

// resync is the begin of a refresh by the peer, with the routes behind it.
func (p *modelPeer) resync(e event) {
	p.markStale(e.family)
	maps.DeleteFunc(p.out, func(n wire.NLRI, _ announced) bool { return n.Kind.Family() == e.family })
	p.announce(e.routes)
}

func (p *modelPeer) reset() {
	p.up, p.out = false, nil
	clear(p.in)
	clear(p.waits)
}

// opened is a new session (RFC 4724 §4.2).
func (p *modelPeer) opened(o opening) {
	p.up, p.open, p.out = true, o, map[wire.NLRI]announced{}
	p.ended, p.asked = map[wire.Family]bool{}, map[wire.Family]bool{}
	for f := range maps.Clone(p.waits) {
		if !p.graceful() || !o.preserved {
			p.purgeStale(f)
			delete(p.waits, f)
		}
	}
	if o.marks {
		for _, f := range p.families {
			p.endOfRIB(f)
		}
	}
}

func (p *modelPeer) endOfRIB(f wire.Family) {
	p.ended[f] = true
	if _, waiting := p.waits[f]; waiting {
		delete(p.waits, f)
		p.purgeStale(f)
	}
}

// down is the end of a session. It may be the begin of a restart, or may not.
func (p *modelPeer) down(restarting bool) {
	p.up, p.out = false, nil
	for _, f := range p.families {
		if !restarting || !p.graceful() || !slices.Contains(p.restarts, f) {
			maps.DeleteFunc(p.in, func(n wire.NLRI, _ held) bool { return n.Kind.Family() == f })
			delete(p.waits, f)
			continue
		}
		if stage, waiting := p.waits[f]; waiting && stage == rib.Stale {
			p.purgeStale(f) // the second restart in a row
		}
		p.markStale(f)
		p.waits[f] = rib.Stale
		if p.open.immediate {
			p.expired(f)
		}
	}
}

// expired is the end of the restart time of a family (RFC 9494 §4.2).
func (p *modelPeer) expired(f wire.Family) {
	if !p.open.longLived || p.brief {
		delete(p.waits, f)
		p.purgeStale(f)
		return
	}
	p.waits[f] = rib.LongLivedStale
	for n, h := range p.in {
		if n.Kind.Family() == f && h.stale == rib.Stale {
			h.stale = rib.LongLivedStale
			p.in[n] = h
		}
	}
}

func (p *modelPeer) markStale(f wire.Family) {
	for n, h := range p.in {
		if n.Kind.Family() == f && h.stale == rib.Fresh {
			h.stale = rib.Stale
			p.in[n] = h
		}
	}
}

func (p *modelPeer) purgeStale(f wire.Family) {
	maps.DeleteFunc(p.in, func(n wire.NLRI, h held) bool { return n.Kind.Family() == f && h.stale != rib.Fresh })
}

// forgetIrrelevant leaves a peer whose irrelevant routes are not kept just
// those that an instance imports: the node asks for them when one begins to.
func (m *model) forgetIrrelevant() {
	for _, p := range m.peers {
		if p.drops && p.up {
			clear(p.in)
			for n, r := range p.out {
				if m.relevant(r) {
					p.in[n] = held{r, rib.Fresh}
				}
			}
		}
	}
}

func (m *model) relevant(r announced) bool {
	for at, i := range m.instances {
		if takes(places[at].typ, r.NLRI.Kind) && overlap(i.imports, r.attrs.RTs) {
			return true
		}
	}
	return false
}

func overlap(a, b []wire.RT) bool {
	return slices.ContainsFunc(a, func(rt wire.RT) bool { return slices.Contains(b, rt) })
}
