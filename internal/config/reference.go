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
		if o.ignored != "" {
			continue
		}
		if o.section != section {
			section = o.section
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		b.WriteString("\n" + o.sample())
	}
	return b.String()
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
	case o.defNote != "":
		help += " Default: " + strings.ReplaceAll(o.defNote, "`", "") + "."
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

// Reference returns the options as Markdown: a table for each section, then
// one of the options without effect.
func Reference() string {
	var b strings.Builder
	for _, section := range sections() {
		fmt.Fprintf(&b, "### `[%s]`\n\n", section)
		b.WriteString("| Option | Type | Default | Meaning |\n|---|---|---|---|\n")
		for o := range rows() {
			if o.section == section && o.ignored == "" {
				b.WriteString(o.markdown())
			}
		}
		b.WriteByte('\n')
	}
	b.WriteString("### Accepted without effect\n\n" +
		"| Option | Why it has no effect |\n|---|---|\n")
	for o := range rows() {
		if o.ignored == "" {
			continue
		}
		why := o.ignored
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
	case typeInteger, typePort, typeSeconds:
		kind += ", " + o.bounds()
	case typeDriver:
		kind += ", `" + strings.Join(o.driverNames(), "`, `") + "`"
	default:
	}
	def := o.defNote
	switch {
	case o.required:
		def = "**required**"
	case o.def != "":
		def = "`" + o.def + "`"
	case def == "" && (o.typ == typeHostList || o.typ == typePrefixList || o.typ == typeList):
		def = "empty"
	case def == "":
		def = "not set"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", name, kind, def, o.help)
}
