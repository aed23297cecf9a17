// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// model is a node with what it should have: per instance, the desired entries
// by the text of their key. An instance that is not open has none.
type model struct {
	*rapid.T
	tb     *testing.T
	node   *node
	open   map[string]*dataplane.Forwarding
	desire map[string]map[string]dataplane.Entry
}

var modelInstances = map[string]dataplane.Instance{
	"red":  red,
	"blue": {Number: 2, ID: "blue", Type: dataplane.IPVPN, VNI: 16},
}

func keyText(e dataplane.Entry) string {
	switch e.Kind {
	case dataplane.LocalPort:
		return e.Port
	case dataplane.Neighbour:
		return e.IP.String()
	case dataplane.Flood:
		return e.NextHops[0].String()
	case dataplane.Prefix:
		return e.Prefix.String()
	case dataplane.LocalMAC:
		return "local " + e.MAC.String()
	}
	return e.MAC.String()
}

func (m *model) local() dataplane.Entry {
	n, on := rapid.IntRange(1, 3).Draw(m.T, "n"), rapid.IntRange(1, 2).Draw(m.T, "port")
	if rapid.Bool().Draw(m.T, "is port") {
		return port(on)
	}
	return localMAC(n, on)
}

func (m *model) remote(id string) dataplane.Entry {
	n, via := rapid.IntRange(1, 3).Draw(m.T, "n"), rapid.IntRange(1, 3).Draw(m.T, "via")
	if id == "blue" {
		return prefix(n, rapid.SampledFrom([][]int{{1}, {2}, {1, 2}, {1, 3}, {1, 2, 3}}).Draw(m.T, "hops")...)
	}
	switch rapid.IntRange(0, 2).Draw(m.T, "kind") {
	case 0:
		return remoteMAC(n, via)
	case 1:
		return neighbour(n, via)
	}
	return flood(via)
}

// changes draws changes without two of one key, as the callers make them, and
// returns them with the state that they lead to.
func (m *model) changes(id string, deleteOnly bool, entry func() dataplane.Entry) (out []dataplane.Change, after map[string]dataplane.Entry) {
	after = maps.Clone(m.desire[id])
	seen := map[string]bool{}
	for range rapid.IntRange(1, 4).Draw(m.T, "changes") {
		c := dataplane.Change{Entry: entry(), Delete: deleteOnly || rapid.IntRange(0, 3).Draw(m.T, "delete") == 0}
		c.At = dataplane.Place(c.Entry)
		k := keyText(c.Entry)
		if seen[k] {
			continue
		}
		seen[k] = true
		if now, have := after[k]; have && c.Delete {
			c.Entry = now
		}
		out = append(out, c)
		if c.Delete {
			delete(after, k)
		} else {
			after[k] = c.Entry
		}
	}
	return out, after
}

// pick returns an instance; it is opened if it is not, which may fail.
func (m *model) pick() (string, *dataplane.Forwarding) {
	id := rapid.SampledFrom([]string{"red", "red", "blue"}).Draw(m.T, "instance")
	return id, m.opened(id)
}

func (m *model) opened(id string) *dataplane.Forwarding {
	if m.open[id] == nil {
		if f, err := m.node.Open(m.tb.Context(), modelInstances[id]); err == nil {
			m.open[id], m.desire[id] = f, map[string]dataplane.Entry{}
		}
	}
	return m.open[id]
}

func (m *model) do() {
	f := m.opened("red")
	if f == nil {
		return
	}
	changes, after := m.changes("red", false, m.local)
	if f.Do(m.tb.Context(), changes) == nil {
		m.desire["red"] = after
	}
}

func (m *model) release() {
	if f := m.opened("red"); f != nil {
		changes, after := m.changes("red", true, m.local)
		f.Release(m.tb.Context(), changes)
		m.desire["red"] = after
	}
}

func (m *model) sync() {
	if id, f := m.pick(); f != nil {
		changes, after := m.changes(id, false, func() dataplane.Entry { return m.remote(id) })
		f.Sync(m.tb.Context(), changes)
		m.desire[id] = after
	}
}

func (m *model) fail() {
	odds := rapid.IntRange(1, 4).Draw(m.T, "odds")
	calls := 0
	times := rapid.SampledFrom([]int{1, 2, 5, fake.Forever}).Draw(m.T, "times")
	m.node.plane.Fail(times, func(fake.Op) bool { calls++; return calls%odds == 0 })
}

func (m *model) remove() {
	if id, f := m.pick(); f != nil {
		f.Remove(m.tb.Context())
		delete(m.open, id)
		delete(m.desire, id)
	}
}

// lose takes something away behind the driver's back.
func (m *model) lose() {
	id := rapid.SampledFrom([]string{"red", "blue"}).Draw(m.T, "instance")
	_, plugged := m.desire[id]["tap1"]
	switch {
	case m.open[id] == nil:
	case plugged && rapid.Bool().Draw(m.T, "unplug") && m.node.plane.Entries(dataplane.EVPN, id) != nil:
		m.node.plane.Unplug(dataplane.EVPN, id, "tap1")
	default:
		m.node.plane.Lose(modelInstances[id].Type, id)
	}
}

// restart begins anew over the same plane: nothing is desired until it is asked for.
func (m *model) restart() {
	m.node = m.node.restart(m.tb)
	clear(m.open)
	clear(m.desire)
}

// check compares what is desired with the model, after every step.
func (m *model) check() {
	for id, f := range m.open {
		if diff := cmp.Diff(texts(slices.Collect(maps.Values(m.desire[id]))), texts(f.Entries())); diff != "" {
			m.Fatalf("desired entries of %s (-want +got):\n%s", id, diff)
		}
	}
	if b := m.node.plane.Breaches(); len(b) > 0 {
		m.Fatalf("contract of the driver broken: %v", b)
	}
}

// settle ends the failures and compares the plane with what is desired.
func (m *model) settle() {
	m.node.plane.Heal()
	m.node.Check(m.tb.Context())
	m.node.RetryAt(m.tb.Context(), later())
	m.node.Sweep(m.tb.Context())
	m.node.Check(m.tb.Context()) // a port plugged just now is listed once more
	if p := problems(m.node); len(p) > 0 {
		m.Fatalf("problems stay: %v", p)
	}
	for id, inst := range modelInstances {
		var want []string
		if m.open[id] != nil {
			want = texts(slices.Collect(maps.Values(m.desire[id])))
		}
		got := m.node.plane.Entries(inst.Type, id)
		if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
			m.Fatalf("plane of %s (-desired +plane):\n%s", id, diff)
		}
	}
	calls := m.node.plane.Calls()
	m.node.Check(m.tb.Context())
	m.node.RetryAt(m.tb.Context(), later())
	m.node.Sweep(m.tb.Context())
	if got := m.node.plane.Calls(); got != calls {
		m.Fatalf("%d changes although all is as desired", got-calls)
	}
}

// Whatever happens, once failures stop the plane has what is desired and
// nothing else.
func TestPlaneConvergesToDesired(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{
			T: rt, tb: t, node: newNode(fake.NewPlane()),
			open: map[string]*dataplane.Forwarding{}, desire: map[string]map[string]dataplane.Entry{},
		}
		step := func(f func()) func(*rapid.T) { return func(rt *rapid.T) { m.T = rt; f() } }
		retry := func() { m.node.RetryAt(t.Context(), later()) }
		check := func() { m.node.Check(t.Context()) }
		sweep := func() { m.node.Sweep(t.Context()) }
		rt.Repeat(map[string]func(*rapid.T){
			"do": step(m.do), "do again": step(m.do), "release": step(m.release),
			"sync": step(m.sync), "sync again": step(m.sync), "fail": step(m.fail), "heal": step(func() { m.node.plane.Heal() }),
			"remove": step(m.remove), "restart": step(m.restart), "sweep": step(sweep), "retry": step(retry),
			"lose": step(m.lose), "look": step(check),
			"": step(m.check),
		})
		m.T = rt
		m.settle()
	})
}
