// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"slices"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

func keyOf(a Attachment) endpointKey { return endpointKey{a.MAC, a.IP.Addr()} }

// attach adds or updates an endpoint and the parameters of the instance. It
// runs with i.mu held. On error nothing has changed.
func (i *Instance) attach(ctx context.Context, a Attachment) error {
	if err := i.consistent(a); err != nil {
		return err
	}
	i.noteFixed(a)
	e, m, err := i.prepare(a)
	if err != nil {
		return err
	}
	old := i.endpoints[keyOf(a)]
	if err := i.fwd.Do(ctx, i.plugChanges(e, m, old)); err != nil {
		if old == nil || !old.ownRD {
			i.freeRD(e)
		}
		if m.endpoints == 0 {
			i.freeLabel(m)
		}
		return err
	}
	i.commit(ctx, e, m, old)
	return nil
}

// consistent refuses an endpoint that contradicts those plugged already.
func (i *Instance) consistent(a Attachment) error {
	if m := i.macs[a.MAC]; m != nil && m.port != a.Port {
		return refuse("local_port", "Port information is not consistent. MAC address cannot be bound to two different ports. Previous plug for port %s (%s != %s)", m.port, m.port, a.Port)
	}
	if !a.IP.IsValid() || a.AdvertiseSubnet && !a.IP.IsSingleIP() {
		return nil
	}
	for _, mac := range i.addrs[a.IP.Addr()] {
		if mac != a.MAC {
			return refuse("ip_address", "Inconsistent endpoint info: IP %s already bound to a MAC address different from %s (%s)", a.IP.Addr(), a.MAC, mac)
		}
	}
	return nil
}

// noteFixed logs parameters that were fixed when the instance was created.
func (i *Instance) noteFixed(a Attachment) {
	if a.VNI != 0 && a.VNI != i.VNI {
		i.m.Log.Info("vni is fixed at creation of the instance", "instance", i.ID, "vni", i.VNI, "asked", a.VNI)
	}
	if a.Gateway != i.Gateway {
		i.m.Log.Debug("gateway_ip is fixed at creation of the instance", "instance", i.ID, "gateway_ip", i.Gateway, "asked", a.Gateway)
	}
	if a.Bridge != i.Bridge {
		i.m.Log.Info("linuxbr is fixed at creation of the instance", "instance", i.ID, "linuxbr", i.Bridge, "asked", a.Bridge)
	}
	if len(a.Fallback) > 0 {
		i.m.Log.Warn("fallback is not supported by this driver and has no effect", "instance", i.ID, "driver", i.driver().Name())
	}
}

// prepare returns the endpoint and its MAC with the identifiers they need; a
// MAC without endpoints is new.
func (i *Instance) prepare(a Attachment) (*endpoint, *localMAC, error) {
	e := &endpoint{Attachment: a}
	if old := i.endpoints[keyOf(a)]; old != nil {
		e.rdNumber, e.ownRD = old.rdNumber, old.ownRD
	}
	m := i.macs[a.MAC]
	if m == nil {
		m = &localMAC{port: a.Port, since: time.Now()}
	}
	var err error
	if i.Type == dataplane.IPVPN && m.label == 0 {
		if m.label, err = i.m.labels.Allocate(i.Name + " " + a.MAC.String()); err != nil {
			return nil, nil, err
		}
	}
	if i.needsOwnRD(a) && !e.ownRD {
		if e.rdNumber, err = i.m.rds.Allocate(i.Name + " " + a.MAC.String()); err != nil {
			if m.endpoints == 0 {
				i.freeLabel(m)
			}
			return nil, nil, err
		}
		e.ownRD = true
	}
	return e, m, nil
}

// needsOwnRD tells whether the endpoint's route must not be the same NLRI as
// another endpoint's of the instance: subnets that several ports announce, and
// (as the original does it) MAC-only routes.
func (i *Instance) needsOwnRD(a Attachment) bool {
	if i.Type == dataplane.EVPN {
		return !a.IP.IsValid()
	}
	return a.AdvertiseSubnet && !a.IP.IsSingleIP()
}

// plugChanges returns what the dataplane must do for an endpoint.
func (i *Instance) plugChanges(e *endpoint, m *localMAC, old *endpoint) []dataplane.Change {
	changes := []dataplane.Change{{Entry: dataplane.Entry{Kind: dataplane.LocalPort, Port: e.Port}}}
	if i.Type == dataplane.EVPN {
		return append(changes, dataplane.Change{Entry: localMACEntry(e)})
	}
	if old != nil && localPrefixEntry(old, m).Equal(localPrefixEntry(e, m)) {
		return changes
	}
	return append(changes, dataplane.Change{Entry: localPrefixEntry(e, m)})
}

func localMACEntry(e *endpoint) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalMAC, Port: e.Port, MAC: e.MAC}
}

func localPrefixEntry(e *endpoint, m *localMAC) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalPrefix, Port: e.Port, MAC: e.MAC, IP: e.IP.Addr(), Label: m.label, Direction: e.Direction}
}

// commit enters the endpoint, and announces what has changed.
func (i *Instance) commit(ctx context.Context, e *endpoint, m *localMAC, old *endpoint) {
	i.description, i.fallback = e.InstanceDescription, keepRaw(e.Fallback, i.fallback)
	exportsChanged := i.setTargets(e.Imports, e.Exports)
	if old == nil {
		i.enter(e, m)
	} else {
		e.routes = old.routes
		i.endpoints[keyOf(e.Attachment)] = e
	}
	if m.endpoints == 1 && old == nil && i.Type == dataplane.EVPN {
		if seq, known := i.table.Mobility(e.MAC); known {
			m.seq = nextSeq(seq)
		}
	}
	var b rib.Batch
	if exportsChanged {
		i.announceAll(&b)
	} else {
		i.announceMulticast(&b)
		i.announce(&b, e)
	}
	var gone []dataplane.Change
	if wild := i.endpoints[endpointKey{mac: e.MAC}]; wild != nil && e.IP.IsValid() {
		gone = i.leave(&b, wild)
	}
	if old != nil && old.ownRD && !i.needsOwnRD(e.Attachment) {
		i.freeRD(e)
	}
	i.m.rib.Apply(i.source, &b)
	i.fwd.Release(ctx, gone)
	i.refresh(e)
}

func keepRaw(now, before []byte) []byte {
	if len(now) > 0 {
		return now
	}
	return before
}

// enter adds an endpoint to the instance's books.
func (i *Instance) enter(e *endpoint, m *localMAC) {
	i.endpoints[keyOf(e.Attachment)] = e
	i.macs[e.MAC] = m
	m.endpoints++
	i.ports[e.Port]++
	if ip := e.IP.Addr(); ip.IsValid() && !slices.Contains(i.addrs[ip], e.MAC) {
		i.addrs[ip] = append(i.addrs[ip], e.MAC)
	}
}

// leave takes an endpoint out of the books and its routes back, and returns
// what the dataplane must do.
func (i *Instance) leave(b *rib.Batch, e *endpoint) []dataplane.Change {
	for _, n := range e.routes {
		b.Withdraw(n)
	}
	i.freeRD(e)
	delete(i.endpoints, keyOf(e.Attachment))
	if ip := e.IP.Addr(); ip.IsValid() {
		left := slices.DeleteFunc(i.addrs[ip], func(mac ethernet.MAC) bool { return mac == e.MAC })
		if i.addrs[ip] = left; len(left) == 0 {
			delete(i.addrs, ip)
		}
	}
	m := i.macs[e.MAC]
	var changes []dataplane.Change
	if i.Type == dataplane.IPVPN {
		changes = append(changes, dataplane.Change{Delete: true, Entry: localPrefixEntry(e, m)})
	}
	if m.endpoints--; m.endpoints == 0 {
		if i.Type == dataplane.EVPN {
			changes = append(changes, dataplane.Change{Delete: true, Entry: localMACEntry(e)})
		}
		i.freeLabel(m)
		delete(i.macs, e.MAC)
	}
	if i.ports[e.Port]--; i.ports[e.Port] == 0 {
		changes = append(changes, dataplane.Change{Delete: true, Entry: dataplane.Entry{Kind: dataplane.LocalPort, Port: e.Port}})
		delete(i.ports, e.Port)
	}
	return changes
}

// detach removes the endpoints that d names. It runs with i.mu held.
func (i *Instance) detach(ctx context.Context, d Detachment) error {
	gone, err := i.matching(d)
	if err != nil {
		return err
	}
	var b rib.Batch
	var changes []dataplane.Change
	for _, e := range gone {
		changes = append(changes, i.leave(&b, e)...)
	}
	i.m.rib.Apply(i.source, &b)
	i.fwd.Release(ctx, changes)
	for _, e := range gone {
		i.refresh(e)
	}
	return nil
}

// matching returns the endpoints that a detach names.
func (i *Instance) matching(d Detachment) ([]*endpoint, error) {
	if e := i.endpoints[endpointKey{d.MAC, d.IP}]; e != nil && d.IP.IsValid() {
		return []*endpoint{e}, nil
	}
	switch {
	case d.IP.IsValid() && i.macs[d.MAC] == nil && len(i.addrs[d.IP]) == 0:
		return nil, refuse("mac_address", "Endpoint (%s, %s) not plugged yet, can't unplug", d.MAC, d.IP)
	case d.IP.IsValid():
		return nil, refuse("ip_address", "Inconsistent endpoint info: IP %s is not bound to MAC address %s", d.IP, d.MAC)
	}
	var all []*endpoint
	for k, e := range i.endpoints {
		if k.mac == d.MAC {
			all = append(all, e)
		}
	}
	return all, nil
}

// refresh makes the worker look again at the entries that a local endpoint
// overrides or no longer overrides.
func (i *Instance) refresh(e *endpoint) {
	if i.Type != dataplane.EVPN {
		return
	}
	keys := []rib.EntryKey{rib.MACKey(e.MAC)}
	if ip := e.IP.Addr(); ip.IsValid() {
		keys = append(keys, rib.IPKey(ip))
	}
	i.table.Refresh(keys...)
}

// announceAll announces every route of the instance again.
func (i *Instance) announceAll(b *rib.Batch) {
	i.multicast = false
	i.announceMulticast(b)
	for _, e := range i.endpoints {
		i.announce(b, e)
	}
}

// announceMulticast announces the inclusive multicast route of an EVI (RFC 7432
// §7.3), unless it was announced with these route targets. Its next hop is the
// tunnel end, as in the other routes: some receivers flood there and not to the
// end that the PMSI tunnel names.
func (i *Instance) announceMulticast(b *rib.Batch) {
	if i.Type != dataplane.EVPN || i.multicast {
		return
	}
	i.multicast = true
	set := i.interner.InternLocal(wire.LocalAttrs{
		NextHop: i.m.Tunnel[i.Type], RTs: i.exports, Communities: i.encapCommunities(),
		PMSI: &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: i.VNI, Endpoint: i.m.Tunnel[i.Type]},
	}.Build())
	b.Hold(set)
	b.Announce(wire.Route{NLRI: wire.IMETRoute(i.RD, i.m.originator())}, set)
}

// announce announces the routes of an endpoint and withdraws those that it had
// and has no longer.
func (i *Instance) announce(b *rib.Batch, e *endpoint) {
	route, ok := i.routeOf(e)
	var now []wire.NLRI
	if ok {
		now = append(now, route.NLRI)
		set := i.interner.InternLocal(i.attrsOf(e).Build())
		b.Hold(set)
		b.Announce(route, set)
	}
	for _, n := range e.routes {
		if !slices.Contains(now, n) {
			b.Withdraw(n)
		}
	}
	e.routes = now
}

// routeOf returns the endpoint's route, and false when it has none.
func (i *Instance) routeOf(e *endpoint) (wire.Route, bool) {
	rd := i.RD
	if i.needsOwnRD(e.Attachment) {
		rd = wire.MakeRD(i.m.RouterID, uint16(e.rdNumber))
	}
	if i.Type == dataplane.EVPN {
		return wire.Route{NLRI: wire.MACIPRoute(rd, e.MAC, e.IP.Addr()), Label: i.VNI}, true
	}
	p := e.IP
	if !e.AdvertiseSubnet {
		p, _ = p.Addr().Prefix(p.Addr().BitLen())
	}
	return wire.Route{NLRI: wire.VPNRoute(rd, p), Label: wire.LabelField(i.macs[e.MAC].label)}, e.Direction != dataplane.FromPort
}

func (i *Instance) attrsOf(e *endpoint) wire.LocalAttrs {
	a := wire.LocalAttrs{NextHop: i.m.Tunnel[i.Type], LocalPref: e.LocalPref, RTs: i.exports, Communities: i.encapCommunities()}
	if seq := i.macs[e.MAC].seq; seq > 0 {
		a.Communities = append(a.Communities, wire.MobilityCommunity(seq))
	}
	if e.HashOrder != 0 && i.Type == dataplane.IPVPN {
		a.Communities = append(a.Communities, wire.HashOrderCommunity(e.HashOrder))
	}
	return a
}

// encapCommunities names the encapsulations of the driver; Default stands for
// none and is never on the wire.
func (i *Instance) encapCommunities() []wire.ExtCommunity {
	var out []wire.ExtCommunity
	for _, t := range i.caps.Encaps {
		if t != encap.Default {
			out = append(out, wire.EncapCommunity(t))
		}
	}
	return out
}
