// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"testing"
)

// Outer packets that come in fragments are delivered too, one by one.
func TestFragmentsOfOuterPackets(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, e := range allEncaps {
			t.Run(fmt.Sprintf("%s underlay v6=%v", e, v6), func(t *testing.T) {
				p := newPair(t, v6, e, Config{})
				p.a.ping(t, p.b.ip4)
				f := fragmenter{v6: v6, from: p.y, to: p.x, vm: p.a, remote: p.b}
				for _, inner6 := range []bool{false, true} {
					s := sniff(t, p.a.NS, "eth0")
					f.send(t, e, 1001, inner6)
					got, ok := s.next(5e9, func(g frame) bool { return !g.outgoing && g.length > 1000 })
					if !ok {
						t.Errorf("inner v6=%v: nothing arrives", inner6)
						continue
					}
					if want := f.packet(inner6); string(got.b[14:]) != string(want) || string(got.b[:6]) != string(p.a.mac[:]) {
						t.Errorf("inner v6=%v: got %x", inner6, got.b)
					}
				}
			})
		}
	}
}

func FuzzDecapsulate(f *testing.F) {
	f.Add([]byte{0, 0, 0x88, 0x47, 0, 0x3e, 0x91, 0x40, 0x45, 0})
	f.Add(append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func([]byte) (parcel, bool){popLabel, openGRE, openVXLAN} {
			for _, in := range [][]byte{b, afterIPv4(b)} {
				if p, ok := read(in); ok {
					if len(p.packet) == 0 || p.key.Label > maxVNI {
						t.Errorf("%x gives %+v", in, p)
					}
					_, _ = destination(p.packet)
				}
			}
		}
	})
}
