// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"strings"
	"unicode"
)

// Labels of VRFs longer than maxLabel show their first and last characters.
const (
	maxLabel   = 11
	labelStart = 4
	labelEnd   = 5
)

// dotHead begins a picture. Without newrank, Graphviz loses arrows between
// clusters and the rest, and then gives up.
const dotHead = `digraph import_export {
  graph [rankdir=LR, newrank=true, nodesep=0.3, ranksep=0.8, fontname="Helvetica", fontsize=12];
  node [fontname="Helvetica", fontsize=11];
  edge [fontname="Helvetica", fontsize=9];
`

// DOT returns the relations of instances as a directed graph in the language of
// Graphviz. Route targets are circles, instances are records in a cluster for
// each server. An arrow to a route target is an export, one from it an import;
// dashed ones are re-advertisement, red ones attraction of traffic. The text
// depends on nothing but the servers and their order.
func DOT(servers []Server) string {
	d := &dotWriter{nodes: map[nodeKey]string{}, taken: map[string]bool{}}
	d.b.WriteString(dotHead)
	for _, rt := range allTargets(servers) {
		d.line(`  %s [shape=circle, margin=0.02, style=filled, fillcolor="#fff3c4", label=%s];`, d.target(rt), label(rt))
	}
	for n, s := range servers {
		d.cluster(n, s)
	}
	for _, s := range servers {
		for k := range s.Instances {
			d.arrows(s.Name, &s.Instances[k])
		}
	}
	d.b.WriteString("}\n")
	return d.b.String()
}

// nodeKey says what a node stands for: a route target (no server), an instance
// (no port), or a port.
type nodeKey struct{ server, name, port string }

type dotWriter struct {
	b strings.Builder
	// nodes are the quoted names of nodes, taken those that are in use.
	nodes map[nodeKey]string
	taken map[string]bool
}

func (d *dotWriter) line(format string, args ...any) { fmt.Fprintf(&d.b, format+"\n", args...) }

// node returns the name of a node, made of a text if there is none yet. In names,
// all but letters and digits is "_"; a number tells apart what is the same then.
func (d *dotWriter) node(key nodeKey, text string) string {
	if name, ok := d.nodes[key]; ok {
		return name
	}
	base := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '_'
	}, text)
	name := base
	for n := 2; d.taken[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	d.taken[name] = true
	d.nodes[key] = `"` + name + `"`
	return d.nodes[key]
}

func (d *dotWriter) target(rt string) string { return d.node(nodeKey{name: rt}, "rt_"+rt) }

func (d *dotWriter) instance(server, id string) string {
	return d.node(nodeKey{server: server, name: id}, server+"_"+id)
}

func (d *dotWriter) port(server, id, port string) string {
	return d.node(nodeKey{server, id, port}, server+"_"+id+"_"+port)
}

// cluster writes the instances of a server, with their ports.
func (d *dotWriter) cluster(n int, s Server) {
	d.line(`  subgraph cluster_%d {`, n)
	d.line(`    label=%s; style=rounded; color=gray;`, label(s.Name))
	for k := range s.Instances {
		i := &s.Instances[k]
		node := d.instance(s.Name, i.ID)
		d.line(`    %s [shape=record, style=filled, fillcolor=%s, label=%s, tooltip=%s];`,
			node, fill(i), record(i), tooltip(i.Type+" "+i.ID))
		for _, p := range i.Ports {
			shape := "plaintext"
			if strings.HasPrefix(p, "to-") {
				shape = "box"
			}
			d.line(`    %s [shape=%s, height=0.2, label=%s];`, d.port(s.Name, i.ID, p), shape, label(p))
			d.line(`    %s -> %s [arrowhead=none, color=gray];`, d.port(s.Name, i.ID, p), node)
		}
	}
	d.line(`  }`)
}

func fill(i *Instance) string {
	if i.Type == EVI {
		return `"#dff0d8"`
	}
	return `"#d9e8f6"`
}

// arrows writes the relations of an instance.
func (d *dotWriter) arrows(server string, i *Instance) {
	node := d.instance(server, i.ID)
	for _, rt := range i.Import {
		d.line(`  %s -> %s;`, d.target(rt), node)
	}
	for _, rt := range i.Export {
		d.line(`  %s -> %s;`, node, d.target(rt))
	}
	if r := i.Readvertise; r != nil {
		for _, rt := range r.From {
			d.line(`  %s -> %s:readv [style=dashed];`, d.target(rt), node)
		}
		for _, rt := range r.To {
			d.line(`  %s:readv -> %s [style=dashed];`, node, d.target(rt))
		}
	}
	if a := i.Attract; a != nil {
		for _, rt := range a.Redirect {
			d.line(`  %s:attract -> %s [color=red, fontcolor=red, label=%s];`, node, d.target(rt), label(a.classifier()))
		}
		for _, rt := range a.To {
			d.line(`  %s:attract -> %s [color=red, style=dashed];`, node, d.target(rt))
		}
	}
	// A VRF that is not in the picture would become a node without a shape.
	if vrf, ok := d.nodes[nodeKey{server: server, name: i.VRF}]; ok && i.VRF != "" {
		d.line(`  %s -> %s [dir=both, arrowhead=dot, arrowtail=dot, style=bold, color="#3a7a2a"];`, node, vrf)
	}
}

// record returns the label of an instance: its name, and cells for what it does
// beyond import and export.
func record(i *Instance) string {
	name := i.ID
	if r := []rune(name); i.Type == VRF && len(r) > maxLabel {
		name = string(r[:labelStart]) + ".." + string(r[len(r)-labelEnd:])
	}
	var cells []string
	if i.Readvertise != nil {
		cells = append(cells, "<readv> readv")
	}
	if i.Attract != nil {
		cells = append(cells, "<attract> attract")
	}
	text := recordEscapes.Replace(dotText(name))
	if len(cells) > 0 {
		text += "|{" + strings.Join(cells, "|") + "}"
	}
	return `"` + text + `"`
}

// recordEscapes takes the meaning from characters that structure a record.
var recordEscapes = strings.NewReplacer("{", `\{`, "}", `\}`, "|", `\|`, "<", `\<`, ">", `\>`, " ", `\ `)

// dotEscapes takes the meaning from characters that have one in a quoted label:
// escapes such as \N, entities such as &lt;, and the quote.
var dotEscapes = strings.NewReplacer(`\`, `\\`, `&`, "&amp;", `"`, `\"`)

// dotText makes any text part of a quoted label.
func dotText(s string) string { return dotEscapes.Replace(visible(s)) }

// label makes any text a quoted label.
func label(s string) string { return `"` + dotText(s) + `"` }

// tooltip makes any text a quoted tooltip, in which Graphviz looks for escapes
// twice.
func tooltip(s string) string {
	return label(strings.ReplaceAll(visible(s), `\`, `\\`))
}
