// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

const (
	// takeLimit bounds the entries that a worker handles before it lets go of
	// the instance.
	takeLimit = 1024
	// moveWindow is how long after an attach a remote route for its MAC is
	// taken for one that was there before, learned late (RFC 7432 §15).
	moveWindow = 10 * time.Second
	// takeoverWindow is the same for a remote route that is one ahead of ours. That
	// is also what the next node announces when the MAC moves on from here, and an
	// answer would draw traffic back for a moment. So it must come while the route
	// of before is still there.
	takeoverWindow = time.Second
)

// worker turns selections into forwarding entries. Its buffers live as long as it.
type worker struct {
	ctx     context.Context
	taken   rib.Selections
	changes []dataplane.Change
	hops    []dataplane.NextHop

	redirects []dataplane.Change
	unused    []targetUse
}

// serve handles some of an instance's dirty entries.
func (w *worker) serve(i *Instance) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return
	}
	more := i.table.Take(takeLimit, &w.taken)
	w.changes, w.hops, w.redirects, w.unused = w.changes[:0], w.hops[:0], w.redirects[:0], w.unused[:0]
	var moved []ethernet.MAC
	for n := range w.taken.Items {
		s := &w.taken.Items[n]
		if s.Key.Kind == rib.EntryFlow {
			w.steer(i, s)
			continue
		}
		if !ofHost(s.Key) {
			continue
		}
		w.addChange(i, s)
		if s.Key.Kind == rib.EntryMAC && i.outrun(s.Key.MAC(), s.Best) {
			moved = append(moved, s.Key.MAC())
		}
	}
	i.fwd.Sync(w.ctx, w.changes)
	i.fwd.Release(w.ctx, w.redirects)
	for _, u := range w.unused {
		i.m.leaveRedirect(w.ctx, u.target, u.by)
	}
	i.announceMACs(moved)
	if i.chain.table != nil {
		more = w.readvertise(i) || more
	}
	if i.unkept {
		i.keep()
	}
	if more {
		i.m.pool.add(i)
	}
}

// readvertise handles some of the entries to be announced again.
func (w *worker) readvertise(i *Instance) (more bool) {
	var b rib.Batch
	x := i.chainChanges(&b)
	more = i.chain.table.Take(takeLimit, &w.taken)
	for n := range w.taken.Items {
		x.rethink(&w.taken.Items[n])
	}
	x.redraw()
	i.m.rib.Apply(i.source, &b)
	return more
}

// ofHost tells whether a host can have the address of an entry: a peer may announce any,
// and what no dataplane can have is no fault of this node.
func ofHost(k rib.EntryKey) bool {
	switch k.Kind {
	case rib.EntryMAC:
		return isHostMAC(k.MAC())
	case rib.EntryIP:
		return isHost(k.IP())
	}
	return true
}

// isHostMAC tells whether a MAC can be that of a host.
func isHostMAC(m ethernet.MAC) bool { return !m.IsMulticast() && !m.IsZero() }

// isHost tells whether an address can be that of a host.
func isHost(a netip.Addr) bool { return !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6() }

// addChange adds what a selection means for the dataplane. A local endpoint
// always beats a remote route.
func (w *worker) addChange(i *Instance, s *rib.Selection) {
	w.changes = append(w.changes, dataplane.Change{})
	c := &w.changes[len(w.changes)-1]
	e := &c.Entry
	c.At = s.At
	override := false
	switch s.Key.Kind {
	case rib.EntryMAC:
		e.Kind, e.MAC = dataplane.RemoteMAC, s.Key.MAC()
		override = i.macs[e.MAC] != nil
	case rib.EntryIP:
		e.Kind, e.IP = dataplane.Neighbour, s.Key.IP()
		override = len(i.addrs[e.IP]) > 0
	case rib.EntryFlood:
		e.Kind = dataplane.Flood
	case rib.EntryPrefix:
		e.Kind, e.Prefix = dataplane.Prefix, s.Key.Prefix()
	}
	c.Delete = len(s.Best) == 0 || override
	switch {
	case e.Kind == dataplane.Flood:
		e.NextHops = w.hop(dataplane.NextHop{Addr: s.Key.IP(), Label: s.Key.Label(), Encap: encap.VXLAN})
	case c.Delete:
	case e.Kind == dataplane.Neighbour:
		e.MAC = s.Best[0].NLRI.MAC
		c.Delete = !isHostMAC(e.MAC)
	default:
		e.NextHops = w.hopsOf(i, s.Best)
		c.Delete = len(e.NextHops) == 0
	}
}

func (w *worker) hop(nh dataplane.NextHop) []dataplane.NextHop {
	w.hops = append(w.hops, nh)
	return w.hops[len(w.hops)-1 : len(w.hops) : len(w.hops)]
}

// hopsOf returns the distinct next hops of paths that have one.
func (w *worker) hopsOf(i *Instance, best []rib.Path) []dataplane.NextHop {
	first := len(w.hops)
	for n := range best {
		nh, ok := i.hopOf(&best[n])
		if ok && !slices.Contains(w.hops[first:], nh) {
			w.hops = append(w.hops, nh)
		}
	}
	return w.hops[first:len(w.hops):len(w.hops)]
}

// hopOf returns the next hop of a path. There is none for a type 5 route that leads to
// this node and is not, or no longer, one of ours.
func (i *Instance) hopOf(p *rib.Path) (nh dataplane.NextHop, ok bool) {
	nh = dataplane.NextHop{Addr: p.Attrs.NextHop, Label: p.Label, Encap: encap.VXLAN}
	switch {
	case i.Type == dataplane.EVPN:
		return nh, true
	case p.NLRI.Kind != wire.KindPrefix:
		nh.Label, nh.Encap = p.MPLSLabel(), i.chooseEncap(p.Attrs)
	case nh.Addr == i.m.Tunnel[i.Type]:
		if nh.Label, ok = i.m.behind.label(p.NLRI); !ok {
			return nh, false
		}
		nh.Encap = i.selfEncap
	default:
		nh.RouterMAC = p.Attrs.RouterMAC
	}
	nh.Order = p.Attrs.HashOrder()
	return nh, true
}

// chooseEncap returns the encapsulation towards a next hop: the driver's best of
// those that the route names, or its default for a route that names none.
func (i *Instance) chooseEncap(a *wire.Attrs) encap.Type {
	for _, t := range i.caps.Encaps {
		if a.EncapBits&t.Bit() != 0 {
			return t
		}
	}
	if i.caps.DefaultEncap != encap.Default || len(i.caps.Encaps) == 0 {
		return i.caps.DefaultEncap
	}
	return i.caps.Encaps[0]
}

// outrun tells whether a remote route for a local MAC must be answered with a
// higher sequence number. An attach that finds the route of the node where the
// MAC was before does so at once; but when the instance is new here, or BGP just
// came up, that route is learned only after the attach. Once per attach, so
// that two nodes that both hold the MAC do not race each other; and not when the
// routes of before have gone, since one that comes then is from the next move.
func (i *Instance) outrun(mac ethernet.MAC, best []rib.Path) bool {
	m := i.macs[mac]
	switch {
	case m == nil:
		return false
	case len(best) == 0:
		m.raised = m.raised || m.contested
		return false
	}
	m.contested = true
	remote := best[0].Attrs
	seq := nextSeq(remote.MobilitySeq)
	if m.raised || seq <= m.seq {
		return false
	}
	window := moveWindow
	if remote.MobilitySeq == nextSeq(m.seq) {
		window = takeoverWindow
	}
	if time.Since(m.since) > window {
		return false
	}
	m.raised = true
	m.seq = seq
	return true
}

// nextSeq returns the sequence number that beats seq. RFC 7432 §15 gives no
// meaning to going round, and 0 would lose against all others: so the highest one
// stays, and who has the MAC is then decided as among equals.
func nextSeq(seq uint32) uint32 {
	if seq == math.MaxUint32 {
		return seq
	}
	return seq + 1
}

// announceMACs announces the endpoints of MACs again.
func (i *Instance) announceMACs(macs []ethernet.MAC) {
	if len(macs) == 0 {
		return
	}
	var b rib.Batch
	var changed []*endpoint
	for k, e := range i.endpoints {
		if slices.Contains(macs, k.mac) {
			i.announce(&b, e)
			changed = append(changed, e)
		}
	}
	i.m.rib.Apply(i.source, &b)
	i.keep(changed...)
}
