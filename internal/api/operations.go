// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// maxMessage bounds the text for the peer's operator, in octets (RFC 9003 §2).
const maxMessage = 255

// operation is something to do with a neighbour.
type operation struct {
	// members are those that the body may have.
	members []string
	// run does it; the error, if any, tells what state is in the way.
	run func(*speaker.Neighbour, *body) error
}

// operations are the paths below /bgp/peers/ADDRESS.
var operations = map[string]operation{
	"shutdown": {[]string{"message"}, func(n *speaker.Neighbour, b *body) error {
		text := b.message("message")
		return b.then(func() error { n.Disable(text); return nil })
	}},
	"enable": {nil, func(n *speaker.Neighbour, b *body) error {
		return b.then(func() error { n.Enable(); return nil })
	}},
	"reset": {[]string{"message"}, func(n *speaker.Neighbour, b *body) error {
		text := b.message("message")
		return b.then(func() error { return reset(n, text) })
	}},
	"refresh": {[]string{"families"}, func(n *speaker.Neighbour, b *body) error {
		families := b.families("families")
		return b.then(func() error { return inTheWay(n.Refresh(families...)) })
	}},
}

// conflict marks an error about the state that the neighbour is in.
type conflict struct{ error }

func inTheWay(err error) error {
	if err == nil {
		return nil
	}
	return conflict{err}
}

// then does something unless the body has a fault.
func (b *body) then(do func() error) error {
	if b.err != nil {
		return badRequest{b.err}
	}
	return do()
}

func reset(n *speaker.Neighbour, text string) error {
	switch st := n.Status(); {
	case st.HeldDown != "":
		return conflict{fmt.Errorf("neighbour %s is held down: %s: want enable", n.Config().Peer, st.HeldDown)}
	case st.State != session.Established:
		return conflict{fmt.Errorf("neighbour %s has no established session: it is %s", n.Config().Peer, st.State)}
	}
	n.Reset(text)
	return nil
}

// operate serves POST /bgp/peers/ADDRESS/OPERATION.
func (s *Server) operate(w http.ResponseWriter, r *http.Request) {
	op, ok := operations[r.PathValue("operation")]
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no such operation: %s: want one of %s",
			r.PathValue("operation"), strings.Join(slices.Sorted(maps.Keys(operations)), ", ")))
		return
	}
	n := s.neighbour(r.PathValue("address"))
	if n == nil {
		writeError(w, http.StatusNotFound, "no such BGP peer: "+r.PathValue("address"))
		return
	}
	if !allowed(w, r, http.MethodPost) {
		return
	}
	if b, ok := s.receive(w, r, "operation details", true); ok {
		b.only(op.members...)
		s.carryOut(w, r, s.operated, func(context.Context) error { return op.run(n, b) })
	}
}

// neighbour returns the neighbour with an address, or nil.
func (s *Server) neighbour(text string) *speaker.Neighbour {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	for _, n := range s.Speaker.Neighbours() {
		if n.Config().Peer == addr.Unmap() {
			return n
		}
	}
	return nil
}

// only refuses members that have no meaning: an operation whose text was lost to
// a slip must not be carried out.
func (b *body) only(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(b.members)) {
		if !slices.Contains(names, name) {
			want := "no member"
			if len(names) > 0 {
				want = strings.Join(names, ", ")
			}
			b.fail("%s: is not a member of this request: want %s", name, want)
		}
	}
}

// message reads a text for the peer's operator.
func (b *body) message(name string) string {
	raw := b.members[name]
	if !utf8.Valid(raw) {
		b.fail("%s: %q is not valid: want UTF-8", name, raw)
		return ""
	}
	text := b.text(name)
	if len(text) > maxMessage {
		b.fail("%s: %d octets are not valid: want at most %d", name, len(text), maxMessage)
	}
	return text
}

// families reads a list of families by their names.
func (b *body) families(name string) []wire.Family {
	var names []string
	if b.has(name) && json.Unmarshal(b.members[name], &names) != nil {
		b.fail("%s: %s is not valid: want a list of families", name, b.members[name])
	}
	var out []wire.Family
	for _, text := range names {
		at := slices.IndexFunc(wire.Families, func(f wire.Family) bool { return f.String() == text })
		if at < 0 {
			b.fail("%s: %q is not valid: want one of %s", name, text, strings.Join(familyNames(wire.Families), ", "))
			return nil
		}
		out = append(out, wire.Families[at])
	}
	return out
}
