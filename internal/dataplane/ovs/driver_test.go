// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/google/go-cmp/cmp"
)

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		change func(*Config)
		words  []string
	}{
		{func(c *Config) { c.LocalAddr = netip.Addr{} }, []string{"local address"}},
		{func(c *Config) { c.MPLSOverGRE = "maybe" }, []string{"mpls_over_gre", "maybe", "auto, true or false"}},
		{func(c *Config) { c.MPLSOverGRE = "False" }, []string{"mpls_interface"}},
		{func(c *Config) { c.InputTable, c.TableStart = 3, 2 }, []string{"input_table 3", "ovs_table_id_start 2"}},
		{func(c *Config) { c.TableStart = 255 }, []string{"255", "253"}},
		{func(c *Config) { c.HashMethod = "x" }, []string{"hash_method", "dp_hash or hash"}},
		{func(c *Config) { c.HashMethod, c.HashFields = "hash", []string{"nope"} }, []string{"hash_fields", "nope", "ip_src"}},
		{func(c *Config) { c.GRETunnel, c.VXLANEncap = "vxlan", true }, []string{"gre_tunnel"}},
	} {
		cfg := Config{LocalAddr: netip.MustParseAddr("192.0.2.1")}
		tt.change(&cfg)
		_, err := newDriver(cfg, slog.New(slog.DiscardHandler))
		wantErr(t, err, tt.words...)
	}
	for _, tt := range []struct {
		change func(*Config)
		words  []string
	}{
		{func(c *Config) { c.Bridge = "br-none" }, []string{"ovs_bridge", "br-none", "existing bridge"}},
		{func(c *Config) { c.MPLSInterface = "elsewhere" }, []string{"mpls_interface", "elsewhere", "br-mpls"}},
	} {
		f := newFake()
		cfg := Config{LocalAddr: netip.MustParseAddr("192.0.2.1")}
		tt.change(&cfg)
		d, err := newDriver(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d.db = f
		wantErr(t, d.start(t.Context()), tt.words...)
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		change func(*Config)
		want   []encap.Type
	}{
		{nil, []encap.Type{encap.GRE}},
		{func(c *Config) { c.VXLANEncap = true }, []encap.Type{encap.VXLAN, encap.GRE}},
		{func(c *Config) { c.MPLSInterface = "eth9" }, []encap.Type{encap.MPLS}},
		{func(c *Config) { c.MPLSInterface, c.MPLSOverGRE = "eth9", "true" }, []encap.Type{encap.GRE}},
		{func(c *Config) { c.MPLSInterface = "*gre*" }, []encap.Type{encap.GRE}},
	} {
		c := newFake().driver(t, tt.change).Capabilities()
		if diff := cmp.Diff(tt.want, c.Encaps); diff != "" {
			t.Errorf("encapsulations (-want +got):\n%s", diff)
		}
		if c.DefaultEncap != tt.want[len(tt.want)-1] || !c.RouterMAC.IsZero() || !c.OVSPorts || !c.Fallback {
			t.Errorf("capabilities %+v", c)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := newFake().driver(t, nil)
	for _, tt := range []struct {
		name    string
		port    dataplane.Port
		ok      bool
		missing bool
	}{
		{"none", dataplane.Port{}, true, false},
		{"in the bridge", dataplane.Port{Name: "tap1"}, true, false},
		{"device", dataplane.Port{Name: "tap77"}, true, false},
		{"no device", dataplane.Port{Name: "nodev"}, false, true},
		{"other bridge", dataplane.Port{Name: "elsewhere"}, false, false},
		{"number", dataplane.Port{Name: "x", OVS: dataplane.OVSPort{Plugged: true, Number: 2}}, true, false},
		{"no such number", dataplane.Port{Name: "x", OVS: dataplane.OVSPort{Plugged: true, Number: 99}}, false, true},
		{"plugged by name", dataplane.Port{Name: "x", OVS: dataplane.OVSPort{Plugged: true, Name: "p-int"}}, true, false},
		{"plugged and not there", dataplane.Port{Name: "x", OVS: dataplane.OVSPort{Plugged: true, Name: "tap77"}}, false, true},
		{"VLAN", dataplane.Port{Name: "tap1", OVS: dataplane.OVSPort{VLAN: 4095}}, false, false},
	} {
		err := d.Check(t.Context(), instance("red"), tt.port)
		var refused *dataplane.InputError
		switch {
		case tt.ok && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case !tt.ok && (!errors.As(err, &refused) || refused.Field != "local_port" || refused.Missing != tt.missing):
			t.Errorf("%s: %#v", tt.name, err)
		}
	}
	for _, inst := range []dataplane.Instance{
		{ID: "red", Type: dataplane.EVPN}, {ID: "red", Type: dataplane.IPVPN, L3VNI: true}, {ID: strings.Repeat("x", maxID+1), Type: dataplane.IPVPN},
	} {
		if _, err := d.Open(t.Context(), inst); err == nil {
			t.Errorf("instance %.20q of type %q is open", inst.ID, inst.Type)
		}
	}
}

// A device that we add to the bridge is marked, and taken out with the last instance that has it.
func TestPlugging(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	red, blue := mustOpen(t, d, instance("red")), mustOpen(t, d, instance("blue"))
	a, b := attached("tap77", 1, dataplane.Both), attached("tap77", 2, dataplane.Both)
	mustApply(t, red, add(a)...)
	mustApply(t, blue, add(b)...)
	if got := f.ports["tap77"].ExternalIDs; got[ownerKey] != ownerValue || got[instanceKey] != "red" {
		t.Errorf("external ids %v", got)
	}
	if err := red.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.ports["tap77"]; !ok {
		t.Error("a port that another instance has is gone")
	}
	if ids, err := d.Orphans(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("orphans %q, %v", ids, err)
	}
	mustApply(t, blue, del(b)...)
	if _, ok := f.ports["tap77"]; ok {
		t.Error("a port that no instance has is still there")
	}
	mustApply(t, blue, add(attached("tap1", 0, dataplane.Both))...)
	mustApply(t, blue, del(attached("tap1", 0, dataplane.Both))...)
	if _, ok := f.ports["tap1"]; !ok {
		t.Error("a port that others added is gone")
	}

	// The port gets another number: that is drift of the port, and attaching follows.
	mustApply(t, blue, add(attached("tap1", 0, dataplane.Both), endpoint("tap1", "198.51.100.2", 17))...)
	i := f.ports["tap1"]
	i.Number = 50
	f.ports["tap1"] = i
	if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 1 || !cmp.Equal(drifts[0].Ports, []string{"tap1"}) {
		t.Errorf("drift %v, %v", drifts, err)
	}
	mustApply(t, blue, add(attached("tap1", 0, dataplane.Both))...)
	if text := f.text(); strings.Contains(text, "in_port=2,") || !strings.Contains(text, "output:50") {
		t.Errorf("flows %s", text)
	}
	if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
		t.Errorf("drift %v, %v", drifts, err)
	}
}

// Two ports of a VRF behind one port of the bridge do not take each other's flows away.
func TestPortsBehindOnePort(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	h := mustOpen(t, d, instance("red"))
	at := func(name string) dataplane.Entry {
		return dataplane.Entry{Kind: dataplane.LocalPort, Port: name, OVS: dataplane.OVSPort{Plugged: true, Number: 4, VLAN: 7}, Direction: dataplane.Both}
	}
	mustApply(t, h, add(at("one"), endpoint("one", "198.51.100.2", 17))...)
	before := f.text()
	mustApply(t, h, add(at("two"), endpoint("two", "198.51.100.3", 18))...)
	wantInstalled(t, h, at("one"), at("two"), endpoint("one", "198.51.100.2", 17), endpoint("two", "198.51.100.3", 18))
	mustApply(t, h, del(endpoint("two", "198.51.100.3", 18), at("two"))...)
	if diff := cmp.Diff(before, f.text()); diff != "" {
		t.Errorf("flows of the other port (-before +after):\n%s", diff)
	}
	if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
		t.Errorf("drift %v, %v", drifts, err)
	}
}

func TestOpenLeavesNothingOnError(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.ports["mpls_gre"] = newFake().ports["tap1"] // of others, and no GRE port
	d := f.driver(t, nil)
	_, err := d.Open(t.Context(), instance("red"))
	wantErr(t, err, "mpls_gre", "belongs to others", "gre")
	if len(f.flows) > 0 || len(d.open) > 0 || len(d.numbers) > 0 {
		t.Errorf("left: %d flows, %d open, %d numbers", len(f.flows), len(d.open), len(d.numbers))
	}
}

func TestOrderHops(t *testing.T) {
	t.Parallel()
	hops := []dataplane.NextHop{
		{Addr: netip.MustParseAddr("192.0.2.3"), Order: 5}, {Addr: netip.MustParseAddr("192.0.2.2"), Order: 5}, {Addr: netip.MustParseAddr("192.0.2.1")},
		{Addr: netip.MustParseAddr("192.0.2.4"), Order: 0xffffffff},
	}
	// In whatever order they arrived: bucket 0, 1 and 2 for those without, 5 for the first with 5.
	want := "192.0.2.1 0, 192.0.2.3 1, 192.0.2.4 2, 192.0.2.2 5, "
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
		var in []dataplane.NextHop
		for _, i := range order {
			in = append(in, hops[i])
		}
		sorted, ids := orderHops(in)
		got := ""
		for i := range sorted {
			got += sorted[i].Addr.String() + " " + strconv.Itoa(int(ids[i])) + ", "
		}
		if got != want {
			t.Errorf("order %v: %s, want %s", order, got, want)
		}
	}
}

func FuzzNote(f *testing.F) {
	for _, e := range []dataplane.Entry{
		attached("tap1", 7, dataplane.Both), endpoint("tap1", "2001:db8::1", 17), route4("0.0.0.0/0", hop("192.0.2.1", 5, encap.GRE)),
	} {
		note, err := encodeEntry(&e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(note)
		if got, err := decodeEntry(note); err != nil || !got.Equal(e) {
			f.Errorf("note of %s reads as %s, %v", e, got, err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeID(b)
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := encodeEntry(&e)
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		if back, err := decodeEntry(again); err != nil || !back.Equal(e) {
			t.Errorf("%s reads as %s, %v", e, back, err)
		}
	})
}

// Cleanup takes away ours and what networking-bagpipe left, nothing else.
func TestCleanup(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d := n.driver(nil)
	h := mustOpen(t, d, instance("red"))
	mustApply(t, h, add(route4("203.0.113.0/24", hop("192.0.2.9", 77, encap.GRE), hop("192.0.2.8", 77, encap.GRE)))...)
	n.Ofctl("add-group", "br-mpls", "group_id=1,type=select,selection_method=dp_hash,bucket=actions=output:1")
	n.Ofctl("add-group", "br-mpls", "group_id=9,type=all,bucket=actions=output:1")
	for _, flow := range []string{
		"table=2,cookie=1,priority=36768,ip,reg0=1,nw_dst=198.51.100.10,actions=group:1",
		"table=0,cookie=1,priority=36864,arp,in_port=2,actions=set_field:0->in_port,set_field:1->reg0,resubmit(,2)",
		"table=0,priority=36864,ip,in_port=9,actions=output:3",
		"table=0,priority=7,in_port=8,actions=resubmit(,1)",
		"table=0,priority=1,actions=NORMAL",
	} {
		n.Ofctl("add-flow", "br-mpls", flow)
	}
	_ = d.Close()
	removed, err := Cleanup(t.Context(), n.config(nil), nil)
	if err != nil || len(removed) != 3 {
		t.Errorf("removed %q, %v", removed, err)
	}
	flows, groups := n.Ofctl("--no-stats", "dump-flows", "br-mpls"), n.Ofctl("dump-groups", "br-mpls")
	if strings.Count(flows, "actions=") != 3 || !strings.Contains(flows, "priority=7") || !strings.Contains(flows, "NORMAL") || !strings.Contains(flows, "output:3") {
		t.Errorf("flows after cleanup: %s", flows)
	}
	if strings.Count(groups, "group_id=") != 1 || !strings.Contains(groups, "group_id=9") {
		t.Errorf("groups after cleanup: %s", groups)
	}
	if ports := n.Vsctl("list-ports", "br-mpls"); strings.TrimSpace(ports) != "" {
		t.Errorf("ports after cleanup: %s", ports)
	}
	if removed, err := Cleanup(t.Context(), n.config(nil), nil); err != nil || len(removed) != 0 {
		t.Errorf("removed again %q, %v", removed, err)
	}
}

// BenchmarkApply adds routes to a switch, 1000 at a time.
func BenchmarkApply(b *testing.B) {
	n := newNode(b)
	h := mustOpen(b, n.driver(nil), instance("red"))
	changes := make([]dataplane.Change, 1000)
	count := uint32(0)
	for b.Loop() {
		for i := range changes {
			count++
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(count >> 24), byte(count >> 16), byte(count >> 8), byte(count)}), 32)
			changes[i] = dataplane.Change{Entry: dataplane.Entry{Kind: dataplane.Prefix, Prefix: p, NextHops: []dataplane.NextHop{hop("192.0.2.9", 77, encap.GRE)}}}
		}
		if err := errors.Join(h.Apply(b.Context(), changes)...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "routes/s")
}
