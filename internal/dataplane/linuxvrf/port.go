// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Per-device settings of IPv4, numbered as IPV4_DEVCONF_ of linux/ip.h.
const (
	devconfForwarding    = 1
	devconfProxyARP      = 3
	devconfProxyARPPVLAN = 25
)

var (
	pluggedIPv4  = map[uint16]uint32{devconfForwarding: 1, devconfProxyARP: 1, devconfProxyARPPVLAN: 1}
	releasedIPv4 = map[uint16]uint32{devconfProxyARP: 0, devconfProxyARPPVLAN: 0}
)

func badPort(missing bool, format string, args ...any) error {
	return &dataplane.InputError{Field: "local_port", Missing: missing, Text: fmt.Sprintf(format, args...)}
}

// portDevice returns a device that is in the VRF or may come into it.
func (h *handle) portDevice(name string) (netlinkx.Link, error) {
	l, ok, err := h.d.k.LinkByName(name)
	switch {
	case err != nil:
		return l, err
	case !ok:
		return l, badPort(true, "device %s does not exist: want an Ethernet device of this host", name)
	case l.Kind == "vrf" || !l.Ethernet:
		return l, badPort(false, "device %s is not an Ethernet device that can be in a VRF", name)
	case l.Index == h.d.mplsPort:
		return l, badPort(false, "device %s is mpls_interface: want one of an endpoint", name)
	case l.Master == 0 || l.Master == h.vrf:
		return l, nil
	}
	master, ok, err := h.d.k.LinkByIndex(l.Master)
	if err != nil || !ok {
		return l, err
	}
	id, ours := instanceOf(master)
	switch {
	case !ours:
		return l, badPort(false, "device %s belongs to %s: want one without master", name, master.Name)
	case id != devname.Listed(vrfAlias, h.inst.ID) && h.d.open[id] != nil:
		return l, badPort(false, "device %s belongs to instance %q (VRF %s): detach it there first", name, id, master.Name)
	}
	return l, nil
}

// setPort puts a device into the VRF, or takes it out. The kernel switches it off and
// on for that, upon which it has lost all entries.
func (h *handle) setPort(del bool, name string) error {
	if del {
		return h.releasePort(name)
	}
	l, err := h.portDevice(name)
	if err != nil {
		return err
	}
	moved := l.Master != h.vrf
	if moved || !l.Up || h.ports[name] != l.Index {
		r := netlinkx.LinkRequest{Index: l.Index, Name: name, Up: true, IPv4: pluggedIPv4}
		if moved {
			r.Master = &h.vrf
		}
		if err := h.d.k.Link(&r); err != nil {
			return err
		}
		// Answers to ARP are for others' addresses mostly: at once, please.
		if err := h.d.k.SetSysctl("net/ipv4/neigh/"+name+"/proxy_delay", "0"); err != nil {
			h.d.log.Warn("answers to ARP requests are delayed", "port", name, "err", err)
		}
	}
	h.ports[name] = l.Index
	if moved || !l.Up {
		return h.lost(l.Index)
	}
	return nil
}

func (h *handle) releasePort(name string) error {
	index, known := h.ports[name]
	delete(h.ports, name)
	l, ok, err := h.d.k.LinkByName(name)
	if err != nil || !ok || l.Master != h.vrf {
		return err
	}
	none := 0
	err = goneIsFine(h.d.k.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Master: &none, IPv4: releasedIPv4}))
	if known {
		err = errors.Join(err, h.lost(index))
	}
	return err
}

// lost notes that a device has lost its entries.
func (h *handle) lost(index int) error {
	for key, e := range h.endpoints {
		if e.index == index {
			delete(h.endpoints, key)
			h.stale = true
		}
	}
	for number, l := range h.d.labels {
		if l.index != index {
			continue
		}
		delete(h.d.labels, number)
		h.stale = true
		for key := range h.d.users[number] {
			key.h.stale = true
		}
	}
	if h.d.nexthops.onDevice[index] == 0 {
		return nil
	}
	return h.d.findNexthops()
}

// portOf returns the index of a device in the VRF.
func (h *handle) portOf(name string) (int, error) {
	if index, ok := h.ports[name]; ok {
		return index, nil
	}
	l, ok, err := h.d.k.LinkByName(name)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, badPort(true, "device %s does not exist: want an Ethernet device of this host", name)
	case l.Master != h.vrf:
		return 0, badPort(false, "device %s is not in VRF %s", name, h.name)
	}
	return l.Index, nil
}
