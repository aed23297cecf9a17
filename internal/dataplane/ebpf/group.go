// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
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

// groupOf makes the group of a prefix.
func groupOf(p netip.Prefix, hops []hopValue) *groupValue {
	g := &groupValue{Count: uint32(len(hops))}
	g.Addr, g.Bits = prefix16(p)
	copy(g.Hop[:], hops)
	fill(&g.Slot, hops)
	return g
}

// fill gives each slot to the hop that has the highest weight for it (rendezvous
// hashing), so that a hop that goes moves only the flows that it had.
//
// The weights come from a number that each hop gets. When a route gives an order, the
// numbers are the orders, and a hop whose order is taken gets the least number that is
// free: so nodes with equal lists of orders choose equally, whatever the labels are, and
// both directions of a service chain meet the same instance. When none does, the number
// is a hash of address and label, which are the same on all nodes too.
func fill(table *[slots]uint8, hops []hopValue) {
	numbers := numbersOf(hops)
	for s := range table {
		best, most := 0, uint32(0)
		for i, n := range numbers {
			if w := weight(n, uint32(s)); i == 0 || w > most || w == most && n < numbers[best] {
				best, most = i, w
			}
		}
		table[s] = uint8(best)
	}
}

func numbersOf(hops []hopValue) []uint64 {
	out := make([]uint64, len(hops))
	if !slices.ContainsFunc(hops, func(h hopValue) bool { return h.Order != 0 }) {
		for i := range hops {
			f := fnv.New64a()
			_, _ = fmt.Fprintf(f, "%x/%d", hops[i].Remote, hops[i].Label)
			out[i] = f.Sum64()
		}
		return out
	}
	sorted := make([]int, len(hops))
	for i := range sorted {
		sorted[i] = i
	}
	slices.SortFunc(sorted, func(a, b int) int {
		x, y := &hops[a], &hops[b]
		return cmp.Or(cmp.Compare(x.Order, y.Order), bytes.Compare(x.Remote[:], y.Remote[:]), cmp.Compare(x.Label, y.Label))
	})
	taken := map[uint64]bool{}
	var late []int
	for _, i := range sorted {
		if n := uint64(hops[i].Order); !taken[n] {
			out[i], taken[n] = n, true
		} else {
			late = append(late, i)
		}
	}
	free := uint64(0)
	for _, i := range late {
		for taken[free] {
			free++
		}
		out[i], taken[free] = free, true
	}
	return out
}

// weight mixes a hop's number with a slot (the finalizer of splitmix64).
func weight(n uint64, slot uint32) uint32 {
	x := n*0x9e3779b97f4a7c15 + uint64(slot)*0xd1b54a32d192ed03 + 1
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return uint32((x ^ x>>31) >> 16)
}

// setGroup writes the group of a prefix and returns its number.
func (h *handle) setGroup(p netip.Prefix, hops []hopValue) (uint32, error) {
	id, had := h.groups[p]
	if !had {
		id = h.freeGroup()
	}
	k := groupKey{VRF: h.vrf, ID: id}
	if err := put("routes with several next hops", h.d.maps.Groups, &k, groupOf(p, hops)); err != nil {
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
