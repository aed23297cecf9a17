// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// plug is what an instance has of a device.
type plug struct {
	name      string
	direction uint8
	transit   bool
}

// plugTransit is the bit of plugValue.Direction for ports that forward for others.
const plugTransit = 1 << 8

func (p *plug) value(index int) plugValue {
	v := plugValue{Index: uint32(index), Direction: uint32(p.direction)}
	if p.transit {
		v.Direction |= plugTransit
	}
	return v
}

func badPort(format string, args ...any) error { return badMember("local_port", format, args...) }

// badMember refuses a member of the REST request.
func badMember(field, format string, args ...any) error {
	return &dataplane.InputError{Field: field, Text: fmt.Sprintf(format, args...)}
}

func noDevice(name string) error {
	return &dataplane.InputError{Field: "local_port", Missing: true,
		Text: fmt.Sprintf("device %s does not exist: want an Ethernet device of this host", name)}
}

// Check refuses instances and ports that Open and Apply would not take.
func (d *Driver) Check(ctx context.Context, inst dataplane.Instance, port dataplane.Port) error {
	if err := d.check(ctx, inst); err != nil {
		return err
	}
	if port.OVS != (dataplane.OVSPort{}) {
		return badOVS(port.OVS)
	}
	_, err := d.device(port.Name)
	return err
}

func badOVS(o dataplane.OVSPort) error {
	return &dataplane.InputError{Field: "local_port", Text: fmt.Sprintf("ovs %s cannot be used: want a device", o)}
}

// device returns a device that can be a port.
func (d *Driver) device(name string) (netlinkx.Link, error) {
	l, ok, err := d.conn.LinkByName(name)
	switch {
	case err != nil:
		return l, err
	case !ok:
		return l, noDevice(name)
	case !l.Ethernet:
		return l, badPort("device %s is not an Ethernet device", name)
	case l.Master != 0:
		return l, badPort("device %s is a port of another device: want one without master, or the bridge itself", name)
	}
	under, err := d.isUnderlay(&l)
	if under {
		err = badPort("device %s is where packets of other nodes come in: want one of an endpoint", name)
	}
	return l, err
}

// setPort plugs a device into the instance, or takes it out.
func (h *handle) setPort(del bool, e *dataplane.Entry) error {
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if del {
		return d.unplug(h.vrf, e.Port)
	}
	direction, ok := directionCode(e.Direction)
	if !ok {
		return fmt.Errorf("direction %q is not valid: want one of %v", e.Direction, directions)
	}
	if e.OVS != (dataplane.OVSPort{}) {
		return badOVS(e.OVS)
	}
	l, err := d.device(e.Port)
	if err != nil {
		return err
	}
	if err := d.mayTake(h.vrf, l, direction); err != nil {
		return err
	}
	if err := d.forgetPort(h.vrf, e.Port, l.Index); err != nil {
		return err
	}
	if !l.Up {
		if err := d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: e.Port, Up: true}); err != nil {
			return err
		}
	}
	return d.plug(h.vrf, l, plug{name: e.Port, direction: direction, transit: e.Transit})
}

// mayTake refuses a port whose traffic goes to another open instance.
func (d *Driver) mayTake(vrf uint32, l netlinkx.Link, direction uint8) error {
	if !sends(direction) {
		return nil
	}
	for other, p := range d.ports[l.Index] {
		v := d.vrfs[other]
		if other != vrf && sends(p.direction) && d.open[v.id()] != nil {
			return badPort("traffic from device %s goes to instance %q already: detach it there, or attach it with direction %s",
				l.Name, v.id(), dataplane.ToPort)
		}
	}
	return nil
}

// plug notes a port in the kernel and attaches the program to it.
func (d *Driver) plug(vrf uint32, l netlinkx.Link, p plug) error {
	k, v := plugKey{VRF: vrf, Name: name16(p.name)}, p.value(l.Index)
	if err := put("ports", d.maps.Plugs, &k, &v); err != nil {
		return err
	}
	if d.ports[l.Index] == nil {
		d.ports[l.Index] = map[uint32]plug{}
	}
	d.ports[l.Index][vrf] = p
	if err := d.startCounters(uint32(l.Index)); err != nil {
		return err
	}
	return d.setHook(l.Index, vrf)
}

// setHook makes the kernel's record of a device and the program at it what the plugs of
// the instances make of it. Of two instances that take its traffic, which happens when an
// earlier run left one, the preferred one gets it.
func (d *Driver) setHook(index int, prefer uint32) error {
	plugs := d.ports[index]
	if len(plugs) == 0 {
		return errors.Join(d.taps.detach(index, portProgram), ignoreMissing(d.maps.Ports.Delete(uint32(index))),
			ignoreMissing(d.maps.PortStats.Delete(uint32(index))))
	}
	var v portValue
	for vrf, p := range plugs {
		if sends(p.direction) && (v.VRF == 0 || vrf == prefer) {
			v.VRF, v.Flags = vrf, portFrom
			if p.transit {
				v.Flags |= portTransit
			}
			if d.steered[vrf] {
				v.Flags |= portClasses
			}
		}
	}
	flags, err := d.deviceFlags(index)
	if err != nil {
		return err
	}
	v.Flags |= flags
	if err := put("ports", d.maps.Ports, uint32(index), &v); err != nil {
		return err
	}
	if v.Flags&portFrom == 0 {
		return d.taps.detach(index, portProgram)
	}
	return d.taps.attach(index, d.progs.port, portProgram)
}

// deviceFlags tells how packets get to a device. A peer in another namespace takes them
// without a detour through the backlog of this one.
func (d *Driver) deviceFlags(index int) (uint32, error) {
	l, err := d.nl.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("look at device #%d: %w", index, err)
	}
	switch {
	case l.Type() == "veth" && l.Attrs().NetNsID >= 0:
		return portPeer, nil
	case l.Type() == "bridge":
		return portBridge, nil
	}
	return 0, nil
}

// forgetPort drops what an instance has under a name when it is another device than the
// one with index except: it was removed and made again.
func (d *Driver) forgetPort(vrf uint32, name string, except int) error {
	for index, plugs := range d.ports {
		p, ok := plugs[vrf]
		if !ok || p.name != name || index == except {
			continue
		}
		delete(plugs, vrf)
		if err := d.release(index); err != nil {
			plugs[vrf] = p // found again by the next try
			return err
		}
	}
	return nil
}

// release updates a device of which an instance has let go; it may be gone.
func (d *Driver) release(index int) error {
	if len(d.ports[index]) > 0 {
		if _, ok, err := d.conn.LinkByIndex(index); err != nil || !ok {
			return errors.Join(err, ignoreMissing(d.maps.Ports.Delete(uint32(index))))
		}
	}
	err := d.setHook(index, 0)
	if len(d.ports[index]) == 0 && err == nil {
		delete(d.ports, index)
	}
	return err
}

// unplug takes a port out of an instance. What fails is found again by the next try.
func (d *Driver) unplug(vrf uint32, name string) error {
	was := map[int]plug{}
	for index, plugs := range d.ports {
		if p, ok := plugs[vrf]; ok && p.name == name {
			was[index] = p
		}
	}
	if err := d.forgetPort(vrf, name, 0); err != nil {
		return err
	}
	k := plugKey{VRF: vrf, Name: name16(name)}
	err := ignoreMissing(d.maps.Plugs.Delete(&k))
	if err != nil {
		for index, p := range was {
			if d.ports[index] == nil {
				d.ports[index] = map[uint32]plug{}
			}
			d.ports[index][vrf] = p
		}
	}
	return err
}

func (d *Driver) unplugAll(vrf uint32) error {
	var errs []error
	for _, name := range d.plugged(vrf) {
		errs = append(errs, d.unplug(vrf, name))
	}
	return errors.Join(errs...)
}

// plugged lists the ports of an instance.
func (d *Driver) plugged(vrf uint32) []string {
	names := []string{}
	for _, plugs := range d.ports {
		if p, ok := plugs[vrf]; ok {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	return names
}

// readPlugs makes the books of ports from the kernel. The program at each is replaced by
// ours; a device that is gone stays noted until its instance lets go of it.
func (d *Driver) readPlugs() error {
	err := each(d.maps.Plugs, func(k plugKey, v plugValue) {
		index := int(v.Index)
		if d.ports[index] == nil {
			d.ports[index] = map[uint32]plug{}
		}
		d.ports[index][k.VRF] = plug{name: nameOf(k.Name), direction: uint8(v.Direction), transit: v.Direction&plugTransit != 0}
	})
	if err != nil {
		return err
	}
	all, err := d.conn.Links(0)
	if err != nil {
		return err
	}
	for _, l := range all {
		var v portValue
		if !d.isPlugged(&l) || d.maps.Ports.Lookup(uint32(l.Index), &v) != nil || v.Flags&portFrom == 0 {
			continue
		}
		if err := d.taps.attach(l.Index, d.progs.port, portProgram); err != nil {
			return err
		}
	}
	return nil
}

// isPlugged tells whether a device is a port, and not another one that got its number.
func (d *Driver) isPlugged(l *netlinkx.Link) bool {
	for _, p := range d.ports[l.Index] {
		if p.name == l.Name {
			return true
		}
	}
	return false
}
