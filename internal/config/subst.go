// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// reference matches what substitution replaces: an escaped dollar sign, or the
// name of an option with or without its section.
var reference = regexp.MustCompile(`\$\$|\\\$|\$\{([A-Za-z_][A-Za-z0-9_.]*)\}|\$([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)`)

// expand returns the text of an option: what is set, with references replaced,
// or its default when that is nothing. The text of an option that is not set
// and has no default is empty.
func (l *loader) expand(o *option) (string, error) {
	return l.expandIn(o, map[*option]bool{})
}

// expandIn is expand within the expansion of the options in visiting.
func (l *loader) expandIn(o *option, visiting map[*option]bool) (string, error) {
	if text, done := l.expanded[o]; done {
		return text, nil
	}
	if visiting[o] {
		return "", fmt.Errorf("substitution of %s runs in a circle", o)
	}
	visiting[o] = true
	defer delete(visiting, o)
	text := o.def
	if s, set := l.chosen[o]; set {
		var err error
		if text, err = l.substitute(o, s, visiting); err != nil {
			return "", err
		}
		if text == "" {
			text = o.def
		}
	}
	l.expanded[o] = text
	return text, nil
}

// substitute replaces the references in a setting of o.
func (l *loader) substitute(o *option, s setting, visiting map[*option]bool) (string, error) {
	if !strings.Contains(s.value, "$") {
		return s.value, nil
	}
	var out strings.Builder
	rest := 0
	for _, m := range reference.FindAllStringSubmatchIndex(s.value, -1) {
		out.WriteString(s.value[rest:m[0]])
		rest = m[1]
		text, err := l.referenced(o, s, m, visiting)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
		if out.Len() > maxValue {
			return "", errors.New("substitution makes the value too long")
		}
	}
	out.WriteString(s.value[rest:])
	return out.String(), nil
}

// referenced returns what replaces one match m of reference in s.
func (l *loader) referenced(o *option, s setting, m []int, visiting map[*option]bool) (string, error) {
	var name string
	switch {
	case m[2] >= 0:
		name = s.value[m[2]:m[3]]
	case m[4] >= 0:
		name = s.value[m[4]:m[5]]
	default:
		return "$", nil
	}
	target := l.lookup(o.section, name, s.origin)
	switch {
	case target == nil:
		if o.typ == typeSecret {
			name = hidden
		}
		l.warn(Unknown, s.origin, o.String(), fmt.Sprintf("there is no option %s to substitute; write $$ for a dollar sign", name))
		return s.value[m[0]:m[1]], nil
	case target.typ == typeSecret && o.typ != typeSecret:
		return "", fmt.Errorf("%s is secret and cannot be substituted here", target)
	}
	text, err := l.expandIn(target, visiting)
	if text == "" && err == nil && target.base != "" {
		return l.expandIn(bgp(target.base), visiting)
	}
	return text, err
}

// lookup finds the option that a reference names: "SECTION.name", or a name in
// the section of the reference or else in DEFAULT.
func (l *loader) lookup(section, name string, at Origin) *option {
	if in, key, qualified := strings.Cut(name, "."); qualified {
		if in = strings.ToUpper(in); in == sectionPeer {
			return nil // which neighbour's?
		}
		return options[in][key]
	}
	if o := l.find(section, name, at); o != nil {
		return o
	}
	return options[sectionDefault][name]
}
