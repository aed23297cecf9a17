// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Installed reads the instance's entries from the kernel.
//
// A remote MAC of which the bridge or the VXLAN device has nothing, because a
// local port took it over or somebody deleted half, is listed without next hop. That
// is no entry anyone can want, so it will be applied again or deleted.
func (h *handle) Installed(ctx context.Context) ([]dataplane.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var t tables
	var err error
	if t.ports, err = h.d.dumps.Links(h.bridge); err != nil {
		return nil, err
	}
	if t.fdb, err = h.d.dumps.FDB(h.bridge); err != nil {
		return nil, err
	}
	for _, family := range families {
		list, err := h.d.dumps.Neighbours(family, h.bridge)
		if err != nil {
			return nil, err
		}
		t.neighbours = append(t.neighbours, list...)
	}
	return h.read(t), nil
}

// tables are the kernel tables that entries are in.
type tables struct {
	ports      []netlinkx.Link
	fdb        []netlinkx.Neigh
	neighbours []netlinkx.Neigh
}

// read finds the entries of the instance in the kernel's tables. It does no I/O.
func (h *handle) read(t tables) []dataplane.Entry {
	entries := make([]dataplane.Entry, 0, len(t.fdb)/2+len(t.neighbours)+len(t.ports))
	names := map[int]string{h.bridge: h.bridgeName}
	for _, l := range t.ports {
		names[l.Index] = l.Name
		if h.ownBridge && l.Index != h.vxlan {
			entries = append(entries, dataplane.Entry{Kind: dataplane.LocalPort, Port: l.Name})
		}
	}
	entries = h.readBridge(entries, t.fdb, names)
	for _, n := range t.neighbours {
		if isOurNeighbour(n) && n.Index == h.bridge {
			entries = append(entries, dataplane.Entry{Kind: dataplane.Neighbour, IP: n.Addr, MAC: n.MAC})
		}
	}
	return entries
}

// readBridge finds local and remote MACs and the flood list.
func (h *handle) readBridge(entries []dataplane.Entry, fdb []netlinkx.Neigh, names map[int]string) []dataplane.Entry {
	toTunnel := map[ethernet.MAC]bool{} // in the bridge, and not yet found in the VXLAN device
	ports := map[string]bool{}
	for _, n := range fdb {
		switch {
		case !inBridge(n, h.bridge):
		case n.Index == h.vxlan:
			toTunnel[n.MAC] = true
		case names[n.Index] != "":
			port := names[n.Index]
			if (!h.ownBridge || n.Index == h.bridge) && !ports[port] {
				entries = append(entries, dataplane.Entry{Kind: dataplane.LocalPort, Port: port})
			}
			ports[port] = true
			entries = append(entries, dataplane.Entry{Kind: dataplane.LocalMAC, MAC: n.MAC, Port: port})
		}
	}
	for _, n := range fdb {
		if h.inTunnel(n) {
			entries = h.readTunnel(entries, n, toTunnel)
		}
	}
	for mac := range toTunnel {
		entries = append(entries, dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac})
	}
	return entries
}

// readTunnel reads one entry of the VXLAN device.
func (h *handle) readTunnel(entries []dataplane.Entry, n netlinkx.Neigh, toTunnel map[ethernet.MAC]bool) []dataplane.Entry {
	nh := farEnd(n, h.vni)
	if n.MAC.IsZero() {
		if !nh.Addr.IsValid() {
			return entries
		}
		return append(entries, dataplane.Entry{Kind: dataplane.Flood, NextHops: []dataplane.NextHop{nh}})
	}
	e := dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: n.MAC}
	if toTunnel[n.MAC] && nh.Addr.IsValid() {
		delete(toTunnel, n.MAC)
		e.NextHops = []dataplane.NextHop{nh}
	}
	return append(entries, e)
}

// farEnd returns a dumped entry's next hop. The kernel leaves out the VNI when it is the device's.
func farEnd(n netlinkx.Neigh, vni uint32) dataplane.NextHop {
	if n.VNI != 0 {
		vni = n.VNI
	}
	return dataplane.NextHop{Addr: n.Addr, Label: vni, Encap: encap.VXLAN}
}
