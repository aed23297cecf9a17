// SPDX-License-Identifier: Apache-2.0

// Package graph shows how VPN instances are related: which route targets they
// export to and import from, what they re-advertise, what traffic they attract,
// and which E-VPN is plugged into which VRF. It reads the relations from looking
// glasses and writes them as DOT, the language of Graphviz, or as text.
//
// All that daemons say is taken for untrusted text: it cannot leave its place in
// DOT, nor send control characters to a terminal.
package graph

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// Types of instances, as the looking glass has them.
const (
	VRF = "VRF"
	EVI = "EVI"
)

// Server is what one daemon tells of its instances.
type Server struct {
	Name      string     `json:"server"`
	Instances []Instance `json:"instances"`
}

// Instance is a VPN instance with its relations. Route targets are written
// "64512:100".
type Instance struct {
	// ID is the name given by whoever made the instance.
	ID string `json:"id"`
	// Name is the daemon's own name, such as "VRF-1".
	Name string `json:"name"`
	// Type is VRF or EVI.
	Type        string       `json:"type"`
	Import      []string     `json:"import"`
	Export      []string     `json:"export"`
	Readvertise *Readvertise `json:"readvertise,omitempty"`
	Attract     *Attract     `json:"attract_traffic,omitempty"`
	Ports       []string     `json:"ports"`
	// VRF is the ID of the VRF that an EVI is plugged into, "" for none.
	VRF string `json:"plugged_into,omitempty"`
}

// Readvertise tells that routes with a route target of From are announced again
// with those of To.
type Readvertise struct {
	From []string `json:"from"`
	To   []string `json:"to"`
}

// Attract tells that traffic is drawn away from its way by FlowSpec routes: they
// carry the route targets To, and send what the classifier describes to VRFs that
// import one of Redirect.
type Attract struct {
	Redirect       []string      `json:"redirect_rts"`
	Classifier     client.Object `json:"classifier"`
	To             []string      `json:"to"`
	StaticPrefixes []string      `json:"static_destination_prefixes"`
}

// classifier returns what traffic is attracted, in one line.
func (a *Attract) classifier() string {
	var parts []string
	for _, m := range a.Classifier {
		if m.Value != nil {
			parts = append(parts, fmt.Sprintf("%s=%v", m.Name, m.Value))
		}
	}
	return strings.Join(parts, " ")
}

// targets returns all route targets that an instance has to do with.
func (i *Instance) targets() []string {
	all := slices.Concat(i.Import, i.Export)
	if r := i.Readvertise; r != nil {
		all = slices.Concat(all, r.From, r.To)
	}
	if a := i.Attract; a != nil {
		all = slices.Concat(all, a.Redirect, a.To)
	}
	return all
}

// allTargets returns the route targets of all instances, sorted.
func allTargets(servers []Server) []string {
	set := map[string]bool{}
	for _, s := range servers {
		for k := range s.Instances {
			for _, rt := range s.Instances[k].targets() {
				set[rt] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(set), compareTargets)
}

// compareTargets orders route targets by their numbers.
func compareTargets(a, b string) int {
	as, bs := strings.Split(a, ":"), strings.Split(b, ":")
	byPart := slices.CompareFunc(as, bs, func(x, y string) int {
		n, errN := strconv.ParseUint(x, 10, 64)
		m, errM := strconv.ParseUint(y, 10, 64)
		if errN == nil && errM == nil {
			return cmp.Compare(n, m)
		}
		return strings.Compare(x, y)
	})
	return cmp.Or(byPart, strings.Compare(a, b))
}

// visible returns a text in which control characters, and others that do not
// show, are written as escapes.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
