// SPDX-License-Identifier: Apache-2.0

// Package losstable keeps the tables of docs/reliability.md, which say how many packets
// each fault costs; tests only. Tests add the rows, and a run of all of them fails when
// the document has other rows; the figures are those of the run that wrote it.
package losstable

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Cell is what became of one kind of traffic.
type Cell struct {
	Sent, Lost int
	Longest    time.Duration // gap
}

// Add returns the sum of two cells, with the longer of the gaps.
func (c Cell) Add(o Cell) Cell {
	return Cell{Sent: c.Sent + o.Sent, Lost: c.Lost + o.Lost, Longest: max(c.Longest, o.Longest)}
}

// String returns the cell as the document has it, "-" for no traffic.
func (c Cell) String() string {
	switch {
	case c.Sent == 0:
		return "-"
	case c.Lost == 0:
		return fmt.Sprintf("0 of %d", c.Sent)
	}
	return fmt.Sprintf("%d of %d, at most %v on end", c.Lost, c.Sent, c.Longest.Round(time.Millisecond))
}

// Row is one fault.
type Row struct {
	// Fault is what happens, Dataplane the driver and Reflector whom the node has a session
	// with. They name the row; none may have a "|".
	Fault, Dataplane, Reflector string
	// Within is traffic on the node, From leaves it one way, To comes to it and goes back.
	Within, From, To Cell
}

const header = "| Fault | Dataplane | Reflector | Within the node | From it | To it and back |\n|---|---|---|---|---|---|\n"

// String returns the row as the document has it.
func (r Row) String() string {
	return fmt.Sprintf("%s | %s | %s | %s |", r.name(), r.Within, r.From, r.To)
}

// name is what a line of the document begins with.
func (r Row) name() string { return fmt.Sprintf("| %s | %s | %s", r.Fault, r.Dataplane, r.Reflector) }

// nameOf returns the name of the row of a line.
func nameOf(line string) string {
	cells := strings.Split(line, " | ")
	return strings.Join(cells[:min(3, len(cells))], " | ")
}

// Table has the rows of a run. The zero value is ready for use.
type Table struct {
	mu    sync.Mutex
	lines map[string]string // by name
}

// Add adds a row. A row of a name that is there already is an error of the test.
func (t *Table) Add(r Row) error { return t.AddLine(r.String()) }

// AddLine adds a row in the form of Lines.
func (t *Table) AddLine(line string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := nameOf(line)
	if t.lines[name] != "" {
		return fmt.Errorf("the row %q comes twice", name)
	}
	if t.lines == nil {
		t.lines = map[string]string{}
	}
	t.lines[name] = line
	return nil
}

// Lines returns the rows, sorted.
func (t *Table) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Values(t.lines))
}

// Check compares the rows with the table of that name in a document. Of a run of some
// tests only, all rows must be there; of a complete one there must be no others.
func (t *Table) Check(file, table string, complete bool) error {
	_, have, _, err := read(file, table)
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range t.Lines() {
		if name := nameOf(line); have[name] == "" {
			errs = append(errs, fmt.Errorf("%s has no row %q: see -update", file, name))
		}
	}
	for name := range have {
		if complete && t.lines[name] == "" {
			errs = append(errs, fmt.Errorf("%s has a row %q that no test made: see -update", file, name))
		}
	}
	return errors.Join(errs...)
}

// Update writes the rows into the document. Other rows stay unless the run was complete.
func (t *Table) Update(file, table string, complete bool) error {
	before, have, after, err := read(file, table)
	if err != nil {
		return err
	}
	if complete {
		clear(have)
	}
	for _, line := range t.Lines() {
		have[nameOf(line)] = line
	}
	lines := strings.Join(slices.Sorted(maps.Values(have)), "\n")
	return os.WriteFile(file, []byte(before+header+lines+"\n"+after), 0o644)
}

// read returns the lines of a table by the names of their rows, and the text around it.
func read(file, table string) (before string, lines map[string]string, after string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, "", err
	}
	begin, end := "<!-- begin "+table+" -->\n", "<!-- end "+table+" -->"
	before, rest, found := strings.Cut(string(text), begin)
	body, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", nil, "", fmt.Errorf("%s has no table between %q and %q", file, begin, end)
	}
	lines = map[string]string{}
	for line := range strings.Lines(strings.TrimPrefix(body, header)) {
		lines[nameOf(line)] = strings.TrimSpace(line)
	}
	return before + begin, lines, end + after, nil
}
