// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// lastRun is an instance of the last run that is not there again yet. Its identifiers are taken.
type lastRun struct {
	instanceRecord
	endpoints []*endpointRecord
	shared    Attachment
	err       error // of the last attempt
}

// retryRestore is the pause before instances that could not be made again are tried again.
const retryRestore = 5 * time.Second

// readStore reads the records of the last run, and takes their identifiers. Records that make
// no sense are told in the log, and that not all was kept.
func (m *Manager) readStore() {
	m.last, m.kept = map[string]*lastRun{}, m.Store != nil && m.Store.Kept()
	if m.Store == nil {
		return
	}
	endpoints := map[string][]*endpointRecord{}
	for name, value := range m.Store.All() {
		var err error
		switch {
		case strings.HasPrefix(name, instancePrefix):
			l := &lastRun{}
			if err = decode(value, &l.instanceRecord); err == nil {
				err = m.takeInstance(l)
			}
		case strings.HasPrefix(name, endpointPrefix):
			e := &endpointRecord{}
			if err = decode(value, e); err == nil {
				endpoints[e.Instance] = append(endpoints[e.Instance], e)
			}
		}
		if err != nil {
			m.lost(name, err)
		}
	}
	for id, list := range endpoints {
		l := m.last[id]
		if l == nil {
			m.lost(endpointPrefix+id, errors.New("there is no record of the instance"))
			continue
		}
		slices.SortFunc(list, func(a, b *endpointRecord) int { // a wildcard comes last: it would go with the next address
			return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), b.IP.Addr().Compare(a.IP.Addr()))
		})
		for _, e := range list {
			m.takeEndpoint(l, e)
			l.endpoints = append(l.endpoints, e)
		}
	}
}

func (m *Manager) lost(name string, err error) {
	m.mu.Lock()
	m.kept = false
	m.mu.Unlock()
	m.Log.Error("a record of the last run is not usable", "record", strings.ReplaceAll(name, "\x00", " "), "err", err)
}

// takeInstance takes the identifiers of an instance.
func (m *Manager) takeInstance(l *lastRun) (err error) {
	if l.shared, err = l.attachment(); err != nil {
		return err
	}
	if m.reconciler.Driver(l.Type) == nil {
		return fmt.Errorf("VPN type %q: no driver", l.Type)
	}
	uses := usesVNI(l.Type, l.shared.AdvertiseAs, l.OwnVNI)
	if _, used := m.vnis[l.VNI]; used && uses {
		return fmt.Errorf("VNI %d is that of another instance", l.VNI)
	}
	name := instanceName(l.Type, l.Number)
	if !m.rds.Restore(l.RD, name) {
		return fmt.Errorf("route distinguisher %d is that of another instance", l.RD)
	}
	if l.OwnVNI {
		m.labels.Restore(l.VNI, name)
	}
	if c := l.Chain; c != nil && c.RelayRD != nil {
		m.rds.Restore(*c.RelayRD, name+" flows")
	}
	if uses {
		m.vnis[l.VNI] = struct{}{}
	}
	m.numbers = max(m.numbers, l.Number)
	m.last[l.ID] = l
	return nil
}

// takeEndpoint takes the identifiers of an endpoint. Labels are those of its MAC, and so may
// be taken already.
func (m *Manager) takeEndpoint(l *lastRun, e *endpointRecord) {
	owner := instanceName(l.Type, l.Number) + " " + e.MAC.String()
	if e.Label != 0 {
		m.labels.Restore(e.Label, owner)
	}
	if e.RD != nil {
		m.rds.Restore(*e.RD, owner)
	}
	if e.ChainRD != nil {
		m.rds.Restore(*e.ChainRD, owner+" chain")
	}
}

// Kept tells whether all instances and endpoints of the last run are known.
func (m *Manager) Kept() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept
}

// Unrestored returns the instances of the last run that are not there again, with the reason,
// nil when it is only that their turn has not come.
func (m *Manager) Unrestored() map[string]error {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]error{}
	for id, l := range m.last {
		out[id] = l.err
	}
	return out
}

// Restore makes all instances of the last run again, with their identifiers. Those that the
// dataplane refuses are tried again until ctx ends, by Run. Requests about an instance make it
// first.
func (m *Manager) Restore(ctx context.Context) {
	m.mu.Lock()
	all := slices.SortedFunc(maps.Values(m.last), func(a, b *lastRun) int { return cmp.Compare(a.Number, b.Number) })
	m.mu.Unlock()
	for _, l := range all {
		if ctx.Err() != nil {
			return
		}
		if err := m.restore(ctx, l.ID); err != nil {
			m.Log.Warn("instance of the last run cannot be made again, will retry", "instance", l.ID, "err", err)
		}
	}
}

// keepRestoring tries again what Restore could not do.
func (m *Manager) keepRestoring(ctx context.Context) {
	tick := time.NewTicker(retryRestore)
	defer tick.Stop()
	for len(m.Unrestored()) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for id, err := range m.Unrestored() {
			if err == nil {
				continue // Restore comes to it
			}
			if err := m.restore(ctx, id); err == nil {
				m.Log.Info("instance of the last run is there again", "instance", id)
			}
		}
	}
}

// restore makes an instance of the last run again, unless it is there, and first the E-VPN
// instance that is plugged into it.
func (m *Manager) restore(ctx context.Context, id string) error {
	m.mu.Lock()
	l := m.last[id]
	m.mu.Unlock()
	if l == nil {
		return nil
	}
	if l.Join != nil {
		if err := m.restore(ctx, l.Join.EVI); err != nil {
			return fmt.Errorf("E-VPN instance %q: %w", l.Join.EVI, err)
		}
	}
	m.restoring.Lock()
	defer m.restoring.Unlock()
	m.mu.Lock()
	l = m.last[id]
	m.mu.Unlock()
	if l == nil {
		return nil // somebody else was first
	}
	err := m.remake(ctx, l)
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.err = err; err == nil {
		delete(m.last, id)
	}
	return err
}

// remake makes an instance with all its endpoints. What the dataplane refuses of an endpoint is
// retried: its port may come later.
func (m *Manager) remake(ctx context.Context, l *lastRun) error {
	i := newInstance(m, l.shared, l.Number)
	i.VNI, i.ownVNI, i.rdNumber, i.RD, i.PrefixLen = l.VNI, l.OwnVNI, l.RD, wire.MakeRD(m.RouterID, uint16(l.RD)), l.PrefixLen
	if c := l.Chain; c != nil && c.RelayRD != nil {
		i.chain.relayRD, i.chain.hasRelayRD = *c.RelayRD, true
	}
	i.stored = true
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.open(ctx, i.view()); err != nil {
		return err
	}
	m.mu.Lock()
	m.instances[l.ID] = i
	m.mu.Unlock()
	if l.Join != nil {
		if err := m.rejoin(ctx, l.ID, l.Join); err != nil {
			m.Log.Error("E-VPN instance is not plugged into the VRF again", "ipvpn", l.ID, "evpn", l.Join.EVI, "err", err)
		}
	}
	var b rib.Batch // of an E-VPN instance that only a VRF has a port in
	i.description = l.shared.InstanceDescription
	i.setTargets(l.shared.Imports, l.shared.Exports)
	i.announceMulticast(&b)
	m.rib.Apply(i.source, &b)
	plugged := map[string]dataplane.Entry{} // ports, as they were given to the dataplane last
	for _, r := range l.endpoints {
		a := r.with(l.shared)
		next := i.nextChain(a)
		e, mac, err := i.prepare(a, r)
		if err != nil {
			m.lost(endpointRecordName(l.ID, r.key()), err)
			continue
		}
		todo := i.plugChanges(e, next.active())
		if port := todo[0].Entry; plugged[port.Port].Equal(port) {
			todo = todo[1:]
		} else {
			plugged[port.Port] = port
		}
		i.fwd.Release(ctx, todo)
		i.commit(ctx, e, mac, nil, &next)
	}
	return nil
}

// rejoin plugs an E-VPN instance into a VRF again.
func (m *Manager) rejoin(ctx context.Context, vrf string, r *joinRecord) error {
	evi := m.Instance(r.EVI)
	if evi == nil {
		return errors.New("it is gone")
	}
	evi.mu.Lock()
	defer evi.mu.Unlock()
	j := &join{evi: r.EVI, vrf: vrf, eviPort: r.EVIPort, port: r.Port, pair: r.Pair}
	if j.pair {
		if m.Joiner == nil {
			return errors.New("the drivers cannot be joined any more")
		}
		_, mtu, _ := evi.fwd.Bridge()
		var err error
		if j.eviPort, j.port.Name, err = m.Joiner.Ensure(j.evi, j.vrf, mtu); err != nil {
			return err
		}
	}
	evi.fwd.Release(ctx, j.changes(false))
	evi.join = j
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joins[vrf] = j
	return nil
}

// view returns the routes that an instance with ports looks at.
func (i *Instance) view() rib.View {
	if i.Type == dataplane.IPVPN {
		return rib.VRF
	}
	return rib.EVI
}
