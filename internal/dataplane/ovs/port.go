// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb"
	"github.com/vishvananda/netlink"
)

// hostDevice tells whether the host has a network device of that name.
func hostDevice(name string) (bool, error) {
	_, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return false, nil
	}
	return err == nil, err
}

// deviceOf returns the name by which a port is in the bridge.
func deviceOf(e *dataplane.Entry) string {
	if e.OVS.Name != "" {
		return e.OVS.Name
	}
	return e.Port
}

func refuse(missing bool, format string, args ...any) error {
	return &dataplane.InputError{Field: "local_port", Text: fmt.Sprintf(format, args...), Missing: missing}
}

// Check refuses an instance that Open would not take, and a port that Apply would not.
func (d *Driver) Check(ctx context.Context, inst dataplane.Instance, p dataplane.Port) error {
	if inst.ID != "" {
		if err := d.check(ctx, inst); err != nil {
			return &dataplane.InputError{Field: "vpn_instance_id", Text: err.Error()}
		}
	}
	if p.Name == "" && p.OVS == (dataplane.OVSPort{}) {
		return nil
	}
	if p.OVS.VLAN > maxVLAN {
		return refuse(false, "VLAN %d is not valid: want 1 to %d", p.OVS.VLAN, maxVLAN)
	}
	conn, err := d.bridge(ctx)
	if err != nil {
		return err
	}
	ports, err := portsByName(ctx, conn)
	if err != nil {
		return err
	}
	e := &dataplane.Entry{Port: p.Name, OVS: p.OVS}
	if _, err := numberOf(ports, e); err == nil || p.OVS.Plugged || p.OVS.Number != 0 {
		return d.inBridge(err)
	}
	return d.mayPlug(ctx, deviceOf(e))
}

func (d *Driver) inBridge(err error) error {
	if err != nil {
		return refuse(true, "%v in OVS bridge %s: want one of its ports", err, d.cfg.Bridge)
	}
	return nil
}

func portsByName(ctx context.Context, conn bridge) (map[string]of.Port, error) {
	list, err := conn.Ports(ctx)
	if err != nil {
		return nil, err
	}
	m := make(map[string]of.Port, len(list))
	for _, p := range list {
		m[p.Name] = p
	}
	return m, nil
}

// numberOf finds the number of a port among those of the bridge.
func numberOf(ports map[string]of.Port, e *dataplane.Entry) (uint32, error) {
	if e.OVS.Number != 0 {
		for _, p := range ports {
			if p.Number == e.OVS.Number {
				return p.Number, nil
			}
		}
		return 0, fmt.Errorf("port number %d is not there", e.OVS.Number)
	}
	// The switch cuts names off after 15 octets.
	name := deviceOf(e)
	if p, ok := ports[name[:min(len(name), 15)]]; ok {
		return p.Number, nil
	}
	return 0, fmt.Errorf("port %q is not there", name)
}

// mayPlug refuses a device that we cannot add to the bridge.
func (d *Driver) mayPlug(ctx context.Context, device string) error {
	switch in, err := d.db.BridgeOf(ctx, device); {
	case err != nil:
		return err
	case in != "" && in != d.cfg.Bridge:
		return refuse(false, "device %s is in OVS bridge %s: want one that is in none, or in %s", device, in, d.cfg.Bridge)
	}
	switch there, err := d.device(device); {
	case err != nil:
		return fmt.Errorf("look for device %s: %w", device, err)
	case !there:
		return refuse(true, "device %s does not exist: want a network device of this host, or a port of OVS bridge %s", device, d.cfg.Bridge)
	}
	return nil
}

// findPort returns the number of a port, which is added to the bridge if need be.
func (a *apply) findPort(e *dataplane.Entry) (uint32, error) {
	conn, err := a.d.bridge(a.ctx)
	if err != nil {
		return 0, err
	}
	if a.ports == nil {
		if a.ports, err = portsByName(a.ctx, conn); err != nil {
			return 0, err
		}
	}
	number, err := numberOf(a.ports, e)
	device := deviceOf(e)
	switch {
	case err == nil:
		if a.d.cfg.InterfacesMTU != 0 && e.OVS.Number == 0 {
			return number, a.d.db.SetMTU(a.ctx, device, a.d.cfg.InterfacesMTU)
		}
		return number, nil
	case e.OVS.Plugged || e.OVS.Number != 0:
		return 0, a.d.inBridge(err)
	}
	if err := a.d.mayPlug(a.ctx, device); err != nil {
		return 0, err
	}
	// One that is in the database and not in the switch has failed, perhaps because its device was not there.
	switch i, ok, err := a.d.db.Interface(a.ctx, device); {
	case err != nil:
		return 0, err
	case ok && i.ExternalIDs[ownerKey] != ownerValue:
		return 0, refuse(false, "port %s of OVS bridge %s does not work: %s", device, a.d.cfg.Bridge, i.Error)
	case ok:
		if _, err := a.d.db.DeletePort(a.ctx, a.d.cfg.Bridge, device); err != nil {
			return 0, err
		}
	}
	i, err := a.d.db.AddPort(a.ctx, a.d.cfg.Bridge, ovsdb.NewPort{
		Name: device, MTU: a.d.cfg.InterfacesMTU, ExternalIDs: map[string]string{ownerKey: ownerValue, instanceKey: a.inst.ID},
	})
	a.ports = nil
	return i.Number, err
}

// unplug takes a port out of the bridge if we added it and no instance has it.
func (d *Driver) unplug(ctx context.Context, device string) error {
	d.mu.Lock()
	_, used := d.users[device]
	d.mu.Unlock()
	if used {
		return nil
	}
	i, ok, err := d.db.Interface(ctx, device)
	if err != nil || !ok || i.ExternalIDs[ownerKey] != ownerValue || i.ExternalIDs[instanceKey] == "" {
		return err
	}
	_, err = d.db.DeletePort(ctx, d.cfg.Bridge, device)
	return err
}
