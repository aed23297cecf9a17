// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// groupKey is what the routes of an UPDATE share.
type groupKey struct {
	source rib.SourceID
	family wire.Family
	attrs  *wire.Attrs // nil: withdrawn
}

// group is a run of changes that fit into the same UPDATEs.
type group struct {
	groupKey
	first, last int32 // positions of changes
}

// begin begins a run of messages for the group.
func (g *group) begin(p *wire.Packer) {
	if g.attrs == nil {
		p.Withdraw(g.family)
		return
	}
	p.Announce(g.family, g.attrs.Raw, g.attrs.NextHop)
}

// grouping sorts a batch of changes into groups, in the order in which each group
// appears first. A batch has one state of each path, so that the order of groups
// does not matter.
type grouping struct {
	list []group
	next []int32 // by change: the next one of its group, or -1
	at   map[groupKey]int32
}

func newGrouping() grouping { return grouping{at: map[groupKey]int32{}} }

// fill sorts changes, and forgets those of before.
func (g *grouping) fill(changes []rib.Change) {
	clear(g.list)
	clear(g.at)
	g.list, g.next = g.list[:0], g.next[:0]
	for i := range changes {
		c := &changes[i]
		k := groupKey{c.Source, c.NLRI.Kind.Family(), c.Attrs}
		at, known := g.at[k]
		if !known {
			at = int32(len(g.list))
			g.at[k] = at
			g.list = append(g.list, group{k, int32(i), int32(i)})
		} else {
			g.next[g.list[at].last] = int32(i)
			g.list[at].last = int32(i)
		}
		g.next = append(g.next, -1)
	}
}
