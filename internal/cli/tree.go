// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// treePrinter writes a looking glass reply in the indented form of the
// original's tool. Python's names stand for null and booleans, since scripts
// look for them.
type treePrinter struct {
	w *bufio.Writer
	// follow fetches what is behind an href below a URL, or says no.
	follow func(current, href string) (any, bool)
}

// printTree writes v, which was read at a URL, with its last line ended.
func printTree(w io.Writer, url string, v any, follow func(current, href string) (any, bool)) error {
	if follow == nil {
		follow = func(string, string) (any, bool) { return nil, false }
	}
	p := treePrinter{w: bufio.NewWriter(w), follow: follow}
	if o, ok := v.(client.Object); ok && len(o) > 0 {
		p.members(o, url, 0, false)
	} else if l, ok := v.([]any); ok && len(l) > 0 {
		p.items(l, url, 0)
	} else {
		p.line(scalar(v))
	}
	return p.w.Flush()
}

func (p treePrinter) line(parts ...string) {
	for _, s := range parts {
		_, _ = p.w.WriteString(s) // the error stays in the writer for Flush
	}
	_ = p.w.WriteByte('\n')
}

func (p treePrinter) indent(n int) { _, _ = p.w.WriteString(strings.Repeat(" ", n)) }

// members writes the members of an object, one a line. With inline set, the
// cursor stands where the first is to begin.
func (p treePrinter) members(o client.Object, url string, indent int, inline bool) {
	for i, m := range o {
		if i > 0 || !inline {
			p.indent(indent)
		}
		_, _ = p.w.WriteString(m.Name + ": ")
		p.value(m.Value, url, indent+2)
	}
}

// value writes what comes after "name: ", with nested lines at indent.
func (p treePrinter) value(v any, url string, indent int) {
	switch v := v.(type) {
	case client.Object:
		switch href, isRef := v.Get("href"); {
		case isRef:
			p.reference(v, href, url, indent)
		case len(v) == 0:
			p.line("-")
		default:
			p.line()
			p.members(v, url, indent, false)
		}
	case []any:
		if len(v) == 0 {
			p.line("-")
			return
		}
		p.line()
		p.items(v, url, indent)
	default:
		p.line(scalar(v))
	}
}

func (p treePrinter) items(list []any, url string, indent int) {
	for _, item := range list {
		p.indent(indent)
		_, _ = p.w.WriteString("* ")
		o, ok := item.(client.Object)
		if _, isRef := o.Get("href"); ok && !isRef && len(o) > 0 {
			p.members(o, url, indent+2, true)
			continue
		}
		p.value(item, url, indent+2)
	}
}

// reference writes an object with an href: what is behind it when it may be
// followed, else its id and the members it has besides.
func (p treePrinter) reference(o client.Object, href any, url string, indent int) {
	id, target := "", fmt.Sprint(href)
	var rest client.Object
	for _, m := range o {
		switch m.Name {
		case "id":
			id = scalar(m.Value)
		case "href":
		default:
			rest = append(rest, m)
		}
	}
	behind, ok := p.follow(url, target)
	if !ok {
		p.line(id, " (...)")
		p.members(rest, url, indent, false)
		return
	}
	_, _ = p.w.WriteString(id)
	sub, isObject := behind.(client.Object)
	if _, isRef := sub.Get("href"); id != "" && isObject && !isRef && len(sub) > 0 {
		p.line()
		p.members(sub, target, indent, false)
		return
	}
	if id != "" {
		_ = p.w.WriteByte(' ')
	}
	p.value(behind, target, indent)
}

// scalar returns a value without members as text, and "-" for an empty one.
func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case client.Object, []any:
		return "-"
	default: // string, json.Number
		return fmt.Sprint(v)
	}
}
