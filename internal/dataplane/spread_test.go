// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

const testSlots = 128

func hopsOf(orders ...uint32) (out []dataplane.NextHop) {
	for i, o := range orders {
		out = append(out, dataplane.NextHop{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Label: uint32(100 + i), Order: o})
	}
	return out
}

func slotsOf(hops []dataplane.NextHop) (out [testSlots]dataplane.NextHop) {
	var table [testSlots]uint8
	dataplane.Spread(hops, table[:])
	for i, s := range table {
		out[i] = hops[s]
	}
	return out
}

// Hops with the same order count by address and label, as those without: when others go,
// they stay where they are.
func TestNumbersOfHops(t *testing.T) {
	t.Parallel()
	hashed := dataplane.NumbersOf(hopsOf(0, 0, 0, 0))
	for _, c := range []struct {
		orders []uint32
		want   []uint64
	}{
		{[]uint32{1, 0}, []uint64{1, 0}},
		{[]uint32{0, 5, 5}, []uint64{0, hashed[1], hashed[2]}},
		{[]uint32{7, 7, 7}, hashed[:3]},
		{[]uint32{0, 0, 0, 1}, []uint64{hashed[0], hashed[1], hashed[2], 1}},
	} {
		if got := dataplane.NumbersOf(hopsOf(c.orders...)); !slices.Equal(got, c.want) {
			t.Errorf("orders %v: numbers %v, want %v", c.orders, got, c.want)
		}
	}
}

// All nodes choose equally, whatever order routes came in; equal orders are what
// counts, when there are any; and a hop that goes moves only its own slots.
func TestSpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var orders []uint32
		if rapid.Bool().Draw(t, "ordered") {
			orders = rapid.SliceOfNDistinct(rapid.Uint32Range(0, 200), 2, 64, rapid.ID[uint32]).Draw(t, "orders")
		} else {
			orders = make([]uint32, rapid.IntRange(2, 64).Draw(t, "hops"))
		}
		hops := hopsOf(orders...)
		before := slotsOf(hops)
		if got := slotsOf(rapid.Permutation(hops).Draw(t, "shuffled")); got != before {
			t.Fatal("another order gives other slots")
		}
		gone := rapid.IntRange(0, len(hops)-1).Draw(t, "gone")
		left := slices.Delete(slices.Clone(hops), gone, gone+1)
		if dataplane.Ordered(hops) && !dataplane.Ordered(left) {
			return // one is left
		}
		after := slotsOf(left)
		for i := range before {
			if before[i] != hops[gone] && before[i] != after[i] {
				t.Fatalf("slot %d has moved", i)
			}
		}
		if !dataplane.Ordered(hops) {
			return
		}
		far := hopsOf(orders...)
		for i := range far { // the other side of a service chain
			far[i].Label += 500
			far[i].Addr = netip.AddrFrom4([4]byte{192, 0, 3, byte(i)})
		}
		back := slotsOf(far)
		for i := range before {
			if before[i].Order != back[i].Order {
				t.Fatalf("slot %d: order %d on one side, %d on the other", i, before[i].Order, back[i].Order)
			}
		}
	})
}

func TestSpreadIsFair(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 4, 5, 6, 7, 8, 16} {
		orders := make([]uint32, n)
		for i := range orders {
			orders[i] = uint32(i)
		}
		if n <= 8 {
			for _, slots := range []int{64, testSlots} {
				table := make([]uint8, slots)
				dataplane.Spread(hopsOf(orders...), table)
				count := make([]int, n)
				for _, i := range table {
					count[i]++
				}
				if least, most := slices.Min(count), slices.Max(count); least*5*n < slots*4 || most*5*n > slots*6 {
					t.Errorf("%d hops with orders have %v of %d slots", n, count, slots)
				}
			}
		}
		for what, hops := range map[string][]dataplane.NextHop{"without orders": hopsOf(make([]uint32, n)...), "with": hopsOf(orders...)} {
			count := map[uint32]int{}
			for _, h := range slotsOf(hops) {
				count[h.Label]++
			}
			for label, c := range count {
				if len(count) != n || c < testSlots/n/3 || c > testSlots*2/n {
					t.Errorf("%d hops %s: %d have slots, %d has %d of %d", n, what, len(count), label, c, testSlots)
				}
			}
		}
	}
}
