// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/cilium/ebpf"
)

// batch is one call of Apply: routes that wait for the kernel, and whose they are. All
// that wait are of one IP version, and all are to be set or all to be deleted.
type batch struct {
	*handle
	results []error
	del, v6 bool
	owner   []int
	keys4   []key4
	keys6   []key6
	values  []routeValue
	// prefixes are those whose group, if any, goes when the route leads to none. Those of
	// fresh have a group that no route led to before.
	prefixes []netip.Prefix
	fresh    []bool
}

func key4Of(p netip.Prefix) key4 { return key4{Bits: uint32(p.Bits()), Addr: p.Addr().As4()} }
func key6Of(p netip.Prefix) key6 { return key6{Bits: uint32(p.Bits()), Addr: p.Addr().As16()} }

func (k key4) prefix() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4(k.Addr), int(k.Bits)) }
func (k key6) prefix() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom16(k.Addr), int(k.Bits)) }

// change queues a route.
func (b *batch) change(i int, del bool, e *dataplane.Entry) error {
	p := e.Prefix
	if !isPlainPrefix(p) {
		return fmt.Errorf("prefix %q is not valid: want an IPv4 or IPv6 prefix without host bits", p)
	}
	v6 := p.Addr().Is6()
	if len(b.owner) > 0 && (b.del != del || b.v6 != v6 || len(b.owner) == batchSize) {
		b.flush()
	}
	_, grouped := b.groups[p]
	if !del {
		v, err := b.routeOf(p, e.NextHops)
		if err != nil {
			return err
		}
		b.values = append(b.values, v)
	}
	b.del, b.v6 = del, v6
	b.owner = append(b.owner, i)
	b.prefixes, b.fresh = append(b.prefixes, p), append(b.fresh, !grouped)
	if v6 {
		b.keys6 = append(b.keys6, key6Of(p))
	} else {
		b.keys4 = append(b.keys4, key4Of(p))
	}
	return nil
}

// routeOf returns a route as the kernel has it. The group that it leads to is written first.
func (h *handle) routeOf(p netip.Prefix, list []dataplane.NextHop) (v routeValue, err error) {
	if len(list) == 0 || len(list) > maxHops {
		return v, fmt.Errorf("%d next hops are not valid: want 1 to %d", len(list), maxHops)
	}
	v.Flags = h.flagsOf(p)
	if len(list) == 1 {
		v.Hop, err = h.d.hopOf(&list[0])
		return v, err
	}
	hops := make([]hopValue, len(list))
	for i := range list {
		if hops[i], err = h.d.hopOf(&list[i]); err != nil {
			return v, err
		}
	}
	v.Group, err = h.setGroup(p, list, hops)
	return v, err
}

func (h *handle) flagsOf(p netip.Prefix) (flags uint32) {
	if p.Bits() == 0 {
		flags |= routeDefault
	}
	if h.subnet.IsValid() && h.subnet.Bits() <= p.Bits() && h.subnet.Contains(p.Addr()) {
		flags |= routeOnLink
	}
	return flags
}

// flush carries out what waits.
func (b *batch) flush() {
	if len(b.owner) == 0 {
		return
	}
	if b.v6 {
		flush(b, b.routes6, b.keys6)
	} else {
		flush(b, b.routes4, b.keys4)
	}
	b.owner, b.prefixes, b.fresh, b.values = b.owner[:0], b.prefixes[:0], b.fresh[:0], b.values[:0]
	b.keys4, b.keys6 = b.keys4[:0], b.keys6[:0]
}

// flush gives the keys to the kernel, in one call if it takes all. One that it does not
// take, or a kernel that takes no batches, gets the rest one by one.
func flush[K any](b *batch, m *ebpf.Map, keys []K) {
	var done int
	var err error
	if b.del {
		done, err = m.BatchDelete(keys, nil)
	} else {
		done, err = m.BatchUpdate(keys, b.values, nil)
	}
	if err != nil && done == len(keys) {
		done = 0 // what we asked for: the kernel has given up before it counted
	}
	for i := range keys {
		var err error
		if i >= done {
			err = b.one(m, &keys[i], i)
		}
		if err == nil && len(b.groups) > 0 && (b.del || b.values[i].Group == 0) {
			err = b.dropGroup(b.prefixes[i])
		}
		b.results[b.owner[i]] = err
	}
}

func (b *batch) one(m *ebpf.Map, key any, i int) error {
	if b.del {
		return ignoreMissing(m.Delete(key))
	}
	err := put("routes of the instance", m, key, &b.values[i])
	if err != nil && b.values[i].Group != 0 && b.fresh[i] {
		err = errors.Join(err, b.dropGroup(b.prefixes[i]))
	}
	return err
}

// flagRoutes sets the flags of all routes again, after the subnet has changed.
func (h *handle) flagRoutes() error {
	var keys4 []key4
	var keys6 []key6
	var values4, values6 []routeValue
	err := errors.Join(
		each(h.routes4, func(k key4, v routeValue) {
			if f := h.flagsOf(k.prefix()); f != v.Flags {
				v.Flags = f
				keys4, values4 = append(keys4, k), append(values4, v)
			}
		}),
		each(h.routes6, func(k key6, v routeValue) {
			if f := h.flagsOf(k.prefix()); f != v.Flags {
				v.Flags = f
				keys6, values6 = append(keys6, k), append(values6, v)
			}
		}))
	for i := range keys4 {
		err = errors.Join(err, put("routes of the instance", h.routes4, &keys4[i], &values4[i]))
	}
	for i := range keys6 {
		err = errors.Join(err, put("routes of the instance", h.routes6, &keys6[i], &values6[i]))
	}
	return err
}
