// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"iter"
	"net/netip"
	"time"
)

// Section is one section of the configuration in effect.
type Section struct {
	Name    string
	Options []Setting
}

// Setting is one option with the value in effect, of a type that JSON shows as
// the reader expects: bool, int64, string, []string, or nil when not set. A
// secret shows as "***".
type Setting struct {
	Name  string
	Value any
}

// Sections returns the values in effect for the looking glass. Names of
// interfaces are turned into addresses. Options that have no effect are left out, as
// are those of drivers that are not selected, except for those of COMMON: clients of
// the original look for them. Each
// neighbour has a section, "PEER " and its host or prefix.
func (c *Config) Sections() []Section {
	var out []Section
	for _, name := range sections() {
		switch name {
		case sectionDefault:
		case sectionPeer:
			out = append(out, c.peerSections()...)
		default:
			s := Section{Name: name}
			for o := range rows() {
				if o.section == name && (o.ignored == "" && o.selected(c) || name == sectionCommon) {
					s.Options = append(s.Options, Setting{Name: o.name, Value: o.value(c)})
				}
			}
			if len(s.Options) > 0 {
				out = append(out, s)
			}
		}
	}
	return out
}

// peerSections returns the sections of peers and groups.
func (c *Config) peerSections() []Section {
	var out []Section
	add := func(name string, p *Peer, group bool) {
		s := Section{Name: peerPrefix + name}
		for o := range rows() {
			if o.section == sectionPeer && (o.setting != nil || !group) {
				s.Options = append(s.Options, Setting{Name: o.name, Value: plain(o.in(p), o.unit())})
			}
		}
		out = append(out, s)
	}
	for i := range c.BGP.Peers {
		add(c.BGP.Peers[i].Host, &c.BGP.Peers[i], false)
	}
	for _, g := range c.BGP.Groups {
		add(g.Prefix.String(), &Peer{Settings: g.Settings}, true)
	}
	return out
}

// rows yields the options of the table in its order.
func rows() iter.Seq[*option] {
	return func(yield func(*option) bool) {
		for i := range table {
			if !yield(&table[i]) {
				return
			}
		}
	}
}

// value returns the value of o in c in one of the types of Setting.Value.
func (o *option) value(c *Config) any {
	switch {
	case o.show != nil:
		return o.show(c)
	case o.field != nil:
		return plain(o.field(c), o.unit())
	case o.def != "":
		return o.def
	}
	return nil
}

// plain returns what a pointer to a field of Config points to in one of the
// types of Setting.Value, a duration in units.
func plain(field any, unit time.Duration) any {
	switch p := field.(type) {
	case *bool:
		return *p
	case *uint8:
		return int64(*p)
	case *uint16:
		return int64(*p)
	case *uint32:
		return int64(*p)
	case *uint64:
		return int64(*p)
	case *time.Duration:
		return int64(*p / unit)
	case *string:
		return *p
	case *Secret:
		if *p == "" {
			return nil
		}
		return p.String()
	case *netip.Addr:
		if !p.IsValid() {
			return nil
		}
		return p.String()
	case *[]Family:
		return texts(*p, Family.String)
	case *[]Encapsulation:
		return texts(*p, Encapsulation.String)
	case *[]string:
		return texts(*p, func(s string) string { return s })
	case *[]Station:
		return texts(*p, Station.Addr)
	case fmt.Stringer: // a choice
		return p.String()
	default:
		panic(fmt.Sprintf("config: no plain form of %T", p))
	}
}

// texts returns the text of each item, in a list that is not nil.
func texts[T any](items []T, text func(T) string) []string {
	list := make([]string, 0, len(items))
	for _, item := range items {
		list = append(list, text(item))
	}
	return list
}
