// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// maxPorts bounds how many ports of an instance are named in the text.
const maxPorts = 4

// Text returns the relations of instances as tables for a terminal: who exports
// to each route target and who imports it, then re-advertisement, attraction and
// the instances, as far as there are any.
func Text(servers []Server) string {
	w := &textWriter{several: len(servers) > 1}
	for _, s := range servers {
		for k := range s.Instances {
			w.add(s.Name, &s.Instances[k])
		}
	}
	if len(w.instances) == 0 {
		return "no instances\n"
	}
	w.table("ROUTE TARGET|EXPORTED BY|IMPORTED BY", w.targetRows(allTargets(servers)))
	w.table("RE-ADVERTISED BY|FROM|TO", w.readvertised)
	w.table("ATTRACTED BY|TRAFFIC|REDIRECTED TO|ANNOUNCED TO|STATIC PREFIXES", w.attracted)
	w.table("INSTANCE|TYPE|NAME|PLUGGED INTO|PORTS", w.instances)
	return w.b.String()
}

type textWriter struct {
	b strings.Builder
	// several servers: instances are told apart by their server.
	several bool
	// exporters and importers are instances by route target.
	exporters, importers               map[string][]string
	readvertised, attracted, instances [][]string
}

// add takes an instance into the tables.
func (w *textWriter) add(server string, i *Instance) {
	if w.exporters == nil {
		w.exporters, w.importers = map[string][]string{}, map[string][]string{}
	}
	name := w.name(server, i.ID)
	note := func(to map[string][]string, rts []string, remark string) {
		for _, rt := range rts {
			to[rt] = append(to[rt], name+remark)
		}
	}
	note(w.exporters, i.Export, "")
	note(w.importers, i.Import, "")
	if r := i.Readvertise; r != nil {
		note(w.exporters, r.To, " (re-advertises)")
		note(w.importers, r.From, " (re-advertises)")
		w.readvertised = append(w.readvertised, []string{name, join(r.From), join(r.To)})
	}
	if a := i.Attract; a != nil {
		note(w.exporters, a.To, " (attracts)")
		note(w.exporters, a.Redirect, " (redirects)")
		w.attracted = append(w.attracted, []string{name, a.classifier(), join(a.Redirect), join(a.To), join(a.StaticPrefixes)})
	}
	vrf := ""
	if i.VRF != "" {
		vrf = w.name(server, i.VRF)
	}
	w.instances = append(w.instances, []string{name, i.Type, i.Name, vrf, ports(i.Ports)})
}

func (w *textWriter) name(server, id string) string {
	if w.several {
		return id + "@" + server
	}
	return id
}

// targetRows has for each route target as many rows as it needs to name one
// exporter and one importer a row.
func (w *textWriter) targetRows(rts []string) [][]string {
	var rows [][]string
	at := func(list []string, k int) string {
		switch {
		case k < len(list):
			return list[k]
		case k == 0:
			return "-"
		}
		return " "
	}
	for _, rt := range rts {
		out, in := w.exporters[rt], w.importers[rt]
		for k := range max(1, len(out), len(in)) {
			rows = append(rows, []string{at([]string{rt}, k), at(out, k), at(in, k)})
		}
	}
	return rows
}

// table writes rows in aligned columns below a heading, after a blank line if
// there is something before. Empty cells show as "-".
func (w *textWriter) table(heading string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	var aligned strings.Builder
	tw := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, cells := range slices.Concat([][]string{strings.Split(heading, "|")}, rows) {
		for k, c := range cells {
			cells[k] = visible(c)
			if c == "" {
				cells[k] = "-"
			}
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) // a strings.Builder takes all
	}
	_ = tw.Flush()
	if w.b.Len() > 0 {
		w.b.WriteByte('\n')
	}
	for line := range strings.Lines(aligned.String()) {
		w.b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

func join(list []string) string { return strings.Join(list, " ") }

// ports names some ports and counts the rest.
func ports(list []string) string {
	if len(list) <= maxPorts {
		return join(list)
	}
	return fmt.Sprintf("%s and %d more", join(list[:maxPorts]), len(list)-maxPorts)
}
