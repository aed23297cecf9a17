// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// reload reads from the switch what is installed. Entries are those of notes whose
// flows are all there as they must be. Flows of ours that then belong to no entry
// are removed, so that what is known and what is there are the same.
func (h *handle) reload(ctx context.Context) error {
	conn, err := h.d.bridge(ctx)
	if err != nil {
		return err
	}
	h.dirty = true
	number := h.vrf.number
	h.newVRF(number)
	stats, err := conn.Flows(ctx, of.Filter{Cookie: h.vrf.cookie(), Mask: exactCookie})
	if err != nil {
		return err
	}
	have := make(map[of.FlowKey]of.Actions, len(stats))
	grouped := false
	for i := range stats {
		f := &stats[i].Flow
		have[f.Key()] = f.Actions
		_, ok := f.Actions.GroupOf()
		grouped = grouped || ok
	}
	groups := map[uint32]of.Group{}
	if grouped {
		list, err := conn.Groups(ctx)
		if err != nil {
			return err
		}
		for _, g := range list {
			groups[g.ID] = g
		}
	}
	for i := range stats {
		h.vrf.readNote(&stats[i].Flow)
	}
	if h.d.hops != nil {
		h.d.learnHops(h.vrf, have, groups)
	}
	lost := h.vrf.dropBroken(have, groups)
	if err := h.removeStrays(ctx, conn, have, lost); err != nil {
		return err
	}
	for _, f := range h.vrf.baseFlows() {
		if a, ok := have[f.Key()]; !ok || a != f.Actions {
			h.lost = true
		}
	}
	h.d.know(h.vrf)
	h.dirty = false
	return nil
}

// readNote takes the entry of a flow's note into the VRF.
func (v *vrf) readNote(f *of.Flow) {
	note, ok := f.Actions.NoteOf()
	if !ok {
		return
	}
	e, err := decodeEntry(note)
	if err != nil {
		return
	}
	switch e.Kind {
	case dataplane.LocalPort:
		if n, ok := f.Match.Value(of.InPort); ok && v.checkEntry(&e) == nil {
			v.ports[e.Port] = port{e, uint32(n)}
		}
	case dataplane.LocalPrefix:
		if v.checkEntry(&e) == nil {
			v.ends[endKey{e.Label, e.IP}] = e
		}
	case dataplane.Prefix:
		if v.checkEntry(&e) == nil {
			group, _ := f.Actions.GroupOf()
			v.routes[e.Prefix] = route{e.NextHops, group}
		}
	case dataplane.Fallback:
		if v.checkEntry(&e) == nil {
			v.fallback = &e
		}
	case dataplane.Redirect:
		if number, ok := f.Actions.ValueOf(regInstance); ok && v.checkEntry(&e) == nil && f.Priority >= prioRedirect {
			v.redirects.set(redirect{*e.Class, e.Target, uint32(number), f.Priority - prioRedirect})
		}
	}
}

// dropBroken drops the entries whose flows or group are not as they must be, and
// returns the groups that nothing uses any more.
func (v *vrf) dropBroken(have map[of.FlowKey]of.Actions, groups map[uint32]of.Group) (lost []uint32) {
	whole := func(u unit) bool {
		if u.kind == dataplane.Redirect && v.redirects.least(&u.class) > v.redirects.all[u.class].level {
			return false // a change of levels was cut short
		}
		for _, f := range v.flows(u) {
			if a, ok := have[f.Key()]; !ok || a != f.Actions {
				return false
			}
		}
		return true
	}
	var broken []unit
	for _, u := range v.units() {
		if !whole(u) {
			broken = append(broken, u)
		}
	}
	for _, u := range broken {
		switch u.kind {
		case dataplane.LocalPort:
			for _, name := range v.portsOf(u.input) {
				delete(v.ports, name)
			}
		case dataplane.Fallback:
			v.fallback = nil
		case dataplane.Redirect:
			v.redirects.delete(u.class)
		}
		for k, e := range v.ends {
			_, attached := v.ports[e.Port]
			if !attached || u.kind == dataplane.LocalPrefix && k.label == u.label ||
				u.kind == dataplane.Neighbour && e.Gateway == u.addr {
				delete(v.ends, k)
			}
		}
	}
	for k, e := range v.ends {
		if _, attached := v.ports[e.Port]; !attached {
			delete(v.ends, k)
		}
	}
	for p, r := range v.routes {
		f, g, err := v.prefixFlow(p, r)
		if err == nil && have[f.Key()] == f.Actions && (r.group == 0 || g.Equal(groups[r.group])) {
			continue
		}
		delete(v.routes, p)
		if r.group != 0 {
			lost = append(lost, r.group)
		}
	}
	return lost
}

// removeStrays removes the flows that do not follow from entries, and counts the others.
func (h *handle) removeStrays(ctx context.Context, conn bridge, have map[of.FlowKey]of.Actions, lost []uint32) error {
	want := make(map[of.FlowKey]bool, len(have))
	for _, u := range h.vrf.units() {
		for _, f := range h.vrf.flows(u) {
			want[f.Key()] = true
		}
	}
	for p := range h.vrf.routes {
		want[h.vrf.prefixKey(p).Key()] = true
	}
	h.count = 0
	var messages []of.Message
	for k := range have {
		if !want[k] {
			messages = append(messages, of.DeleteFlow{Table: k.Table, Priority: k.Priority, Match: k.Match, Cookie: h.vrf.cookie()})
			continue
		}
		h.count++
	}
	for _, id := range lost {
		if ownGroup(id) {
			messages = append(messages, of.DeleteGroup{ID: id})
		}
	}
	if len(messages) == 0 {
		return nil
	}
	h.d.log.Warn("flows that belong to no entry are removed", "instance", h.inst.ID, "flows", len(messages)-len(lost))
	if err := conn.Bundle(ctx, messages); err != nil {
		return fmt.Errorf("remove flows that belong to no entry: %w", err)
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	for _, id := range lost {
		h.d.groups.free(id)
	}
	return nil
}

// know notes which ports an instance has.
func (d *Driver) know(v *vrf) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(v.id)
	for _, p := range v.ports {
		d.use(v.id, &p)
	}
	for _, r := range v.routes {
		if r.group != 0 {
			d.groups.take(r.group)
		}
	}
}

// use notes that an instance has a port. It runs with d.mu held.
func (d *Driver) use(id string, p *port) {
	if sends(p.entry.Direction) {
		d.inputs[p.input()] = id
	}
	if d.users[p.entry.Port] == nil {
		d.users[p.entry.Port] = map[string]bool{}
	}
	d.users[p.entry.Port][id] = true
}
