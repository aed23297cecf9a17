// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"
)

// optionType tells how the text of an option is read.
type optionType int

const (
	typeString optionType = iota
	typeBool
	typeInteger
	typePort
	typeSeconds
	typeIPv4
	typeLocalAddress // an address or an interface that has one
	typeHost         // an address or a host name, not resolved
	typeHostList
	typePrefixList
	typeList // of strings
	typeDriver
)

var typeNames = map[optionType]string{
	typeString: "string", typeBool: "boolean", typeInteger: "integer", typePort: "port",
	typeSeconds: "seconds", typeIPv4: "IPv4 address", typeLocalAddress: "address or interface",
	typeHost: "address or host", typeHostList: "list of hosts", typePrefixList: "list of prefixes",
	typeList: "list", typeDriver: "driver",
}

// option is one row of the option table.
type option struct {
	section string // upper case
	name    string
	old     []string // names the option had, still accepted
	typ     optionType
	// def is the default as a file would give it; "" means not set.
	def string
	// defNote tells what holds when the option is not set and def is empty.
	defNote  string
	required bool
	// example is the value in the sample file of a required option.
	example string
	// min and max bound numbers; zero allows 0 besides them.
	min, max int64
	zero     bool
	drivers  []driver // that a typeDriver option chooses from
	ours     bool     // not in the original
	// ignored is the reason why the option has no effect; "" when it has.
	ignored string
	// of names the drivers the option belongs to, if it is not for all.
	of []string
	// help is Markdown of plain words and `code`.
	help string

	// field returns a pointer to the field of Config that holds the value.
	field func(*Config) any
	// show returns the value for the looking glass where field does not do.
	show func(*Config) any
}

// driver is one dataplane driver that an option may name.
type driver struct {
	name string
	old  []string // names it had, still accepted
	// absent is set while this build lacks the driver.
	absent bool
}

// String returns "SECTION.name".
func (o *option) String() string {
	return o.section + "." + o.name
}

// allowed describes the values of the option, to follow "want".
func (o *option) allowed() string {
	switch o.typ {
	case typeBool:
		return "true, false, yes, no, on, off, 1 or 0"
	case typeInteger, typePort:
		return "an integer " + o.bounds()
	case typeSeconds:
		return "whole seconds, " + o.bounds()
	case typeIPv4:
		return "an IPv4 address"
	case typeLocalAddress:
		return "an IP address or the name of an interface that has one"
	case typeHost:
		return "an IP address or a host name"
	case typeHostList:
		return "IP addresses or host names, separated by commas"
	case typePrefixList:
		return "IP prefixes, separated by commas"
	case typeList:
		return "values separated by commas"
	case typeDriver:
		return "one of " + strings.Join(o.driverNames(), ", ")
	case typeString:
	}
	return "text"
}

// bounds describes the range of a number.
func (o *option) bounds() string {
	s := fmt.Sprintf("from %d to %d", o.min, o.max)
	if o.zero {
		s = "0 or " + s
	}
	return s
}

// driverNames lists the drivers of this build.
func (o *option) driverNames() []string {
	var names []string
	for _, d := range o.drivers {
		if !d.absent {
			names = append(names, d.name)
		}
	}
	return names
}

// driver returns the driver that has or had the name.
func (o *option) driver(name string) (driver, bool) {
	i := slices.IndexFunc(o.drivers, func(d driver) bool {
		return d.name == name || slices.Contains(d.old, name)
	})
	if i < 0 {
		return driver{}, false
	}
	return o.drivers[i], true
}

// catalog finds options by section and by any of their names.
type catalog map[string]map[string]*option

var options = newCatalog(table)

func newCatalog(rows []option) catalog {
	c := catalog{}
	for i := range rows {
		o := &rows[i]
		if c[o.section] == nil {
			c[o.section] = map[string]*option{}
		}
		for _, name := range append([]string{o.name}, o.old...) {
			c[o.section][name] = o
		}
	}
	return c
}

// suggest returns a hint at what an unknown option may have meant, or "".
func (c catalog) suggest(section, name string) string {
	var names []string
	for o := range rows() {
		switch {
		case o.section == section:
			names = append(names, o.name)
		case o.name == name:
			return fmt.Sprintf("; did you mean %s?", o)
		}
	}
	return hint(name, names)
}

// suggestSection is suggest for sections.
func (c catalog) suggestSection(section string) string {
	return hint(section, sections())
}

// sections lists the sections of the table in its order.
func sections() []string {
	var names []string
	for o := range rows() {
		if !slices.Contains(names, o.section) {
			names = append(names, o.section)
		}
	}
	return names
}
