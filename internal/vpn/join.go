// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"errors"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// EVIPort names an E-VPN instance of the node whose bridge is the port of a VRF, so
// that the VRF is the gateway of its network ("local_port.evpn").
type EVIPort struct {
	// ID is the external id of the E-VPN instance.
	ID string
	// Device is a device that joins it and the VRF already, made by others
	// ("ovs_port_name"); empty to have one made.
	Device string
}

// Joiner makes pairs of devices that join an E-VPN instance and a VRF.
type Joiner interface {
	// Ensure makes a pair, or finds it, and returns its two ends.
	Ensure(evi, vrf string, mtu int) (eviPort, vrfPort string, err error)
	// Remove takes a pair away; one that is not there is no error.
	Remove(evi, vrf string) error
}

// join is an E-VPN instance and the VRF it is plugged into. Each is in one join at most.
type join struct {
	evi, vrf string
	// eviPort is the gateway's port in the E-VPN instance, port the one in the VRF.
	eviPort string
	port    dataplane.Port
	pair    bool // made by the Joiner
}

// changes returns those of the E-VPN instance's forwarding: the gateway is a port
// with a MAC address, which all nodes share.
func (j *join) changes(del bool) []dataplane.Change {
	port := dataplane.Change{Delete: del, Entry: dataplane.Entry{Kind: dataplane.LocalPort, Port: j.eviPort}}
	mac := dataplane.Change{Delete: del, Entry: dataplane.Entry{Kind: dataplane.LocalMAC, Port: j.eviPort, MAC: dataplane.GatewayMAC}}
	if del {
		return []dataplane.Change{mac, port}
	}
	return []dataplane.Change{port, mac}
}

// Joined returns the E-VPN instances that are plugged into VRFs: the ids of the
// VRFs by theirs.
func (m *Manager) Joined() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]string, len(m.joins))
	for vrf, j := range m.joins {
		out[j.evi] = vrf
	}
	return out
}

// isJoined tells whether an E-VPN instance is plugged into a VRF.
func (m *Manager) isJoined(vrf string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joins[vrf] != nil
}

// attachEVI attaches an endpoint behind an E-VPN instance, which is plugged into the
// VRF first.
func (m *Manager) attachEVI(ctx context.Context, a Attachment) error {
	m.joining.Lock()
	defer m.joining.Unlock()
	for _, id := range []string{a.EVI.ID, a.InstanceID} {
		if err := m.restore(ctx, id); err != nil {
			return err
		}
	}
	j, isNew, err := m.join(ctx, a)
	if err != nil {
		return refusal(err)
	}
	a.EVI, a.Port, a.OVS = EVIPort{}, j.port.Name, j.port.OVS
	if err := m.Attach(ctx, a); err != nil {
		if isNew {
			err = errors.Join(err, m.part(ctx, j))
		}
		return err
	}
	return nil
}

// join plugs the E-VPN instance of an attachment into its VRF. It runs with
// m.joining held.
func (m *Manager) join(ctx context.Context, a Attachment) (j *join, isNew bool, err error) {
	if err := m.check(a); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	j = m.joins[a.InstanceID]
	evi, vrf := m.instances[a.EVI.ID], m.instances[a.InstanceID]
	m.mu.Unlock()
	switch {
	case vrf != nil && vrf.Type != dataplane.IPVPN:
		return nil, false, refuse("vpn_type", "instance %q exists with type %s", vrf.ID, vrf.Type)
	case j != nil && j.evi != a.EVI.ID:
		return nil, false, refuse("local_port", "evpn: id: E-VPN instance %q is plugged into this VRF already: want that one", j.evi)
	case j != nil:
		return j, false, nil
	case evi == nil || evi.Type != dataplane.EVPN:
		return nil, false, refuse("local_port", "evpn: id: there is no E-VPN instance %q: attach to it first", a.EVI.ID)
	}
	evi.mu.Lock()
	defer evi.mu.Unlock()
	switch {
	case evi.ended:
		return nil, false, refuse("local_port", "evpn: id: there is no E-VPN instance %q: attach to it first", a.EVI.ID)
	case evi.join != nil:
		return nil, false, refuse("local_port", "evpn: id: E-VPN instance %q is plugged into VRF %q already", evi.ID, evi.join.vrf)
	}
	if j, err = m.makeJoin(evi, a); err != nil {
		return nil, false, err
	}
	if err := evi.fwd.Do(ctx, j.changes(false)); err != nil {
		return nil, false, errors.Join(err, m.removePair(j))
	}
	evi.join = j
	m.mu.Lock()
	m.joins[a.InstanceID] = j
	m.mu.Unlock()
	return j, true, nil
}

// makeJoin finds the place where an E-VPN instance and a VRF meet: a device of
// others, the bridge itself, or a pair that is made.
func (m *Manager) makeJoin(evi *Instance, a Attachment) (*join, error) {
	j := &join{evi: evi.ID, vrf: a.InstanceID}
	driver := m.reconciler.Driver(dataplane.IPVPN)
	bridge, mtu, ok := evi.fwd.Bridge()
	switch {
	case !ok:
		return nil, refuse("local_port", "evpn: the E-VPN driver %q has no bridge that a VRF can meet", evi.driver().Name())
	case a.EVI.Device != "" && driver.Capabilities().OVSPorts && !a.OVS.Plugged:
		return nil, refuse("local_port", "evpn: ovs_port_name: %s: want ovs with plugged, and a port_number or port_name", a.EVI.Device)
	case a.EVI.Device != "":
		j.eviPort, j.port = a.EVI.Device, dataplane.Port{Name: a.EVI.Device, OVS: a.OVS}
	case driver.Capabilities().BridgePorts:
		j.eviPort, j.port.Name = bridge, bridge
	case m.Joiner == nil:
		return nil, refuse("local_port", "evpn: driver %q cannot be joined to an E-VPN instance", driver.Name())
	default:
		var err error
		if j.eviPort, j.port.Name, err = m.Joiner.Ensure(j.evi, j.vrf, mtu); err != nil {
			return nil, err
		}
		j.pair = true
		if driver.Capabilities().OVSPorts {
			j.port.OVS = dataplane.OVSPort{Name: j.port.Name}
		}
	}
	return j, nil
}

func (m *Manager) removePair(j *join) error {
	if !j.pair {
		return nil
	}
	return m.Joiner.Remove(j.evi, j.vrf)
}

// part undoes join. The E-VPN instance ends if nothing else is in it. It runs with
// m.joining held.
func (m *Manager) part(ctx context.Context, j *join) error {
	m.mu.Lock()
	evi := m.instances[j.evi]
	delete(m.joins, j.vrf)
	m.mu.Unlock()
	if evi != nil {
		evi.mu.Lock()
		defer evi.mu.Unlock()
		if evi.join == j {
			evi.join = nil
			evi.fwd.Release(ctx, j.changes(true))
			if len(evi.endpoints) == 0 {
				evi.end(ctx)
			}
		}
	}
	return m.removePair(j)
}

// partUnused undoes the join of a VRF when no endpoint is behind it any more.
func (m *Manager) partUnused(ctx context.Context, vrf string) {
	m.mu.Lock()
	j, i := m.joins[vrf], m.instances[vrf]
	m.mu.Unlock()
	if j == nil {
		return
	}
	if i != nil {
		i.mu.Lock()
		used := len(i.ports[j.port.Name]) > 0
		i.mu.Unlock()
		if used {
			return
		}
	}
	if err := m.part(ctx, j); err != nil {
		m.Log.Warn("cannot remove the devices between E-VPN instance and VRF", "evpn", j.evi, "ipvpn", j.vrf, "err", err)
	}
}
