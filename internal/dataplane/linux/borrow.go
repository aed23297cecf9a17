// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// borrowed is what we know of a VXLAN device of others.
type borrowed struct {
	// port is set when we changed its port flags, to what they were.
	port *netlinkx.PortFlags
	// flood are the far ends that we added to its flood list. The kernel keeps the
	// extern_learn mark once per list, and does not set it on a list that a user began
	// (vxlan_fdb_update_existing).
	flood map[floodKey]bool
}

type floodKey struct {
	addr netip.Addr
	vni  uint32
}

func keyOfFlood(nh dataplane.NextHop) floodKey { return floodKey{nh.Addr, nh.Label} }

// borrow uses a VXLAN device of others in an existing bridge. Only its port flags are changed.
func (h *handle) borrow(l netlinkx.Link) error {
	h.ownVXLAN = false
	if l.VXLAN.Local.IsValid() && l.VXLAN.Local != h.d.cfg.LocalAddr {
		h.d.log.Warn("VXLAN device of others has another local address",
			"device", l.Name, "has", l.VXLAN.Local, "want", h.d.cfg.LocalAddr)
	}
	if l.VXLAN.Port != h.d.cfg.VXLANPort {
		h.d.log.Warn("VXLAN device of others has another UDP port",
			"device", l.Name, "has", l.VXLAN.Port, "want", h.d.cfg.VXLANPort)
	}
	h.borrowed.flood = map[floodKey]bool{}
	if l.Port == tunnelPort {
		return nil
	}
	before := l.Port
	h.borrowed.port = &before
	return h.d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: l.Name, Port: &tunnelPort})
}

// giveBack removes our entries from a borrowed device and restores its port flags.
func (h *handle) giveBack() error {
	l, ok, err := h.d.conn.LinkByIndex(h.vxlan)
	if err != nil {
		return err
	}
	if !ok || l.Name != h.vxlanName {
		return nil // deleted by its owner, and our entries with it
	}
	fdb, err := h.d.conn.FDB(l.Master)
	if err != nil {
		return err
	}
	var msgs []netlinkx.Message
	for _, n := range fdb {
		if h.inTunnel(n) {
			msgs = append(msgs, fdbDeletion(n))
		}
	}
	if err := deleteAll(h.d.conn, msgs); err != nil {
		return err
	}
	return h.restorePort(l)
}

// inTunnel tells whether a dumped entry of the VXLAN device is ours.
func (h *handle) inTunnel(n netlinkx.Neigh) bool {
	if n.Master != 0 || n.Index != h.vxlan {
		return false
	}
	marked := n.Flags&unix.NTF_EXT_LEARNED != 0
	if !n.MAC.IsZero() || h.ownVXLAN {
		return marked
	}
	// A multicast group never comes from us.
	return h.borrowed.flood[keyOfFlood(farEnd(n, h.vni))] || marked && n.Addr.IsValid() && !n.Addr.IsMulticast()
}

// mayDeleteFlood tells whether a far end of a borrowed device's flood list is ours.
func (h *handle) mayDeleteFlood(nh dataplane.NextHop) (bool, error) {
	key := keyOfFlood(nh)
	if h.borrowed.flood[key] {
		delete(h.borrowed.flood, key)
		return true, nil
	}
	n, ok, err := h.d.conn.VXLANFDB(h.vxlan, ethernet.MAC{})
	return ok && n.Flags&unix.NTF_EXT_LEARNED != 0, gone(err)
}

func (h *handle) restorePort(l netlinkx.Link) error {
	if h.borrowed.port == nil || l.Master != h.bridge {
		return nil
	}
	err := h.d.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: l.Name, Port: h.borrowed.port})
	if err != nil {
		return fmt.Errorf("restore port flags: %w", err)
	}
	return nil
}
