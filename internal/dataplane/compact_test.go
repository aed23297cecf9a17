// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

func genAddr() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v6") {
			return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6 octets")))
		}
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4 octets")))
	})
}

func genHop() *rapid.Generator[dataplane.NextHop] {
	return rapid.Custom(func(t *rapid.T) dataplane.NextHop {
		return dataplane.NextHop{
			Addr: genAddr().Draw(t, "next hop"), Label: rapid.Uint32Range(0, 1<<24-1).Draw(t, "label"),
			Encap: rapid.SampledFrom([]encap.Type{encap.Default, encap.GRE, encap.VXLAN, encap.MPLS, encap.MPLSInUDP}).Draw(t, "encap"),
			Order: rapid.SampledFrom([]uint32{0, 0, 0, 1, 1<<32 - 1}).Draw(t, "order"),
		}
	})
}

func genMAC() *rapid.Generator[ethernet.MAC] {
	return rapid.Custom(func(t *rapid.T) ethernet.MAC {
		return ethernet.MAC(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
	})
}

// genRemote makes entries of remote origin of all kinds.
func genRemote() *rapid.Generator[dataplane.Entry] {
	return rapid.Custom(func(t *rapid.T) dataplane.Entry {
		e := dataplane.Entry{Kind: rapid.SampledFrom([]dataplane.Kind{
			dataplane.RemoteMAC, dataplane.Neighbour, dataplane.Flood, dataplane.Prefix,
		}).Draw(t, "kind")}
		most := 1
		switch e.Kind {
		case dataplane.RemoteMAC:
			e.MAC = genMAC().Draw(t, "mac")
		case dataplane.Neighbour:
			e.IP, e.MAC = genAddr().Draw(t, "ip"), genMAC().Draw(t, "mac")
			return e
		case dataplane.Prefix:
			a := genAddr().Draw(t, "prefix")
			e.Prefix = netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "length")).Masked()
			most = 300
		}
		e.NextHops = rapid.SliceOfN(genHop(), 1, most).Draw(t, "next hops")
		return e
	})
}

func TestCompactRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := genRemote().Draw(t, "entry")
		if diff := cmp.Diff(want, dataplane.RoundTrip(want), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("compact and expand (-want +got):\n%s", diff)
		}
	})
}

func TestCompactKeepsKeysApart(t *testing.T) {
	t.Parallel()
	v4, mapped := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::")
	other := flood(1)
	other.NextHops = []dataplane.NextHop{{Addr: hop(1).Addr, Label: 101, Encap: encap.VXLAN}}
	ordered := flood(1)
	ordered.NextHops = []dataplane.NextHop{{Addr: hop(1).Addr, Label: 100, Encap: encap.VXLAN, Order: 7}}
	for _, tt := range []struct {
		name string
		a, b dataplane.Entry
		want bool
	}{
		{"mac by mac", remoteMAC(1, 1), remoteMAC(1, 2), true},
		{"other mac", remoteMAC(1, 1), remoteMAC(2, 1), false},
		{"neighbour by address", neighbour(1, 1), neighbour(1, 2), true},
		{"other address", neighbour(1, 1), neighbour(2, 1), false},
		{"unspecified addresses", dataplane.Entry{Kind: dataplane.Neighbour, IP: v4}, dataplane.Entry{Kind: dataplane.Neighbour, IP: mapped}, false},
		{"flood by tunnel end and VNI", flood(1), ordered, true},
		{"flood to other VNI", flood(1), other, false},
		{"flood to other tunnel end", flood(1), flood(2), false},
		{"prefix by prefix", prefix(1, 1), prefix(1, 2, 3), true},
		{"default routes", dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(v4, 0)}, dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(mapped, 0)}, false},
		{
			"other length", prefix(1, 1),
			dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix("203.0.1.0/25"), NextHops: prefix(1, 1).NextHops}, false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := dataplane.SameKey(tt.a, tt.b); got != tt.want {
				t.Errorf("SameKey(%s, %s) = %v, want %v", tt.a, tt.b, got, tt.want)
			}
		})
	}
}
