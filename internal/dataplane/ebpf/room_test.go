// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// There is room for a class when then no packet can make the program look at too much.
func TestRoom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	random := func(lengths int) netip.Prefix {
		addr := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)) << 6})
		return netip.PrefixFrom(addr, []int{0, 8, 9, 10, 32}[r.IntN(lengths)]).Masked()
	}
	var c classes
	model, full := map[netip.Prefix]int{}, 0
	for step := range 3000 {
		if step%500 == 0 {
			c, model = classes{}, map[netip.Prefix]int{}
		}
		p := random(1 + step/100%5) // those within full ones come later
		steps := func(at netip.Prefix) (n int) {
			for o, k := range model {
				if o.Bits() <= at.Bits() && o.Contains(at.Addr()) {
					n += k + 1
				}
			}
			return n
		}
		want := steps(p)+2 <= classSteps
		for o := range model {
			if p.Bits() <= o.Bits() && p.Contains(o.Addr()) {
				want = want && steps(o)+2 <= classSteps
			}
		}
		switch got := c.room(p); {
		case got != want:
			t.Fatalf("room for %s: %v, with %v", p, got, model)
		case got:
			model[p]++
		default:
			full++
			if p = random(5); model[p] > 1 {
				model[p]--
			} else {
				delete(model, p)
			}
		}
		c.Set(p, make([]class, model[p]))
	}
	if full == 0 || full > 2500 {
		t.Errorf("%d of 3000 classes had no room", full)
	}
}

func BenchmarkRoom(b *testing.B) {
	for b.Loop() {
		var c classes
		for i := range 10000 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24)
			if !c.room(p) {
				b.Fatal("no room")
			}
			c.Set(p, []class{{}})
		}
	}
}
