// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"encoding/binary"
	"time"

	codec "github.com/osrg/gobgp/v4/pkg/packet/bmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// batchLimit bounds the changes taken from the RIB at once.
const batchLimit = 2048

// monitor is what one connection has told its station.
type monitor struct {
	*station
	out    *outbox
	routes *rib.Watcher
	begun  bool // the watcher's first scan is under way, or over
	up     map[rib.SourceID]*reported

	changes []rib.Change
	groups  grouping
	// usual packs by the longest message of the peer's session; large takes a route
	// that does not fit, since our form of an UPDATE may be longer than the peer's.
	usual map[int]*wire.Packer
	large *wire.Packer
}

// reported is a peer that the station knows to be up.
type reported struct {
	Session
	maxMessage int    // of the session, in octets
	header     []byte // per-peer header
	dump       dump
	opaque     map[wire.NLRI][]byte // octets of opaque NLRIs told, which a withdrawal needs
}

// dump is how far a peer's Adj-RIB-In has been sent.
type dump uint8

const (
	dumpDue     dump = iota // a scan is to begin
	dumpRunning             // the scan that is under way is for this peer, too
	dumpDone
)

func newMonitor(s *station, out *outbox, w *rib.Watcher) *monitor {
	return &monitor{
		station: s, out: out, routes: w, up: map[rib.SourceID]*reported{}, groups: newGrouping(),
		usual: map[int]*wire.Packer{}, large: wire.NewPacker(wire.MaxExtMessage),
	}
}

// sync tells the station which sessions went and came up.
func (m *monitor) sync() {
	sessions := m.cfg.Peers.Sessions()
	here := make(map[rib.SourceID]struct{}, len(sessions))
	for i := range sessions {
		s := &sessions[i]
		here[s.Source] = struct{}{}
		p := m.up[s.Source]
		if p != nil && p.same(s) {
			p.TreatAsWithdraw = s.TreatAsWithdraw
			continue
		}
		if p != nil {
			m.down(p, s)
		}
		if s.Established {
			m.peerUp(s)
		}
	}
	for src, p := range m.up {
		if _, ok := here[src]; !ok {
			m.down(p, nil)
		}
	}
}

// peerUp reports a new session. Its routes are due unless the first scan, which
// is for all peers, is still to begin.
func (m *monitor) peerUp(s *Session) {
	if len(s.SentOpen) < wire.HeaderLen || len(s.ReceivedOpen) < wire.HeaderLen {
		m.log.Error("BGP session is not reported: its OPEN messages are not known", "peer", s.Peer)
		return
	}
	p := &reported{Session: *s, maxMessage: s.MaxMessage(), header: peerHeader(s), opaque: map[wire.NLRI][]byte{}}
	if !m.begun {
		p.dump = dumpRunning
	}
	m.up[s.Source] = p
	stamp(p.header, s.Since)
	m.out.message(peerUp(p.header, s))
}

// down reports that the session with p is over. Now is the source's present
// state, which may be of another peer, or nil when there is none.
func (m *monitor) down(p *reported, now *Session) {
	delete(m.up, p.Source)
	stamp(p.header, time.Now())
	if now != nil && now.Peer == p.Peer {
		m.out.message(peerDown(p.header, now.Down))
		return
	}
	m.out.message(peerGone(p.header))
}

// statistics reports on each peer that is up.
func (m *monitor) statistics() {
	m.sync()
	now := time.Now()
	for src, p := range m.up {
		stamp(p.header, now)
		m.out.message(statisticsReport(p.header, &p.Session, m.cfg.Routes.SourceCounts(src)))
	}
}

// next reports a batch of changes and tells whether more is waiting.
func (m *monitor) next() bool {
	var more bool
	m.begun = true
	m.changes, more = m.routes.Next(batchLimit, m.changes[:0])
	m.pack()
	if !more {
		m.endDumps()
	}
	return more
}

// endDumps sends the End-of-RIB markers of what has been sent completely (RFC 7854
// §5), and begins the next scan when the last one is over: to restart a scan for
// every peer that comes up might never let one end.
func (m *monitor) endDumps() {
	for src, p := range m.up {
		switch p.dump {
		case dumpDue:
			m.routes.Rescan(src)
			p.dump = dumpRunning
		case dumpRunning:
			p.dump = dumpDone
			stamp(p.header, time.Now())
			for _, f := range p.Families {
				m.emit(p, wire.EndOfRIBMessage(f))
			}
		}
	}
}

// pack turns the changes into UPDATEs: one run of messages for those that share
// peer, family and attributes.
func (m *monitor) pack() {
	m.groups.fill(m.changes)
	now := time.Now()
	for i := range m.groups.list {
		g := &m.groups.list[i]
		p := m.up[g.source]
		if p == nil { // no session: the peer's routes are stale, or the session is too new
			continue
		}
		stamp(p.header, time.Time{}) // of a dump: the RIB does not know when a route came
		if p.dump == dumpDone {
			stamp(p.header, now)
		}
		m.packGroup(p, g)
	}
	clear(m.changes) // keep no attributes of routes that may go
	m.groups.fill(nil)
}

// packGroup reports the changes of one group.
func (m *monitor) packGroup(p *reported, g *group) {
	packer := m.usual[p.maxMessage]
	if packer == nil {
		packer = wire.NewPacker(p.maxMessage)
		m.usual[p.maxMessage] = packer
	}
	g.begin(packer)
	for i := g.first; i >= 0; i = m.groups.next[i] {
		c := &m.changes[i]
		if !p.recall(c) {
			continue
		}
		if !packer.Add(c.Route) {
			g.begin(m.large)
			if !m.large.Add(c.Route) {
				m.log.Warn("route does not fit a message and is not reported", "peer", p.Peer, "route", c.NLRI)
				continue
			}
			m.emit(p, m.large.Flush())
		}
		m.out.routes++
	}
	m.emit(p, packer.Flush())
}

// recall keeps the octets of an opaque NLRI that is announced, and puts them into
// its withdrawal. It returns false for one that the station does not know.
func (p *reported) recall(c *rib.Change) bool {
	if !c.NLRI.Kind.Opaque() {
		return true
	}
	if c.Attrs != nil {
		p.opaque[c.NLRI] = c.Raw
		return true
	}
	var known bool
	c.Raw, known = p.opaque[c.NLRI]
	delete(p.opaque, c.NLRI)
	return known
}

// emit adds a Route Monitoring message for each of the BGP messages.
func (m *monitor) emit(p *reported, messages []byte) {
	for len(messages) >= wire.HeaderLen {
		n := binary.BigEndian.Uint16(messages[wire.HeaderLen-3:])
		m.out.message(message{codec.BMP_MSG_ROUTE_MONITORING, p.header, messages[:n]})
		messages = messages[n:]
	}
}
