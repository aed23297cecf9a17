// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// chain is what makes a VRF a hop of a service chain
// (draft-ietf-bess-service-chaining): routes of others that it announces again, so
// that their traffic comes to its endpoints.
type chain struct {
	readvertise Readvertise
	attract     Attract
	table       *rib.Table // what Readvertise.From brings; nil: nothing did so far
	// prefixes and flows are those announced again now, with the attributes of the
	// routes that they came with.
	prefixes map[netip.Prefix]*wire.Attrs
	flows    map[rib.EntryKey]flowSource

	// By IP version:
	sources [2]map[*wire.Attrs]int // how many of prefixes have these attributes
	draws   [2]draw                // the default route
	takers  [2]int                 // endpoints that take traffic

	relayRD    uint32 // number of the RD of flows: ones from prefixes may be the same
	hasRelayRD bool
}

// draw says whether there is a default route, for the traffic that FlowSpec routes redirect,
// and which of their prefixes it comes from; nil for a static one.
type draw struct {
	on   bool
	from *wire.Attrs
}

// flowSource is a FlowSpec route that is announced again.
type flowSource struct {
	components []byte
	ipv6       bool
	attrs      *wire.Attrs
}

func version(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// to returns the route targets that traffic is brought by.
func (c *chain) to() []wire.RT {
	if len(c.readvertise.To) > 0 {
		return c.readvertise.To
	}
	return c.attract.To
}

// attracts tells whether FlowSpec routes stand in place of the prefixes.
func (c *chain) attracts() bool { return len(c.attract.Redirect) > 0 && len(c.to()) == 1 }

// active tells whether the instance announces routes of others.
func (c *chain) active() bool { return len(c.readvertise.To) > 0 || c.attracts() }

// static returns the prefixes that FlowSpec routes are made for without a route.
func (c *chain) static() []netip.Prefix {
	if !c.attracts() {
		return nil
	}
	return c.attract.Static
}

// loops tells whether a route has been here: it was announced before with a route
// target that it would be announced with again.
func (c *chain) loops(a *wire.Attrs) bool {
	return slices.ContainsFunc(a.Communities, func(x wire.ExtCommunity) bool {
		is := func(rt wire.RT) bool { return wire.RTRecord(rt) == x }
		return x.IsRTRecord() && (slices.ContainsFunc(c.to(), is) || slices.ContainsFunc(c.attract.Redirect, is))
	})
}

// maxRTRecords bounds the RT-records of a route, so that it fits a message.
const maxRTRecords = 200

// recordsOf returns the RT-records of a route announced again: those of the route it
// comes from and its route targets, sorted, each once.
func recordsOf(a *wire.Attrs) (out []wire.ExtCommunity) {
	for _, c := range a.Communities {
		switch {
		case c.IsRTRecord():
			out = append(out, c)
		case c.IsRT():
			out = append(out, wire.RTRecord(wire.RT(c)))
		}
	}
	slices.SortFunc(out, compareCommunities)
	return slices.Compact(out)
}

func compareCommunities(a, b wire.ExtCommunity) int { return slices.Compare(a[:], b[:]) }

// choose returns the path to announce again, of those that do not loop: the one that
// has come the shortest way, which is the one with the fewest RT-records. So what
// instances announce to each other settles, as path vectors do, which it would not if
// LOCAL_PREF decided: that says how to get to a prefix, and here it is announced that there is
// a way. One of last resort is taken only where there is no other. Nil when there is none.
func (c *chain) choose(paths []rib.Path) (best *rib.Path) {
	const last = maxRTRecords + 1
	least := 2 * last
	for n := range paths {
		p := &paths[n]
		if p.NLRI.Kind.IsFlow() && !c.attracts() || c.loops(p.Attrs) {
			continue
		}
		rank := len(recordsOf(p.Attrs))
		if rank > maxRTRecords {
			continue
		}
		if p.LastResort() {
			rank += last
		}
		if rank < least {
			best, least = p, rank
		}
	}
	return best
}

// chainRoute is a route that a chain announces.
type chainRoute struct {
	wire.Route
	kind  chainKind
	from  *wire.Attrs // of the route that it comes from, or nil
	order uint32      // consistent-hash sort order
}

type chainKind uint8

const (
	throughRoute  chainKind = iota // a prefix through an endpoint
	defaultRoute                   // all that FlowSpec routes redirect
	redirectRoute                  // FlowSpec for a prefix
	relayedRoute                   // FlowSpec of others
)

// attrsOfChain returns the attributes of a chain's route. Their communities are in
// the order in which the original sends them.
func (i *Instance) attrsOfChain(r *chainRoute) wire.LocalAttrs {
	c := &i.chain
	a := wire.LocalAttrs{RTs: c.to()}
	if r.kind <= defaultRoute {
		a.NextHop, a.Communities = i.m.Tunnel[i.Type], i.encapCommunities()
	}
	if r.from != nil {
		a.Communities = append(a.Communities, recordsOf(r.from)...)
	}
	switch r.kind {
	case redirectRoute:
		a.Communities = append(a.Communities, wire.RedirectCommunity(c.to()[0]))
		a.RTs = c.attract.Redirect
	case relayedRoute:
		a.Communities = append(a.Communities, wire.RedirectCommunity(c.attract.Redirect[0]))
	default:
		a.Communities = append(a.Communities, wire.HashOrderCommunity(r.order))
	}
	return a
}

// chainChanges collects changes of what a chain announces.
type chainChanges struct {
	i    *Instance
	b    *rib.Batch
	sets map[chainSet]*rib.Set
}

// chainSet is what decides about the attributes of a chain's route.
type chainSet struct {
	kind  chainKind
	from  *wire.Attrs
	order uint32
}

func (i *Instance) chainChanges(b *rib.Batch) *chainChanges {
	return &chainChanges{i: i, b: b, sets: map[chainSet]*rib.Set{}}
}

func (x *chainChanges) announce(r chainRoute) {
	key := chainSet{r.kind, r.from, r.order}
	set := x.sets[key]
	if set == nil {
		set = x.i.interner.InternLocal(x.i.attrsOfChain(&r).Build())
		x.b.Hold(set)
		x.sets[key] = set
	}
	x.b.AnnounceApart(r.Route, set)
}

func (x *chainChanges) withdraw(r chainRoute) { x.b.Withdraw(r.NLRI) }

// takes tells whether an endpoint takes traffic for addresses behind it.
func (e *endpoint) takes(ipv6 bool) bool {
	return e.Direction != dataplane.FromPort && e.IP.Addr().Is6() == ipv6
}

// through returns the route of a prefix through an endpoint.
func (i *Instance) through(e *endpoint, kind chainKind, p netip.Prefix, from *wire.Attrs) chainRoute {
	n := wire.VPNRoute(wire.MakeRD(i.m.RouterID, uint16(e.chainRD)), p)
	return chainRoute{wire.Route{NLRI: n, Label: wire.LabelField(e.label)}, kind, from, e.HashOrder}
}

// ofEndpoint visits the routes that a chain announces with an endpoint as next hop.
func (i *Instance) ofEndpoint(e *endpoint, visit func(chainRoute)) {
	c, ipv6 := &i.chain, e.IP.Addr().Is6()
	switch {
	case !e.takes(ipv6) || !e.hasChainRD:
	case c.attracts():
		if d := c.draws[version(ipv6)]; d.on {
			visit(i.through(e, defaultRoute, defaultPrefix(ipv6), d.from))
		}
	default:
		for p, from := range c.prefixes {
			if p.Addr().Is6() == ipv6 {
				visit(i.through(e, throughRoute, p, from))
			}
		}
	}
}

// drawing returns the default route of an IP version. Of the prefixes it comes from the
// one that has come the shortest way, as what is announced again does.
func (c *chain) drawing(ipv6 bool) (d draw) {
	if !c.attracts() || !c.attract.has(ipv6) {
		return d
	}
	if slices.ContainsFunc(c.static(), func(p netip.Prefix) bool { return p.Addr().Is6() == ipv6 }) {
		return draw{on: true}
	}
	var least []wire.ExtCommunity
	for from := range c.sources[version(ipv6)] {
		records := recordsOf(from)
		if !d.on || cmp.Or(cmp.Compare(len(records), len(least)), slices.CompareFunc(records, least, compareCommunities)) < 0 {
			d, least = draw{true, from}, records
		}
	}
	return d
}

// redraw follows changes of the prefixes by the default routes.
func (x *chainChanges) redraw() {
	for v, ipv6 := range []bool{false, true} {
		now, was := x.i.chain.drawing(ipv6), x.i.chain.draws[v]
		if now == was {
			continue
		}
		visit := x.announce
		if !now.on {
			visit = x.withdraw
		} else {
			x.i.chain.draws[v] = now
		}
		for _, e := range x.i.endpoints {
			if e.IP.Addr().Is6() == ipv6 {
				x.i.ofEndpoint(e, visit)
			}
		}
		x.i.chain.draws[v] = now
	}
}

// setSource notes the attributes of a prefix that is announced again; nil for one that is
// so no longer.
func (c *chain) setSource(p netip.Prefix, a *wire.Attrs) {
	counts := c.sources[version(p.Addr().Is6())]
	if old := c.prefixes[p]; old != nil {
		if counts[old]--; counts[old] == 0 {
			delete(counts, old)
		}
	}
	if a == nil {
		delete(c.prefixes, p)
		return
	}
	c.prefixes[p] = a
	counts[a]++
}

func defaultPrefix(ipv6 bool) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// ofVersion visits the FlowSpec routes of an IP version that a chain announces while
// it has an endpoint to take the traffic.
func (i *Instance) ofVersion(ipv6 bool, visit func(chainRoute)) {
	c := &i.chain
	if !c.attracts() || c.takers[version(ipv6)] == 0 {
		return
	}
	for p, from := range c.prefixes {
		if p.Addr().Is6() == ipv6 {
			i.redirectTo(p, from, visit)
		}
	}
	for _, p := range c.static() { // after the others, which may be the same
		if p.Addr().Is6() == ipv6 {
			i.redirectTo(p, nil, visit)
		}
	}
	for _, f := range c.flows {
		if f.ipv6 == ipv6 {
			i.relay(f, visit)
		}
	}
}

// redirectTo visits the FlowSpec route of a prefix, if the class has its IP version.
func (i *Instance) redirectTo(p netip.Prefix, from *wire.Attrs, visit func(chainRoute)) {
	flow := i.chain.attract.Class
	flow.Destination, flow.IPv6 = p, p.Addr().Is6()
	if i.chain.attract.has(flow.IPv6) {
		visit(chainRoute{wire.FlowRoute(i.RD, flow), redirectRoute, from, 0})
	}
}

// relay visits the FlowSpec route of a flow while there is an endpoint to take the traffic.
func (i *Instance) relay(f flowSource, visit func(chainRoute)) {
	c := &i.chain
	if c.takers[version(f.ipv6)] == 0 || !i.takeRD(&c.relayRD, &c.hasRelayRD, "flows") {
		return
	}
	rd := wire.MakeRD(i.m.RouterID, uint16(c.relayRD))
	visit(chainRoute{wire.RawFlowRoute(rd, f.components, f.ipv6), relayedRoute, f.attrs, 0})
}

// joinChain announces what an endpoint makes the chain announce: all through it, and
// with the first one of an IP version the FlowSpec routes. It gets an RD of its own.
func (i *Instance) joinChain(b *rib.Batch, e *endpoint) {
	if !e.takes(e.IP.Addr().Is6()) || i.Type != dataplane.IPVPN {
		return
	}
	v := version(e.IP.Addr().Is6())
	i.chain.takers[v]++
	if !i.chain.active() {
		return
	}
	x := i.chainChanges(b)
	if i.chain.takers[v] == 1 {
		i.ofVersion(v == 1, x.announce)
	}
	i.takeChainRD(e)
	i.ofEndpoint(e, x.announce)
}

// takeChainRD gives an endpoint the RD of the routes through it: several endpoints
// announce the same prefixes, which may be those of its own.
func (i *Instance) takeChainRD(e *endpoint) {
	if !e.hasChainRD && i.takeRD(&e.chainRD, &e.hasChainRD, e.MAC.String()+" chain") {
		i.changed = append(i.changed, keyOf(e.Attachment))
	}
}

// takeRD allocates the number of an RD unless there is one, and tells whether there is one then.
func (i *Instance) takeRD(n *uint32, has *bool, what string) bool {
	if *has {
		return true
	}
	got, err := i.m.rds.Allocate(i.Name + " " + what)
	if err != nil {
		i.m.Log.Error("routes of others are not announced again", "instance", i.ID, "of", what, "err", err)
		return false
	}
	*n, *has, i.unkept = got, true, true
	return true
}

// leaveChain undoes joinChain.
func (i *Instance) leaveChain(b *rib.Batch, e *endpoint) {
	if !e.takes(e.IP.Addr().Is6()) || i.Type != dataplane.IPVPN {
		return
	}
	x := i.chainChanges(b)
	i.ofEndpoint(e, x.withdraw)
	v := version(e.IP.Addr().Is6())
	if i.chain.takers[v] == 1 {
		i.ofVersion(v == 1, x.withdraw)
	}
	i.chain.takers[v]--
}

// freeChainRD undoes takeChainRD.
func (i *Instance) freeChainRD(e *endpoint) { i.giveRD(e.chainRD, &e.hasChainRD) }

// giveRD undoes takeRD.
func (i *Instance) giveRD(n uint32, has *bool) {
	if *has {
		i.m.rds.Free(n)
		*has = false
	}
}

// ofChain visits all routes of the chain.
func (i *Instance) ofChain(visit func(chainRoute)) {
	i.ofVersion(false, visit)
	i.ofVersion(true, visit)
	for _, e := range i.endpoints {
		i.ofEndpoint(e, visit)
	}
}

// forget drops what must not be announced again, now that the route targets are others: what
// would come round, and what came by others than now.
func (c *chain) forget() {
	from := c.readvertise.From
	comes := func(a *wire.Attrs) bool {
		return !c.loops(a) && slices.ContainsFunc(a.RTs, func(rt wire.RT) bool { return slices.Contains(from, rt) })
	}
	for p, a := range c.prefixes {
		if !comes(a) {
			c.setSource(p, nil)
		}
	}
	for k, f := range c.flows {
		if !c.attracts() || !comes(f.attrs) {
			delete(c.flows, k)
		}
	}
}

// setChain makes the instance another hop than it was: all it has announced so far
// is replaced, and what it announces again is looked at anew.
func (i *Instance) setChain(b *rib.Batch, r Readvertise, a Attract) {
	c := &i.chain
	if i.Type != dataplane.IPVPN {
		return
	}
	if c.readvertise.equal(r) && c.attract.equal(a) {
		c.attract.Text = a.Text
		return
	}
	x := i.chainChanges(b)
	i.ofChain(x.withdraw)
	c.readvertise, c.attract = r, a
	c.forget()
	if c.table == nil && len(c.readvertise.From) > 0 {
		c.prefixes, c.flows = map[netip.Prefix]*wire.Attrs{}, map[rib.EntryKey]flowSource{}
		c.sources = [2]map[*wire.Attrs]int{{}, {}}
		c.table = i.m.rib.NewTable(rib.TableConfig{View: rib.VRF, Source: i.source, All: true, Dirty: func() { i.m.pool.add(i) }})
	}
	if c.table != nil {
		c.table.SetImports(sortedRTs(c.readvertise.From))
		c.table.RefreshAll() // the loop rule is another one
	}
	if c.active() {
		for _, e := range i.endpoints {
			if e.takes(e.IP.Addr().Is6()) {
				i.takeChainRD(e)
			}
		}
	}
	c.draws = [2]draw{c.drawing(false), c.drawing(true)}
	i.ofChain(i.chainChanges(b).announce)
}

// rethink follows a change of what is to be announced again for an entry.
func (x *chainChanges) rethink(s *rib.Selection) {
	i, c := x.i, &x.i.chain
	best := c.choose(s.Best)
	if s.Key.Kind == rib.EntryFlow {
		x.setFlow(s.Key, best)
		return
	}
	p := s.Key.Prefix()
	old, had := c.prefixes[p]
	switch {
	case best == nil && !had || best != nil && had && best.Attrs == old:
		return
	case best == nil:
		i.ofPrefix(p, old, x.withdraw)
		c.setSource(p, nil)
	default:
		c.setSource(p, best.Attrs)
		i.ofPrefix(p, best.Attrs, x.announce)
	}
}

// ofPrefix visits the routes that a chain announces for a prefix.
func (i *Instance) ofPrefix(p netip.Prefix, from *wire.Attrs, visit func(chainRoute)) {
	c, ipv6 := &i.chain, p.Addr().Is6()
	if !c.attracts() {
		for _, e := range i.endpoints {
			if e.takes(ipv6) && e.hasChainRD {
				visit(i.through(e, throughRoute, p, from))
			}
		}
		return
	}
	if c.takers[version(ipv6)] > 0 && !slices.Contains(c.static(), p) {
		i.redirectTo(p, from, visit)
	}
}

// setFlow follows a change of a FlowSpec route to be announced again.
func (x *chainChanges) setFlow(k rib.EntryKey, best *rib.Path) {
	i, c := x.i, &x.i.chain
	old, had := c.flows[k]
	if best == nil {
		if had {
			i.relay(old, x.withdraw)
		}
		delete(c.flows, k)
		return
	}
	f := flowSource{best.Raw, best.NLRI.Kind == wire.KindFlowVPNv6, best.Attrs}
	c.flows[k] = f
	i.relay(f, x.announce)
}

// nextChain returns the chain that an attachment asks for.
func (i *Instance) nextChain(a Attachment) chain {
	next := chain{readvertise: i.chain.readvertise, attract: i.chain.attract}
	if a.Readvertise != nil {
		next.readvertise = *a.Readvertise
	}
	if a.Attract != nil {
		next.attract = *a.Attract
	}
	return next
}

// checkChain refuses a chain that contradicts itself or the instance.
func (i *Instance) checkChain(next *chain) error {
	r, a := &next.readvertise, &next.attract
	switch {
	case i.Type != dataplane.IPVPN && (len(r.To) > 0 || len(a.Redirect) > 0):
		return refuse("readvertise", "only an ipvpn re-advertises routes and attracts traffic: want neither 'readvertise' nor 'attract_traffic'")
	case len(r.From) > 0 && len(r.To) == 0:
		return refuse("readvertise", "'readvertise' specified with no 'to_rt'")
	case len(r.To) > 0 && len(a.To) > 0 && !slices.Equal(r.To, a.To):
		return refuse("attract_traffic", "if both are set, then 'attract_traffic/to_rt' and 'readvertise/to_rt' have to be equal")
	case len(a.Redirect) > 0 && len(next.to()) > 1:
		return refuse("attract_traffic", "attract_traffic requires exactly one RT to be provided in 'readvertise/to_rt' and 'attract_traffic/to_rt'")
	case i.AdvertiseAs == AsEVPN && next.active():
		return refuse("advertise_as", "%s: routes of others are announced again as VPN routes only: want %s or %s", i.AdvertiseAs, AsVPN, AsBoth)
	}
	for _, p := range a.Static {
		if !a.has(p.Addr().Is6()) {
			return refuse("attract_traffic", "static_destination_prefixes: %s is not of the IP version of sourcePrefix %s", p, a.Class.Source)
		}
	}
	return nil
}
