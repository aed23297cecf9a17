// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// counts sums up what flows have counted. A flow begins at zero when it is made
// anew, a sum never goes back.
type counts struct {
	mu   sync.Mutex
	last map[countedFlow]pair
	sums map[counted]pair
}

type countedFlow struct {
	instance string
	key      of.FlowKey
}

type counted struct {
	instance, port, name string
	dropped              bool
}

type pair struct{ packets, bytes uint64 }

func newCounts() counts { return counts{last: map[countedFlow]pair{}, sums: map[counted]pair{}} }

// add takes what a flow has counted, and returns it for the next time.
func (c *counts) add(k counted, f countedFlow, now pair) {
	was := c.last[f]
	if now.packets < was.packets || now.bytes < was.bytes {
		was = pair{}
	}
	s := c.sums[k]
	c.sums[k] = pair{s.packets + now.packets - was.packets, s.bytes + now.bytes - was.bytes}
}

// Counters implements dataplane.Counting: what ports sent into VRFs, what they
// were sent, and what arrived with a label that delivers nothing.
func (d *Driver) Counters(ctx context.Context) ([]dataplane.Counter, error) {
	conn, err := d.bridge(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	handles := make([]*handle, 0, len(d.open))
	for _, h := range d.open {
		handles = append(handles, h)
	}
	d.mu.Unlock()
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	last, live := map[countedFlow]pair{}, map[counted]bool{}
	for _, h := range handles {
		if err := h.countFlows(ctx, conn, &d.counts, last, live); err != nil {
			return nil, err
		}
	}
	d.counts.last = last
	out := make([]dataplane.Counter, 0, len(d.counts.sums))
	for k, s := range d.counts.sums {
		if !live[k] {
			delete(d.counts.sums, k)
			continue
		}
		out = append(out, dataplane.Counter{Instance: k.instance, Port: k.port, Name: k.name, Dropped: k.dropped, Packets: s.packets, Bytes: s.bytes})
	}
	slices.SortFunc(out, func(a, b dataplane.Counter) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// countFlows adds the flows of one instance.
func (h *handle) countFlows(ctx context.Context, conn bridge, c *counts, last map[countedFlow]pair, live map[counted]bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vrf == nil || h.gone {
		return nil
	}
	whose := h.vrf.countedFlows()
	for _, k := range whose {
		live[k] = true
		if _, ok := c.sums[k]; !ok {
			c.sums[k] = pair{}
		}
	}
	for _, table := range []uint8{h.vrf.input, h.vrf.in} {
		flows, err := conn.Flows(ctx, of.Filter{Cookie: h.vrf.cookie(), Mask: exactCookie, Table: int(table) + 1})
		if err != nil {
			return err
		}
		for i := range flows {
			f := &flows[i]
			if k, ok := whose[f.Key()]; ok {
				key := countedFlow{h.inst.ID, f.Key()}
				now := pair{f.Packets, f.Bytes}
				c.add(k, key, now)
				last[key] = now
			}
		}
	}
	return nil
}

// countedFlows returns what the flows of the VRF count.
func (v *vrf) countedFlows() map[of.FlowKey]counted {
	out := map[of.FlowKey]counted{}
	for name, p := range v.ports {
		if v.portsOf(p.input())[0] != name {
			continue // one of several behind a port of the bridge has the count of all
		}
		for _, f := range v.inputFlows(p.input()) {
			if f.Table == v.input {
				out[f.Key()] = counted{v.id, name, "received", false}
			}
		}
	}
	labels := map[uint32]string{}
	for k, e := range v.ends {
		labels[k.label] = e.Port
	}
	for label, name := range labels {
		for _, f := range v.labelFlows(label) {
			_, record := f.Match.Value(regRecord)
			switch {
			case record:
			case f.Actions == "":
				out[f.Key()] = counted{v.id, name, "not to this port", true}
			case !toGuess(f.Actions) && !f.Actions.Resubmits(v.in): // what is still to be told IPv4 from IPv6 is counted afterwards
				out[f.Key()] = counted{v.id, name, "sent", false}
			}
		}
	}
	return out
}

func toGuess(a of.Actions) bool {
	g, ok := a.GroupOf()
	return ok && g == groupGuess
}
