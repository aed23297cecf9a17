// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// setPort attaches a device to the bridge, or releases it. In an existing
// bridge the owner does both, and attaching only checks.
func (h *handle) setPort(del bool, name string) error {
	if del {
		return h.releasePort(name)
	}
	l, ok, err := h.d.conn.LinkByName(name)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("device %s does not exist", name)
	case l.Master == h.bridge && (l.Up || !h.ownBridge):
		return nil
	case l.Master == h.bridge:
		return h.d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Up: true})
	case !h.ownBridge:
		return h.notInBridge(l)
	}
	if err := h.mayTake(l); err != nil {
		return err
	}
	return h.d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Master: &h.bridge, Up: true})
}

// mayTake tells whether a device is free: it has no master, or the bridge of an
// instance of an earlier run that is not open.
func (h *handle) mayTake(l netlinkx.Link) error {
	if l.Master == 0 {
		return nil
	}
	master, ok, err := h.d.conn.LinkByIndex(l.Master)
	if err != nil || !ok {
		return err
	}
	id, ours := instanceOf(master)
	if !ours {
		return fmt.Errorf("device %s belongs to %s", l.Name, master.Name)
	}
	if h.d.isOpen(id) {
		return fmt.Errorf("device %s belongs to instance %q (bridge %s)", l.Name, id, master.Name)
	}
	return nil
}

func (h *handle) releasePort(name string) error {
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
		return 0, fmt.Errorf("device %s does not exist", name)
	case l.Master != h.bridge:
		return 0, h.notInBridge(l)
	}
	return l.Index, nil
}

func (h *handle) notInBridge(l netlinkx.Link) error {
	if l.Master != 0 {
		if master, ok, err := h.d.conn.LinkByIndex(l.Master); err == nil && ok {
			return fmt.Errorf("device %s is in %s, not in bridge %s", l.Name, master.Name, h.bridgeName)
		}
	}
	return fmt.Errorf("device %s is not in bridge %s", l.Name, h.bridgeName)
}
