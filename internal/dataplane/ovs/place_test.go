// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/steertest"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

func newRedirects() redirects { return redirects{all: map[dataplane.Classifier]*redirect{}} }

// put adds a class as apply.redirect does.
func (r *redirects) put(c dataplane.Classifier) error {
	level, moved, err := r.place(c)
	if err != nil {
		return err
	}
	for _, x := range moved {
		x.redirect.level = x.level
	}
	r.set(redirect{class: c, level: level})
	return nil
}

func (r *redirects) levels() map[dataplane.Classifier]uint16 {
	out := map[dataplane.Classifier]uint16{}
	for c, x := range r.all {
		out[c] = x.level
	}
	return out
}

// Classes have a packet in common unless one of their components has none.
func TestOverlap(t *testing.T) {
	t.Parallel()
	one := class("203.0.113.0/24", 6, portsFrom(80, 90), portsFrom(1024, 2048))
	one.Source = prefix("198.51.100.0/24")
	for _, tt := range []struct {
		want   bool
		change func(*dataplane.Classifier)
	}{
		{true, func(*dataplane.Classifier) {}},
		{true, func(c *dataplane.Classifier) { c.Protocol = dataplane.AnyProtocol }},
		{true, func(c *dataplane.Classifier) { c.Source, c.DestinationPorts = prefix("0.0.0.0/0"), portsFrom(90, 99) }},
		{false, func(c *dataplane.Classifier) { c.Destination = prefix("203.0.112.0/24") }},
		{false, func(c *dataplane.Classifier) { c.Source = prefix("198.51.101.0/24") }},
		{false, func(c *dataplane.Classifier) { c.Protocol = 17 }},
		{false, func(c *dataplane.Classifier) { c.DestinationPorts = portsFrom(91, 99) }},
		{false, func(c *dataplane.Classifier) { c.SourcePorts = portsFrom(0, 1023) }},
	} {
		other := one
		tt.change(&other)
		if overlap(&one, &other) != tt.want || overlap(&other, &one) != tt.want {
			t.Errorf("%s and %s: want %v", one, other, tt.want)
		}
	}
}

// raise is the plain form of place: it moves classes up, from the levels that they have, until
// each is above all that it must be above.
func raise(levels map[dataplane.Classifier]uint16) {
	for again := true; again; {
		again = false
		for a := range levels {
			for b, level := range levels {
				if a.Compare(b) < 0 && overlap(&a, &b) && levels[a] <= level {
					levels[a], again = level+1, true
				}
			}
		}
	}
}

// Whatever comes and goes, classes are no higher than they must be, and the flow that a packet
// meets is that of the first class in order that has it. No two have the same flow.
func TestPrioritiesOfClasses(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	red := mustOpen(t, d, instance("red"))
	mustOpen(t, d, instance("out"))
	r := rand.New(rand.NewPCG(5, 6))
	model := map[dataplane.Classifier]uint16{}
	var list []dataplane.Classifier
	for step := range 1000 {
		if c := steertest.RandomClass(r); len(list) == 0 || r.IntN(5) < 3 {
			mustApply(t, red, add(redirectTo("out", c))...)
			if _, have := model[c]; !have {
				model[c], list = 0, append(list, c)
			}
			raise(model)
		} else {
			at := r.IntN(len(list))
			mustApply(t, red, del(redirectTo("out", list[at]))...)
			delete(model, list[at])
			list = slices.Delete(list, at, at+1)
		}
		if got := red.vrf.redirects.levels(); !maps.Equal(got, model) {
			t.Fatalf("step %d: levels %v, want %v", step, got, model)
		}
		for range 20 {
			p := steertest.RandomPacket(r)
			want, some := steertest.First(model, &p)
			for c, level := range model {
				if p.In(&c) && (!some || c != want && level >= model[want]) {
					t.Fatalf("step %d: %+v may meet the flow of %s with level %d, want that of %s with %d", step, p, c, level, want, model[want])
				}
			}
		}
		if step%100 == 0 {
			wantFlows(t, f, red.vrf)
		}
	}
	wantNoDrift(t, d)
	var all []dataplane.Entry
	for c := range model {
		all = append(all, redirectTo("out", c))
	}
	wantInstalled(t, red, all...)
	if got := red.vrf.redirects.levels(); !maps.Equal(got, model) {
		t.Errorf("levels read from the switch %v, want %v", got, model)
	}
}

// wantFlows fails the test unless the classes' flows are in the switch, each once.
func wantFlows(t *testing.T, f *fake, v *vrf) {
	t.Helper()
	flows, keys := 0, map[of.FlowKey]bool{}
	for c := range v.redirects.all {
		for _, fl := range v.redirectFlows(c) {
			flows++
			keys[fl.Key()] = true
			if f.flows[fl.Key()] != fl {
				t.Fatalf("flow of %s is not in the switch: %s", c, fl)
			}
		}
	}
	if len(keys) != flows {
		t.Fatalf("%d flows have %d keys", flows, len(keys))
	}
}

// A class that gets another target stays where it is: no flow is moved.
func TestLevelIsKept(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	red := mustOpen(t, d, instance("red"))
	mustOpen(t, d, instance("out"))
	mustOpen(t, d, instance("way"))
	narrow, wide := nested(2)[0], nested(2)[1]
	mustApply(t, red, add(redirectTo("out", narrow), redirectTo("out", wide))...)
	mustApply(t, red, del(redirectTo("out", wide))...)
	before := len(f.flows)
	f.refuse = func(m of.Message) bool { _, ok := m.(of.DeleteFlow); return ok }
	mustApply(t, red, add(redirectTo("way", narrow))...)
	if got := red.vrf.redirects.all[narrow]; got.level != 1 || got.target != "way" || len(f.flows) != before {
		t.Errorf("class %+v, %d flows, before %d: want level 1", got, len(f.flows), before)
	}
	wantInstalled(t, red, redirectTo("way", narrow))
}

// What gateways answer is above all classes: one for which there is no level left is refused,
// and nothing moves.
func TestHighestLevel(t *testing.T) {
	t.Parallel()
	d := newFake().driver(t, nil)
	red := mustOpen(t, d, instance("red"))
	mustOpen(t, d, instance("out"))
	list := nested(4)
	high := func(c dataplane.Classifier, level uint16) { red.vrf.redirects.set(redirect{class: c, level: level}) }
	high(list[3], maxLevel)
	wantErr(t, red.Apply(t.Context(), add(redirectTo("out", list[2])))[0], "more than 24559 classes")
	high(list[3], maxLevel-1)
	mustApply(t, red, add(redirectTo("out", list[2]))...) // has the highest
	high(list[3], maxLevel-2)
	high(list[2], maxLevel-1)
	high(list[0], maxLevel)
	before := red.vrf.redirects.levels()
	wantErr(t, red.Apply(t.Context(), add(redirectTo("out", list[1])))[0], "more than 24559 classes") // would push the first
	if got := red.vrf.redirects.levels(); !maps.Equal(got, before) {
		t.Errorf("levels %v, want %v", got, before)
	}
	for c := range before {
		for _, fl := range red.vrf.redirectFlows(c) {
			if fl.Priority >= prioGateway {
				t.Errorf("%s is not below what gateways answer", fl)
			}
		}
	}
}

// A process that ends amid changes of levels leaves classes at one level that have packets in
// common. The next sees it.
func TestLevelsCutShort(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	red := mustOpen(t, d, instance("red"))
	mustOpen(t, d, instance("out"))
	narrow, wide := redirectTo("out", nested(2)[0]), redirectTo("out", nested(2)[1])
	mustApply(t, red, add(narrow)...)
	f.refuse = func(m of.Message) bool {
		a, ok := m.(of.AddFlow)
		_, deletes := m.(of.DeleteFlow)
		return deletes || ok && strings.Contains(of.Flow(a).String(), fmt.Sprint("priority=", prioRedirect+1))
	}
	red.Apply(t.Context(), add(wide))
	f.refuse = nil
	again := f.driver(t, nil)
	red = mustOpen(t, again, instance("red"))
	mustOpen(t, again, instance("out"))
	wantInstalled(t, red, wide)
	mustApply(t, red, add(narrow, wide)...)
	wantInstalled(t, red, narrow, wide)
	wantNoDrift(t, again)
}

// disjoint returns n classes that have no packet in common.
func disjoint(n int) (out []dataplane.Classifier) {
	for i := range n {
		out = append(out, class(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), 6, portsFrom(80, 80), dataplane.AllPorts))
	}
	return out
}

// nested returns n classes, the first of which is first in order and within the second, and so on.
func nested(n int) (out []dataplane.Classifier) {
	for i := range n {
		out = append(out, class("203.0.113.0/24", 6, portsFrom(0, uint16(i)), dataplane.AllPorts))
	}
	return out
}

// practical returns the classes of 1024 redirects with a few classes each, and as many for all.
func practical() (out []dataplane.Classifier) {
	for i := range uint16(1024) {
		for k := range uint16(3) {
			out = append(out, class(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), 6, portsFrom(80+k, 90+k), dataplane.AllPorts))
		}
		out = append(out, class("0.0.0.0/0", 6, portsFrom(i, i), dataplane.AllPorts))
	}
	return out
}

func BenchmarkPlace(b *testing.B) {
	for _, bb := range []struct {
		name    string
		classes []dataplane.Classifier
	}{{"disjoint=10000", disjoint(10000)}, {"nested=1000", nested(1000)}, {"redirects=1024", practical()}} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				r := newRedirects()
				for _, c := range bb.classes {
					if err := r.put(c); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
