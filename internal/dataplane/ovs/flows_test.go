// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/google/go-cmp/cmp"
)

func endpoint(port, ip string, label uint32) dataplane.Entry {
	a := netip.MustParseAddr(ip)
	return dataplane.Entry{Kind: dataplane.LocalPrefix, Port: port, Label: label, MAC: vmMAC(1), IP: a,
		Prefix: netip.PrefixFrom(a, a.BitLen()), Direction: dataplane.Both}
}

func attached(name string, vlan uint16, d dataplane.Direction) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalPort, Port: name, OVS: dataplane.OVSPort{VLAN: vlan}, Direction: d}
}

const deliver = "set_field:00:00:5e:00:43:64->eth_src,set_field:00:00:5e:00:53:01->eth_dst,"

func TestFlows(t *testing.T) {
	t.Parallel()
	gateway := func(e dataplane.Entry, gw string) dataplane.Entry {
		e.Gateway = netip.MustParseAddr(gw)
		return e
	}
	to := func(e dataplane.Entry, d dataplane.Direction) dataplane.Entry {
		e.Direction = d
		return e
	}
	nh := func(n int, order uint32) dataplane.NextHop {
		h := hop(fmt.Sprintf("192.0.2.%d", n), uint32(70+n), encap.GRE)
		h.Order = order
		return h
	}
	const ask = "table=0, priority=36864,arp,in_port=2,vlan_tci=0x0000/0x1fff actions=set_field:0x1->reg0,resubmit(,2)\n" +
		"table=0, priority=36865,icmp6,in_port=2,vlan_tci=0x0000/0x1fff,icmpv6_type=135,icmpv6_code=0 actions=set_field:0x1->reg0,resubmit(,2)\n"
	for _, tt := range []struct {
		name    string
		change  func(*Config)
		entries []dataplane.Entry
		want    string
	}{
		{
			name:    "endpoint",
			entries: []dataplane.Entry{attached("tap1", 0, dataplane.Both), endpoint("tap1", "198.51.100.2", 17)},
			want: "table=0, priority=36864,arp,in_port=2,vlan_tci=0x0000/0x1fff actions=set_field:0x1->reg0,resubmit(,2)\n" +
				"table=0, priority=36864,ip,in_port=2,vlan_tci=0x0000/0x1fff,nw_src=198.51.100.2 actions=set_field:0->in_port,set_field:0x1->reg0,resubmit(,2)\n" +
				"table=0, priority=36865,icmp6,in_port=2,vlan_tci=0x0000/0x1fff,icmpv6_type=135,icmpv6_code=0 actions=set_field:0x1->reg0,resubmit(,2)\n" +
				"table=1, priority=36864,ip,reg1=0x11 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=pop_mpls:0x0800," + deliver + "output:2\n",
		},
		{
			name:    "IPv6 endpoint with a VLAN, to the port only, and VXLAN",
			change:  func(c *Config) { c.VXLANEncap = true },
			entries: []dataplane.Entry{attached("p-int", 42, dataplane.ToPort), to(endpoint("p-int", "2001:db8::2", 17), dataplane.ToPort)},
			want: "table=1, priority=36864,ipv6,in_port=6,tun_id=0x11 actions=" + deliver + "push_vlan:0x8100,set_field:4138->vlan_vid,output:4\n" +
				"table=1, priority=36864,ipv6,reg1=0x11 actions=" + deliver + "push_vlan:0x8100,set_field:4138->vlan_vid,output:4\n" +
				"table=1, priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=pop_mpls:0x86dd," + deliver + "push_vlan:0x8100,set_field:4138->vlan_vid,output:4\n",
		},
		{
			name:    "both families under one label",
			entries: []dataplane.Entry{attached("tap1", 0, dataplane.ToPort), endpoint("tap1", "198.51.100.2", 17), endpoint("tap1", "2001:db8::2", 17)},
			want: "table=1, priority=36863,ip,reg2=0x11 actions=push_mpls:0x8847,set_field:2->mpls_label,group:1107296256\n" +
				"table=1, priority=36864,ip,reg1=0x11 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,ip,reg2=0x11,nw_dst=198.51.100.2 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,ipv6,reg1=0x11 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,ipv6,reg2=0x11,ipv6_dst=2001:db8::2 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=set_field:0x11->reg2,pop_mpls:0x0800,resubmit(,1)\n",
		},
		{
			name:    "from the port only: what has the label is dropped",
			entries: []dataplane.Entry{attached("tap1", 0, dataplane.FromPort), to(endpoint("tap1", "198.51.100.2", 17), dataplane.FromPort)},
			want: ask[:strings.Index(ask, "\n")+1] +
				"table=0, priority=36864,ip,in_port=2,vlan_tci=0x0000/0x1fff,nw_src=198.51.100.2 actions=set_field:0->in_port,set_field:0x1->reg0,resubmit(,2)\n" +
				ask[strings.Index(ask, "\n")+1:] +
				"table=1, priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=drop\n",
		},
		{
			name:    "gateway",
			entries: []dataplane.Entry{attached("tap1", 0, dataplane.ToPort), to(gateway(endpoint("tap1", "198.51.100.2", 17), "198.51.100.1"), dataplane.ToPort)},
			want: "table=1, priority=36864,ip,reg1=0x11 actions=" + deliver + "output:2\n" +
				"table=1, priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=pop_mpls:0x0800," + deliver + "output:2\n" +
				"table=2, priority=36864,arp,reg0=0x1,arp_op=1,arp_tpa=198.51.100.1 actions=move:eth_src->eth_dst,set_field:00:00:5e:00:43:64->eth_src,set_field:2->arp_op," +
				"move:arp_sha->arp_tha,set_field:00:00:5e:00:43:64->arp_sha,move:arp_spa->arp_tpa,set_field:198.51.100.1->arp_spa,IN_PORT\n" +
				"table=2, priority=61440,icmp,reg0=0x1,nw_dst=198.51.100.1,icmp_type=8,icmp_code=0 actions=move:ip_src->ip_dst,set_field:198.51.100.1->ip_src,set_field:0->icmp_type,set_field:64->nw_ttl,set_field:0x2->reg2,resubmit(,2)\n",
		},
		{
			name: "prefixes",
			entries: []dataplane.Entry{
				route4("198.51.100.9/32", nh(9, 0)), route4("0.0.0.0/0", nh(9, 0)), route4("203.0.113.0/24", nh(1, 0)), route4("2001:db8::/32", nh(9, 3)),
				route4("192.0.2.128/25", nh(9, 0), nh(8, 0), nh(7, 0)),
			},
			want: "group_id=1107296257,type=select,selection_method=dp_hash," +
				"bucket=bucket_id:0,actions=dec_ttl,push_mpls:0x8847,set_field:77->mpls_label,set_field:192.0.2.7->tun_dst,output:1," +
				"bucket=bucket_id:1,actions=dec_ttl,push_mpls:0x8847,set_field:78->mpls_label,set_field:192.0.2.8->tun_dst,output:1," +
				"bucket=bucket_id:2,actions=dec_ttl,push_mpls:0x8847,set_field:79->mpls_label,set_field:192.0.2.9->tun_dst,output:1\n" +
				"table=2, priority=36736,ip,reg0=0x1 actions=dec_ttl,push_mpls:0x8847,set_field:79->mpls_label,set_field:192.0.2.9->tun_dst,output:1\n" +
				"table=2, priority=36760,ip,reg0=0x1,nw_dst=203.0.113.0/24 actions=dec_ttl,set_field:0x47->reg1,resubmit(,1)\n" +
				"table=2, priority=36761,ip,reg0=0x1,nw_dst=192.0.2.128/25 actions=group:1107296257\n" +
				"table=2, priority=36768,ip,reg0=0x1,nw_dst=198.51.100.9 actions=push_mpls:0x8847,set_field:79->mpls_label,set_field:192.0.2.9->tun_dst,output:1\n" +
				"table=2, priority=36768,ipv6,reg0=0x1,ipv6_dst=2001:db8::/32 actions=dec_ttl,push_mpls:0x8847,set_field:79->mpls_label,set_field:192.0.2.9->tun_dst,output:1\n",
		},
		{
			name:    "fallback",
			entries: []dataplane.Entry{{Kind: dataplane.Fallback, OVS: dataplane.OVSPort{Number: 7, VLAN: 3}, MAC: vmMAC(9), Source: vmMAC(8)}},
			want: "table=2, priority=36608,reg0=0x1 actions=push_vlan:0x8100,set_field:4099->vlan_vid," +
				"set_field:00:00:5e:00:53:08->eth_src,set_field:00:00:5e:00:53:09->eth_dst,output:7\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			inst := instance("red")
			inst.Gateway = netip.MustParsePrefix("198.51.100.1/24") // on-link: no dec_ttl
			d := f.driver(t, tt.change)
			h := mustOpen(t, d, inst)
			empty := f.text()
			mustApply(t, h, add(tt.entries...)...)
			if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(f.text(), "\n")); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
			wantNoDrift(t, d) // before Installed, which counts anew
			wantInstalled(t, h, tt.entries...)
			flows, groups := len(f.flows), len(f.groups)
			mustApply(t, h, add(tt.entries...)...)
			if len(f.flows) != flows || len(f.groups) != groups {
				t.Errorf("applying again: %d flows and %d groups, before %d and %d", len(f.flows), len(f.groups), flows, groups)
			}
			wantNoDrift(t, d)
			mustApply(t, h, del(tt.entries...)...)
			mustApply(t, h, del(tt.entries...)...)
			if diff := cmp.Diff(empty, f.text()); diff != "" {
				t.Errorf("flows after deletion (-want +got):\n%s", diff)
			}
			wantNoDrift(t, d)
			wantInstalled(t, h)
			if err := h.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			if ids, err := d.Orphans(t.Context()); err != nil || len(ids) > 0 {
				t.Errorf("orphans after removal %q, %v", ids, err)
			}
		})
	}
}

// Where next hops have orders the switch hashes both directions of a flow alike, unless its
// hash was chosen.
func TestSymmetricHash(t *testing.T) {
	t.Parallel()
	const seed, l4 = 7, 1 << 32
	for _, tt := range []struct {
		method string
		param  uint64
		orders [2]uint32
		want   uint64
	}{
		{"", 0, [2]uint32{0, 1}, l4},
		{"", 0, [2]uint32{0, 0}, 0},
		{"", seed, [2]uint32{1, 2}, l4 | seed},
		{"", seed, [2]uint32{0, 0}, seed},
		{"dp_hash", 2<<32 | seed, [2]uint32{0, 1}, 2<<32 | seed},
		{"hash", seed, [2]uint32{0, 1}, seed},
	} {
		f := newFake()
		h := mustOpen(t, f.driver(t, func(c *Config) { c.HashMethod, c.HashMethodParam = tt.method, tt.param }), instance("red"))
		a, b := hop("192.0.2.9", 77, encap.GRE), hop("192.0.2.8", 77, encap.GRE)
		a.Order, b.Order = tt.orders[0], tt.orders[1]
		mustApply(t, h, add(route4("203.0.113.0/24", a, b))...)
		if got := f.groups[groupFirst+1].Param; got != tt.want {
			t.Errorf("method %q, parameter %#x, orders %v: parameter %#x, want %#x", tt.method, tt.param, tt.orders, got, tt.want)
		}
	}
}

func wantNoDrift(t *testing.T, d *Driver) {
	t.Helper()
	if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("drift %v, %v", drifts, err)
	}
}

// Flows that others change, add under our cookie or take are seen, and put right.
func TestInstalledTellsTheTruth(t *testing.T) {
	t.Parallel()
	entries := []dataplane.Entry{
		attached("tap1", 0, dataplane.Both), endpoint("tap1", "198.51.100.2", 17), attached("p-int", 42, dataplane.Both), endpoint("p-int", "198.51.100.3", 18),
		route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.GRE), hop("192.0.2.8", 77, encap.GRE)), route4("192.0.2.128/25", hop("192.0.2.9", 77, encap.GRE)),
		redirectTo("out", class("203.0.113.0/24", 6, portsFrom(6, 8), dataplane.AllPorts)),
		{Kind: dataplane.Fallback, OVS: dataplane.OVSPort{Number: 3}, MAC: vmMAC(8), Source: vmMAC(9)},
	}
	// but returns the places of all other entries.
	but := func(gone ...int) (left []int) {
		for i := range entries {
			if !slices.Contains(gone, i) {
				left = append(left, i)
			}
		}
		return left
	}
	find := func(f *fake, words ...string) of.Flow {
	next:
		for _, e := range f.flows {
			for _, w := range words {
				if !strings.Contains(e.String(), w) {
					continue next
				}
			}
			return e
		}
		t.Fatalf("no flow with %q", words)
		return of.Flow{}
	}
	for _, tt := range []struct {
		name string
		hit  func(f *fake)
		want []int // entries that are left
	}{
		{"nothing", func(*fake) {}, but()},
		{"label flow deleted", func(f *fake) { delete(f.flows, find(f, "mpls_label=17").Key()) }, but(1)},
		{"label flow changed", func(f *fake) {
			e := find(f, "mpls_label=17")
			e.Actions = ""
			f.flows[e.Key()] = e
		}, but(1)},
		{"input flow deleted", func(f *fake) { delete(f.flows, find(f, "arp,in_port=2").Key()) }, but(0, 1)},
		{"prefix changed", func(f *fake) {
			e := find(f, "192.0.2.128/25")
			e.Actions = e.Actions.Output(9)
			f.flows[e.Key()] = e
		}, but(5)},
		{"group changed", func(f *fake) {
			g := f.groups[groupFirst+1]
			g.Buckets = g.Buckets[:1]
			f.groups[g.ID] = g
		}, but(4)},
		{"flow of a class deleted", func(f *fake) { delete(f.flows, find(f, "tcp_dst=8").Key()) }, but(6)},
		{"flow of a class changed", func(f *fake) {
			e := find(f, "tcp_dst=6/")
			e.Actions = e.Actions.Output(9)
			f.flows[e.Key()] = e
		}, but(6)},
		{"fallback changed", func(f *fake) {
			e := find(f, "priority=36608")
			e.Actions = e.Actions.Output(9)
			f.flows[e.Key()] = e
		}, but(7)},
		{"stray flow with our cookie", func(f *fake) {
			e := find(f, "192.0.2.128/25")
			e.Priority, e.Actions = 5, ""
			f.flows[e.Key()] = e
		}, but()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			foreign := of.Flow{Table: 0, Priority: 9, Cookie: 5, Match: of.NewMatch(of.Is(of.InPort, 2))}
			f.flows[foreign.Key()] = foreign
			f.groups[3] = of.Group{ID: 3}
			d := f.driver(t, nil)
			h := mustOpen(t, d, instance("red"))
			mustOpen(t, d, instance("out"))
			mustApply(t, h, add(entries...)...)
			good := f.text()
			tt.hit(f)
			var want []dataplane.Entry
			for _, i := range tt.want {
				want = append(want, entries[i])
			}
			wantInstalled(t, h, want...)
			mustApply(t, h, add(entries...)...)
			wantInstalled(t, h, entries...)
			if diff := cmp.Diff(strings.Split(good, "\n"), strings.Split(renumber(f.text()), "\n")); diff != "" {
				t.Errorf("flows after applying again (-want +got):\n%s", diff)
			}
			if f.flows[foreign.Key()] != foreign || f.groups[3].ID != 3 {
				t.Error("what belongs to others is gone")
			}
		})
	}
}

// renumber gives the second group the number of the first: ids are not used again at once.
func renumber(s string) string { return strings.ReplaceAll(s, "1107296258", "1107296257") }

func TestRefusedEntries(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	h, other := mustOpen(t, d, instance("red")), mustOpen(t, d, instance("blue"))
	mustApply(t, h, add(attached("tap1", 0, dataplane.Both), attached("p-int", 42, dataplane.Both))...)
	change := func(e dataplane.Entry, f func(*dataplane.Entry)) dataplane.Entry {
		f(&e)
		return e
	}
	end := endpoint("tap1", "198.51.100.2", 17)
	before := f.text()
	for _, tt := range []struct {
		name  string
		entry dataplane.Entry
		words []string
	}{
		{"port of nobody", endpoint("tap9", "198.51.100.2", 17), []string{"tap9", "not attached"}},
		{"label", change(end, func(e *dataplane.Entry) { e.Label = 15 }), []string{"label 15", "16 to 1048575"}},
		{"family of prefix", change(end, func(e *dataplane.Entry) { e.Prefix = prefix("2001:db8::/32") }), []string{"2001:db8::/32", "IP version"}},
		{"group MAC", change(end, func(e *dataplane.Entry) { e.MAC[0] = 1 }), []string{"MAC address"}},
		{"direction", change(end, func(e *dataplane.Entry) { e.Direction = "up" }), []string{`"up"`, "to-port"}},
		{"host bits", dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix("198.51.100.1/24"), NextHops: []dataplane.NextHop{hop("192.0.2.9", 20, encap.GRE)}}, []string{"host bits"}},
		{"no next hop", route4("203.0.113.0/24"), []string{"no next hop"}},
		{"encapsulation", route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.VXLAN)), []string{"VXLAN", "GRE"}},
		{"next hop of another family", route4("203.0.113.0/24", hop("2001:db8::1", 77, encap.GRE)), []string{"2001:db8::1"}},
		{"label of next hop", route4("203.0.113.0/24", hop("192.0.2.9", 1<<20, encap.GRE)), []string{"1048576", "1048575"}},
		{"kind", dataplane.Entry{Kind: dataplane.RemoteMAC}, []string{"not for a VRF"}},
		{"fallback", dataplane.Entry{Kind: dataplane.Fallback}, []string{"port number"}},
		{"no such device", attached("nodev", 0, dataplane.Both), []string{"nodev", "does not exist"}},
		{"device of another bridge", attached("elsewhere", 0, dataplane.Both), []string{"br-other"}},
		{"VLAN", attached("p-int", 4095, dataplane.Both), []string{"4095", "4094"}},
		{"number", dataplane.Entry{Kind: dataplane.LocalPort, Port: "x", OVS: dataplane.OVSPort{Number: 99, Plugged: true}, Direction: dataplane.Both}, []string{"99", "br-mpls"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantErr(t, h.Apply(t.Context(), add(tt.entry))[0], tt.words...)
		})
	}
	wantErr(t, other.Apply(t.Context(), add(attached("tap1", 0, dataplane.Both)))[0], `instance "red"`)
	mustApply(t, other, add(attached("tap1", 0, dataplane.ToPort))...)
	mustApply(t, other, del(attached("tap1", 0, dataplane.ToPort))...)
	if diff := cmp.Diff(before, f.text()); diff != "" {
		t.Errorf("refused entries changed (-before +after):\n%s", diff)
	}
	if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("drift %v, %v", drifts, err)
	}
	// What the switch refuses is the result of its change alone.
	f.refuse = func(m of.Message) bool {
		a, ok := m.(of.AddFlow)
		return ok && strings.Contains(of.Flow(a).String(), "203.0.113.0/24")
	}
	errs := h.Apply(t.Context(), add(end, route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.GRE)), route4("192.0.2.128/25", hop("192.0.2.9", 77, encap.GRE))))
	var refused *of.Error
	if errs[0] != nil || !errors.As(errs[1], &refused) || errs[2] != nil {
		t.Errorf("errors %v", errs)
	}
	wantInstalled(t, h, attached("tap1", 0, dataplane.Both), attached("p-int", 42, dataplane.Both), end, route4("192.0.2.128/25", hop("192.0.2.9", 77, encap.GRE)))
}
