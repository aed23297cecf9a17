// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// flowNames are the components that tests use, by type (RFC 8955 §4.2.2).
var flowNames = []string{1: "destination", 2: "source", 3: "protocol", 4: "port", 5: "destination-port", 6: "source-port"}

// flowOperators are the texts of the comparison bits (RFC 8955 §4.2.1.1).
var flowOperators = []string{1: "=", 2: ">", 3: ">=", 4: "<", 5: "<=", 6: "!="}

// flowRoute encodes components such as "destination 203.0.113.0/24; protocol =6 =17;
// source-port >=1000&<=2000" as the daemon does.
func flowRoute(f wire.Family, rd wire.RD, text string) (wire.Route, error) {
	flow := wire.Flow{IPv6: f == wire.FlowVPNv6}
	for part := range strings.SplitSeq(text, "; ") {
		name, value, _ := strings.Cut(part, " ")
		prefixes := map[string]*netip.Prefix{"destination": &flow.Destination, "source": &flow.Source}
		ranges := map[string]*[]wire.Range{
			"protocol": &flow.Protocols, "port": &flow.Ports,
			"destination-port": &flow.DestinationPorts, "source-port": &flow.SourcePorts,
		}
		var err error
		switch {
		case prefixes[name] != nil:
			*prefixes[name], err = netip.ParsePrefix(value)
		case ranges[name] != nil:
			*ranges[name], err = flowRanges(value)
		default:
			err = fmt.Errorf("FlowSpec component %q: want one of %q", name, flowNames[1:])
		}
		if err != nil {
			return wire.Route{}, err
		}
	}
	return wire.FlowRoute(rd, flow), nil
}

// flowRanges reads "=80 >=1000&<=2000 <=9 >=60000".
func flowRanges(text string) (list []wire.Range, err error) {
	for term := range strings.FieldsSeq(text) {
		r := wire.Range{Last: 65535}
		for bound := range strings.SplitSeq(term, "&") {
			n := uint16(number(strings.TrimLeft(bound, "<>=")))
			switch strings.TrimRight(bound, "0123456789") {
			case "=":
				r = wire.Range{First: n, Last: n}
			case ">=":
				r.First = n
			case "<=":
				r.Last = n
			default:
				return nil, fmt.Errorf("FlowSpec term %q: want =, >= or <=", term)
			}
		}
		list = append(list, r)
	}
	return list, nil
}

// flowText is the opposite, by the daemon's decoder: the text of what the daemon would
// match, or why it refuses the route.
func flowText(components []byte, ipv6 bool) string {
	f, err := wire.ParseFlow(components, ipv6)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for typ, p := range []netip.Prefix{1: f.Destination, 2: f.Source} {
		if p.IsValid() {
			parts = append(parts, flowNames[typ]+" "+p.String())
		}
	}
	for typ, list := range [][]wire.Range{3: f.Protocols, 4: f.Ports, 5: f.DestinationPorts, 6: f.SourcePorts} {
		var terms []string
		for _, r := range list {
			terms = append(terms, rangeText(r))
		}
		if list != nil {
			parts = append(parts, flowNames[typ]+" "+strings.Join(terms, " "))
		}
	}
	return strings.Join(parts, "; ")
}

func rangeText(r wire.Range) string {
	switch {
	case r.First == r.Last:
		return fmt.Sprintf("=%d", r.First)
	case r.First == 0:
		return fmt.Sprintf("<=%d", r.Last)
	case r.Last == 65535:
		return fmt.Sprintf(">=%d", r.First)
	}
	return fmt.Sprintf(">=%d&<=%d", r.First, r.Last)
}

// protocolWords are names that peers use for protocol numbers.
var protocolWords = map[string]string{"icmp": "1", "tcp": "6", "udp": "17", "ipv6-icmp": "58", "icmpv6": "58", "sctp": "132"}

// protocolNumbers replaces names in "=tcp =udp" by numbers.
func protocolNumbers(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("=<>!& ", r) })
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	for _, w := range words {
		if n, ok := protocolWords[w]; ok {
			text = strings.ReplaceAll(text, w, n)
		}
	}
	return text
}
