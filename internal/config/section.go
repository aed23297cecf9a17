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
// the reader expects: bool, int64, string, []string, or nil when not set.
type Setting struct {
	Name  string
	Value any
}

// Sections returns the values in effect for the looking glass. Names of
// interfaces are turned into addresses. Options that have no effect are left
// out, except for those of COMMON: clients of the original look for them.
func (c *Config) Sections() []Section {
	var out []Section
	for _, name := range []string{sectionCommon, sectionAPI, sectionBGP, sectionIPVPN, sectionEVPN} {
		s := Section{Name: name}
		for o := range rows() {
			if o.section == name && (o.ignored == "" || name == sectionCommon) {
				s.Options = append(s.Options, Setting{Name: o.name, Value: o.value(c)})
			}
		}
		out = append(out, s)
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
		return plain(o.field(c))
	case o.def != "":
		return o.def
	}
	return nil
}

// plain returns what a pointer to a field of Config points to in one of the
// types of Setting.Value.
func plain(field any) any {
	switch p := field.(type) {
	case *bool:
		return *p
	case *uint16:
		return int64(*p)
	case *uint32:
		return int64(*p)
	case *time.Duration:
		return int64(*p / time.Second)
	case *string:
		return *p
	case *netip.Addr:
		if !p.IsValid() {
			return nil
		}
		return p.String()
	case *[]netip.Prefix:
		list := []string{}
		for _, prefix := range *p {
			list = append(list, prefix.String())
		}
		return list
	default:
		panic(fmt.Sprintf("config: no plain form of %T", p))
	}
}
