// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/cilium/ebpf"
)

const (
	maxID  = 255
	maxVNI = 1<<24 - 1
	// hurryTries is how often hurry looks, which takes about a microsecond.
	hurryTries = 1000
)

// valueOf returns what the kernel is told about an instance.
func valueOf(inst dataplane.Instance) vrfValue {
	v := vrfValue{VNI: inst.VNI, IDLength: uint8(len(inst.ID))}
	copy(v.ID[:], inst.ID)
	if inst.Gateway.IsValid() {
		addr, bits := prefix16(inst.Gateway)
		v.Gateway, v.GatewayBits, v.HasGateway = addr, uint8(bits), 1
	}
	if inst.L3VNI {
		v.L3VNI = 1
	}
	return v
}

func (v *vrfValue) id() string { return string(v.ID[:v.IDLength]) }

// subnet returns the subnet within which TTLs are left alone, or an invalid prefix.
func (v *vrfValue) subnet() netip.Prefix {
	if v.HasGateway == 0 {
		return netip.Prefix{}
	}
	return prefixOf(v.Gateway, uint32(v.GatewayBits)).Masked()
}

// check refuses an instance that Open would not take.
func (d *Driver) check(ctx context.Context, inst dataplane.Instance) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inst.Type != dataplane.IPVPN:
		return fmt.Errorf("type %q is not for this driver: want %q", inst.Type, dataplane.IPVPN)
	case inst.VNI == 0 || inst.VNI > maxVNI:
		return fmt.Errorf("VNI %d is not valid: want 1 to %d", inst.VNI, maxVNI)
	case inst.ID == "":
		return errors.New("instance has no id")
	case len(inst.ID) > maxID:
		return &dataplane.InputError{Field: "vpn_instance_id",
			Text: fmt.Sprintf("%.20q... has %d octets: want at most %d", inst.ID, len(inst.ID), maxID)}
	case inst.Bridge != "":
		return &dataplane.InputError{Field: "linuxbr",
			Text: fmt.Sprintf("bridge %s cannot be used: a VRF has none", inst.Bridge)}
	}
	return nil
}

// Open makes or adopts the tables of an instance.
func (d *Driver) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	h, err := d.openVRF(ctx, inst)
	if err != nil {
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	return h, nil
}

func (d *Driver) openVRF(ctx context.Context, inst dataplane.Instance) (*handle, error) {
	if err := d.check(ctx, inst); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[inst.ID] != nil {
		return nil, errors.New("it is open already")
	}
	h := &handle{d: d, inst: inst, groups: map[netip.Prefix]uint32{}, classes: classes{}}
	number, known := d.numberOf(inst.ID)
	h.vrf = number
	before := d.vrfs[number]
	if err := h.make(valueOf(inst)); err != nil {
		if !known {
			err = errors.Join(err, d.removeVRF(number))
		}
		return nil, err
	}
	if err := h.adopt(known, before); err != nil {
		return nil, err
	}
	d.open[inst.ID] = h
	return h, nil
}

// numberOf returns the number of an instance in the kernel, or one that is free and was not
// just another's, which a class of packets may still name. It runs with d.mu held.
func (d *Driver) numberOf(id string) (number uint32, known bool) {
	for n, v := range d.vrfs {
		if v.id() == id {
			return n, true
		}
	}
	for {
		d.lastVRF = max(d.lastVRF+1, 1)
		if _, taken := d.vrfs[d.lastVRF]; !taken {
			return d.lastVRF, false
		}
	}
}

// make notes the instance in the kernel, and makes what tables it has not.
func (h *handle) make(v vrfValue) (err error) {
	d := h.d
	if err := put("instances", d.maps.VRFs, h.vrf, &v); err != nil {
		return err
	}
	d.vrfs[h.vrf] = v
	h.subnet = v.subnet()
	if err := start(d.maps.Drops, h.vrf, &dropStats{}); err != nil {
		return err
	}
	if h.routes4, err = h.table(d.maps.Routes4, 4); err != nil {
		return err
	}
	if h.routes6, err = h.table(d.maps.Routes6, 16); err != nil {
		return errors.Join(err, h.routes4.Close())
	}
	return nil
}

// table returns the instance's table of routes with addresses of a size, which is made
// unless it is there. One of an earlier run keeps the room that it was made with.
func (h *handle) table(outer *ebpf.Map, size uint32) (*ebpf.Map, error) {
	var id ebpf.MapID
	if outer.Lookup(h.vrf, &id) == nil {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, fmt.Errorf("open table of routes: %w", err)
		}
		return m, nil
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: fmt.Sprintf("bp1_table%d", size), Type: ebpf.LPMTrie, Flags: noPrealloc,
		KeySize: 4 + size, ValueSize: routeSize, MaxEntries: h.d.cfg.MaxRoutes,
	})
	if err != nil {
		return nil, fmt.Errorf("make table of routes: %w", err)
	}
	// The number of the file, because the table may be closed before the kernel returns.
	vrf, fd := h.vrf, uint32(m.FD())
	err = h.d.hurry(func() error { return put("tables of routes", outer, vrf, fd) }, func() bool { return hasTable(outer, vrf) })
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func hasTable(outer *ebpf.Map, vrf uint32) bool {
	var id ebpf.MapID
	return outer.Lookup(vrf, &id) == nil
}

// dropTable takes the table of an instance away.
func (d *Driver) dropTable(outer *ebpf.Map, vrf uint32) error {
	return d.hurry(func() error { return ignoreMissing(outer.Delete(vrf)) }, func() bool { return !hasTable(outer, vrf) })
}

// hurry makes a change in a map of maps. The kernel makes it at once, but returns only
// when no program can use the old one any more, some 10 ms later, which nobody here needs
// to wait for. seen tells whether the change is made.
func (d *Driver) hurry(change func() error, seen func() bool) error {
	done := make(chan error, 1)
	d.background.Go(func() { done <- change() })
	for range hurryTries {
		select {
		case err := <-done:
			return err
		default:
		}
		if seen() {
			return nil
		}
		runtime.Gosched()
	}
	return <-done
}

// adopt makes the books of an instance from the kernel, and sets right what hangs on
// the instance's own settings.
func (h *handle) adopt(known bool, before vrfValue) error {
	if err := h.setL3VNI(before); err != nil {
		return err
	}
	if !known {
		h.ends = newEnds()
		return nil
	}
	if err := h.readEnds(); err != nil {
		return err
	}
	if err := errors.Join(h.readGroups(), h.readClasses()); err != nil {
		return err
	}
	if before.subnet() != h.subnet {
		return h.flagRoutes()
	}
	return nil
}

// setL3VNI makes packets with the instance's VNI arrive in it, or no longer.
func (h *handle) setL3VNI(before vrfValue) error {
	if before.L3VNI == 1 && (before.VNI != h.inst.VNI || !h.inst.L3VNI) {
		if err := h.d.dropLabel(labelKey{Space: spaceVXLAN, Label: before.VNI}, h.vrf); err != nil {
			return err
		}
	}
	if !h.inst.L3VNI {
		return nil
	}
	k, v := labelKey{Space: spaceVXLAN, Label: h.inst.VNI}, targetValue{VRF: h.vrf, Kind: targetVRF}
	return put("labels", h.d.maps.Labels, &k, &v)
}

// dropLabel takes a label from a VRF, if it still has it.
func (d *Driver) dropLabel(k labelKey, vrf uint32) error {
	var t targetValue
	if err := d.maps.Labels.Lookup(&k, &t); err != nil || t.VRF != vrf {
		return ignoreMissing(err)
	}
	return ignoreMissing(d.maps.Labels.Delete(&k))
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// readJournals makes the books that all instances share.
func (d *Driver) readJournals() error {
	var number uint32
	var v vrfValue
	it := d.maps.VRFs.Iterate()
	for it.Next(&number, &v) {
		d.vrfs[number] = v
		d.lastVRF = max(d.lastVRF, number)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read instances: %w", err)
	}
	if err := start(d.maps.Drops, uint32(0), &dropStats{}); err != nil { // of packets that belong to no instance
		return err
	}
	return errors.Join(d.readLastClass(), d.readPlugs())
}

// removeVRF removes an instance's state from the kernel: ports first, so that no
// packets come any more, and the note of it last, so that it is found again until all
// is gone. It runs with d.mu held.
func (d *Driver) removeVRF(number uint32) error {
	v, ok := d.vrfs[number]
	if !ok {
		return nil
	}
	errs := []error{d.unplugAll(number)}
	errs = append(errs,
		purge(d.maps.Labels, func(_ labelKey, t targetValue) bool { return t.VRF == number }),
		purge(d.maps.Gateways, func(k gatewayKey, _ uint32) bool { return k.VRF == number }),
		purge(d.maps.Sources, func(_ sourceKey, s sourceValue) bool { return s.VRF == number }),
		purge(d.maps.Endpoints, func(k endpointKey, _ endpointValue) bool { return k.VRF == number }),
		d.dropTable(d.maps.Routes4, number),
		d.dropTable(d.maps.Routes6, number),
		d.purgeGroups(number),
		d.purgeClasses(number),
		ignoreMissing(d.maps.Fallbacks.Delete(number)),
		ignoreMissing(d.maps.Drops.Delete(number)),
	)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove instance %q: %w", v.id(), err)
	}
	if err := ignoreMissing(d.maps.VRFs.Delete(number)); err != nil {
		return fmt.Errorf("remove instance %q: %w", v.id(), err)
	}
	delete(d.vrfs, number)
	return nil
}

// purge deletes the entries that match.
func purge[K comparable, V any](m *ebpf.Map, match func(K, V) bool) error {
	var keys []K
	err := each(m, func(k K, v V) {
		if match(k, v) {
			keys = append(keys, k)
		}
	})
	if err != nil {
		return err
	}
	for i := range keys {
		if err := ignoreMissing(m.Delete(&keys[i])); err != nil {
			return err
		}
	}
	return nil
}

// Orphans lists the instances that the kernel has and that are not open.
func (d *Driver) Orphans(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for _, v := range d.vrfs {
		if d.open[v.id()] == nil {
			ids = append(ids, v.id())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// RemoveOrphan removes all state of an instance that is not open.
func (d *Driver) RemoveOrphan(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[id] != nil {
		return fmt.Errorf("remove orphan %q: %w", id, dataplane.ErrOpen)
	}
	if number, known := d.numberOf(id); known {
		return d.removeVRF(number)
	}
	return nil
}
