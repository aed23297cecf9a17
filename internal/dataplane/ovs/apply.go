// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// flushSize bounds the messages that wait to be sent, and so the memory of a
// large Apply.
const flushSize = 8192

// apply is one call of Apply: messages that wait and whose they are. Units are
// made anew at the end, once, whatever changed in them.
type apply struct {
	*handle
	ctx     context.Context
	changes []dataplane.Change
	results []error
	ports   map[string]of.Port // of the bridge, by name; nil until asked for

	messages []of.Message
	owners   [][]int // per message, indexes of changes
	touched  map[unit]*before
	order    []unit
	unplug   []string
	free     []uint32 // groups, once their deletion is done
}

// before is a unit as it was when it was touched first.
type before struct {
	flows  []of.Flow
	owners []int
}

// Apply carries out changes and returns one result per change.
func (h *handle) Apply(ctx context.Context, changes []dataplane.Change) []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &apply{handle: h, ctx: ctx, changes: changes, results: make([]error, len(changes)), touched: map[unit]*before{}}
	err := h.usable(ctx)
	if err == nil && h.dirty {
		before := h.vrf.entries()
		if err = h.reload(ctx); err == nil && h.vrf.lacks(before) {
			h.lost = true
		}
	}
	for i := range changes {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			a.results[i] = err
			continue
		}
		a.results[i] = a.change(i, &changes[i])
		if len(a.messages) >= flushSize {
			a.flush()
		}
	}
	a.finish()
	for i, err := range a.results {
		if err != nil {
			a.results[i] = fmt.Errorf("%s: %w", changes[i], err)
		}
	}
	return a.results
}

// change takes one change into the VRF, and queues or marks what has to be done.
func (a *apply) change(i int, c *dataplane.Change) error {
	e := &c.Entry
	if !c.Delete {
		if err := a.vrf.checkEntry(e); err != nil {
			return err
		}
	}
	switch e.Kind {
	case dataplane.Prefix:
		return a.prefix(i, c)
	case dataplane.LocalPort:
		if c.Delete {
			return a.deletePort(i, e.Port)
		}
		return a.setPort(i, e)
	case dataplane.LocalPrefix:
		return a.end(i, c)
	case dataplane.Redirect:
		return a.redirect(i, c)
	case dataplane.Fallback:
		a.touch(i, unit{kind: dataplane.Fallback})
		a.vrf.fallback = nil
		if !c.Delete {
			f := *e
			a.vrf.fallback = &f
		}
	}
	return nil
}

// touch notes what the flows of a unit are before a change.
func (a *apply) touch(i int, u unit) {
	b := a.touched[u]
	if b == nil {
		b = &before{flows: a.vrf.flows(u)}
		a.touched[u] = b
		a.order = append(a.order, u)
	}
	if n := len(b.owners); n == 0 || b.owners[n-1] != i {
		b.owners = append(b.owners, i)
	}
}

// touchEnd touches what the flows of an endpoint are in.
func (a *apply) touchEnd(i int, e *dataplane.Entry) {
	a.touch(i, unit{kind: dataplane.LocalPrefix, label: e.Label})
	if p, ok := a.vrf.ports[e.Port]; ok {
		a.touch(i, p.unit())
	}
	if e.Gateway.IsValid() {
		a.touch(i, unit{kind: dataplane.Neighbour, addr: e.Gateway})
	}
}

func (a *apply) end(i int, c *dataplane.Change) error {
	e := &c.Entry
	k := endKey{e.Label, e.IP}
	if !c.Delete {
		if _, ok := a.vrf.ports[e.Port]; !ok {
			return fmt.Errorf("port %q is not attached to the instance: want a port of it", e.Port)
		}
		a.touchEnd(i, e)
	}
	if old, ok := a.vrf.ends[k]; ok {
		a.touchEnd(i, &old)
	}
	if c.Delete {
		delete(a.vrf.ends, k)
	} else {
		a.vrf.ends[k] = *e
	}
	return nil
}

// deletePort takes a port out, and with it the endpoints behind it.
func (a *apply) deletePort(i int, name string) error {
	p, ok := a.vrf.ports[name]
	if !ok {
		return nil
	}
	a.touchPort(i, name)
	for _, e := range a.vrf.endsOf(name) {
		delete(a.vrf.ends, endKey{e.Label, e.IP})
	}
	delete(a.vrf.ports, name)
	a.d.release(a.vrf.id, &p, len(a.vrf.portsOf(p.input())) == 0)
	if !p.entry.OVS.Plugged {
		a.unplug = append(a.unplug, deviceOf(&p.entry))
	}
	return nil
}

func (a *apply) touchPort(i int, name string) {
	if p, ok := a.vrf.ports[name]; ok {
		a.touch(i, p.unit())
	}
	for _, e := range a.vrf.endsOf(name) {
		a.touchEnd(i, &e)
	}
}

// setPort attaches a port, or looks again for its number.
func (a *apply) setPort(i int, e *dataplane.Entry) error {
	number, err := a.findPort(e)
	if err != nil {
		return err
	}
	p := port{*e, number}
	if err := a.d.claim(a.vrf.id, &p, a.vrf.ports[e.Port]); err != nil {
		return err
	}
	a.touchPort(i, e.Port)
	a.touch(i, p.unit())
	a.vrf.ports[e.Port] = p
	return nil
}

// claim notes that an instance has a port instead of what it had by that name.
func (d *Driver) claim(id string, p *port, old port) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := p.input()
	if other, taken := d.inputs[k]; taken && other != id && sends(p.entry.Direction) {
		return fmt.Errorf("traffic from OVS port %d with VLAN %d enters instance %q: want a port of no other instance, or direction to-port", k.port, k.vlan, other)
	}
	if was := old.input(); was != k && d.inputs[was] == id {
		delete(d.inputs, was)
	}
	d.use(id, p)
	return nil
}

func (d *Driver) release(id string, p *port, last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := p.input(); d.inputs[k] == id && last {
		delete(d.inputs, k)
	}
	if ids := d.users[p.entry.Port]; ids != nil {
		if delete(ids, id); len(ids) == 0 {
			delete(d.users, p.entry.Port)
		}
	}
}

// prefix queues the messages for a prefix.
func (a *apply) prefix(i int, c *dataplane.Change) error {
	p := c.Entry.Prefix
	old, have := a.vrf.routes[p]
	if c.Delete {
		if !have {
			return nil
		}
		a.queue([]int{i}, of.DeleteFlow(a.vrf.prefixKey(p)))
		a.dropGroup(i, old.group)
		delete(a.vrf.routes, p)
		a.count--
		return nil
	}
	r := route{hops: c.Entry.NextHops, group: old.group}
	if len(r.hops) == 1 {
		r.group = 0
	} else if r.group == 0 {
		a.d.mu.Lock()
		r.group = a.d.groups.get()
		a.d.mu.Unlock()
		if r.group == 0 {
			return errors.New("no group is free")
		}
	}
	f, g, err := a.vrf.prefixFlow(p, r)
	if err != nil {
		if r.group != old.group {
			a.d.freeGroups([]uint32{r.group})
		}
		return err
	}
	if r.group != 0 {
		a.queue([]int{i}, of.SetGroup(g))
	}
	a.queue([]int{i}, of.AddFlow(f))
	if r.group == 0 {
		a.dropGroup(i, old.group)
	}
	a.vrf.routes[p] = r
	if !have {
		a.count++
	}
	return nil
}

func (a *apply) dropGroup(i int, group uint32) {
	if group != 0 {
		a.queue([]int{i}, of.DeleteGroup{ID: group})
		a.free = append(a.free, group)
	}
}

func (d *Driver) freeGroups(ids []uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.groups.free(id)
	}
}

func (a *apply) queue(owners []int, m of.Message) {
	a.messages = append(a.messages, m)
	a.owners = append(a.owners, owners)
}

// finish makes the touched units anew and takes out ports that we had added.
func (a *apply) finish() {
	for _, u := range a.order {
		b := a.touched[u]
		after := a.vrf.flows(u)
		keep := make(map[of.FlowKey]bool, len(after))
		for _, f := range after {
			keep[f.Key()] = true
			a.queue(b.owners, of.AddFlow(f))
		}
		for _, f := range b.flows {
			if !keep[f.Key()] {
				a.queue(b.owners, of.DeleteFlow(f))
			}
		}
		a.count += len(after) - len(b.flows)
	}
	a.flush()
	for _, device := range a.unplug {
		if err := a.d.unplug(a.ctx, device); err != nil {
			a.d.log.Warn("a port could not be taken out of the bridge", "port", device, "error", err)
		}
	}
}

// flush sends what waits and gives the results to the changes. The first error
// of a change is kept.
func (a *apply) flush() {
	if len(a.messages) == 0 {
		return
	}
	errs := make([]error, len(a.messages))
	conn, err := a.d.bridge(a.ctx)
	if err == nil {
		err = conn.Exec(a.ctx, a.messages, errs)
		a.lost = a.lost || err != nil
	}
	for m := range errs {
		if err != nil {
			errs[m] = err
		}
		if errs[m] == nil {
			continue
		}
		a.dirty = true
		for _, i := range a.owners[m] {
			if a.results[i] == nil {
				a.results[i] = errs[m]
			}
		}
	}
	if err == nil {
		a.d.freeGroups(a.free)
	}
	a.messages, a.owners, a.free = a.messages[:0], a.owners[:0], nil
}

// routesVia lists the prefixes that have a next hop.
func (v *vrf) routesVia(addr netip.Addr) (out []netip.Prefix) {
	for p, r := range v.routes {
		for i := range r.hops {
			if r.hops[i].Addr == addr {
				out = append(out, p)
				break
			}
		}
	}
	return out
}
