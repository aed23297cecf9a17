// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/cilium/ebpf"
)

// handle implements dataplane.Handle.
type handle struct {
	d    *Driver
	inst dataplane.Instance
	// vrf is the instance's number in the kernel, which it has until it is removed.
	vrf     uint32
	subnet  netip.Prefix
	routes4 *ebpf.Map
	routes6 *ebpf.Map
	// groups are the prefixes with several next hops, lastGroup the last number given.
	groups    map[netip.Prefix]uint32
	lastGroup uint32
	// ends are the endpoints; guarded by d.mu, as are classes.
	ends    ends
	classes classes
	gone    bool
}

// Apply carries out changes in order. Routes go to the kernel in batches.
func (h *handle) Apply(ctx context.Context, changes []dataplane.Change) []error {
	b := batch{handle: h, results: make([]error, len(changes))}
	for i := range changes {
		c := &changes[i]
		switch {
		case ctx.Err() != nil:
			b.results[i] = ctx.Err()
		case h.gone:
			b.results[i] = errors.New("instance was removed")
		case c.Entry.Kind == dataplane.Prefix:
			b.results[i] = b.change(i, c.Delete, &c.Entry)
		case c.Entry.Kind == dataplane.LocalPort:
			b.results[i] = h.setPort(c.Delete, &c.Entry)
		case c.Entry.Kind == dataplane.LocalPrefix:
			b.results[i] = h.setEnd(c.Delete, &c.Entry)
		case c.Entry.Kind == dataplane.Redirect:
			b.results[i] = h.setClass(c.Delete, &c.Entry)
		case c.Entry.Kind == dataplane.Fallback:
			b.results[i] = h.setFallback(c.Delete, &c.Entry)
		default:
			b.results[i] = fmt.Errorf("kind %s is not for a VRF", c.Entry.Kind)
		}
	}
	b.flush()
	for i, err := range b.results {
		if err != nil {
			b.results[i] = fmt.Errorf("%s: %w", changes[i], err)
		}
	}
	return b.results
}

// Remove takes the instance out of the kernel.
func (h *handle) Remove(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.gone {
		return nil
	}
	if err := d.removeVRF(h.vrf); err != nil {
		return err
	}
	h.gone = true
	delete(d.open, h.inst.ID)
	return errors.Join(h.routes4.Close(), h.routes6.Close())
}

// Describe returns members for the looking glass.
func (h *handle) Describe() []dataplane.Member {
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []dataplane.Member{{Name: "vrf", Value: h.vrf}}
	if h.inst.L3VNI {
		out = append(out, dataplane.Member{Name: "l3vni", Value: h.inst.VNI})
	}
	if h.gone {
		return out
	}
	out = append(out,
		dataplane.Member{Name: "endpoints", Value: len(h.ends.all)},
		dataplane.Member{Name: "ports", Value: d.plugged(h.vrf)},
		dataplane.Member{Name: "multipath_routes", Value: len(h.groups)},
		dataplane.Member{Name: "max_routes", Value: h.routes4.MaxEntries()},
	)
	return append(out, dataplane.Member{Name: "dropped", Value: d.dropped(h.vrf)})
}
