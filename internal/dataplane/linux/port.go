// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// badPort and badBridge refuse what a client asked for, by its name in the REST API.
func badPort(format string, args ...any) error {
	return &dataplane.InputError{Field: "local_port", Text: fmt.Sprintf(format, args...)}
}

func badBridge(format string, args ...any) error {
	return &dataplane.InputError{Field: "linuxbr", Text: fmt.Sprintf(format, args...)}
}

func noDevice(name string) error {
	return &dataplane.InputError{Field: "local_port", Missing: true,
		Text: fmt.Sprintf("device %s does not exist: want an Ethernet device of this host", name)}
}

// Check refuses bridges and ports that an instance cannot use.
func (d *Driver) Check(ctx context.Context, inst dataplane.Instance, port dataplane.Port) error {
	if err := d.check(ctx, inst); err != nil {
		return err
	}
	h := &handle{d: d, inst: inst, ownBridge: inst.Bridge == ""}
	if !h.ownBridge {
		bridge, err := d.existingBridge(inst.Bridge)
		if err != nil {
			return err
		}
		h.bridge, h.bridgeName = bridge.Index, bridge.Name
	}
	_, err := h.portDevice(port.Name)
	return err
}

// portDevice returns a device that is a port of the bridge or may become one.
func (h *handle) portDevice(name string) (netlinkx.Link, error) {
	l, ok, err := h.d.conn.LinkByName(name)
	if err != nil {
		return l, err
	}
	id, ours := instanceOf(l)
	switch {
	case !ok:
		return l, noDevice(name)
	case l.Index == h.bridge && h.bridge != 0:
		return l, nil // where a VRF meets the instance
	case l.Kind == "bridge":
		return l, badPort("device %s is a bridge: want an Ethernet device that can be a port of one", name)
	case ours:
		return l, badPort("device %s was made for instance %q: want one of an endpoint", name, id)
	case !l.Ethernet:
		return l, badPort("device %s is not an Ethernet device", name)
	case l.Master != 0 && l.Master == h.bridge:
		return l, nil
	case !h.ownBridge:
		return l, h.notInBridge(l)
	}
	return l, h.mayTake(l)
}

// setPort attaches a device to the bridge, or releases it. In an existing
// bridge the owner does both, and attaching only checks.
func (h *handle) setPort(del bool, name string) error {
	if del {
		return h.releasePort(name)
	}
	l, err := h.portDevice(name)
	if err != nil {
		return err
	}
	if l.Index == h.bridge {
		return nil
	}
	r := netlinkx.LinkRequest{Index: l.Index, Name: name, Up: true}
	if l.Master != h.bridge {
		r.Master = &h.bridge
	}
	if h.ownBridge && (r.Master != nil || !l.Up) {
		if err := h.d.conn.Link(&r); err != nil {
			return cannotBePort(name, err)
		}
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if _, known := h.ports[name]; !known {
		// One that is known keeps its index: Drifted is to find that its entries are gone.
		h.ports[name] = l.Index
	}
	return nil
}

// cannotBePort makes a refusal of what the kernel does not take as a port, such
// as a macvlan that passes through.
func cannotBePort(name string, err error) error {
	for _, refusal := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.EBUSY, unix.ELOOP} {
		if errors.Is(err, refusal) {
			return badPort("device %s cannot be a port of a bridge: %v", name, err)
		}
	}
	return err
}

// mayTake tells whether a device is free: it has no master, or the bridge that an
// earlier run made, for this instance or one that is not open.
func (h *handle) mayTake(l netlinkx.Link) error {
	if l.Master == 0 {
		return h.notUnderlay(l)
	}
	master, ok, err := h.d.conn.LinkByIndex(l.Master)
	if err != nil || !ok {
		return err
	}
	id, ours := instanceOf(master)
	if !ours {
		return badPort("device %s belongs to %s: want one without master", l.Name, master.Name)
	}
	if id != listedID(h.inst.ID) && h.d.isOpen(id) {
		return badPort("device %s belongs to instance %q (bridge %s): detach it there first", l.Name, id, master.Name)
	}
	return nil
}

// notUnderlay refuses the device with the address of our tunnels: in a bridge it would take
// the node off the network.
func (h *handle) notUnderlay(l netlinkx.Link) error {
	index, err := h.d.addressDevice(h.d.localFamily())
	if err == nil && index == l.Index {
		err = badPort("device %s is where packets of other nodes come in: want one of an endpoint", l.Name)
	}
	return err
}

func (h *handle) releasePort(name string) error {
	h.d.mu.Lock()
	delete(h.ports, name)
	h.d.mu.Unlock()
	l, ok, err := h.d.conn.LinkByName(name)
	if err != nil || !ok || l.Master != h.bridge || !h.ownBridge {
		return err
	}
	none := 0
	return gone(h.d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Master: &none}))
}

// portOf returns the index of a device that is a port of the bridge.
func (h *handle) portOf(name string) (int, error) {
	l, ok, err := h.d.conn.LinkByName(name)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, noDevice(name)
	case l.Master != h.bridge && l.Index != h.bridge:
		return 0, h.notInBridge(l)
	}
	return l.Index, nil
}

func (h *handle) notInBridge(l netlinkx.Link) error {
	if l.Master != 0 {
		if master, ok, err := h.d.conn.LinkByIndex(l.Master); err == nil && ok {
			return badPort("device %s is in %s, not in bridge %s", l.Name, master.Name, h.bridgeName)
		}
	}
	return badPort("device %s is not in bridge %s", l.Name, h.bridgeName)
}
