// SPDX-License-Identifier: Apache-2.0

// Package dummy is the data plane that forwards nothing: it accepts all
// entries and keeps only their number per kind. It serves route reflectors,
// tests and nodes where something else forwards.
package dummy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// Driver implements dataplane.Driver.
type Driver struct {
	typ   dataplane.VPNType
	local netip.Addr
}

// New returns a driver for instances of a type; local tells the underlay's family.
func New(typ dataplane.VPNType, local netip.Addr) *Driver {
	return &Driver{typ: typ, local: local}
}

// Name returns "dummy".
func (d *Driver) Name() string { return "dummy" }

// Capabilities returns what the original's dummies announce.
func (d *Driver) Capabilities() dataplane.Capabilities {
	c := dataplane.Capabilities{
		Encaps:         []encap.Type{encap.VXLAN},
		AcceptDefault:  true,
		Directions:     []dataplane.Direction{dataplane.Both},
		ExistingBridge: true,
		IPv6Underlay:   d.local.Is6(),
	}
	if d.typ == dataplane.IPVPN {
		c.Encaps = []encap.Type{encap.Default, encap.MPLS}
		c.ExistingBridge, c.OVSPorts, c.Fallback = false, true, true
	}
	return c
}

// Check takes everything.
func (d *Driver) Check(context.Context, dataplane.Instance, dataplane.Port) error { return nil }

// Open returns a handle that counts.
func (d *Driver) Open(_ context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	if inst.Type != d.typ {
		return nil, fmt.Errorf("open instance %q: type %q is not for this driver: want %q", inst.ID, inst.Type, d.typ)
	}
	return &handle{}, nil
}

// Orphans returns none: nothing outlives the process.
func (d *Driver) Orphans(context.Context) ([]string, error) { return nil, nil }

// RemoveOrphan does nothing.
func (d *Driver) RemoveOrphan(context.Context, string) error { return nil }

// Drifted returns none: there is nothing that others could take.
func (d *Driver) Drifted(context.Context) ([]dataplane.Drift, error) { return nil, nil }

// Describe returns none.
func (d *Driver) Describe() []dataplane.Member { return nil }

// Close does nothing.
func (d *Driver) Close() error { return nil }

// kinds is one more than the highest dataplane.Kind.
const kinds = int(dataplane.Fallback) + 1

// handle counts changes. It keeps no entries: a replacement counts as an
// addition, since to know better it would have to remember keys.
type handle struct {
	mu      sync.Mutex
	added   [kinds]uint64
	deleted [kinds]uint64
}

// Installed returns nothing.
func (h *handle) Installed(context.Context) ([]dataplane.Entry, error) { return nil, nil }

// Apply counts the changes; every one succeeds.
func (h *handle) Apply(_ context.Context, changes []dataplane.Change) []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range changes {
		k := int(changes[i].Entry.Kind)
		switch {
		case k >= kinds:
		case changes[i].Delete:
			h.deleted[k]++
		default:
			h.added[k]++
		}
	}
	return make([]error, len(changes))
}

// Repair has nothing to do.
func (h *handle) Repair(context.Context) (bool, error) { return false, nil }

// Remove does nothing.
func (h *handle) Remove(context.Context) error { return nil }

// Describe returns how many entries of each kind were set and deleted so far.
func (h *handle) Describe() []dataplane.Member {
	h.mu.Lock()
	defer h.mu.Unlock()
	var members []dataplane.Member
	for k := range kinds {
		if h.added[k]+h.deleted[k] == 0 {
			continue
		}
		name := dataplane.Kind(k).String()
		members = append(members,
			dataplane.Member{Name: name + "_set", Value: h.added[k]},
			dataplane.Member{Name: name + "_deleted", Value: h.deleted[k]})
	}
	return members
}
