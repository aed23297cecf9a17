// SPDX-License-Identifier: Apache-2.0

// Package fake is a forwarding plane in memory, for the tests of everything
// above the dataplane drivers. A Plane is what a kernel would be: it outlives
// the drivers, so that a test makes a second Driver over the same Plane to
// restart a node. It can be told to fail, and it notes every breach of the
// contract between a driver and its callers.
package fake

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// Forever is the number of times that makes a fault last until Heal.
const Forever = -1

// Plane is a forwarding plane with the state of all instances. Its methods may
// be called concurrently.
type Plane struct {
	mu        sync.Mutex
	instances map[instanceKey]*instance
	faults    []*fault
	log       []string
	calls     int
	breaches  []string
	counters  map[dataplane.VPNType][]dataplane.Counter
}

type instanceKey struct {
	typ dataplane.VPNType
	id  string
}

// instance is what the plane holds for one instance.
type instance struct {
	dataplane.Instance
	entries map[entryKey]dataplane.Entry
	// unplugged are ports that others took away, to whether they need no longer be listed.
	unplugged map[string]bool
}

// entryKey is the key of an entry as the comments of dataplane.Kind have it.
type entryKey struct {
	kind dataplane.Kind
	text string
}

// Op is one thing that a driver is asked to do.
type Op struct {
	Instance string
	// Verb is "check", "open", "installed", "apply", "repair", "remove", "orphans",
	// "remove orphan" or "counters".
	Verb   string
	Port   string           // of "check"
	Change dataplane.Change // of "apply"
}

// String returns "instance: + entry", or "instance: verb".
func (o Op) String() string {
	if o.Verb == "apply" {
		return o.Instance + ": " + o.Change.String()
	}
	return o.Instance + ": " + o.Verb
}

// fault makes operations fail.
type fault struct {
	match func(Op) bool
	left  int   // Forever, or how many times still
	err   error // or nil for one of ours
}

// NewPlane returns an empty Plane.
func NewPlane() *Plane {
	return &Plane{instances: map[instanceKey]*instance{}, counters: map[dataplane.VPNType][]dataplane.Counter{}}
}

// Count sets what the drivers of a VPN type have counted.
func (p *Plane) Count(t dataplane.VPNType, list ...dataplane.Counter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counters[t] = list
}

// Fail makes the operations that match fail: so many times, or Forever.
func (p *Plane) Fail(times int, match func(Op) bool) { p.FailWith(nil, times, match) }

// FailWith is Fail with the error to return.
func (p *Plane) FailWith(err error, times int, match func(Op) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &fault{match, times, err})
}

// Lose takes away an instance with all entries, as others may do in a kernel.
func (p *Plane) Lose(t dataplane.VPNType, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.instances, instanceKey{t, id})
}

// Unplug takes a port and its MACs from an instance. Drifted lists it from then on, at
// least once, until it is plugged or deleted, or the driver is another one.
func (p *Plane) Unplug(t dataplane.VPNType, id, port string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[instanceKey{t, id}]
	maps.DeleteFunc(i.entries, func(_ entryKey, e dataplane.Entry) bool { return e.Port == port })
	i.unplugged[port] = false
}

// Heal ends all faults.
func (p *Plane) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// Log returns what was done since the last call, in order; failed operations
// are marked with an exclamation mark. Reading is not logged.
func (p *Plane) Log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.log
	p.log = nil
	return out
}

// Calls returns the number of changes that drivers were asked for so far.
func (p *Plane) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// Breaches returns how callers broke the contract of Driver and Handle.
func (p *Plane) Breaches() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.breaches)
}

func (p *Plane) breach(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaches = append(p.breaches, fmt.Sprintf(format, args...))
}

// String returns the whole state as sorted text: a line per instance, and its
// entries indented below it.
func (p *Plane) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	keys := slices.SortedFunc(maps.Keys(p.instances), func(a, b instanceKey) int {
		return strings.Compare(string(a.typ)+a.id, string(b.typ)+b.id)
	})
	for _, k := range keys {
		i := p.instances[k]
		fmt.Fprintf(&b, "%s %s vni %d", k.typ, k.id, i.VNI)
		if i.Gateway.IsValid() {
			fmt.Fprintf(&b, " gateway %s", i.Gateway)
		}
		if i.L3VNI {
			b.WriteString(" l3vni")
		}
		if i.Bridge != "" {
			fmt.Fprintf(&b, " bridge %s", i.Bridge)
		}
		b.WriteByte('\n')
		for _, line := range i.lines() {
			b.WriteString("  " + line + "\n")
		}
	}
	return b.String()
}

func (i *instance) lines() []string {
	var out []string
	for _, e := range i.entries {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

// Entries returns the entries of an instance as sorted text.
func (p *Plane) Entries(t dataplane.VPNType, id string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.instances[instanceKey{t, id}]; i != nil {
		return i.lines()
	}
	return nil
}

// attempt counts an operation, and fails if a fault matches. It runs with p.mu held.
func (p *Plane) attempt(o Op) error {
	if o.Verb == "apply" {
		p.calls++
	}
	for _, f := range p.faults {
		if f.left == 0 || !f.match(o) {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		p.log = append(p.log, "! "+o.String())
		if f.err != nil {
			return f.err
		}
		return fmt.Errorf("fake: refused %s", o)
	}
	if !slices.Contains([]string{"installed", "orphans", "check", "counters"}, o.Verb) {
		p.log = append(p.log, o.String())
	}
	return nil
}

// apply carries out one change. It runs with p.mu held.
func (i *instance) apply(c dataplane.Change) {
	k := keyOf(c.Entry)
	if _, is := i.unplugged[c.Entry.Port]; is && c.Entry.Kind == dataplane.LocalPort {
		i.unplugged[c.Entry.Port] = true
	}
	if c.Delete {
		delete(i.entries, k)
		return
	}
	c.Entry.NextHops = slices.Clone(c.Entry.NextHops)
	i.entries[k] = c.Entry
}

func keyOf(e dataplane.Entry) entryKey {
	k := entryKey{kind: e.Kind}
	switch e.Kind {
	case dataplane.LocalPort:
		k.text = e.Port
	case dataplane.LocalMAC, dataplane.RemoteMAC:
		k.text = e.MAC.String()
	case dataplane.Neighbour:
		k.text = e.IP.String()
	case dataplane.Flood:
		if len(e.NextHops) > 0 {
			k.text = fmt.Sprintf("%s %d", e.NextHops[0].Addr, e.NextHops[0].Label)
		}
	case dataplane.Prefix:
		k.text = e.Prefix.String()
	case dataplane.LocalPrefix:
		k.text = fmt.Sprintf("%d %s", e.Label, e.IP)
	case dataplane.Redirect:
		k.text = e.Class.String()
	}
	return k
}

// malformed tells what is wrong with an addition, or "".
func malformed(e dataplane.Entry, caps dataplane.Capabilities) string {
	hops, port, mac := len(e.NextHops), e.Port != "", !e.MAC.IsZero()
	var ok bool
	switch e.Kind {
	case dataplane.LocalPort:
		ok = port && !mac && hops == 0
	case dataplane.LocalMAC:
		ok = port && mac && hops == 0
	case dataplane.RemoteMAC:
		ok = mac && !port && hops == 1
	case dataplane.Neighbour:
		ok = mac && e.IP.IsValid() && hops == 0
	case dataplane.Flood:
		ok = hops == 1 && !mac
	case dataplane.Prefix:
		ok = e.Prefix.IsValid() && (hops == 1 || hops > 1 && caps.ECMP)
	case dataplane.LocalPrefix:
		ok = port && mac && e.IP.IsValid() && e.Prefix.IsValid() && e.Label != 0 && e.Direction != ""
	case dataplane.Redirect:
		ok = e.Class != nil && e.Target != "" && caps.Redirect
	case dataplane.Fallback:
		ok = mac && !e.Source.IsZero() && e.OVS.Number != 0 && caps.Fallback
	}
	if !ok {
		return "members do not fit the kind"
	}
	for _, nh := range e.NextHops {
		if nh.Addr == (netip.Addr{}) || nh.Label == 0 || !slices.Contains(caps.Encaps, nh.Encap) {
			return "next hop that the driver does not have: " + nh.String()
		}
	}
	return ""
}
