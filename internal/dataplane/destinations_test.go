// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// holds tells whether all of a prefix is in another.
func holds(p, o netip.Prefix) bool { return p.Bits() <= o.Bits() && p.Contains(o.Addr()) }

func TestByDestination(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	random := func() netip.Prefix {
		b := [16]byte{0x20, 1, 0xd, 0xb8, byte(r.IntN(4)) << 6}
		addr := netip.AddrFrom16(b)
		if r.IntN(2) == 0 {
			addr = netip.AddrFrom4([4]byte{10, byte(r.IntN(4)) << 6, byte(r.IntN(2))})
		}
		return netip.PrefixFrom(addr, []int{0, 7, 8, 9, 10, 24, 32, addr.BitLen()}[r.IntN(8)]).Masked()
	}
	var b dataplane.ByDestination[int]
	model := map[netip.Prefix][]int{}
	for step := range 3000 {
		p, list := random(), []int{step}
		if r.IntN(2) == 0 {
			list = nil
			delete(model, p)
		} else {
			model[p] = list
		}
		b.Set(p, list)
		at := random()
		if b.Len() != len(model) || !slices.Equal(b.List(at), model[at]) || !maps.EqualFunc(maps.Collect(b.All()), model, slices.Equal) {
			t.Fatalf("step %d: %d lists, that of %s is %v: want %v", step, b.Len(), at, b.List(at), model)
		}
		var around [][]int
		for bits := at.Bits(); bits >= 0; bits-- {
			if list := model[netip.PrefixFrom(at.Addr(), bits).Masked()]; list != nil {
				around = append(around, list)
			}
		}
		if got := slices.Collect(b.Around(at)); !slices.EqualFunc(got, around, slices.Equal) {
			t.Fatalf("step %d: around %s are %v, want %v", step, at, got, around)
		}
		within := map[netip.Prefix][]int{}
		for o, list := range b.Within(at) {
			for before := range within {
				if holds(o, before) {
					t.Fatalf("step %d: %s comes before %s", step, before, o)
				}
			}
			within[o] = list
		}
		want := maps.Clone(model)
		maps.DeleteFunc(want, func(o netip.Prefix, _ []int) bool { return !holds(at, o) })
		if !maps.EqualFunc(within, want, slices.Equal) {
			t.Fatalf("step %d: within %s are %v, want %v", step, at, within, want)
		}
	}
}
