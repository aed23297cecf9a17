// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// handle implements dataplane.Handle.
type handle struct {
	d    *Driver
	inst dataplane.Instance

	mu  sync.Mutex
	vrf *vrf // nil while the instance is being opened
	// count is how many flows there must be.
	count int
	// dirty is set when it is not known what is in the switch: it is read again.
	dirty bool
	// lost is set when what is in the switch may not be what callers take it for: reading
	// again showed that something is gone, or changes that failed may have been done.
	lost bool
	gone bool // removed
}

// Open makes or adopts the flows of an instance.
func (d *Driver) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	if err := d.check(ctx, inst); err != nil {
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	d.opening.RLock()
	defer d.opening.RUnlock()
	h := &handle{d: d, inst: inst}
	d.mu.Lock()
	if d.open[inst.ID] != nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("open instance %q: it is open already", inst.ID)
	}
	d.open[inst.ID] = h
	_, known := d.numbers[inst.ID]
	d.mu.Unlock()
	if err := h.build(ctx); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.open, inst.ID)
		if !known && !h.dirty { // else flows may have been made with it
			delete(d.numbers, inst.ID)
		}
		d.forget(inst.ID)
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	return h, nil
}

func (d *Driver) check(ctx context.Context, inst dataplane.Instance) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inst.Type != dataplane.IPVPN:
		return fmt.Errorf("type %q is not for this driver: want %q", inst.Type, dataplane.IPVPN)
	case inst.ID == "":
		return errors.New("instance has no id")
	case len(inst.ID) > maxID:
		return fmt.Errorf("id of %d octets is too long: want up to %d", len(inst.ID), maxID)
	case inst.Bridge != "":
		return fmt.Errorf("bridge %q is not possible: a VRF has none", inst.Bridge)
	case inst.L3VNI:
		return errors.New("a VNI for all of a VRF is not possible with this driver")
	}
	return nil
}

// maxID is the longest instance id.
const maxID = 4096

// build finds what is in the switch and adds what every instance has, all or nothing.
func (h *handle) build(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.d.ensureShared(ctx); err != nil {
		return err
	}
	number, err := h.d.number(h.inst.ID)
	if err != nil {
		return err
	}
	h.newVRF(number)
	if err := h.reload(ctx); err != nil {
		return err
	}
	_, err = h.ensureBase(ctx)
	h.lost = false
	return err
}

func (h *handle) newVRF(number uint32) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	l := h.d.layout
	h.vrf = newVRF(&l, h.inst.ID, number, h.inst.Gateway)
}

// ensureBase adds the flows that every instance has, and tells whether any was missing.
func (h *handle) ensureBase(ctx context.Context) (missing bool, err error) {
	conn, err := h.d.bridge(ctx)
	if err != nil {
		return false, err
	}
	base := h.vrf.baseFlows()
	have, err := conn.Flows(ctx, of.Filter{Cookie: h.vrf.cookie(), Mask: exactCookie})
	if err != nil {
		return false, err
	}
	found := 0
	for _, f := range have {
		for _, b := range base {
			if f.Flow == b {
				found++
			}
		}
	}
	if found == len(base) {
		return false, nil
	}
	messages := make([]of.Message, 0, len(base))
	for _, f := range base {
		messages = append(messages, of.AddFlow(f))
	}
	if err := conn.Bundle(ctx, messages); err != nil {
		h.dirty = true
		return false, err
	}
	h.count += len(base) - found
	return true, nil
}

// Installed lists the entries that are whole in the switch.
func (h *handle) Installed(ctx context.Context) ([]dataplane.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(ctx); err != nil {
		return nil, err
	}
	if err := h.reload(ctx); err != nil {
		return nil, fmt.Errorf("list entries of instance %q: %w", h.inst.ID, err)
	}
	return h.vrf.entries(), nil
}

func (h *handle) usable(ctx context.Context) error {
	if h.gone {
		return fmt.Errorf("instance %q was removed", h.inst.ID)
	}
	return ctx.Err()
}

// entries lists all entries.
func (v *vrf) entries() []dataplane.Entry {
	out := make([]dataplane.Entry, 0, len(v.ports)+len(v.ends)+len(v.routes)+1)
	for _, p := range v.ports {
		out = append(out, p.entry)
	}
	for _, e := range v.ends {
		out = append(out, e)
	}
	for p, r := range v.routes {
		out = append(out, dataplane.Entry{Kind: dataplane.Prefix, Prefix: p, NextHops: r.hops})
	}
	if v.fallback != nil {
		out = append(out, *v.fallback)
	}
	for c := range v.redirects.all {
		out = append(out, v.redirectEntry(c))
	}
	return out
}

// lacks tells whether any of some entries is not there.
func (v *vrf) lacks(list []dataplane.Entry) bool {
	now := map[string]bool{}
	for _, e := range v.entries() {
		now[e.String()] = true
	}
	for _, e := range list {
		if !now[e.String()] {
			return true
		}
	}
	return false
}

// Remove takes all of the instance out of the switch.
func (h *handle) Remove(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.d.removeInstance(ctx, h.inst.ID, h.vrf.number); err != nil {
		h.dirty = true
		return fmt.Errorf("remove instance %q: %w", h.inst.ID, err)
	}
	h.gone = true
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.open[h.inst.ID] == h {
		delete(h.d.open, h.inst.ID)
	}
	return nil
}

// forget drops what is known of an instance's ports. It runs with d.mu held.
func (d *Driver) forget(id string) {
	for k, owner := range d.inputs {
		if owner == id {
			delete(d.inputs, k)
		}
	}
	for name, ids := range d.users {
		if delete(ids, id); len(ids) == 0 {
			delete(d.users, name)
		}
	}
}
