// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/netip"
	"strings"
)

// peerPrefix starts the section of a neighbour, which follows it.
const peerPrefix = sectionPeer + " "

// sectionName returns the form in which names of sections are compared: upper
// case, or "PEER " and the neighbour as written.
func sectionName(text string) string {
	text = strings.TrimSpace(text)
	n := len(sectionPeer)
	if len(text) < n || !strings.EqualFold(text[:n], sectionPeer) {
		return strings.ToUpper(text)
	}
	neighbour, colon := strings.CutPrefix(text[n:], ":")
	trimmed := strings.TrimSpace(neighbour)
	if !colon && trimmed == neighbour && neighbour != "" {
		return strings.ToUpper(text) // PEERS, say
	}
	return peerPrefix + trimmed
}

// sectionText returns a section as messages show it: BGP or [PEER 192.0.2.1].
func sectionText(section string) string {
	if !strings.HasPrefix(section, peerPrefix) {
		return section
	}
	return "[" + strings.TrimSpace(section) + "]"
}

// optionName returns an option as messages show it.
func optionName(section, name string) string {
	return sectionText(section) + "." + name
}

// peerSection is a section PEER: all that the sources say about one neighbour.
type peerSection struct {
	name   string // "PEER " and the neighbour as written first
	origin Origin // of the first line
	// key is equal for all ways to write the neighbour, which is a host or, if
	// that is valid, a prefix, unless err says why there is none.
	key    string
	host   string
	prefix netip.Prefix
	err    error
	// options are the rows in use, with fields in peer.
	options map[string]*option
	peer    Peer
}

// wantNeighbour says what a section PEER may name.
const wantNeighbour = "want an IP address, a host name or a prefix"

// newPeerSection reads the name of a section.
func newPeerSection(section string, at Origin) *peerSection {
	s := &peerSection{name: section, origin: at, options: map[string]*option{}}
	text := strings.TrimPrefix(section, peerPrefix)
	if strings.Contains(text, "/") {
		s.prefix, s.err = parsePrefix(text, wantNeighbour)
		s.key = s.prefix.String()
		return s
	}
	s.host = unbracket(text)
	addr, err := netip.ParseAddr(s.host)
	switch {
	case err == nil:
		s.key = addr.Unmap().String()
	case isHostName(s.host):
		s.key = foldHost(s.host)
	default:
		s.err = errors.New(wantNeighbour)
	}
	return s
}

// foldHost returns what is equal for all ways to write a host name.
func foldHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// option returns the row that the section calls key, or nil.
func (s *peerSection) option(key string) *option {
	if o := s.options[key]; o != nil {
		return o
	}
	row := options[sectionPeer][key]
	if row == nil {
		return nil
	}
	o := *row
	o.section = s.name
	o.field = func(*Config) any { return row.in(&s.peer) }
	s.options[key] = &o
	return &o
}

// peerSection returns the section PEER of a name, which is new when no other
// is about the same neighbour, or nil if that is another kind of section.
func (l *loader) peerSection(name string, at Origin) *peerSection {
	if s := l.byName[name]; s != nil || !strings.HasPrefix(name, peerPrefix) {
		return s
	}
	s := newPeerSection(name, at)
	if s.err == nil {
		if known := l.byKey[s.key]; known != nil {
			s = known
		}
		l.byKey[s.key] = s
	}
	if s.name == name {
		l.peers = append(l.peers, s)
	}
	l.byName[name] = s
	return s
}

// find returns the option that a section calls key, or nil.
func (l *loader) find(section, key string, at Origin) *option {
	if s := l.peerSection(section, at); s != nil {
		return s.option(key)
	}
	return options[section][key]
}

// failed tells whether an option of the section, if there is one, or the one of
// BGP that holds when it is not set, is refused.
func (s *peerSection) failed(l *loader, key string) bool {
	return l.failed[bgp(key)] || s != nil && l.failed[s.options[key]]
}

// failSection notes that a section is refused.
func (l *loader) failSection(s *peerSection, text string) {
	l.problems = append(l.problems, &Problem{Origin: s.origin, Option: sectionText(s.name), Text: text})
}
