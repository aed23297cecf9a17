// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// view is what a peer has been told: its Adj-RIB-In of the node.
type view struct {
	lock   sync.Mutex
	routes map[wire.NLRI]told
	texts  map[string]told // attributes as text, by octets and next hop
	marks  map[wire.Family]int
	again  map[wire.Family]map[wire.NLRI]bool // not told again since BoRR
	ends   map[wire.Family]int                // EoRR
}

// told is one route of a view.
type told struct {
	label uint32
	attrs string
	seq   uint32 // of MAC mobility
}

func newView() *view {
	return &view{
		routes: map[wire.NLRI]told{}, texts: map[string]told{}, marks: map[wire.Family]int{},
		again: map[wire.Family]map[wire.NLRI]bool{}, ends: map[wire.Family]int{},
	}
}

// update takes an UPDATE in. What a node of ours must not send is an error.
func (v *view) update(body []byte) error {
	u, werr := wire.ParseUpdate(body, nil)
	if werr != nil || u.Withdraw != nil {
		return fmt.Errorf("UPDATE of the node: %v %v", werr, u.Withdraw)
	}
	v.lock.Lock()
	defer v.lock.Unlock()
	if f, ok := u.EndOfRIB(); ok {
		v.marks[f]++
		return nil
	}
	if err := each(u.Unreach, true, func(r wire.Route) error {
		if _, known := v.routes[r.NLRI]; !known {
			return fmt.Errorf("withdrawal of %s, which was not announced", r.NLRI)
		}
		delete(v.routes, r.NLRI)
		return nil
	}); err != nil {
		return err
	}
	if !u.Reach.Present {
		return nil
	}
	route, err := v.text(u)
	if err != nil {
		return err
	}
	return each(u.Reach, false, func(r wire.Route) error {
		route.label = r.Label
		v.routes[r.NLRI] = route
		delete(v.again[r.NLRI.Kind.Family()], r.NLRI)
		return nil
	})
}

// text returns the attributes of an UPDATE as text.
func (v *view) text(u wire.Update) (told, error) {
	key := string(u.Attrs) + u.NextHop.String()
	if s, ok := v.texts[key]; ok {
		return s, nil
	}
	a, err := wire.DecodeAttrs(u.Attrs, u.NextHop, wire.Rules{FourOctetAS: true})
	if err != nil {
		return told{}, err
	}
	if len(v.texts) > 1000 {
		clear(v.texts)
	}
	v.texts[key] = told{attrs: attrsText(a), seq: a.MobilitySeq}
	return v.texts[key], nil
}

// attrsText is the text of attributes, but for the sequence number of MAC mobility.
func attrsText(a *wire.Attrs) string {
	var list []string
	for _, c := range a.Communities {
		if c != wire.MobilityCommunity(a.MobilitySeq) {
			list = append(list, c.String())
		}
	}
	slices.Sort(list)
	s := fmt.Sprintf("via %s pref %d [%s]", a.NextHop, a.LocalPref, strings.Join(list, " "))
	if p := a.PMSI; p != nil {
		s += fmt.Sprintf(" pmsi %d/%d/%s", p.TunnelType, p.Label, p.Endpoint)
	}
	return s
}

// each calls do for the routes of one part of an UPDATE.
func each(part wire.MPNLRI, withdraw bool, do func(wire.Route) error) error {
	if !part.Present {
		return nil
	}
	r := wire.NewNLRIReader(part.Family, part.NLRI, withdraw)
	for {
		var route wire.Route
		ok, werr := r.Next(&route)
		if werr != nil {
			return werr
		}
		if !ok {
			return nil
		}
		if err := do(route); err != nil {
			return err
		}
	}
}

// begin notes BoRR.
func (v *view) begin(f wire.Family) {
	v.lock.Lock()
	defer v.lock.Unlock()
	v.again[f] = map[wire.NLRI]bool{}
	for n := range v.routes {
		if n.Kind.Family() == f {
			v.again[f][n] = true
		}
	}
}

// end notes EoRR. Routes that did not come again would have to be dropped, which
// a node withdraws by itself: it is an error.
func (v *view) end(f wire.Family) error {
	v.lock.Lock()
	defer v.lock.Unlock()
	v.ends[f]++
	for n := range v.again[f] {
		if _, there := v.routes[n]; there {
			return fmt.Errorf("%s did not come again between BoRR and EoRR", n)
		}
	}
	delete(v.again, f)
	return nil
}

// label returns the label last told for a route, 0 when there is none.
func (v *view) label(n wire.NLRI) uint32 {
	v.lock.Lock()
	defer v.lock.Unlock()
	return v.routes[n].label
}

// now returns all routes.
func (v *view) now() map[wire.NLRI]told {
	v.lock.Lock()
	defer v.lock.Unlock()
	return maps.Clone(v.routes)
}

// marked returns how many End-of-RIB came for a family; refreshed the same of EoRR.
func (v *view) marked(f wire.Family) int {
	v.lock.Lock()
	defer v.lock.Unlock()
	return v.marks[f]
}
