// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

func keyOf(a Attachment) endpointKey { return endpointKey{a.MAC, a.IP.Addr()} }

// attach adds or updates an endpoint and the parameters of the instance. It
// runs with i.mu held. On error nothing has changed.
func (i *Instance) attach(ctx context.Context, a Attachment) (*endpoint, error) {
	next := i.nextChain(a)
	for _, err := range []error{i.consistent(a), i.checkChain(&next)} {
		if err != nil {
			return nil, err
		}
	}
	i.noteFixed(a)
	e, m, err := i.prepare(a, &endpointRecord{})
	if err != nil {
		return nil, err
	}
	old := i.endpoints[keyOf(a)]
	if err := i.fwd.Do(ctx, i.plugChanges(e, next.active())); err != nil {
		if old == nil || !old.ownRD {
			i.freeRD(e)
		}
		i.freeUnused(m)
		return nil, err
	}
	i.commit(ctx, e, m, old, &next)
	return e, nil
}

// consistent refuses an endpoint that contradicts those plugged already.
func (i *Instance) consistent(a Attachment) error {
	for _, e := range i.ports[a.Port] {
		if i.Type == dataplane.IPVPN && e.OVS != a.OVS && keyOf(e.Attachment) != keyOf(a) {
			return refuse("local_port", "Port information is not consistent. Previous plug for port %s (%s != %s)", a.Port, e.OVS, a.OVS)
		}
	}
	if a.OVS.VLAN != 0 && i.vlan != 0 && a.OVS.VLAN != i.vlan {
		return refuse("local_port", "ovs: vlan: %d: all ports of an instance have one VLAN: want %d", a.OVS.VLAN, i.vlan)
	}
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
	if a.AdvertiseAs != "" && a.AdvertiseAs != i.AdvertiseAs {
		i.m.Log.Info("advertise_as is fixed at creation of the instance", "instance", i.ID, "advertise_as", i.AdvertiseAs, "asked", a.AdvertiseAs)
	}
	if a.Bridge != i.Bridge {
		i.m.Log.Info("linuxbr is fixed at creation of the instance", "instance", i.ID, "linuxbr", i.Bridge, "asked", a.Bridge)
	}
}

// prepare returns the endpoint and its MAC with the identifiers they need, those of the
// last run where it had some; a MAC without endpoints is new.
func (i *Instance) prepare(a Attachment, last *endpointRecord) (*endpoint, *localMAC, error) {
	e := &endpoint{Attachment: a}
	if old := i.endpoints[keyOf(a)]; old != nil {
		e.rdNumber, e.ownRD = old.rdNumber, old.ownRD
	}
	if last.RD != nil {
		e.rdNumber, e.ownRD = *last.RD, true
	}
	if last.ChainRD != nil {
		e.chainRD, e.hasChainRD = *last.ChainRD, true
	}
	m := i.macs[a.MAC]
	if m == nil {
		m = &localMAC{port: a.Port, since: time.Now(), seq: last.Mobility, raised: last.Instance != ""}
	}
	var err error
	if i.Type == dataplane.IPVPN {
		l := &m.labels[i.labelSlot(a.IP.Addr())]
		if l.number == 0 {
			l.number = last.Label
		}
		if l.number == 0 {
			if l.number, err = i.m.labels.Allocate(i.Name + " " + a.MAC.String()); err != nil {
				return nil, nil, err
			}
		}
		e.label = l.number
	}
	if i.needsOwnRD(a) && !e.ownRD {
		if e.rdNumber, err = i.m.rds.Allocate(i.Name + " " + a.MAC.String()); err != nil {
			i.freeUnused(m)
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

// plugChanges returns what the dataplane must do for an endpoint. Transit tells whether
// the instance is going to be a hop of a service chain.
func (i *Instance) plugChanges(e *endpoint, transit bool) []dataplane.Change {
	if i.Type == dataplane.EVPN {
		return []dataplane.Change{{Entry: i.portEntry(e.Port, e, false)}, {Entry: localMACEntry(e)}}
	}
	changes := []dataplane.Change{{Entry: i.portEntry(e.Port, e, transit)}, {Entry: localPrefixEntry(e)}}
	if now := keepFallback(e.Fallback, i.fallback); !now.same(i.fallback) || i.vlanOf(e) != i.vlan && now != nil {
		changes = append(changes, dataplane.Change{Entry: fallbackEntry(now, i.vlanOf(e))})
	}
	return changes
}

// portsFor returns what the dataplane must do for the other ports when the instance becomes a
// hop of a service chain, or is none any more.
func (i *Instance) portsFor(next *chain, but string) (changes []dataplane.Change) {
	if next.active() == i.chain.active() || i.Type != dataplane.IPVPN {
		return nil
	}
	for port := range i.ports {
		if port != but {
			changes = append(changes, dataplane.Change{Entry: i.portEntry(port, nil, next.active())})
		}
	}
	return changes
}

// portEntry returns the entry of a port, with one endpoint more unless nil: the
// traffic of a VRF goes the ways that any endpoint of the port has.
func (i *Instance) portEntry(port string, more *endpoint, transit bool) dataplane.Entry {
	e := dataplane.Entry{Kind: dataplane.LocalPort, Port: port, Transit: transit}
	if i.Type == dataplane.EVPN {
		return e
	}
	add := func(o *endpoint) {
		e.OVS = o.OVS
		switch {
		case e.Direction == "":
			e.Direction = o.Direction
		case e.Direction != o.Direction:
			e.Direction = dataplane.Both
		}
	}
	for _, o := range i.ports[port] {
		if more == nil || keyOf(o.Attachment) != keyOf(more.Attachment) {
			add(o)
		}
	}
	if more != nil {
		add(more)
	}
	return e
}

// vlanOf returns the VLAN of the instance's OVS ports once an endpoint is plugged.
func (i *Instance) vlanOf(e *endpoint) uint16 {
	if i.vlan != 0 {
		return i.vlan
	}
	return e.OVS.VLAN
}

func fallbackEntry(f *Fallback, vlan uint16) dataplane.Entry {
	return dataplane.Entry{
		Kind: dataplane.Fallback, Port: f.Device, MAC: f.MAC, Source: f.Source, OVS: dataplane.OVSPort{Number: f.Port, VLAN: vlan},
	}
}

func localMACEntry(e *endpoint) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalMAC, Port: e.Port, MAC: e.MAC}
}

func localPrefixEntry(e *endpoint) dataplane.Entry {
	return dataplane.Entry{
		Kind: dataplane.LocalPrefix, Port: e.Port, MAC: e.MAC, IP: e.IP.Addr(), Prefix: e.prefix(),
		Gateway: e.Gateway, Label: e.label, Direction: e.Direction,
	}
}

// prefix returns what an endpoint of a VRF is announced with.
func (e *endpoint) prefix() netip.Prefix {
	if e.AdvertiseSubnet {
		return e.IP.Masked()
	}
	return netip.PrefixFrom(e.IP.Addr(), e.IP.Addr().BitLen())
}

// commit enters the endpoint, and announces what has changed.
func (i *Instance) commit(ctx context.Context, e *endpoint, m *localMAC, old *endpoint, next *chain) {
	var b rib.Batch
	stays := old != nil && old.HashOrder == e.HashOrder && old.Direction == e.Direction
	if old != nil && !stays {
		i.leaveChain(&b, old)
		delete(i.endpoints, keyOf(old.Attachment))
	}
	ports := i.portsFor(next, e.Port)
	i.setChain(&b, next.readvertise, next.attract)
	i.description, i.fallback, i.vlan = e.InstanceDescription, keepFallback(e.Fallback, i.fallback), i.vlanOf(e)
	exportsChanged := i.setTargets(e.Imports, e.Exports)
	if old == nil {
		i.enter(e, m)
	} else {
		e.routes, e.chainRD, e.hasChainRD = old.routes, old.chainRD, old.hasChainRD
		i.endpoints[keyOf(e.Attachment)] = e
		i.ports[e.Port][slices.Index(i.ports[e.Port], old)] = e
	}
	if m.endpoints == 1 && old == nil && i.Type == dataplane.EVPN && !m.raised {
		if seq, known := i.table.Mobility(e.MAC); known {
			m.seq, m.contested = nextSeq(seq), true
		}
	}
	if exportsChanged {
		i.announceAll(&b)
	} else {
		i.announceMulticast(&b)
		i.announce(&b, e)
	}
	if !stays {
		i.joinChain(&b, e)
	}
	var gone []dataplane.Change
	if wild := i.endpoints[endpointKey{mac: e.MAC}]; wild != nil && e.IP.IsValid() {
		gone = i.leave(&b, wild)
	}
	if old != nil && old.ownRD && !i.needsOwnRD(e.Attachment) {
		i.freeRD(e)
	}
	i.m.rib.Apply(i.source, &b)
	i.fwd.Release(ctx, append(gone, ports...))
	i.refresh(e)
}

func keepFallback(now, before *Fallback) *Fallback {
	if now != nil {
		return now
	}
	return before
}

// enter adds an endpoint to the instance's books.
func (i *Instance) enter(e *endpoint, m *localMAC) {
	i.endpoints[keyOf(e.Attachment)] = e
	i.count.Add(1)
	i.macs[e.MAC] = m
	m.endpoints++
	m.labels[i.labelSlot(e.IP.Addr())].endpoints++
	i.ports[e.Port] = append(i.ports[e.Port], e)
	if ip := e.IP.Addr(); ip.IsValid() && !slices.Contains(i.addrs[ip], e.MAC) {
		i.addrs[ip] = append(i.addrs[ip], e.MAC)
	}
}

// leave takes an endpoint out of the books and its routes back, and returns
// what the dataplane must do.
func (i *Instance) leave(b *rib.Batch, e *endpoint) []dataplane.Change {
	for _, n := range e.routes {
		i.withdraw(b, n)
	}
	i.leaveChain(b, e)
	i.freeRD(e)
	i.freeChainRD(e)
	delete(i.endpoints, keyOf(e.Attachment))
	i.count.Add(-1)
	i.left = append(i.left, keyOf(e.Attachment))
	if ip := e.IP.Addr(); ip.IsValid() {
		left := slices.DeleteFunc(i.addrs[ip], func(mac ethernet.MAC) bool { return mac == e.MAC })
		if i.addrs[ip] = left; len(left) == 0 {
			delete(i.addrs, ip)
		}
	}
	m := i.macs[e.MAC]
	var changes []dataplane.Change
	if i.Type == dataplane.IPVPN {
		changes = append(changes, dataplane.Change{Delete: true, Entry: localPrefixEntry(e)})
	}
	m.labels[i.labelSlot(e.IP.Addr())].endpoints--
	i.freeUnused(m)
	if m.endpoints--; m.endpoints == 0 {
		if i.Type == dataplane.EVPN {
			changes = append(changes, dataplane.Change{Delete: true, Entry: localMACEntry(e)})
		}
		delete(i.macs, e.MAC)
	}
	before := i.portEntry(e.Port, nil, i.chain.active())
	others := slices.DeleteFunc(i.ports[e.Port], func(o *endpoint) bool { return o == e })
	if i.ports[e.Port] = others; len(others) == 0 {
		changes = append(changes, dataplane.Change{Delete: true, Entry: before})
		delete(i.ports, e.Port)
	} else if left := i.portEntry(e.Port, nil, i.chain.active()); !left.Equal(before) {
		changes = append(changes, dataplane.Change{Entry: left})
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
