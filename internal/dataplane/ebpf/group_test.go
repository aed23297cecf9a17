// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func hopsOf(orders ...uint32) (out []hopValue) {
	for i, o := range orders {
		out = append(out, hopValue{
			Remote: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).As16(), Label: uint32(1000 + i), Order: o,
		})
	}
	return out
}

func TestNumbersOfHops(t *testing.T) {
	for _, c := range []struct {
		orders []uint32
		want   []uint64
	}{
		{[]uint32{1, 0}, []uint64{1, 0}},
		{[]uint32{0, 5, 5}, []uint64{0, 5, 1}},
		{[]uint32{5, 0, 5}, []uint64{5, 0, 1}},
		{[]uint32{7, 7, 7}, []uint64{7, 0, 1}},
		{[]uint32{0, 0, 1}, []uint64{0, 2, 1}},
	} {
		if got := numbersOf(hopsOf(c.orders...)); !slices.Equal(got, c.want) {
			t.Errorf("orders %v: numbers %v, want %v", c.orders, got, c.want)
		}
	}
}

func slotsOf(hops []hopValue) (out [slots]hopValue) {
	var table [slots]uint8
	fill(&table, hops)
	for i, s := range table {
		out[i] = hops[s]
	}
	return out
}

// All nodes choose equally, whatever order routes came in; equal orders are what
// counts, when there are any; and a hop that goes moves only its own slots.
func TestSlots(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var orders []uint32
		if rapid.Bool().Draw(t, "ordered") {
			orders = rapid.SliceOfNDistinct(rapid.Uint32Range(0, 200), 2, maxHops, rapid.ID[uint32]).Draw(t, "orders")
		} else {
			orders = make([]uint32, rapid.IntRange(2, maxHops).Draw(t, "hops"))
		}
		hops := hopsOf(orders...)
		before := slotsOf(hops)
		if got := slotsOf(rapid.Permutation(hops).Draw(t, "shuffled")); got != before {
			t.Fatal("another order gives other slots")
		}
		gone := rapid.IntRange(0, len(hops)-1).Draw(t, "gone")
		after := slotsOf(slices.Delete(slices.Clone(hops), gone, gone+1))
		for i := range before {
			if before[i] != hops[gone] && before[i] != after[i] {
				t.Fatalf("slot %d has moved", i)
			}
		}
		if slices.Max(orders) == 0 {
			return
		}
		far := hopsOf(orders...)
		for i := range far { // the other side of a service chain
			far[i].Label += 500
			far[i].Remote[15] += 100
		}
		back := slotsOf(far)
		for i := range before {
			if before[i].Order != back[i].Order {
				t.Fatalf("slot %d: order %d on one side, %d on the other", i, before[i].Order, back[i].Order)
			}
		}
	})
}

func TestSlotsAreSharedFairly(t *testing.T) {
	for n := 2; n <= 16; n *= 2 {
		count := map[uint32]int{}
		for _, h := range slotsOf(hopsOf(make([]uint32, n)...)) {
			count[h.Label]++
		}
		for label, c := range count {
			if len(count) != n || c < slots/n/3 || c > slots*2/n {
				t.Errorf("%d hops: %d have slots, %d has %d of %d", n, len(count), label, c, slots)
			}
		}
	}
}

// Addresses and prefixes come back from the kernel's form as they were.
func TestPrefix16(t *testing.T) {
	for _, s := range []string{"0.0.0.0/0", "198.51.100.1/32", "198.51.100.0/24", "::/0", "2001:db8::/32", "2001:db8::1/128"} {
		p := netip.MustParsePrefix(s)
		if got := prefixOf(prefix16(p)); got != p {
			t.Errorf("%s comes back as %s", p, got)
		}
	}
}

func FuzzKernelValues(f *testing.F) {
	f.Add(make([]byte, 64), uint32(0), uint8(0))
	f.Fuzz(func(_ *testing.T, b []byte, bits uint32, small uint8) {
		var k endpointKey
		var v endpointValue
		copy(k.Addr[:], b)
		copy(v.Port[:], b)
		copy(v.Prefix[:], b)
		v.PrefixBits, v.Direction, v.HasGateway = bits, small, small
		_ = entryOf(k, &v).String()
		h := hopValue{Remote: v.Prefix, Label: bits, Tx: small}
		_ = h.nextHop().String()
		r := vrfValue{Gateway: k.Addr, GatewayBits: small, HasGateway: small, IDLength: small}
		_, _ = r.id(), r.subnet()
		g := groupValue{Addr: k.Addr, Bits: bits, Count: bits}
		_, _ = g.nextHops(), prefixOf(g.Addr, g.Bits)
		_ = key4{Bits: bits}.prefix()
		_ = key6{Bits: bits, Addr: k.Addr}.prefix()
	})
}
