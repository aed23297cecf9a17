// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/losstable"
)

var update = flag.Bool("update", false, "write the figures into docs/reliability.md")

// losses are the rows for docs/reliability.md that the tests of this run made.
var losses losstable.Table

// finishLosses compares the rows with the document, or writes it.
func finishLosses() error {
	doc := filepath.Join("..", "..", "docs", "reliability.md")
	complete := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if *update {
		return losses.Update(doc, "nodes", complete)
	}
	if lines := os.Getenv("BAGPIPE_TEST_LOSSES"); lines != "" { // a guest, see test/vm
		for _, line := range losses.Lines() {
			fmt.Println(lines + line)
		}
		return nil
	}
	return losses.Check(doc, "nodes", complete)
}

// probes are some that run together.
type probes []*probe

// flows waits until the last packets of each arrive.
func (ps probes) flows(row int) {
	for _, p := range ps {
		p.t.Helper()
		p.flows(row)
	}
}

// stop ends them and returns what became of all packets.
func (ps probes) stop() (sum losstable.Cell) {
	for _, p := range ps {
		p.t.Helper()
		sum = sum.Add(p.stop(0))
	}
	return sum
}

// noLoss ends them and fails the test when a packet was lost.
func (ps probes) noLoss() {
	for _, p := range ps {
		p.t.Helper()
		p.noLoss(0)
	}
}

// noLoss ends the probe and fails the test when a packet since one was lost.
func (p *probe) noLoss(from int) {
	p.t.Helper()
	if o := p.stop(from); o.Lost > 0 {
		p.t.Errorf("%s: %v", p.name, o)
	}
}

// traffic is what runs through a node, over IPv4 and IPv6, while something happens.
type traffic struct {
	// within is between two machines of the node; from goes from it to another node, one
	// way; to goes from the other node to it and back.
	within, from, to probes
}

// startTraffic begins to send between two machines of a node and one of another.
func startTraffic(t testing.TB, a1, a2, b1 *vm) traffic {
	t.Helper()
	var tr traffic
	for _, address := range []func(*vm) netip.Addr{(*vm).ip4, (*vm).ip6} {
		tr.within = append(tr.within, startEcho(t, a2, address(a1), a1))
		tr.from = append(tr.from, startStream(t, a1, b1, address(b1)))
		tr.to = append(tr.to, startEcho(t, b1, address(a1), a1))
	}
	tr.flows(10)
	return tr
}

func (v *vm) ip4() netip.Addr { return v.v4.Addr() }
func (v *vm) ip6() netip.Addr { return v.v6.Addr() }

func (tr traffic) flows(row int) {
	for _, ps := range []probes{tr.within, tr.from, tr.to} {
		for _, p := range ps {
			p.t.Helper()
		}
		ps.flows(row)
	}
}

// fault is a row for docs/reliability.md that is being made.
type fault struct {
	t       testing.TB
	traffic traffic
	row     losstable.Row
	starts  map[*probe]int
}

// fault begins a row: what is sent from now on counts.
func (tr traffic) fault(t testing.TB, what, dataplane, reflector string) *fault {
	f := &fault{t: t, traffic: tr, row: losstable.Row{Fault: what, Dataplane: dataplane, Reflector: reflector}, starts: map[*probe]int{}}
	for _, ps := range []probes{tr.within, tr.from, tr.to} {
		for _, p := range ps {
			f.starts[p] = p.count()
		}
	}
	return f
}

// limits are the longest gaps that a fault may make in each kind of traffic, 0 for none.
type limits struct{ within, from, to time.Duration }

// end ends the row, and fails the test when there was a longer gap than allowed.
func (f *fault) end(allowed limits) {
	f.t.Helper()
	f.row.Within = f.cell("within the node", f.traffic.within, allowed.within)
	f.row.From = f.cell("from the node", f.traffic.from, allowed.from)
	f.row.To = f.cell("to the node and back", f.traffic.to, allowed.to)
	f.t.Log(f.row)
	if err := losses.Add(f.row); err != nil {
		f.t.Error(err)
	}
}

func (f *fault) cell(what string, ps probes, allowed time.Duration) (sum losstable.Cell) {
	f.t.Helper()
	for _, p := range ps {
		o := p.result(f.starts[p], p.count())
		if o.Lost > 0 && o.Longest > allowed {
			f.t.Errorf("%s: %s, %s: %v, longer than %v", f.row.Fault, what, p.name, o, allowed)
		}
		sum = sum.Add(o)
	}
	return sum
}
