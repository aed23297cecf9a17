// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

var errGone = errors.New("fake: the instance is gone")

// Driver implements dataplane.Driver over a Plane.
type Driver struct {
	// Caps may be changed before the driver is used.
	Caps  dataplane.Capabilities
	plane *Plane
	typ   dataplane.VPNType

	mu     sync.Mutex
	open   map[string]*handle
	closed bool
}

// Driver returns a new driver over the plane, for instances of one type: EVPN
// over VXLAN, or IP VPN over MPLS with ECMP and all directions.
func (p *Plane) Driver(t dataplane.VPNType) *Driver {
	d := &Driver{plane: p, typ: t, open: map[string]*handle{}, Caps: dataplane.Capabilities{
		Encaps: []encap.Type{encap.VXLAN}, AcceptDefault: true, ExistingBridge: true,
		Directions: []dataplane.Direction{dataplane.Both},
	}}
	if t == dataplane.IPVPN {
		d.Caps.Encaps = []encap.Type{encap.MPLS}
		d.Caps.ECMP, d.Caps.ExistingBridge, d.Caps.OVSPorts = true, false, true
		d.Caps.Fallback, d.Caps.Redirect = true, true
		d.Caps.Directions = []dataplane.Direction{dataplane.Both, dataplane.ToPort, dataplane.FromPort}
	}
	return d
}

// Drivers returns one new driver per VPN type over the plane.
func (p *Plane) Drivers() map[dataplane.VPNType]dataplane.Driver {
	return map[dataplane.VPNType]dataplane.Driver{
		dataplane.EVPN: p.Driver(dataplane.EVPN), dataplane.IPVPN: p.Driver(dataplane.IPVPN),
	}
}

// Name returns "fake".
func (d *Driver) Name() string { return "fake" }

// Capabilities returns Caps.
func (d *Driver) Capabilities() dataplane.Capabilities { return d.Caps }

// Describe returns one member.
func (d *Driver) Describe() []dataplane.Member {
	return []dataplane.Member{{Name: "plane", Value: "memory"}}
}

// Close ends the driver as the end of its process would: the plane keeps all.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *Driver) ended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// Check refuses nothing, unless told to fail.
func (d *Driver) Check(_ context.Context, inst dataplane.Instance, port dataplane.Port) error {
	d.plane.mu.Lock()
	defer d.plane.mu.Unlock()
	return d.plane.attempt(Op{Instance: inst.ID, Verb: "check", Port: port.Name})
}

// Open makes an instance in the plane, or adopts it.
func (d *Driver) Open(_ context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if inst.Type != d.typ || inst.ID == "" || inst.VNI == 0 || d.closed {
		d.plane.breach("open %q: %+v is not for this driver", inst.ID, inst)
	}
	if d.open[inst.ID] != nil {
		return nil, fmt.Errorf("fake: open %s: it is open already", inst.ID)
	}
	p := d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attempt(Op{Instance: inst.ID, Verb: "open"}); err != nil {
		return nil, err
	}
	h := &handle{d: d, key: instanceKey{d.typ, inst.ID}, inst: inst}
	h.make()
	clear(p.instances[h.key].unplugged) // a new driver does not know what others did before
	d.open[inst.ID] = h
	return h, nil
}

// Orphans lists the instances in the plane that are not open.
func (d *Driver) Orphans(context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attempt(Op{Verb: "orphans"}); err != nil {
		return nil, err
	}
	var ids []string
	for k := range p.instances {
		if k.typ == d.typ && d.open[k.id] == nil {
			ids = append(ids, k.id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// RemoveOrphan removes an instance that is not open.
func (d *Driver) RemoveOrphan(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[id] != nil {
		return fmt.Errorf("fake: remove orphan %s: %w", id, dataplane.ErrOpen)
	}
	p := d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attempt(Op{Instance: id, Verb: "remove orphan"}); err != nil {
		return err
	}
	delete(p.instances, instanceKey{d.typ, id})
	return nil
}

// Counters returns what Plane.Count has set.
func (d *Driver) Counters(context.Context) ([]dataplane.Counter, error) {
	p := d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attempt(Op{Verb: "counters"}); err != nil {
		return nil, err
	}
	return slices.Clone(p.counters[d.typ]), nil
}

// Drifted lists the open instances that are not in the plane, or have ports that
// were unplugged.
func (d *Driver) Drifted(context.Context) ([]dataplane.Drift, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []dataplane.Drift
	for id, h := range d.open {
		switch i := p.instances[h.key]; {
		case i == nil:
			out = append(out, dataplane.Drift{Instance: id, Whole: true})
		case len(i.unplugged) > 0:
			out = append(out, dataplane.Drift{Instance: id, Ports: slices.Sorted(maps.Keys(i.unplugged))})
			maps.DeleteFunc(i.unplugged, func(_ string, done bool) bool { return done })
		}
	}
	return out, nil
}

// handle implements dataplane.Handle.
type handle struct {
	d       *Driver
	key     instanceKey
	inst    dataplane.Instance
	busy    atomic.Bool
	removed atomic.Bool
}

// make puts the instance into the plane, or adopts it. It runs with the plane's lock held.
func (h *handle) make() {
	p := h.d.plane
	if p.instances[h.key] == nil {
		p.instances[h.key] = &instance{entries: map[entryKey]dataplane.Entry{}, unplugged: map[string]bool{}}
	}
	p.instances[h.key].Instance = h.inst
}

// enter notes calls that may not be made: two at a time, or after the end.
func (h *handle) enter(call string) (leave func()) {
	if !h.busy.CompareAndSwap(false, true) {
		h.d.plane.breach("%s of %s while another call runs", call, h.key.id)
		return func() {}
	}
	if h.removed.Load() {
		h.d.plane.breach("%s of %s after it was removed", call, h.key.id)
	}
	if h.d.ended() {
		h.d.plane.breach("%s of %s after the driver was closed", call, h.key.id)
	}
	return func() { h.busy.Store(false) }
}

// Installed lists what the plane has.
func (h *handle) Installed(context.Context) ([]dataplane.Entry, error) {
	defer h.enter("Installed")()
	p := h.d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.attempt(Op{Instance: h.key.id, Verb: "installed"}); err != nil {
		return nil, err
	}
	i := p.instances[h.key]
	if i == nil {
		return nil, errGone
	}
	var out []dataplane.Entry
	for _, e := range i.entries {
		e.NextHops = slices.Clone(e.NextHops)
		out = append(out, e)
	}
	return out, nil
}

// Apply carries out changes one by one.
func (h *handle) Apply(_ context.Context, changes []dataplane.Change) []error {
	defer h.enter("Apply")()
	if len(changes) == 0 {
		h.d.plane.breach("Apply of nothing for %s", h.key.id)
	}
	out := make([]error, len(changes))
	for n, c := range changes {
		if why := malformed(c.Entry, h.d.Caps); why != "" && !c.Delete {
			h.d.plane.breach("%s: %s: %s", h.key.id, c, why)
		}
		out[n] = h.change(c)
	}
	return out
}

func (h *handle) change(c dataplane.Change) error {
	p := h.d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[h.key]
	if i == nil {
		return errGone
	}
	if err := p.attempt(Op{Instance: h.key.id, Verb: "apply", Change: c}); err != nil {
		return err
	}
	i.apply(c)
	return nil
}

// Repair makes an instance that was lost again.
func (h *handle) Repair(context.Context) (bool, error) {
	defer h.enter("Repair")()
	p := h.d.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.instances[h.key] != nil {
		return false, nil
	}
	if err := p.attempt(Op{Instance: h.key.id, Verb: "repair"}); err != nil {
		return false, err
	}
	h.make()
	return true, nil
}

// Remove takes the instance out of the plane.
func (h *handle) Remove(context.Context) error {
	defer h.enter("Remove")()
	p := h.d.plane
	p.mu.Lock()
	err := p.attempt(Op{Instance: h.key.id, Verb: "remove"})
	if err == nil {
		delete(p.instances, h.key)
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	h.removed.Store(true)
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.open[h.key.id] == h {
		delete(h.d.open, h.key.id)
	}
	return nil
}

// Describe returns one member.
func (h *handle) Describe() []dataplane.Member {
	return []dataplane.Member{{Name: "plane", Value: "memory"}}
}

// Bridge implements dataplane.Bridging.
func (h *handle) Bridge() (name string, mtu int) { return "br-" + h.inst.ID, 1450 }
