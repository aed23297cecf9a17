// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// firstNexthop is the first id that we give to nexthop objects.
const firstNexthop = 1_600_000_000

// hop is what one nexthop object says.
type hop struct {
	via   netip.Addr
	index int
	label uint32
}

// nexthop is a nexthop object of ours: a hop, or a group of several.
type nexthop struct {
	id      uint32
	hop     hop
	members []*nexthop
	// refs counts the routes and the groups that have it.
	refs int
	// err is why the kernel has it not.
	err error
}

// nexthopTable has the nexthop objects of the namespace.
type nexthopTable struct {
	byHop   map[hop]*nexthop
	byGroup map[string]*nexthop
	byID    map[uint32]*nexthop
	others  map[uint32]bool // ids of others
	// onDevice counts the hops by device.
	onDevice map[int]int
	last     uint32
	// idle are those whose last reference went.
	idle []*nexthop
}

func newNexthopTable() nexthopTable {
	return nexthopTable{
		byHop: map[hop]*nexthop{}, byGroup: map[string]*nexthop{}, byID: map[uint32]*nexthop{}, others: map[uint32]bool{},
		onDevice: map[int]int{}, last: firstNexthop,
	}
}

func groupKey(members []*nexthop) string {
	var b strings.Builder
	for _, m := range members {
		fmt.Fprintf(&b, "%d ", m.id)
	}
	return b.String()
}

func (t *nexthopTable) add(n *nexthop) {
	if n.id == 0 {
		for n.id == 0 || t.others[n.id] || t.byID[n.id] != nil {
			t.last++
			n.id = t.last
		}
	}
	t.byID[n.id] = n
	if n.members != nil {
		t.byGroup[groupKey(n.members)] = n
		return
	}
	t.byHop[n.hop] = n
	t.onDevice[n.hop.index]++
}

// remove forgets an object, if it is the one that is found by what it says.
func (t *nexthopTable) remove(n *nexthop) {
	if t.byID[n.id] == n {
		delete(t.byID, n.id)
	}
	if n.members != nil {
		if key := groupKey(n.members); t.byGroup[key] == n {
			delete(t.byGroup, key)
		}
		return
	}
	if t.byHop[n.hop] == n {
		delete(t.byHop, n.hop)
		if t.onDevice[n.hop.index]--; t.onDevice[n.hop.index] == 0 {
			delete(t.onDevice, n.hop.index)
		}
	}
}

// abandon forgets an object that the kernel did not take.
func (t *nexthopTable) abandon(n *nexthop) {
	t.remove(n)
	for _, m := range n.members {
		t.release(m)
	}
}

// acquire returns the object for hops, of which there is at least one, with a
// reference more. What is new is queued.
func (t *nexthopTable) acquire(b *batch, hops []hop) *nexthop {
	members := make([]*nexthop, 0, len(hops))
	for _, h := range hops {
		n := t.byHop[h]
		if n == nil {
			n = &nexthop{hop: h}
			t.add(n)
			b.nexthop(n)
		}
		if !slices.Contains(members, n) {
			members = append(members, n)
		}
	}
	if len(members) == 1 {
		members[0].refs++
		return members[0]
	}
	slices.SortFunc(members, func(a, b *nexthop) int { return int(a.id) - int(b.id) })
	group := t.byGroup[groupKey(members)]
	if group == nil {
		group = &nexthop{members: members}
		t.add(group)
		for _, m := range members {
			m.refs++
		}
		b.nexthop(group)
	}
	group.refs++
	return group
}

// release gives a reference back; n may be nil.
func (t *nexthopTable) release(n *nexthop) {
	if n == nil {
		return
	}
	if n.refs--; n.refs == 0 {
		t.idle = append(t.idle, n)
	}
}

// collect forgets the objects that nothing refers to and returns the requests to delete
// them, groups before their members.
func (t *nexthopTable) collect() (reqs []netlinkx.Request) {
	for len(t.idle) > 0 {
		n := t.idle[0]
		t.idle = t.idle[1:]
		if n.refs != 0 || t.byID[n.id] != n {
			continue
		}
		t.remove(n)
		reqs = append(reqs, netlinkx.NexthopRequest{Delete: true, Nexthop: netlinkx.Nexthop{ID: n.id}})
		for _, m := range n.members {
			t.release(m)
		}
	}
	t.idle = nil
	return reqs
}

// request makes the object.
func (n *nexthop) request() netlinkx.NexthopRequest {
	r := netlinkx.NexthopRequest{Nexthop: netlinkx.Nexthop{ID: n.id, Protocol: ours}}
	for _, m := range n.members {
		r.Group = append(r.Group, m.id)
	}
	if n.members == nil {
		r.Via, r.Index, r.Label, r.OnLink = n.hop.via, n.hop.index, n.hop.label, true
	}
	return r
}

// findNexthops reads what nexthop objects there are, keeping those already known.
func (d *Driver) findNexthops() error {
	list, err := d.k.Nexthops()
	if err != nil {
		return err
	}
	old := d.nexthops
	t := newNexthopTable()
	t.last, t.idle = old.last, old.idle
	var groups []netlinkx.Nexthop
	for _, n := range list {
		h := hop{n.Via, n.Index, n.Label}
		switch known := old.byID[n.ID]; {
		case n.Protocol != ours:
			t.others[n.ID] = true
		case len(n.Group) > 0:
			groups = append(groups, n)
		case known != nil && known.members == nil && known.hop == h:
			t.add(known)
		default:
			t.add(&nexthop{id: n.ID, hop: h})
		}
		if n.Protocol == ours {
			t.last = max(t.last, n.ID)
		}
	}
	for _, g := range groups {
		members := make([]*nexthop, 0, len(g.Group))
		for _, id := range g.Group {
			if m := t.byID[id]; m != nil {
				members = append(members, m)
			}
		}
		slices.SortFunc(members, func(a, b *nexthop) int { return int(a.id) - int(b.id) })
		if known := old.byID[g.ID]; known != nil && known.members != nil && groupKey(known.members) == groupKey(members) {
			t.add(known)
			continue
		}
		for _, m := range members {
			m.refs++
		}
		t.add(&nexthop{id: g.ID, members: members})
	}
	// What is gone, and groups that are smaller now, do not hold their members any more.
	for id, n := range old.byID {
		if t.byID[id] == n {
			continue
		}
		for _, m := range n.members {
			m.refs--
		}
	}
	d.nexthops = t
	return nil
}

// sweepNexthops deletes the objects that no route refers to, in the kernel or here.
func (d *Driver) sweepNexthops() error {
	used := map[uint32]bool{}
	routes, err := ourRoutes(d.k)
	if err != nil {
		return err
	}
	for _, r := range routes {
		used[r.Nexthop] = true
	}
	t := &d.nexthops
	for _, n := range t.byID {
		if n.refs == 0 && !used[n.id] {
			t.idle = append(t.idle, n)
		}
	}
	return d.do(t.collect())
}
