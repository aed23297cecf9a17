// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// benchRoutes returns n routes of a family.
func benchRoutes(f Family, n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		switch f {
		case VPNv4:
			routes[i] = manyPrefixes(i + 1)[i]
		case EVPN:
			routes[i] = manyMACs(i + 1)[i]
		case VPNv6:
			var a [16]byte
			copy(a[:], []byte{0x20, 1, 0xd, 0xb8})
			binary.BigEndian.PutUint32(a[12:], uint32(i))
			routes[i] = Route{NLRI: VPNRoute(testRD, netip.PrefixFrom(netip.AddrFrom16(a), 128)), Label: LabelField(17)}
		case RTC:
			rt := RT{0, 2, 0xfc}
			binary.BigEndian.PutUint32(rt[4:], uint32(i))
			routes[i] = Route{NLRI: RTCRoute(64512, rt)}
		default:
			raw := []byte{1, 32, 10, 0, byte(i >> 8), byte(i), 3, 0x81, 6}
			routes[i] = Route{NLRI: NLRI{Kind: KindFlowVPNv4, RD: testRD, Addr: digest(raw)}, Raw: raw}
		}
	}
	return routes
}

// benchMessage packs n routes into one message.
func benchMessage(b *testing.B, f Family, n int) []byte {
	b.Helper()
	nh := netip.MustParseAddr("192.0.2.1")
	p := NewPacker(MaxExtMessage)
	p.Announce(f, LocalAttrs{NextHop: nh, RTs: []RT{{0, 2, 0xfc, 0, 0, 0, 0, 1}}, Communities: []ExtCommunity{{3, 0xc, 0, 0, 0, 0, 0, 8}}}.Build().Raw, nh)
	for _, r := range benchRoutes(f, n) {
		p.Add(r)
	}
	return append([]byte(nil), p.Flush()...)
}

// decodeAll does what a session does with an UPDATE message whose attributes
// are known.
func decodeAll(b *testing.B, msg, scratch []byte) (int, []byte) {
	u, err := ParseUpdate(msg[HeaderLen:], scratch)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	r := NewNLRIReader(u.Reach.Family, u.Reach.NLRI, false)
	var route Route
	for {
		ok, err := r.Next(&route)
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			return n, u.Attrs
		}
		n++
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range []Family{VPNv4, VPNv6, EVPN, FlowVPNv4, RTC} {
		for _, n := range []int{1, 100} {
			msg := benchMessage(b, f, n)
			name := fmt.Sprintf("%v/%d", f, n)
			perRoute := func(b *testing.B) {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/route")
			}
			b.Run(name+"/ours", func(b *testing.B) {
				b.ReportAllocs()
				var scratch []byte
				for b.Loop() {
					var got int
					if got, scratch = decodeAll(b, msg, scratch); got != n {
						b.Fatalf("%d routes, want %d", got, n)
					}
				}
				perRoute(b)
			})
			b.Run(name+"/ours+attributes", func(b *testing.B) {
				b.ReportAllocs()
				var scratch []byte
				for b.Loop() {
					_, scratch = decodeAll(b, msg, scratch)
					if _, err := DecodeAttrs(scratch, netip.Addr{}, Rules{FourOctetAS: true}); err != nil {
						b.Fatal(err)
					}
				}
				perRoute(b)
			})
			b.Run(name+"/gobgp", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := bgp.ParseBGPMessage(msg); err != nil {
						b.Fatal(err)
					}
				}
				perRoute(b)
			})
		}
	}
}

func BenchmarkPack(b *testing.B) {
	nh := netip.MustParseAddr("192.0.2.1")
	attrs := LocalAttrs{NextHop: nh, RTs: []RT{{0, 2, 0xfc, 0, 0, 0, 0, 1}}}.Build()
	for _, f := range []Family{VPNv4, EVPN} {
		for _, n := range []int{1, 100} {
			routes := benchRoutes(f, n)
			b.Run(fmt.Sprintf("%v/%d", f, n), func(b *testing.B) {
				b.ReportAllocs()
				p := NewPacker(MaxMessage)
				for b.Loop() {
					p.Announce(f, attrs.Raw, nh)
					for _, r := range routes {
						if !p.Add(r) {
							b.Fatal("route refused")
						}
					}
					p.Flush()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/route")
			})
		}
	}
}
