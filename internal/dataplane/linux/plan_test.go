// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/google/go-cmp/cmp"
)

func mac(n int) ethernet.MAC { return ethernet.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

func via(addr string, vni uint32) []dataplane.NextHop {
	return []dataplane.NextHop{{Addr: netip.MustParseAddr(addr), Label: vni, Encap: encap.VXLAN}}
}

func localPort(port string) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalPort, Port: port}
}

func localMAC(n int, port string) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalMAC, MAC: mac(n), Port: port}
}

func remoteMAC(n int, addr string, vni uint32) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac(n), NextHops: via(addr, vni)}
}

func neighbour(ip string, n int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Neighbour, IP: netip.MustParseAddr(ip), MAC: mac(n)}
}

func flood(addr string, vni uint32) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Flood, NextHops: via(addr, vni)}
}

var (
	placesMu sync.Mutex
	places   = map[string]uint32{}
)

// place returns a number for Change.At: the same for entries that replace each other.
func place(e dataplane.Entry) uint32 {
	key := e.Kind.String()
	switch e.Kind {
	case dataplane.RemoteMAC:
		key += e.MAC.String()
	case dataplane.Neighbour:
		key += e.IP.String()
	case dataplane.Prefix:
		key += e.Prefix.String()
	case dataplane.Flood:
		key += fmt.Sprint(e.NextHops)
	}
	placesMu.Lock()
	defer placesMu.Unlock()
	if _, known := places[key]; !known {
		places[key] = uint32(len(places))
	}
	return places[key]
}

func add(entries ...dataplane.Entry) []dataplane.Change {
	var changes []dataplane.Change
	for _, e := range entries {
		changes = append(changes, dataplane.Change{At: place(e), Entry: e})
	}
	return changes
}

func del(entries ...dataplane.Entry) []dataplane.Change {
	changes := add(entries...)
	for i := range changes {
		changes[i].Delete = true
	}
	return changes
}

// In the expected text, device #10 is the bridge, #11 the VXLAN device and #12 a port.
func TestPlan(t *testing.T) {
	t.Parallel()
	const local4, local6 = "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name  string
		local string
		in    []dataplane.Change
		want  []string
	}{
		{
			"local MAC", local4, add(localMAC(1, "tap0")),
			[]string{"fdb replace 02:00:00:00:00:01 dev #12 master extern_learn permanent"},
		},
		{
			"local MAC deleted", local4, del(localMAC(1, "tap0")),
			[]string{"fdb del 02:00:00:00:00:01 dev #12 master"},
		},
		{
			"remote MAC is one message for both tables", local4, add(remoteMAC(1, "192.0.2.9", 100)),
			[]string{"fdb replace 02:00:00:00:00:01 dev #11 dst 192.0.2.9 vni 100 self master extern_learn permanent"},
		},
		{
			"remote MAC over IPv6", local6, add(remoteMAC(1, "2001:db8::9", 16777215)),
			[]string{"fdb replace 02:00:00:00:00:01 dev #11 dst 2001:db8::9 vni 16777215 self master extern_learn permanent"},
		},
		{
			"remote MAC without encapsulation community", local4,
			add(dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac(1), NextHops: []dataplane.NextHop{{Addr: netip.MustParseAddr("192.0.2.9"), Label: 5}}}),
			[]string{"fdb replace 02:00:00:00:00:01 dev #11 dst 192.0.2.9 vni 5 self master extern_learn permanent"},
		},
		{
			"remote MAC is deleted by MAC in both tables", local4,
			del(dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac(1)}),
			[]string{"fdb del 02:00:00:00:00:01 dev #11 master", "fdb del 02:00:00:00:00:01 dev #11 self"},
		},
		{
			"neighbours", local4, add(neighbour("198.51.100.1", 1), neighbour("2001:db8:1::1", 2)),
			[]string{
				"neigh replace 198.51.100.1 dev #10 lladdr 02:00:00:00:00:01 extern_learn noarp proto 19",
				"neigh replace 2001:db8:1::1 dev #10 lladdr 02:00:00:00:00:02 extern_learn noarp proto 19",
			},
		},
		{
			"neighbour is deleted by address", local4,
			del(dataplane.Entry{Kind: dataplane.Neighbour, IP: netip.MustParseAddr("198.51.100.1")}),
			[]string{"neigh del 198.51.100.1 dev #10"},
		},
		{
			"flood is appended, and deleted by far end", local4,
			append(add(flood("192.0.2.9", 100)), del(flood("192.0.2.8", 101))...),
			[]string{
				"fdb append 00:00:00:00:00:00 dev #11 dst 192.0.2.9 vni 100 self extern_learn permanent",
				"fdb del 00:00:00:00:00:00 dev #11 dst 192.0.2.8 vni 101 self",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := planner{bridge: 10, vxlan: 11, local: netip.MustParseAddr(tt.local)}
			var got []string
			for _, c := range tt.in {
				msgs, err := p.plan(nil, c, 12)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range msgs {
					got = append(got, m.String())
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	hop := func(nh ...dataplane.NextHop) dataplane.Entry {
		return dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac(1), NextHops: nh}
	}
	a := netip.MustParseAddr
	for _, tt := range []struct {
		name string
		in   dataplane.Entry
		want string
	}{
		{"bad no next hop", hop(), "0 next hops"},
		{"bad two next hops", hop(via("192.0.2.8", 1)[0], via("192.0.2.9", 1)[0]), "2 next hops"},
		{"bad family", hop(via("2001:db8::9", 1)...), "2001:db8::9 is not of the address family of the local address 192.0.2.1"},
		{"bad VNI 0", hop(via("192.0.2.9", 0)...), "VNI 0"},
		{"bad VNI", hop(via("192.0.2.9", 1<<24)...), "VNI 16777216"},
		{"bad encapsulation", hop(dataplane.NextHop{Addr: a("192.0.2.9"), Label: 1, Encap: encap.MPLS}), "MPLS"},
		{"bad multicast next hop", hop(via("239.0.0.1", 1)...), "239.0.0.1"},
		{"bad no address", hop(dataplane.NextHop{Label: 1}), "not a unicast address"},
		{"bad zero MAC", dataplane.Entry{Kind: dataplane.RemoteMAC, NextHops: via("192.0.2.9", 1)}, "00:00:00:00:00:00"},
		{"bad multicast MAC", dataplane.Entry{Kind: dataplane.LocalMAC, MAC: ethernet.MAC{1}}, "01:00:00:00:00:00"},
		{"bad neighbour", dataplane.Entry{Kind: dataplane.Neighbour, MAC: mac(1)}, "neighbour address"},
		{"bad neighbour MAC", dataplane.Entry{Kind: dataplane.Neighbour, IP: a("192.0.2.1")}, "00:00:00:00:00:00"},
		{"bad kind", dataplane.Entry{Kind: dataplane.Prefix}, "prefix"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := planner{bridge: 10, vxlan: 11, local: a("192.0.2.1")}
			msgs, err := p.plan(nil, dataplane.Change{Entry: tt.in}, 12)
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(msgs) != 0 {
				t.Errorf("plan = %v, %v; want an error with %q", msgs, err, tt.want)
			}
		})
	}
}
