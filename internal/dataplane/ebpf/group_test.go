// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"net/netip"
	"testing"
)

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
