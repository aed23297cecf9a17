// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// classes are the classes of packets of a VRF that are routed in others: lists by
// destination, each in the order in which the program looks at them.
type classes struct{ dataplane.ByDestination[class] }

type class struct {
	id     uint32
	is     dataplane.Classifier
	target uint32
}

// steps returns how many classes and lists the program looks at for a packet that only
// the last one of a list holds.
func (c *classes) steps(p netip.Prefix) int {
	n := 0
	for list := range c.Around(p) {
		n += len(list) + 1
	}
	return n
}

// room tells whether one more class for a destination leaves all lists short enough.
func (c *classes) room(p netip.Prefix) bool {
	if c.steps(p)+2 > classSteps {
		return false
	}
	for o := range c.Within(p) {
		if c.steps(o)+2 > classSteps {
			return false
		}
	}
	return true
}

func classKeyOf(vrf uint32, p netip.Prefix) classKey {
	addr, bits := prefix16(p)
	return classKey{Bits: 64 + bits, VRF: vrf, V6: v6Of(p), Addr: addr}
}

func v6Of(p netip.Prefix) uint32 {
	if p.Addr().Is6() {
		return 1
	}
	return 0
}

// listBits is the length of a list's prefix: 0 for one after which no other list is
// looked for.
func listBits(p netip.Prefix) uint32 {
	_, bits := prefix16(p)
	return bits
}

func (h *handle) classValue(c *class, next uint32) classValue {
	v := classValue{
		Next: next, Target: c.target, VRF: h.vrf, V6: v6Of(c.is.Destination), Protocol: anyProtocol,
		DestinationPorts: ports(c.is.DestinationPorts), SourcePorts: ports(c.is.SourcePorts),
	}
	v.Destination, v.DestinationBits = prefix16(c.is.Destination)
	v.Source, v.SourceBits = prefix16(c.is.Source)
	if c.is.Protocol != dataplane.AnyProtocol {
		v.Protocol = uint16(c.is.Protocol)
	}
	if c.is.DestinationPorts != dataplane.AllPorts || c.is.SourcePorts != dataplane.AllPorts {
		v.Flags = classPorts
	}
	return v
}

func ports(r dataplane.PortRange) [2]uint16 { return [2]uint16{r.First, r.Last} }

// classOf is the reverse of classValue.
func classOf(id uint32, v *classValue) class {
	c := class{id: id, target: v.Target, is: dataplane.Classifier{
		Destination: prefixOf(v.Destination, v.DestinationBits), Source: prefixOf(v.Source, v.SourceBits), Protocol: int16(v.Protocol),
		DestinationPorts: dataplane.PortRange{First: v.DestinationPorts[0], Last: v.DestinationPorts[1]},
		SourcePorts:      dataplane.PortRange{First: v.SourcePorts[0], Last: v.SourcePorts[1]},
	}}
	if v.Protocol == anyProtocol {
		c.is.Protocol = dataplane.AnyProtocol
	}
	return c
}

// setClass adds, changes or deletes a class. The program sees the list as it was or as it
// is: a class is written before others lead to it, and deleted when none does any more.
func (h *handle) setClass(del bool, e *dataplane.Entry) error {
	c := e.Class
	if c == nil || !isPlainPrefix(c.Destination) || !isPlainPrefix(c.Source) || c.Destination.Addr().Is4() != c.Source.Addr().Is4() {
		return fmt.Errorf("class %v is not valid: want prefixes of one IP version, without host bits", c)
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	list := h.classes.List(c.Destination)
	at, have := slices.BinarySearchFunc(list, *c, func(x class, c dataplane.Classifier) int { return x.is.Compare(c) })
	if del {
		if !have {
			return h.flagPorts()
		}
		return h.dropClass(c.Destination, list, at)
	}
	target := d.open[e.Target]
	switch {
	case target == nil:
		return fmt.Errorf("there is no instance %q to route the packets in", e.Target)
	case !have && !h.classes.room(c.Destination):
		return fmt.Errorf("a packet might be in more than %d classes, counting each of their destinations as one more", classSteps)
	}
	now, next := class{is: *c, target: target.vrf}, idAt(list, at)
	if have {
		now.id, next = list[at].id, idAt(list, at+1)
	} else {
		d.lastClass++
		now.id = d.lastClass
	}
	v := h.classValue(&now, next)
	if err := put("classes of packets", d.maps.Classes, now.id, &v); err != nil {
		return err
	}
	if have {
		list[at] = now
		return h.flagPorts()
	}
	if err := h.leadTo(c.Destination, list, at, now.id); err != nil {
		return errors.Join(err, ignoreMissing(d.maps.Classes.Delete(now.id)))
	}
	h.classes.Set(c.Destination, slices.Insert(list, at, now))
	return h.flagPorts()
}

// idAt returns the number of the class at a place in a list, 0 behind its end.
func idAt(list []class, at int) uint32 {
	if at >= len(list) {
		return 0
	}
	return list[at].id
}

// leadTo makes what is before a place in a list lead to a class.
func (h *handle) leadTo(p netip.Prefix, list []class, at int, id uint32) error {
	if at == 0 {
		k, v := classKeyOf(h.vrf, p), classList{First: id, Bits: listBits(p)}
		return put("destinations of classes of packets", h.d.maps.Lists, &k, &v)
	}
	v := h.classValue(&list[at-1], id)
	return put("classes of packets", h.d.maps.Classes, list[at-1].id, &v)
}

func (h *handle) dropClass(p netip.Prefix, list []class, at int) error {
	if len(list) == 1 {
		k := classKeyOf(h.vrf, p)
		if err := ignoreMissing(h.d.maps.Lists.Delete(&k)); err != nil {
			return err
		}
	} else if err := h.leadTo(p, list, at, idAt(list, at+1)); err != nil {
		return err
	}
	if err := ignoreMissing(h.d.maps.Classes.Delete(list[at].id)); err != nil {
		return err
	}
	h.classes.Set(p, slices.Delete(list, at, at+1))
	return h.flagPorts()
}

// flagPorts makes the program look for classes of packets from the VRF's ports when there
// are any. What fails is tried again by the next call. It runs with d.mu held.
func (h *handle) flagPorts() error {
	v, has := h.d.vrfs[h.vrf], h.classes.Len() > 0
	if has == h.d.steered[h.vrf] {
		return nil
	}
	h.d.steered[h.vrf] = has
	var errs []error
	for index, plugs := range h.d.ports {
		if _, ok := plugs[h.vrf]; ok {
			errs = append(errs, h.d.release(index))
		}
	}
	if err := errors.Join(errs...); err != nil {
		h.d.steered[h.vrf] = !has
		return fmt.Errorf("instance %q: %w", v.id(), err)
	}
	return nil
}

// readClasses makes the books of classes from the kernel, and the lists again, which a crash
// may have left undone.
func (h *handle) readClasses() error {
	h.classes = classes{}
	err := each(h.d.maps.Classes, func(id uint32, v classValue) {
		if c := classOf(id, &v); v.VRF == h.vrf && isPlainPrefix(c.is.Destination) {
			h.classes.Set(c.is.Destination, append(h.classes.List(c.is.Destination), c))
		}
	})
	if err != nil {
		return err
	}
	for p, list := range h.classes.All() {
		slices.SortFunc(list, func(a, b class) int { return cmp.Or(a.is.Compare(b.is), cmp.Compare(a.id, b.id)) })
		for at := len(list) - 1; at >= 0; at-- {
			v := h.classValue(&list[at], idAt(list, at+1))
			if err := put("classes of packets", h.d.maps.Classes, list[at].id, &v); err != nil {
				return err
			}
		}
		if err := h.leadTo(p, list, 0, list[0].id); err != nil {
			return err
		}
	}
	if err := purge(h.d.maps.Lists, func(k classKey, _ classList) bool {
		return k.VRF == h.vrf && h.classes.List(prefixOf(k.Addr, k.Bits-64)) == nil
	}); err != nil {
		return err
	}
	return h.flagPorts()
}

// installedClasses appends the entries of classes.
func (h *handle) installedClasses(out []dataplane.Entry) []dataplane.Entry {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	for _, list := range h.classes.All() {
		for _, c := range list {
			v := h.d.vrfs[c.target]
			out = append(out, dataplane.Entry{Kind: dataplane.Redirect, Class: &c.is, Target: v.id()})
		}
	}
	return out
}

// purgeClasses deletes the classes of an instance.
func (d *Driver) purgeClasses(vrf uint32) error {
	delete(d.steered, vrf)
	return errors.Join(
		purge(d.maps.Lists, func(k classKey, _ classList) bool { return k.VRF == vrf }),
		purge(d.maps.Classes, func(_ uint32, v classValue) bool { return v.VRF == vrf }),
	)
}

// readLastClass finds the highest number that a class has.
func (d *Driver) readLastClass() error {
	return each(d.maps.Classes, func(id uint32, _ classValue) { d.lastClass = max(d.lastClass, id) })
}

// setFallback sends what has no route to a device, or drops it again.
func (h *handle) setFallback(del bool, e *dataplane.Entry) error {
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if del {
		return ignoreMissing(d.maps.Fallbacks.Delete(h.vrf))
	}
	if e.Port == "" {
		return &dataplane.InputError{Field: "fallback", Text: "no device is named: want linuxif"}
	}
	l, ok, err := d.conn.LinkByName(e.Port)
	switch {
	case err != nil:
		return err
	case !ok:
		return &dataplane.InputError{Field: "fallback", Missing: true, Text: fmt.Sprintf("linuxif: device %s does not exist: want an Ethernet device of this host", e.Port)}
	case !l.Ethernet:
		return &dataplane.InputError{Field: "fallback", Text: fmt.Sprintf("linuxif: device %s is not an Ethernet device", e.Port)}
	}
	v := fallbackValue{Index: uint32(l.Index), Port: name16(e.Port)}
	copy(v.MACs[:6], e.MAC[:])
	copy(v.MACs[6:], e.Source[:])
	return put("fallbacks", d.maps.Fallbacks, h.vrf, &v)
}

// installedFallback appends the entry of the fallback.
func (h *handle) installedFallback(out []dataplane.Entry) ([]dataplane.Entry, error) {
	var v fallbackValue
	if err := h.d.maps.Fallbacks.Lookup(h.vrf, &v); err != nil {
		return out, ignoreMissing(err)
	}
	return append(out, dataplane.Entry{
		Kind: dataplane.Fallback, Port: nameOf(v.Port), MAC: ethernet.MAC(v.MACs[:6]), Source: ethernet.MAC(v.MACs[6:]),
	}), nil
}
