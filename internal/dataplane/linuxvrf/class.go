// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// A class is up to four rules, one for each combination of its port ranges' parts, at
// priorities from that of its slot on. The four low bits of a priority tell what a rule
// cannot: which part it is, and which range begins with port 0.
const (
	topDestinations = 1 << iota // the part with port 65535
	topSources
	zeroDestination // the range begins with port 0
	zeroSource

	slotSize = 1 << 4
	topBits  = topDestinations | topSources
)

// maxRulePort is the highest port that a range of a rule may have.
const maxRulePort = 65534

// topPorts are the two highest ports, as no range can say.
var topPorts = netlinkx.Ports{First: maxRulePort, Last: maxRulePort, Mask: maxRulePort}

// class is a Redirect entry in a slot of its VRF's block.
type class struct {
	dataplane.Classifier
	slot  uint32
	table uint32 // of the target
}

// checkClass tells why the kernel has no rules for a class; masks tells whether its rules
// have port masks.
func checkClass(c *dataplane.Classifier, masks func() (bool, error)) error {
	if c == nil || !isPlain(c.Destination) || !isPlain(c.Source) || c.Destination.Addr().Is4() != c.Source.Addr().Is4() {
		return fmt.Errorf("class %v is not valid: want prefixes of one IP version, without host bits", c)
	}
	if c.Protocol == 0 {
		return errors.New("rules of the kernel cannot tell protocol 0: want another, or any")
	}
	for _, r := range []dataplane.PortRange{c.DestinationPorts, c.SourcePorts} {
		switch {
		case r == dataplane.AllPorts:
			continue
		case r.Last == 0 || r.First > maxRulePort:
			return fmt.Errorf("rules of the kernel cannot tell port %s alone: want a range with others", r)
		case r.Last <= maxRulePort:
			continue
		}
		if has, err := masks(); err != nil {
			return err
		} else if !has {
			return fmt.Errorf("rules of this kernel cannot tell port 65535 of ports %s: want Linux 6.15 or later, or a range up to %d", r, maxRulePort)
		}
	}
	return nil
}

func isPlain(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() }

// familyOf returns AF_INET or AF_INET6.
func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// parts returns the ports that together are a range: none for all ports, and else one, or
// two when port 65535 is among them. Port 0, which nobody has, is left out.
func parts(r dataplane.PortRange) []netlinkx.Ports {
	if r == dataplane.AllPorts {
		return []netlinkx.Ports{{}}
	}
	out := []netlinkx.Ports{{First: max(r.First, 1), Last: min(r.Last, maxRulePort)}}
	if r.Last > maxRulePort {
		out = append(out, topPorts)
	}
	return out
}

// rules returns the rules of a class in the block that begins at a priority.
func (c *class) rules(block uint32) (out []netlinkx.Rule) {
	r := netlinkx.Rule{Family: familyOf(c.Destination.Addr()), Table: c.table, Protocol: ours}
	if c.Destination.Bits() > 0 {
		r.To = c.Destination
	}
	if c.Source.Bits() > 0 {
		r.From = c.Source
	}
	if c.Protocol != dataplane.AnyProtocol {
		r.IPProtocol = uint8(c.Protocol)
	}
	at := block + c.slot*slotSize
	if c.DestinationPorts.First == 0 && c.DestinationPorts != dataplane.AllPorts {
		at |= zeroDestination
	}
	if c.SourcePorts.First == 0 && c.SourcePorts != dataplane.AllPorts {
		at |= zeroSource
	}
	for i, from := range parts(c.SourcePorts) {
		for j, to := range parts(c.DestinationPorts) {
			r.Priority = at | uint32(i*topSources|j*topDestinations)
			r.DestinationPorts, r.SourcePorts = to, from
			out = append(out, r)
		}
	}
	return out
}

// classOf is the reverse of rules, for the rules of one slot by priority. When they are not all those
// of one class, ok is false.
func classOf(block uint32, rules []netlinkx.Rule) (c class, ok bool) {
	first := rules[0]
	bits := first.Priority % slotSize
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if first.Family == unix.AF_INET6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	c = class{slot: (first.Priority - block) / slotSize, table: first.Table, Classifier: dataplane.Classifier{
		Destination: all, Source: all, Protocol: dataplane.AnyProtocol,
		DestinationPorts: rangeOf(first.DestinationPorts, bits&zeroDestination != 0),
		SourcePorts:      rangeOf(first.SourcePorts, bits&zeroSource != 0),
	}}
	if first.To.IsValid() {
		c.Destination = first.To
	}
	if first.From.IsValid() {
		c.Source = first.From
	}
	if first.IPProtocol != 0 {
		c.Protocol = int16(first.IPProtocol)
	}
	for _, r := range rules {
		if r.Priority&topDestinations != 0 {
			c.DestinationPorts.Last = dataplane.AllPorts.Last
		}
		if r.Priority&topSources != 0 {
			c.SourcePorts.Last = dataplane.AllPorts.Last
		}
	}
	return c, first.Priority&topBits == 0 && slices.Equal(c.rules(block), rules)
}

func rangeOf(p netlinkx.Ports, zero bool) dataplane.PortRange {
	r := dataplane.PortRange{First: p.First, Last: p.Last}
	switch {
	case p == netlinkx.Ports{}:
		return dataplane.AllPorts
	case zero:
		r.First = 0
	}
	return r
}
