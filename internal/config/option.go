// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
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
	typeMilliseconds
	typeSecret
	typeDevice
	typeChoice
	typeChoiceList
	typeStationList
	typePath   // absolute
	typeSocket // a path that a unix socket can be made at
)

var typeNames = map[optionType]string{
	typeString: "string", typeBool: "boolean", typeInteger: "integer", typePort: "port",
	typeSeconds: "seconds", typeIPv4: "IPv4 address", typeLocalAddress: "address or interface",
	typeHost: "address or host", typeHostList: "list of hosts", typePrefixList: "list of prefixes",
	typeList: "list", typeDriver: "driver", typeMilliseconds: "milliseconds",
	typeSecret: "secret", typeDevice: "interface", typeChoice: "choice",
	typeChoiceList: "list of choices", typeStationList: "list of host:port",
	typePath: "path", typeSocket: "path",
}

// maxSocketPath bounds the path of a unix socket in octets. The kernel takes 107,
// of which a temporary name beside the path takes some more than its last part.
const maxSocketPath = 93

// option is one row of the option table.
type option struct {
	// section is in upper case, but for what follows "PEER ": the neighbour.
	section string
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
	// min and max bound numbers and the octets of a secret; zero allows 0
	// besides them.
	min, max int64
	zero     bool
	drivers  []driver // that a typeDriver option chooses from
	choices  []string // that others choose from, by value
	ours     bool     // not in the original
	// shared is set for an option of both BGP and PEER.
	shared bool
	// base is the option of BGP that holds when this one, of PEER, is not set.
	base string
	// ignored is the reason why the option has no effect; "" when it has.
	ignored string
	// of names the drivers the option belongs to, if it is not for all.
	of []string
	// help is Markdown of plain words and `code`.
	help string

	// field returns a pointer to the field of Config that holds the value.
	field func(*Config) any
	// setting is field for what each neighbour has, peer for what each peer has.
	setting func(*Settings) any
	peer    func(*Peer) any
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

// String returns "SECTION.name", or "[PEER neighbour].name".
func (o *option) String() string {
	return optionName(o.section, o.name)
}

// in returns a pointer to the field of p that holds the value of o, an option of
// PEER.
func (o *option) in(p *Peer) any {
	if o.peer != nil {
		return o.peer(p)
	}
	return o.setting(&p.Settings)
}

// choice is the option that selects the driver which o belongs to.
func (o *option) choice() *option {
	if o.section == sectionOVS {
		return options[sectionIPVPN]["dataplane_driver"]
	}
	return options[o.section]["dataplane_driver"]
}

// why returns the reason why the option has no effect; "" when it has.
func (o *option) why() string {
	if o.ignored == "" && len(o.of) > 0 && !slices.ContainsFunc(o.of, o.offers) {
		return whyAbsent
	}
	return o.ignored
}

// offers tells whether this build has a driver that o may belong to.
func (o *option) offers(name string) bool {
	d, ok := o.choice().driver(name)
	return ok && !d.absent
}

// selected tells whether o belongs to no driver or to one that c selects.
func (o *option) selected(c *Config) bool {
	if len(o.of) == 0 {
		return true
	}
	name, _ := o.choice().value(c).(string)
	return slices.Contains(o.of, name)
}

// unit is that of a duration.
func (o *option) unit() time.Duration {
	if o.typ == typeMilliseconds {
		return time.Millisecond
	}
	return time.Second
}

// allowedTexts describe the values of the types whose rows do not differ in them.
var allowedTexts = map[optionType]string{
	typeString:       "text",
	typeBool:         "true, false, yes, no, on, off, 1 or 0",
	typeIPv4:         "an IPv4 address",
	typeLocalAddress: "an IP address or the name of an interface that has one",
	typeHost:         "an IP address or a host name",
	typeHostList:     "IP addresses or host names, separated by commas",
	typePrefixList:   "IP prefixes, separated by commas",
	typeList:         "values separated by commas",
	typeDevice:       "the name of an interface, at most 15 octets without blanks, / and :",
	typeStationList:  "host or host:port, an IPv6 address in brackets, separated by commas",
	typePath:         "an absolute path",
	typeSocket:       fmt.Sprintf("an absolute path of at most %d octets", maxSocketPath),
}

// allowed describes the values of the option, to follow "want".
func (o *option) allowed() string {
	switch o.typ {
	case typeInteger, typePort:
		return "an integer " + o.bounds()
	case typeSeconds:
		return "whole seconds, " + o.bounds()
	case typeMilliseconds:
		return "whole milliseconds, " + o.bounds()
	case typeSecret:
		return fmt.Sprintf("text of %d to %d octets", o.min, o.max)
	case typeDriver:
		return "one of " + strings.Join(o.driverNames(), ", ")
	case typeChoice:
		return "one of " + strings.Join(o.choices, ", ")
	case typeChoiceList:
		return "one or more of " + strings.Join(o.choices, ", ") + ", separated by commas"
	default:
		return allowedTexts[o.typ]
	}
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
	if strings.HasPrefix(section, peerPrefix) {
		section = sectionPeer
	}
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
