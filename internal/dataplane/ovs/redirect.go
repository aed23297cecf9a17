// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"fmt"
	"net/netip"

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
	return a.Destination.Overlaps(b.Destination) && a.Source.Overlaps(b.Source) &&
		(a.Protocol == b.Protocol || a.Protocol == dataplane.AnyProtocol || b.Protocol == dataplane.AnyProtocol) &&
		ports(a.DestinationPorts, b.DestinationPorts) && ports(a.SourcePorts, b.SourcePorts)
}

// redirects are the classes of a VRF.
type redirects map[dataplane.Classifier]redirect

// place returns the level of a class, and the other classes that have to move up for it, with
// their new levels.
func (r redirects) place(c dataplane.Classifier) (level uint16, moved redirects, err error) {
	moved = redirects{}
	levelOf := func(c dataplane.Classifier) uint16 {
		if m, ok := moved[c]; ok {
			return m.level
		}
		return r[c].level
	}
	if have, ok := r[c]; ok {
		return have.level, moved, nil
	}
	for o := range r {
		if overlap(&o, &c) && o.Compare(c) > 0 {
			level = max(level, r[o].level+1)
		}
	}
	type raised struct {
		class dataplane.Classifier
		level uint16
	}
	for queue := []raised{{c, level}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.level > maxLevel {
			return 0, nil, fmt.Errorf("there would be more than %d classes, each with packets of the next", maxLevel)
		}
		for o, x := range r {
			if o != at.class && overlap(&o, &at.class) && o.Compare(at.class) < 0 && levelOf(o) <= at.level {
				x.level = at.level + 1
				moved[o] = x
				queue = append(queue, raised{o, x.level})
			}
		}
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
		delete(a.vrf.redirects, class)
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
	for o, x := range moved {
		a.touch(i, u(o))
		a.vrf.redirects[o] = x
	}
	a.touch(i, u(class))
	a.vrf.redirects[class] = redirect{c.Entry.Target, number, level}
	return nil
}

// openNumber returns the number of an open instance.
func (d *Driver) openNumber(id string) (uint32, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.numbers[id], d.open[id] != nil
}

func (v *vrf) redirectEntry(c dataplane.Classifier) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: v.redirects[c].target}
}

// redirectFlows returns the flows of a class: one for each combination of port masks. The
// first has the note.
func (v *vrf) redirectFlows(c dataplane.Classifier) (flows []of.Flow) {
	r, ok := v.redirects[c]
	if !ok {
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
