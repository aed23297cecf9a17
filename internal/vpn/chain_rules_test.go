// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// records returns as many RT-records, from 64512:first on.
func records(first, count int) (out []wire.ExtCommunity) {
	for n := range count {
		out = append(out, record(fmt.Sprintf("64512:%d", first+n)))
	}
	return out
}

// Of the routes for a prefix the one that has come the shortest way is announced again, in
// whatever order they came.
func TestChainChoice(t *testing.T) {
	type path struct {
		rd    byte
		first int // of its RT-records
		count int // of them, and its route target
		stale bool
	}
	for _, tt := range []struct {
		name  string
		paths []path
		want  int // the first RT-record, 0: not announced
	}{
		{"as many as there may be", []path{{rd: 1, first: 1000, count: 200}}, 1000},
		{"too many", []path{{rd: 1, first: 1000, count: 201}}, 0},
		{"too many, and another", []path{{rd: 1, first: 1000, count: 201}, {rd: 2, first: 2000, count: 200}}, 2000},
		{"fewer", []path{{rd: 1, first: 1000, count: 4}, {rd: 2, first: 2000, count: 3}}, 2000},
		{"as many: the lower RD", []path{{rd: 1, first: 2000, count: 3}, {rd: 2, first: 1000, count: 3}}, 2000},
		{"of last resort", []path{{rd: 1, first: 1000, count: 2, stale: true}, {rd: 2, first: 2000, count: 200}}, 2000},
		{"nothing but last resort", []path{{rd: 1, first: 1000, count: 200, stale: true}}, 1000},
		{"last resort, as many", []path{{rd: 1, first: 2000, count: 3, stale: true}, {rd: 2, first: 1000, count: 3, stale: true}}, 2000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				for _, backwards := range []bool{false, true} {
					n := newNode(t, setup{})
					live, stale := n.peer("BGP-10.77.0.8"), n.peer("BGP-10.77.0.9")
					n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:502")))
					paths := slices.Clone(tt.paths)
					if backwards {
						slices.Reverse(paths)
					}
					for _, x := range paths {
						p := live
						if x.stale {
							p = stale
						}
						p.vpn(x.rd, "203.0.113.0/24", append(records(x.first, x.count-1), target("64512:501"))...)
					}
					n.rib.MarkStale(stale.id)
					n.rib.MarkLongLived(stale.id)
					settle()
					got := n.chainLines("hop")
					if tt.want == 0 && len(got) > 0 || tt.want > 0 && (len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf(" rtrecord:64512:%d ", tt.want))) {
						t.Errorf("announced %v, want the route with RT-record %d", got, tt.want)
					}
				}
			})
		})
	}
}

// The default route has the RT-records of the prefix that has come the shortest way, whatever
// the order; and keeps them as long as any prefix has them.
func TestChainDefaultRoute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for range 8 { // the order of a map
			n := newNode(t, setup{})
			p := n.peer("BGP-10.77.0.9")
			n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:502"), attract("64512:603", "", tcp80)))
			want := func(records string) {
				t.Helper()
				line := "0.0.0.0/0 rd 10.77.0.1:1 pref 100 consistentHashSortOrder:0 rtrecord:64512:501 " + records + "target:64512:502"
				got := slices.DeleteFunc(n.chainLines("hop"), func(s string) bool { return !strings.HasPrefix(s, "0.0.0.0/0 ") })
				wantLines(t, "default route", []string{line}, got)
			}
			p.vpn(1, "203.0.113.0/24", target("64512:501"), record("64512:800"), record("64512:801"))
			want("rtrecord:64512:800 rtrecord:64512:801 ")
			long := p.vpn(1, "198.51.100.0/24", target("64512:501"), record("64512:900"))
			want("rtrecord:64512:900 ")
			p.vpn(1, "192.0.2.0/24", target("64512:501"), record("64512:850"))
			p.vpn(1, "192.0.2.128/25", target("64512:501"), record("64512:850"))
			want("rtrecord:64512:850 ")
			p.vpn(1, "192.0.2.0/24", target("64512:501"), record("64512:990"))
			want("rtrecord:64512:850 ")
			p.vpn(1, "192.0.2.128/25", target("64512:501"), record("64512:990"))
			want("rtrecord:64512:900 ")
			p.withdraw(long)
			want("rtrecord:64512:990 ")
		}
	})
}

// A change of route targets announces what comes of it and nothing else, not even until the routes
// have been looked at again.
func TestChainChangeAtOnce(t *testing.T) {
	start := []edit{readvertise("64512:501", "64512:502"), attract("64512:603", "", tcp80)}
	for _, tt := range []struct {
		name  string
		edits []edit
		count uint64 // of routes announced
	}{
		{"nothing", nil, 0},
		{"another to", []edit{readvertise("64512:501", "64512:504")}, 4},
		{"a to that routes have a record of", []edit{readvertise("64512:501", "64512:700")}, 2},
		{"a redirect RT that they have a record of", []edit{attract("64512:700", "", tcp80)}, 2},
		{"another from", []edit{readvertise("64512:503", "64512:502")}, 0},
		{"prefixes in place of flows", []edit{attract("", "", wire.Flow{})}, 2},
		{"none of it", []edit{readvertise("", "")}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				p := n.peer("BGP-10.77.0.9")
				n.attach(hop(1, "10.1.0.1", start...))
				p.vpn(1, "203.0.113.0/24", target("64512:501"))
				p.vpn(1, "198.51.100.0/24", target("64512:501"), record("64512:700"))
				p.flow(1, wire.Flow{}, target("64512:501"), redirect("64512:9"), record("64512:700"))
				before := n.rib.Stats().Announced
				if got := len(n.chainLines("hop")); got != 4 {
					t.Fatalf("%d routes to begin with: %v", got, n.chainLines("hop"))
				}
				n.attach(hop(1, "10.1.0.1", tt.edits...))
				if got := n.rib.Stats().Announced - before; got != tt.count {
					t.Errorf("announced %d routes, want %d; now\n%s", got, tt.count, strings.Join(n.chainLines("hop"), "\n"))
				}
			})
		})
	}
}

// announceMany announces as many prefixes, all at once.
func (p *peer) announceMany(count int, comms ...wire.ExtCommunity) {
	var b rib.Batch
	set := p.in.InternLocal(wire.LocalAttrs{NextHop: addr("10.77.2.9"), Communities: comms}.Build())
	b.Hold(set)
	for n := range count {
		b.Announce(wire.Route{NLRI: wire.VPNRoute(wire.RD{7: 7}, prefix(fmt.Sprintf("198.18.%d.%d", n/256, n%256))), Label: wire.LabelField(99)}, set)
	}
	p.n.rib.Apply(p.id, &b)
	settle()
}

// An instance has more entries than a worker takes at a time.
func TestChainOfManyRoutes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const many = 2500
		n := newNode(t, setup{})
		n.attach(hop(1, "10.1.0.1", imports("64512:1"), readvertise("64512:501", "64512:502")))
		for _, tt := range []struct {
			rt                  string
			announced, imported int
		}{{"64512:501", many, 0}, {"64512:1", 0, many}} {
			p := n.peer("BGP-10.77.0.9")
			p.announceMany(many, target(tt.rt))
			imported := 0
			for _, e := range n.plane.Entries(dataplane.IPVPN, "hop") {
				if strings.HasPrefix(e, "prefix 198.18.") {
					imported++
				}
			}
			if got := len(n.chainLines("hop")); got != tt.announced || imported != tt.imported {
				t.Errorf("routes with %s: %d announced again and %d imported, want %d and %d", tt.rt, got, imported, tt.announced, tt.imported)
			}
			n.rib.Purge(p.id)
			settle()
		}
		n.wantChain("hop")
	})
}

// A static prefix is announced as such, also while there is a route for it.
func TestStaticPrefixWithRoute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		both := []edit{readvertise("64512:501", "64512:502"), attract("64512:603", "64512:502", tcp80, "203.0.113.0/24")}
		static := []string{
			"0.0.0.0/0 rd 10.77.0.1:1 pref 100 consistentHashSortOrder:0 target:64512:502",
			"flow destination-ipv4 203.0.113.0/24 protocol =tcp destination-port =80 rd 10.77.0.1:0 pref 100 redirect:64512:502 target:64512:603",
		}
		n.attach(hop(1, "10.1.0.1", both...))
		r := p.vpn(1, "203.0.113.0/24", target("64512:501"))
		n.wantChain("hop", static...)
		n.attach(hop(1, "10.1.0.1", direction(dataplane.FromPort)))
		n.wantChain("hop")
		n.attach(hop(1, "10.1.0.1"))
		n.wantChain("hop", static...)
		p.withdraw(r)
		n.wantChain("hop", static...)
	})
}

// An endpoint has a route distinguisher for routes of others once there are any through it.
func TestChainRDsOfEndpointsThatAreThere(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(hop(1, "10.1.0.1"), hop(2, "10.1.0.2"), hop(3, "10.1.0.3", direction(dataplane.FromPort)))
		for _, tt := range []struct {
			edits []edit
			rds   int
		}{{nil, 1}, {[]edit{readvertise("64512:501", "64512:502")}, 3}, {[]edit{readvertise("", "")}, 3}} {
			n.attach(hop(1, "10.1.0.1", tt.edits...))
			if got := n.RDs(); len(got) != tt.rds {
				t.Errorf("RDs %v, want %d", got, tt.rds)
			}
		}
		n.detach(hop(1, "10.1.0.1"), hop(2, "10.1.0.2"), hop(3, "10.1.0.3"))
		if got := n.RDs(); len(got) > 0 {
			t.Errorf("RDs %v are left", got)
		}
	})
}

// Without a route distinguisher to spare, routes of others are not announced again, and the
// log says so.
func TestChainWithoutRDs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for want, edits := range map[int][]edit{1: nil, 2: {attract("64512:603", "", tcp80)}} {
			n := newNode(t, setup{})
			n.UseUpRDs(2)
			p := n.peer("BGP-10.77.0.9")
			n.attach(hop(1, "10.1.0.1", append(edits, readvertise("64512:501", "64512:502"))...), hop(2, "10.1.0.2"))
			p.vpn(1, "203.0.113.0/24", target("64512:501"))
			p.flow(1, wire.Flow{}, target("64512:501"), redirect("64512:9"))
			got := n.chainLines("hop")
			if len(got) != want || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, " rd 10.77.0.1:0 ") }) {
				t.Errorf("announced %v, want %d", got, want)
			}
			if got := n.log.String(); !strings.Contains(got, "routes of others are not announced again") {
				t.Errorf("log %q", got)
			}
			n.detach(hop(2, "10.1.0.2"), hop(1, "10.1.0.1"))
			if st := n.rib.Stats(); st.Paths != 2 {
				t.Errorf("%d paths left, want those of the peer", st.Paths)
			}
		}
	})
}

// What an instance attracts is shown as the last request has it, also where it is the same.
func TestAttractShowsLastText(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		text := func(s string) edit { return func(a *vpn.Attachment) { a.Attract.Text = []byte(s) } }
		same := attract("64512:603", "64512:502", tcp80, "192.0.2.0/24")
		n.attach(hop(1, "10.1.0.1", same, text(`{"destinationPort":80}`)))
		before := n.rib.Stats().Announced
		n.attach(hop(1, "10.1.0.1", same, text(`{"destinationPort":"80"}`)))
		if got := string(n.Instance("hop").Snapshot().Attract.Text); got != `{"destinationPort":"80"}` || n.rib.Stats().Announced != before {
			t.Errorf("classifier %s, %d routes announced again", got, n.rib.Stats().Announced-before)
		}
	})
}

// Each member of a request that differs makes other routes.
func TestAttractMembersCount(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ports := []wire.Range{{First: 1, Last: 9}}
		class := func(change func(*wire.Flow)) wire.Flow { f := tcp80; change(&f); return f }
		n := newNode(t, setup{})
		base := attract("64512:603", "64512:502", tcp80, "192.0.2.0/24")
		n.attach(hop(1, "10.1.0.1", base))
		for name, other := range map[string]edit{
			"redirect_rts": attract("64512:604", "64512:502", tcp80, "192.0.2.0/24"),
			"to_rt":        attract("64512:603", "64512:503", tcp80, "192.0.2.0/24"),
			"prefixes":     attract("64512:603", "64512:502", tcp80, "192.0.2.0/25"),
			"source":       attract("64512:603", "64512:502", class(func(f *wire.Flow) { f.Source = prefix("10.0.0.0/8") }), "192.0.2.0/24"),
			"protocol":     attract("64512:603", "64512:502", class(func(f *wire.Flow) { f.Protocols = ports }), "192.0.2.0/24"),
			"to port":      attract("64512:603", "64512:502", class(func(f *wire.Flow) { f.DestinationPorts = ports }), "192.0.2.0/24"),
			"from port":    attract("64512:603", "64512:502", class(func(f *wire.Flow) { f.SourcePorts = ports }), "192.0.2.0/24"),
		} {
			before := n.chainLines("hop")
			n.attach(hop(1, "10.1.0.1", other))
			if slices.Equal(before, n.chainLines("hop")) {
				t.Errorf("another %s changes nothing", name)
			}
			n.attach(hop(1, "10.1.0.1", base))
			wantLines(t, name+" as before", before, n.chainLines("hop"))
		}
	})
}

// Each member of a fallback that differs reaches the dataplane, and the same one does not again.
func TestFallbackChanges(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, devices := range []bool{false, true} {
			n := newNode(t, setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.OVSPorts = !devices }})
			first := vpn.Fallback{Source: mac(8), MAC: mac(9), Port: 3}
			changes := []func(*vpn.Fallback){
				func(*vpn.Fallback) {}, func(f *vpn.Fallback) { f.Source = mac(7) }, func(f *vpn.Fallback) { f.MAC = mac(7) }, func(f *vpn.Fallback) { f.Port = 4 },
			}
			if devices {
				first.Port, first.Device = 0, "eth8"
				changes[3] = func(f *vpn.Fallback) { f.Device = "eth9" }
			}
			for k, change := range changes {
				now := first
				change(&now)
				for _, f := range []*vpn.Fallback{&first, &now} {
					n.plane.Log()
					n.attach(vrf(1, "10.1.0.1", func(a *vpn.Attachment) { a.Fallback = f }))
				}
				told := slices.ContainsFunc(n.plane.Log(), func(s string) bool { return strings.HasPrefix(s, "blue: + fallback") })
				if told != (k > 0) {
					t.Errorf("fallback %+v after %+v: the dataplane was told %v", now, first, told)
				}
			}
		}
	})
}

// Fallbacks are of the kind that the driver takes.
func TestFallbackRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		fallback := func(port uint32, device string) edit {
			return func(a *vpn.Attachment) {
				a.Fallback = &vpn.Fallback{Source: mac(8), MAC: mac(9), Port: port, Device: device}
			}
		}
		ovs, device := func(*dataplane.Capabilities) {}, func(c *dataplane.Capabilities) { c.OVSPorts = false }
		for _, tt := range []struct {
			name string
			caps func(*dataplane.Capabilities)
			a    vpn.Attachment
			want string
		}{
			{"port number", ovs, vrf(1, "10.1.0.1", fallback(3, "")), ""},
			{"both, of a bridge", ovs, vrf(1, "10.1.0.1", fallback(3, "eth9")), "wants ovs_port_number, and no linuxif"},
			{"device of a bridge", ovs, vrf(1, "10.1.0.1", fallback(0, "eth9")), "wants ovs_port_number, and no linuxif"},
			{"neither", ovs, vrf(1, "10.1.0.1", fallback(0, "")), "wants ovs_port_number, and no linuxif"},
			{"both", device, vrf(1, "10.1.0.1", fallback(3, "eth9")), "wants linuxif, and no ovs_port_number"},
			{"port number without bridge", device, vrf(1, "10.1.0.1", fallback(3, "")), "wants linuxif, and no ovs_port_number"},
			{"neither, without bridge", device, vrf(1, "10.1.0.1", fallback(0, "")), "wants linuxif, and no ovs_port_number"},
			{"a driver without", func(c *dataplane.Capabilities) { c.Fallback = false }, vrf(1, "10.1.0.1", fallback(3, "")), "sends no traffic elsewhere"},
			{"E-VPN ignores it", device, evpn(1, "10.1.0.1", fallback(0, "")), ""},
			{"E-VPN with a bridge ignores it", func(c *dataplane.Capabilities) { c.OVSPorts = true }, evpn(1, "10.1.0.1", fallback(0, "")), ""},
		} {
			n := newNode(t, setup{ipvpnCaps: tt.caps, evpnCaps: tt.caps})
			err := n.Attach(context.Background(), tt.a)
			if tt.want == "" {
				wantRefused(t, err, "")
				continue
			}
			wantRefused(t, err, "fallback")
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			}
			n.wantInstances()
		}
	})
}
