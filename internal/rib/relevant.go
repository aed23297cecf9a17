// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// families returns what a table with this view takes routes from.
func (v View) families() []wire.Family {
	if v == EVI {
		return []wire.Family{wire.EVPN}
	}
	families := []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN}
	if v == VRF {
		families = append(families, wire.FlowVPNv4, wire.FlowVPNv6)
	}
	return families
}

// viewsOf returns the views, as bits, whose tables take routes of a kind. Of EVPN,
// a VRF takes type 5 and an EVI the others.
func viewsOf(k wire.Kind) uint8 {
	switch {
	case k == wire.KindPrefix, k == wire.KindVPNv4, k == wire.KindVPNv6:
		return 1<<VRF | 1<<Redirect
	case k.IsFlow():
		return 1 << VRF
	case k.Family() == wire.EVPN:
		return 1 << EVI
	}
	return 0
}

// KeepRelevant makes the RIB keep of a peer's routes only those that a table
// imports (by route target and family), and RTC routes. Ask is called with a
// family when a table begins to import a route target: routes of the peer that
// were not kept may matter now. It runs with the RIB's lock held. Nil ends the
// mode; routes kept so far stay.
func (r *RIB) KeepRelevant(src SourceID, ask func(wire.Family)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources[src].ask = ask
}

// relevant tells whether a table imports routes of a kind with these attributes.
// The answer is kept in the set until tables import something else.
func (r *RIB) relevant(set *Set, k wire.Kind) bool {
	if k == wire.KindRTC {
		return true
	}
	if set.relevantAt != r.imports+1 {
		set.relevantAt, set.views = r.imports+1, 0
		for _, rt := range set.RTs {
			if t := r.byRT[rt]; t != nil {
				for _, table := range t.tables {
					set.views |= 1 << table.View
				}
			}
		}
	}
	return set.views&viewsOf(k) != 0
}

// askFor asks the peers whose irrelevant routes are not kept for what a table
// with this view takes.
func (r *RIB) askFor(v View) {
	for i := range r.sources {
		if ask := r.sources[i].ask; ask != nil {
			for _, f := range v.families() {
				ask(f)
			}
		}
	}
}

// forgetIrrelevant withdraws the paths of a set that no table imports any more
// and that are not to be kept then.
func (r *RIB) forgetIrrelevant(set *Set) {
	for at := set.paths; at != 0; {
		pos := at - 1
		k := r.paths.Key(pos)
		at = r.paths.At(pos).next
		if r.sources[k.source].ask != nil && !r.relevant(set, k.nlri.Kind) {
			r.withdrawAt(k.source, k.nlri, pos)
		}
	}
}

// imports tells whether a table of this view imports the route target.
func (t *target) imports(v View) bool {
	return slices.ContainsFunc(t.tables, func(o *Table) bool { return o.View == v })
}
