// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
)

// Route targets: that of red, and another one that only tests use.
const redTarget, blueTarget = "64512:100", "64512:200"

// targets returns red with other route targets.
func targets(imports, exports string) network {
	n := red
	n.imports, n.exports = imports, exports
	return n
}

// silent waits until a machine does not reach another one any more. Its caches
// still know the way, so that it is the network that does not forward.
func (v *vm) silent(other *vm) {
	v.node.t.Helper()
	for _, a := range []netip.Addr{other.v4.Addr(), other.v6.Addr()} {
		eventually(v.node.t, routeTimeout, func() error {
			if pings(v.node.t, v, a) == nil {
				return fmt.Errorf("%s still reaches %s", v.tap, a)
			}
			return nil
		})
	}
}

// TestRouteTargetChange changes the route targets of an instance that runs. The
// kernels of the other nodes follow, flood lists included.
func TestRouteTargetChange(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b, c := f.node("a", 11), f.node("b", 12), f.node("c", 13)
	a1, b1, c1 := a.vm("a1", 11), b.vm("b1", 21), c.vm("c1", 31)
	for _, v := range []*vm{a1, b1, c1} {
		v.attach(red)
	}
	var none forwarding
	all := func(at *node) forwarding {
		w := none
		for _, v := range []*vm{a1, b1, c1} {
			if v.node != at {
				w = w.behind(v.node.addr, v)
			}
		}
		return w
	}
	steps := []struct {
		name    string
		to      network
		a, b, c forwarding
		reached bool // b1 by a1
	}{
		{"at first", red, all(a), all(b), all(c), true},
		{"both to others", targets(blueTarget, blueTarget), none, none.behind(c.addr, c1), none.behind(b.addr, b1), false},
		{"both back", red, all(a), all(b), all(c), true},
		{"imports only", targets(blueTarget, redTarget), none, all(b), all(c), false},
		{"imports back", red, all(a), all(b), all(c), true},
		{"exports only", targets(redTarget, blueTarget), all(a), none.behind(c.addr, c1), none.behind(b.addr, b1), false},
		{"exports back", red, all(a), all(b), all(c), true},
	}
	for _, s := range steps {
		t.Log(s.name)
		a1.attach(s.to)
		a.forwards(red, s.a)
		b.forwards(red, s.b)
		c.forwards(red, s.c)
		if s.reached {
			a1.reaches(b1)
			b1.reaches(a1)
		} else {
			a1.silent(b1)
		}
		b1.reaches(c1)
	}
}

// TestOneAttachOfSeveralChangesTheInstance: route targets are the instance's,
// so that a change through one endpoint moves all of it.
func TestOneAttachOfSeveralChangesTheInstance(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	for _, v := range []*vm{a1, a2, b1} {
		v.attach(red)
	}
	var none forwarding
	b.forwards(red, none.behind(a.addr, a1, a2))
	a.attach(a1.request(targets(redTarget, blueTarget), a1.v4.String()))
	b.forwards(red, none)
	a1.reaches(a2) // what is local stays
	a.attach(a2.request(red, a2.v6.String()))
	b.forwards(red, none.behind(a.addr, a1, a2))
	b1.reaches(a1, a2)
}
