// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Sample returns a commented configuration file with every option that has an
// effect. All stand at their defaults, commented out, but for the required ones.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Configuration of bagpipe-bgp. Generated from the option table in\n" +
		"# internal/config; see docs/configuration.md. An empty value means: not set.\n")
	section := ""
	for o := range rows() {
		if !o.described() {
			continue
		}
		if o.section != section {
			section = o.section
			b.WriteString("\n" + sampleHeader(section))
		}
		b.WriteString("\n" + o.sample())
	}
	return b.String()
}

// described tells whether sample and tables of sections have the option: what
// BGP and PEER share stands there once.
func (o *option) described() bool {
	return o.why() == "" && (o.section != sectionPeer || !o.shared)
}

// sampleHeader returns the start of a section of the sample file.
func sampleHeader(section string) string {
	if section != sectionPeer {
		return "[" + section + "]\n"
	}
	return "# One section for each neighbour with options of its own: an address, a host\n" +
		"# name, or a prefix that neighbours connect from. Besides the options below, it\n" +
		"# may have those of [BGP] that say \"Also in [PEER]\".\n" +
		"#[" + peerPrefix + "192.0.2.101]\n"
}

// sample returns the option's paragraph of the sample file.
func (o *option) sample() string {
	var b strings.Builder
	help := strings.ReplaceAll(o.help, "`", "")
	if o.typ != typeString && o.typ != typeBool {
		help += " Value: " + o.allowed() + "."
	}
	switch {
	case o.required:
		help += " Required."
	case o.note() != "":
		help += " Default: " + strings.ReplaceAll(o.note(), "`", "") + "."
	}
	if o.shared {
		help += " Also in [PEER]."
	}
	if o.ours {
		help += " Not in the original bagpipe-bgp."
	}
	for _, line := range wrap(help, 76) {
		b.WriteString("# " + line + "\n")
	}
	if o.required {
		fmt.Fprintf(&b, "%s = %s\n", o.name, o.example)
	} else {
		b.WriteString(strings.TrimRight(fmt.Sprintf("#%s = %s", o.name, o.def), " ") + "\n")
	}
	return b.String()
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}

// Reference returns the options as Markdown: a table for each section, with one
// of its own for what BGP and PEER share, then one of the options without effect.
func Reference() string {
	var b strings.Builder
	heading := ""
	for o := range rows() {
		if !o.described() {
			continue
		}
		if h := o.heading(); h != heading {
			if heading != "" {
				b.WriteByte('\n')
			}
			heading = h
			fmt.Fprintf(&b, "### %s\n\n| Option | Type | Default | Meaning |\n|---|---|---|---|\n", h)
		}
		b.WriteString(o.markdown())
	}
	b.WriteString("\n### Accepted without effect\n\n" +
		"| Option | Why it has no effect |\n|---|---|\n")
	for o := range rows() {
		why := o.why()
		if why == "" {
			continue
		}
		if len(o.of) > 0 {
			why += " (`" + strings.Join(o.of, "`, `") + "`)"
		}
		fmt.Fprintf(&b, "| `[%s]` %s | %s |\n", o.section, o.names(), why)
	}
	for _, name := range slices.Sorted(maps.Keys(ignoredSections)) {
		fmt.Fprintf(&b, "| all of `[%s]` | %s |\n", name, ignoredSections[name])
	}
	return b.String()
}

// heading returns the title of the table that has the option.
func (o *option) heading() string {
	switch {
	case o.shared:
		return "`[BGP]`, also in `[PEER <neighbour>]`"
	case o.section == sectionPeer:
		return "`[PEER <neighbour>]` only"
	}
	return "`[" + o.section + "]`"
}

// note tells what holds when the option is not set and has no default, or "".
func (o *option) note() string {
	if o.base != "" {
		return "the `" + o.base + "` of `[BGP]`"
	}
	return o.defNote
}

// names returns the name of the option and those it had, as Markdown.
func (o *option) names() string {
	s := "`" + o.name + "`"
	if len(o.old) > 0 {
		s += " (once `" + strings.Join(o.old, "`, `") + "`)"
	}
	return s
}

// markdown returns the option's row of its section's table.
func (o *option) markdown() string {
	name := o.names()
	if o.ours {
		name += " ⁺"
	}
	kind := typeNames[o.typ]
	switch o.typ {
	case typeInteger, typePort, typeSeconds, typeMilliseconds:
		kind += ", " + o.bounds()
	case typeSecret:
		kind += fmt.Sprintf(", %d to %d octets", o.min, o.max)
	case typeChoice, typeChoiceList:
		kind += ", `" + strings.Join(o.choices, "`, `") + "`"
	case typeDriver:
		kind += ", `" + strings.Join(o.driverNames(), "`, `") + "`"
	default:
	}
	def := o.note()
	switch {
	case o.required:
		def = "**required**"
	case o.def != "":
		def = "`" + o.def + "`"
	case def == "" && slices.Contains([]optionType{typeHostList, typePrefixList, typeList, typeStationList}, o.typ):
		def = "empty"
	case def == "":
		def = "not set"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", name, kind, def, o.help)
}
