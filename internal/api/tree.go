// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
)

// object is a JSON object with members in order.
type object []member

type member struct {
	name  string
	value any
}

// encode appends the JSON of a value. Objects are written in one pass: through
// json.Marshal the text of each would be checked and copied once for each that it
// is in, which a table with many routes makes felt.
func encode(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encode(b, m.name); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := encode(b, m.value); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case []object:
		return encodeList(b, v)
	case []any:
		return encodeList(b, v)
	}
	text, err := json.Marshal(v)
	b.Write(text)
	return err
}

func encodeList[T any](b *bytes.Buffer, list []T) error {
	b.WriteByte('[')
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(b, v); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

// subtree is a part of the looking glass that is shown as a link and made when
// somebody follows it.
type subtree func() any

// collection is a list of things with ids, each a subtree.
type collection []entry

type entry struct {
	id    string
	shown object // members shown in the list, beside id and href
	get   subtree
}

// reference is a link to a fixed place in the looking glass.
type reference struct {
	path  []string
	shown object // members beside href
}

// resolve follows path segments down from a node and tells whether there is
// something; that may be null.
func resolve(node any, path []string) (any, bool) {
	for len(path) > 0 {
		var ok bool
		if node, path, ok = descend(node, path); !ok {
			return nil, false
		}
		if s, ok := node.(subtree); ok {
			node = s()
		}
	}
	return node, true
}

// descend takes one step. An id of a collection may contain slashes, and then
// stands for several segments.
func descend(node any, path []string) (any, []string, bool) {
	switch n := node.(type) {
	case object:
		v, ok := n.member(path[0])
		return v, path[1:], ok
	case collection:
		for used := 1; used <= len(path); used++ {
			if v, ok := n.entry(strings.Join(path[:used], "/")); ok {
				return v, path[used:], true
			}
		}
	case json.RawMessage: // what a client gave us to keep
		var members map[string]json.RawMessage
		if json.Unmarshal(n, &members) == nil {
			v, ok := members[path[0]]
			return v, path[1:], ok
		}
	}
	return nil, nil, false
}

func (o object) member(name string) (any, bool) {
	for _, m := range o {
		if m.name == name {
			return m.value, true
		}
	}
	return nil, false
}

func (c collection) entry(id string) (subtree, bool) {
	for _, e := range c {
		if e.id == id {
			return e.get, true
		}
	}
	return nil, false
}

// render replaces the links below a node that is reached by URL here; root is
// the URL of the looking glass.
func render(node any, here, root string) any {
	switch n := node.(type) {
	case object:
		out := object{}
		for _, m := range n {
			out = append(out, member{m.name, renderMember(m, here, root)})
		}
		return out
	case collection:
		out := []any{}
		for _, e := range n {
			o := append(object{{"id", e.id}}, e.shown...)
			out = append(out, append(o, member{"href", join(here, e.id)}))
		}
		return out
	case []object:
		out := []any{}
		for _, o := range n {
			out = append(out, render(o, here, root))
		}
		return out
	case reference:
		href := root
		for _, p := range n.path {
			href = join(href, p)
		}
		return append(append(object{}, n.shown...), member{"href", href})
	}
	return node
}

func renderMember(m member, here, root string) any {
	if _, ok := m.value.(subtree); ok {
		return object{{"href", join(here, m.name)}}
	}
	if _, ok := m.value.(collection); ok {
		return object{{"href", join(here, m.name)}}
	}
	return render(m.value, join(here, m.name), root)
}

// join appends an id to a URL, percent-encoded as one segment: with its slashes
// left as they are, as in the original, the id "a/ports" could not be told from
// the ports of "a". Segments of dots would be taken out of a path.
func join(base, id string) string {
	if id == "." || id == ".." {
		return base + "/" + strings.ReplaceAll(id, ".", "%2E")
	}
	return base + "/" + url.PathEscape(id)
}
