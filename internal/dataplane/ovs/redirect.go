// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// redirect is a Redirect entry: its packets are routed as those of another instance.
//
// Flows have no order but their priorities. A class is above all those that come after it in
// order (Classifier.Compare) and may have packets in common with it; most have none, and one
// priority. The priority is kept until the class goes, so that a new one moves only those
// that must be above it.
type redirect struct {
	class  dataplane.Classifier
	target string
	number uint32 // of the target
	level  uint16 // of the priority, from 0
}

const (
	prioRedirect = prioFixed + 16
	maxLevel     = prioGateway - prioRedirect - 1
)

// overlap tells whether a packet may be in both classes.
func overlap(a, b *dataplane.Classifier) bool {
	ports := func(x, y dataplane.PortRange) bool { return x.First <= y.Last && y.First <= x.Last }
	return ports(a.DestinationPorts, b.DestinationPorts) && ports(a.SourcePorts, b.SourcePorts) &&
		(a.Protocol == b.Protocol || a.Protocol == dataplane.AnyProtocol || b.Protocol == dataplane.AnyProtocol) &&
		a.Destination.Overlaps(b.Destination) && a.Source.Overlaps(b.Source)
}

// redirects are the classes of a VRF, also in lists by destination, each in order.
type redirects struct {
	all   map[dataplane.Classifier]*redirect
	lists dataplane.ByDestination[*redirect]
}

func byClass(x *redirect, c dataplane.Classifier) int { return x.class.Compare(c) }

// set adds a class, or changes it.
func (r *redirects) set(x redirect) {
	if have := r.all[x.class]; have != nil {
		*have = x
		return
	}
	p := x.class.Destination
	list := r.lists.List(p)
	at, _ := slices.BinarySearchFunc(list, x.class, byClass)
	r.lists.Set(p, slices.Insert(list, at, &x))
	r.all[x.class] = &x
}

func (r *redirects) delete(c dataplane.Classifier) {
	list := r.lists.List(c.Destination)
	if at, have := slices.BinarySearchFunc(list, c, byClass); have {
		r.lists.Set(c.Destination, slices.Delete(list, at, at+1))
		delete(r.all, c)
	}
}

// least returns the lowest level that is above all that a class must be above.
func (r *redirects) least(c *dataplane.Classifier) (level uint16) {
	for list := range r.lists.Around(c.Destination) {
		for _, o := range list {
			if o.level >= level && o.class.Compare(*c) > 0 && overlap(&o.class, c) {
				level = o.level + 1
			}
		}
	}
	return level
}

// placed is a class with the level that it is to have.
type placed struct {
	*redirect
	level uint16
}

// place returns the level of a class, and the other classes that have to move up for it, the
// lowest first.
func (r *redirects) place(c dataplane.Classifier) (level uint16, moved []placed, err error) {
	if have := r.all[c]; have != nil {
		return have.level, nil, nil
	}
	level = r.least(&c)
	var up dataplane.ByDestination[placed] // those that push others, in each list the lowest first
	add := func(x placed) {
		list := up.List(x.class.Destination)
		at, _ := slices.BinarySearchFunc(list, x.level, func(o placed, level uint16) int { return cmp.Compare(o.level, level) })
		up.Set(x.class.Destination, slices.Insert(list, at, x))
	}
	add(placed{&redirect{class: c}, level})
	highest := level
	// What a class must be above was looked at before it: it is later in its list, or its
	// destination is shorter.
	for _, list := range r.lists.Within(c.Destination) {
		for _, o := range slices.Backward(list) {
			if o.class.Compare(c) > 0 {
				continue
			}
			x := placed{o, o.level}
			for pushing := range up.Around(o.class.Destination) {
				for i := len(pushing) - 1; i >= 0 && pushing[i].level >= x.level; i-- {
					if overlap(&pushing[i].class, &o.class) {
						x.level = pushing[i].level + 1
						break
					}
				}
			}
			if x.level > o.level {
				add(x)
				moved = append(moved, x)
				highest = max(highest, x.level)
			}
		}
	}
	if highest > maxLevel {
		return 0, nil, fmt.Errorf("there would be more than %d classes, each with packets of the next", maxLevel)
	}
	return level, moved, nil
}

func checkClass(e *dataplane.Entry) error {
	c := e.Class
	switch {
	case c == nil || e.Target == "":
		return errors.New("redirect wants a class and a target")
	case c.Destination != c.Destination.Masked() || c.Source != c.Source.Masked() || !c.Destination.IsValid() || !c.Source.IsValid() ||
		c.Destination.Addr().Is4() != c.Source.Addr().Is4() || c.Destination.Addr().Is4In6():
		return fmt.Errorf("class %q is not valid: want prefixes of one IP version, without host bits", c)
	}
	return nil
}

// redirect takes a Redirect entry into the VRF, or out.
func (a *apply) redirect(i int, c *dataplane.Change) error {
	class := *c.Entry.Class
	u := func(c dataplane.Classifier) unit { return unit{kind: dataplane.Redirect, class: c} }
	if c.Delete {
		a.touch(i, u(class))
		a.vrf.redirects.delete(class)
		return nil
	}
	number, known := a.d.openNumber(c.Entry.Target)
	if !known {
		return fmt.Errorf("there is no instance %q to route the packets in", c.Entry.Target)
	}
	level, moved, err := a.vrf.redirects.place(class)
	if err != nil {
		return err
	}
	for _, x := range slices.Backward(moved) {
		a.touch(i, u(x.class))
		x.redirect.level = x.level
	}
	a.touch(i, u(class))
	a.vrf.redirects.set(redirect{class, c.Entry.Target, number, level})
	return nil
}

// openNumber returns the number of an open instance. One that is just being opened may have none.
func (d *Driver) openNumber(id string) (uint32, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	number := d.numbers[id]
	return number, number != 0 && d.open[id] != nil
}

func (v *vrf) redirectEntry(c dataplane.Classifier) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: v.redirects.all[c].target}
}

// redirectFlows returns the flows of a class: one for each combination of port masks. The
// first has the note.
func (v *vrf) redirectFlows(c dataplane.Classifier) (flows []of.Flow) {
	r := v.redirects.all[c]
	if r == nil {
		return nil
	}
	f := familyOf(c.Destination.Addr())
	base := []of.Cond{v.inVRF(), of.Is(regGuess, 0), f.is(), of.In(f.dst, c.Destination), of.In(f.src, c.Source)}
	if c.Protocol != dataplane.AnyProtocol {
		base = append(base, of.Is(of.IPProto, uint64(c.Protocol)))
	}
	e := v.redirectEntry(c)
	note, _ := encodeEntry(&e) // was possible when the entry was taken
	act := of.Actions("").Set(regInstance, uint64(r.number)).Resubmit(v.table)
	add := func(conds ...of.Cond) {
		a := act
		if len(flows) == 0 {
			a = of.Actions("").Note(note) + act
		}
		flows = append(flows, v.flow(v.table, prioRedirect+r.level, a, append(append([]of.Cond{}, base...), conds...)...))
	}
	if c.DestinationPorts == dataplane.AllPorts && c.SourcePorts == dataplane.AllPorts {
		add()
		return flows
	}
	src, dst := portFields(c.Protocol)
	for _, to := range masks(c.DestinationPorts) {
		for _, from := range masks(c.SourcePorts) {
			add(of.Masked(of.IPFrag, 0, 3), of.Masked(dst, uint64(to.value), uint64(to.mask)), of.Masked(src, uint64(from.value), uint64(from.mask)))
		}
	}
	return flows
}

// portFields returns the fields of a protocol's ports.
func portFields(protocol int16) (src, dst of.Field) {
	switch protocol {
	case 17:
		return of.UDPSrc, of.UDPDst
	case 132:
		return of.SCTPSrc, of.SCTPDst
	}
	return of.TCPSrc, of.TCPDst
}

type portMask struct{ value, mask uint16 }

// masks returns values with masks that together match a range of ports, the fewest there are.
func masks(r dataplane.PortRange) (out []portMask) {
	for first, last := int(r.First), int(r.Last); first <= last; {
		size := 1
		for first%(2*size) == 0 && first+2*size-1 <= last && size < 65536 {
			size *= 2
		}
		out = append(out, portMask{uint16(first), uint16(65536 - size)})
		first += size
	}
	return out
}

// appendClass encodes the class and the target of a Redirect entry.
func appendClass(b []byte, e *dataplane.Entry) []byte {
	c := e.Class
	b = appendPrefix(appendPrefix(b, c.Destination), c.Source)
	for _, n := range []uint16{uint16(c.Protocol), c.DestinationPorts.First, c.DestinationPorts.Last, c.SourcePorts.First, c.SourcePorts.Last} {
		b = append(b, byte(n>>8), byte(n))
	}
	return append(b, e.Target...)
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	return append(appendAddr(b, p.Addr()), byte(p.Bits()))
}

// class is the reverse of appendClass.
func (r *reader) class() (c *dataplane.Classifier, target string) {
	prefix := func() netip.Prefix {
		a, bits := r.addr(), r.octet()
		p := netip.PrefixFrom(a, int(bits))
		r.bad = r.bad || !p.IsValid()
		return p
	}
	c = &dataplane.Classifier{Destination: prefix(), Source: prefix(), Protocol: int16(r.u16())}
	c.DestinationPorts = dataplane.PortRange{First: r.u16(), Last: r.u16()}
	c.SourcePorts = dataplane.PortRange{First: r.u16(), Last: r.u16()}
	target = string(r.b)
	r.b = nil
	return c, target
}
