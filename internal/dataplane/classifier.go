// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"fmt"
	"net/netip"
)

// PortRange is a closed interval of transport ports.
type PortRange struct{ First, Last uint16 }

// AllPorts is every port.
var AllPorts = PortRange{0, 65535}

// AnyProtocol stands for every upper-layer protocol.
const AnyProtocol = -1

// Classifier is a class of packets of one IP version. Fragments have no ports: they are in
// no class that is not of all ports.
type Classifier struct {
	// Destination and Source are prefixes of that version: a length of 0 matches all.
	Destination, Source netip.Prefix
	// Protocol is a number, or AnyProtocol. With one that has no ports, and with
	// AnyProtocol, both ranges are AllPorts.
	Protocol         int16
	DestinationPorts PortRange
	SourcePorts      PortRange
}

// String returns the members that restrict something, e.g.
// "to 203.0.113.0/24 protocol 6 port 80".
func (c Classifier) String() string {
	s := "to " + c.Destination.String()
	if c.Source.Bits() > 0 {
		s += " from " + c.Source.String()
	}
	if c.Protocol != AnyProtocol {
		s += fmt.Sprintf(" protocol %d", c.Protocol)
	}
	if c.DestinationPorts != AllPorts {
		s += " port " + c.DestinationPorts.String()
	}
	if c.SourcePorts != AllPorts {
		s += " source-port " + c.SourcePorts.String()
	}
	return s
}

// String returns "first" or "first-last".
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// size returns the number of ports less one.
func (r PortRange) size() int { return int(r.Last) - int(r.First) }

// Compare returns a negative number when c is to be looked at before o: the order of
// RFC 8955 §5.1, where a component given comes before one that is not, and of two
// prefixes the longer; of two port ranges here the smaller. What is left is in no order that matters to packets,
// but the same everywhere.
func (c Classifier) Compare(o Classifier) int {
	return cmp.Or(
		cmp.Compare(o.Destination.Bits(), c.Destination.Bits()),
		cmp.Compare(o.Source.Bits(), c.Source.Bits()),
		cmp.Compare(min(o.Protocol, 0), min(c.Protocol, 0)),
		cmp.Compare(c.DestinationPorts.size(), o.DestinationPorts.size()),
		cmp.Compare(c.SourcePorts.size(), o.SourcePorts.size()),
		c.Destination.Addr().Compare(o.Destination.Addr()),
		c.Source.Addr().Compare(o.Source.Addr()),
		cmp.Compare(c.Protocol, o.Protocol),
		cmp.Compare(c.DestinationPorts.First, o.DestinationPorts.First),
		cmp.Compare(c.SourcePorts.First, o.SourcePorts.First),
	)
}
