// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"slices"
	"testing"
)

// FuzzFlow checks that a flow's ranges match the ports that its operators match one by
// one, and that what is decoded survives being encoded.
func FuzzFlow(f *testing.F) {
	for _, s := range []string{"0118cb007102100a01038106058150061303e8d507d0", "05030a451406", "0411007b91ffff", "058650", "0301068111"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false, uint16(80))
	}
	f.Add([]byte{1, 64, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0}, true, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, ipv6 bool, port uint16) {
		if !validFlow(b, ipv6) {
			return
		}
		if FlowText(b, ipv6) == "" {
			t.Error("no text")
		}
		flow, err := ParseFlow(b, ipv6)
		if err != nil {
			return
		}
		for rest := b; len(rest) > 0; {
			typ, value, next, ok := splitComponent(rest, ipv6)
			if !ok {
				t.Fatal("a valid flow is not split")
			}
			rest = next
			if typ == flowDestinationPort {
				if want, got := matchesPort(value, uint64(port)), inRanges(flow.DestinationPorts, port); want != got {
					t.Errorf("port %d matches %x: %v, ranges %v: %v", port, value, want, flow.DestinationPorts, got)
				}
			}
		}
		again, err := ParseFlow(flow.append(nil), ipv6)
		if err != nil || again.Destination != flow.Destination || again.Source != flow.Source ||
			!slices.Equal(again.Protocols, flow.Protocols) || !slices.Equal(again.Ports, flow.Ports) ||
			!slices.Equal(again.DestinationPorts, flow.DestinationPorts) || !slices.Equal(again.SourcePorts, flow.SourcePorts) {
			t.Errorf("encoded and decoded: %+v, was %+v (%v)", again, flow, err)
		}
	})
}

// matchesPort evaluates operators as RFC 8955 §4.2.1.1 says: AND before OR.
func matchesPort(v []byte, port uint64) bool {
	some, all := false, false
	for first := true; len(v) > 0; first = false {
		op, size := v[0], 1<<(v[0]>>4&3)
		n := flowValue(v[1 : 1+size])
		one := op&4 != 0 && port < n || op&2 != 0 && port > n || op&1 != 0 && port == n
		if op&0x40 != 0 && !first {
			all = all && one
		} else {
			some, all = some || all, one
		}
		v = v[1+size:]
	}
	return some || all
}

func inRanges(list []Range, n uint16) bool {
	return slices.ContainsFunc(list, func(r Range) bool { return r.First <= n && n <= r.Last })
}
