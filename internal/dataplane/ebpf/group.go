// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// hopOf checks a next hop and returns it as the kernel has it.
func (d *Driver) hopOf(n *dataplane.NextHop) (hop hopValue, err error) {
	local := d.cfg.LocalAddr
	if !isPlain(n.Addr) || n.Addr.Is4() != local.Is4() {
		return hop, fmt.Errorf("next hop %q is not valid: want an address of the IP version of %s", n.Addr, local)
	}
	tx, ok := txOf[n.Encap]
	if !ok || n.Encap != encap.Default && n.Addr != local && !slices.Contains(d.cfg.Encaps, n.Encap) {
		return hop, fmt.Errorf("encapsulation %s of next hop %s is not valid: want one of %v", n.Encap, n.Addr, d.cfg.Encaps)
	}
	least, most := uint32(minLabel), uint32(maxLabel)
	if n.Addr != local && (n.Encap == encap.VXLAN || n.Encap == encap.Default && d.cfg.DefaultEncap == encap.VXLAN) {
		least, most = 1, maxVNI
	}
	if n.Label < least || n.Label > most {
		return hop, fmt.Errorf("label %d of next hop %s is not valid: want %d to %d", n.Label, n.Addr, least, most)
	}
	hop = hopValue{Remote: n.Addr.As16(), Label: n.Label, Order: n.Order, RouterMAC: n.RouterMAC, Tx: tx}
	if n.Addr == local {
		hop.Flags = hopSelf
	}
	return hop, nil
}

// nextHop is the reverse of hopOf.
func (v *hopValue) nextHop() dataplane.NextHop {
	n := dataplane.NextHop{
		Addr: addrOf(v.Remote), Label: v.Label, Order: v.Order, RouterMAC: ethernet.MAC(v.RouterMAC),
	}
	if int(v.Tx) < len(encapOf) {
		n.Encap = encapOf[v.Tx]
	}
	return n
}

// groupOf makes the group of a prefix: next hops, as they are and as the kernel has them.
func groupOf(p netip.Prefix, list []dataplane.NextHop, hops []hopValue) *groupValue {
	g := &groupValue{Count: uint32(len(hops))}
	g.Addr, g.Bits = prefix16(p)
	copy(g.Hop[:], hops)
	dataplane.Spread(list, g.Slot[:])
	return g
}

// setGroup writes the group of a prefix and returns its number.
func (h *handle) setGroup(p netip.Prefix, list []dataplane.NextHop, hops []hopValue) (uint32, error) {
	id, had := h.groups[p]
	if !had {
		id = h.freeGroup()
	}
	k := groupKey{VRF: h.vrf, ID: id}
	if err := put("routes with several next hops", h.d.maps.Groups, &k, groupOf(p, list, hops)); err != nil {
		return 0, err
	}
	h.groups[p], h.lastGroup = id, id
	return id, nil
}

// freeGroup returns a number that no group of the instance has.
func (h *handle) freeGroup() uint32 {
	taken := func(id uint32) bool {
		var g groupValue
		return id == 0 || h.d.maps.Groups.Lookup(&groupKey{VRF: h.vrf, ID: id}, &g) == nil
	}
	id := h.lastGroup + 1
	for taken(id) {
		id++
	}
	return id
}

// dropGroup removes the group of a prefix, when no route leads to it any more.
func (h *handle) dropGroup(p netip.Prefix) error {
	id, had := h.groups[p]
	if !had {
		return nil
	}
	if err := ignoreMissing(h.d.maps.Groups.Delete(&groupKey{VRF: h.vrf, ID: id})); err != nil {
		return err
	}
	delete(h.groups, p)
	return nil
}

// readGroups makes the book of groups from the kernel.
func (h *handle) readGroups() error {
	return each(h.d.maps.Groups, func(k groupKey, g groupValue) {
		if k.VRF == h.vrf {
			h.groups[prefixOf(g.Addr, g.Bits)] = k.ID
			h.lastGroup = max(h.lastGroup, k.ID)
		}
	})
}

func (d *Driver) purgeGroups(vrf uint32) error {
	return purge(d.maps.Groups, func(k groupKey, _ groupValue) bool { return k.VRF == vrf })
}
