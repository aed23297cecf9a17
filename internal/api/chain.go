// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// inside reads the members of an object with read, whose fault is told with the name. It
// tells whether there was anything: an empty object counts as absent.
func (b *body) inside(name string, read func(o *body)) bool {
	raw := b.object(name)
	if b.err != nil || b.empty(name) {
		return false
	}
	o := body{}
	if json.Unmarshal(raw, &o.members) != nil {
		b.fail("%s: %s is not valid: want an object", name, raw)
		return false
	}
	if read(&o); o.err != nil {
		b.fail("%s: %v", name, o.err)
	}
	return b.err == nil
}

// readvertise reads what a VRF announces again; nil when absent or empty.
func (b *body) readvertise() *vpn.Readvertise {
	var r vpn.Readvertise
	if !b.inside("readvertise", func(o *body) {
		o.require("from_rt", "to_rt")
		r = vpn.Readvertise{From: o.targets("from_rt"), To: o.targets("to_rt")}
	}) {
		return nil
	}
	return &r
}

// attract reads what traffic a VRF attracts; nil when absent or empty.
func (b *body) attract() *vpn.Attract {
	var a vpn.Attract
	if !b.inside("attract_traffic", func(o *body) {
		o.require("redirect_rts")
		a.Redirect = o.targets("redirect_rts")
		for _, alias := range []string{"attract_to_rts", "to", "to_rt"} { // the last counts
			if o.has(alias) {
				a.To = o.targets(alias)
			}
		}
		a.Static = o.prefixes("static_destination_prefixes")
		if len(a.Redirect) > 0 {
			a.Text = o.raw("classifier")
			a.Class = o.classifier()
		}
		switch {
		case len(a.To) > 1:
			o.fail("attract_traffic requires exactly one RT to be provided in 'readvertise/to_rt' and 'attract_traffic/to_rt'")
		case len(a.To) > 0 && len(a.Static) == 0:
			o.fail("'attract_traffic/to_rt' specified without 'static_destination_prefixes'")
		case len(a.Static) > 0 && len(a.To) == 0:
			o.fail("static_destination_prefixes: want to_rt with them")
		}
	}) {
		return nil
	}
	return &a
}

// prefixes reads a list of prefixes.
func (b *body) prefixes(name string) (out []netip.Prefix) {
	var list []string
	if !b.has(name) {
		return nil
	}
	if json.Unmarshal(b.members[name], &list) != nil {
		b.fail("%s: %s is not valid: want a list of prefixes", name, b.members[name])
		return nil
	}
	seen := map[netip.Prefix]bool{}
	for _, s := range list {
		p, err := parsePrefix(s)
		if err != nil {
			b.fail("%s: %v", name, err)
		} else if p = p.Masked(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// classifierKeys are the members of a classifier. destinationPrefix is taken and not
// used: the destination is that of the prefixes.
var classifierKeys = []string{"sourcePrefix", "destinationPrefix", "sourcePort", "destinationPort", "protocol"}

// classifier reads a class of traffic. TCP is meant when no protocol is given.
func (b *body) classifier() (f wire.Flow) {
	if !b.has("classifier") {
		b.fail("'attract_traffic' specified with no 'classifier'")
		return f
	}
	f.Protocols = []wire.Range{{First: 6, Last: 6}}
	b.inside("classifier", func(o *body) {
		for _, name := range slices.Sorted(maps.Keys(o.members)) {
			if !slices.Contains(classifierKeys, name) {
				o.fail("%s is not known: want %s", name, strings.Join(classifierKeys, ", "))
			}
		}
		f.Source = o.prefix("sourcePrefix")
		o.prefix("destinationPrefix")
		f.SourcePorts, f.DestinationPorts = o.ports("sourcePort"), o.ports("destinationPort")
		if _, given := o.members["protocol"]; given {
			f.Protocols = o.protocol()
		}
		if f.Protocols != nil && (f.SourcePorts != nil || f.DestinationPorts != nil) && !wire.HasPorts(f.Protocols[0].First) {
			o.fail("protocol: %s has no ports: want tcp, udp or sctp with sourcePort or destinationPort", o.members["protocol"])
		}
	})
	return f
}

// ports reads a port or a range "first:last"; nil when absent.
func (b *body) ports(name string) []wire.Range {
	if !b.has(name) {
		return nil
	}
	text := string(b.members[name])
	var s string
	if json.Unmarshal(b.members[name], &s) == nil {
		text = s
	}
	first, last, isRange := strings.Cut(text, ":")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || from > to {
		b.fail("%s: %s is not valid: want a port in 0..65535, or first:last", name, b.members[name])
		return nil
	}
	return []wire.Range{{First: uint16(from), Last: uint16(to)}}
}

// protocol reads an IP protocol by name or number; null is all of them.
func (b *body) protocol() []wire.Range {
	if !b.has("protocol") {
		return nil
	}
	var s string
	if json.Unmarshal(b.members["protocol"], &s) == nil {
		if n, known := wire.ProtocolNumber(s); known {
			return []wire.Range{{First: uint16(n), Last: uint16(n)}}
		}
	}
	o := body{members: b.members}
	n := o.integer("protocol", 255)
	if o.err != nil || s == "" && b.members["protocol"][0] == '"' {
		b.fail("protocol: %s is not valid: want a name such as tcp, udp or icmp, or a number in 0..255", b.members["protocol"])
		return nil
	}
	return []wire.Range{{First: uint16(n), Last: uint16(n)}}
}
