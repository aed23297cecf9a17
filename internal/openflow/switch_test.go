// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
	"github.com/google/go-cmp/cmp"
)

func newSwitch(t testing.TB) (*ovstest.Switch, *Conn) {
	t.Helper()
	s := ovstest.New(t, nstest.New(t, "of"))
	s.AddBridge("br-mpls")
	c, err := Dial(t.Context(), s.Socket("br-mpls"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c
}

// everyFlow has all fields and actions, with the text that ovs-ofctl(8) has for each.
func everyFlow() []struct {
	flow Flow
	text string
} {
	gw := ethernet.MAC{0, 0, 0x5e, 0, 0x43, 0x64}
	vm := ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1}
	return []struct {
		flow Flow
		text string
	}{
		{Flow{Table: 0, Priority: 36864, Match: NewMatch(Is(EthType, 0x800), Is(InPort, 2), Untagged()),
			Actions: Actions("").Set(InPort16, 0).Set(Reg0, 1).Resubmit(2)},
			"priority=36864,ip,in_port=2,vlan_tci=0x0000/0x1fff actions=set_field:0->in_port,set_field:0x1->reg0,resubmit(,2)"},
		{Flow{Table: 0, Priority: 36864, Match: NewMatch(Is(EthType, 0x86dd), Is(InPort, 2), Tagged(42), In(IPv6Src, netip.MustParsePrefix("2001:db8::/32"))),
			Actions: Actions("").PopVLAN().Set(InPort16, 0).Set(Reg0, 1).Resubmit(2)},
			"priority=36864,ipv6,in_port=2,dl_vlan=42,ipv6_src=2001:db8::/32 actions=pop_vlan,set_field:0->in_port,set_field:0x1->reg0,resubmit(,2)"},
		{Flow{Table: 1, Priority: 36864, Match: NewMatch(Is(EthType, 0x8847), Is(MPLSLabel, 17), Is(MPLSBoS, 1)),
			Actions: Actions("").PopMPLS(0x800).SetMAC(EthSrc, gw).SetMAC(EthDst, vm).PushVLAN(42).Output(2)},
			"priority=36864,mpls,mpls_label=17,mpls_bos=1 actions=pop_mpls:0x0800,set_field:00:00:5e:00:43:64->eth_src,set_field:00:00:5e:00:53:01->eth_dst,push_vlan:0x8100,set_field:4138->vlan_vid,output:2"},
		{Flow{Table: 1, Priority: 36864, Match: NewMatch(Is(EthType, 0x8847), Is(MPLSLabel, 18), Is(MPLSBoS, 1)),
			Actions: Actions("").Clone(Actions("").PopMPLS(0x800).Set(Reg1, 18).Resubmit(1)).PopMPLS(0x86dd).Resubmit(1)},
			"priority=36864,mpls,mpls_label=18,mpls_bos=1 actions=clone(pop_mpls:0x0800,set_field:0x12->reg1,resubmit(,1)),pop_mpls:0x86dd,resubmit(,1)"},
		{Flow{Table: 1, Priority: 36864, Match: NewMatch(Is(TunnelID, 17), Is(InPort, 3), Is(EthType, 0x800)), Actions: Actions("").Output(2)},
			"priority=36864,ip,tun_id=0x11,in_port=3 actions=output:2"},
		{Flow{Table: 2, Priority: 36864, Match: NewMatch(Is(EthType, 0x806), Is(Reg0, 1), Is(ARPOp, 1), IsAddr(ARPDstIP, netip.MustParseAddr("192.0.2.254"))),
			Actions: Actions("").Move(EthSrc, EthDst).SetMAC(EthSrc, gw).Set(ARPOp, 2).Move(ARPSrcMAC, ARPDstMAC).SetMAC(ARPSrcMAC, gw).
				Move(ARPSrcIP, ARPDstIP).SetAddr(ARPSrcIP, netip.MustParseAddr("192.0.2.254")).Output(PortInPort)},
			"priority=36864,arp,reg0=0x1,arp_tpa=192.0.2.254,arp_op=1 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:00:00:5e:00:43:64->eth_src,set_field:2->arp_op," +
				"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:00:00:5e:00:43:64->arp_sha,move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:192.0.2.254->arp_spa,IN_PORT"},
		{Flow{Table: 2, Priority: 36865, Match: NewMatch(Is(EthType, 0x86dd), Is(IPProto, 58), Is(ICMPv6Type, 135), Is(ICMPv6Code, 0), IsAddr(NDTarget, netip.MustParseAddr("2001:db8::1"))),
			Actions: Actions("").SetMAC(NDSLL, gw).Set(ICMPv6Type, 136).Set(NDOptionsType, 2).Set(NDReserved, 0xe0000000).Output(PortInPort)},
			"priority=36865,icmp6,icmp_type=135,icmp_code=0,nd_target=2001:db8::1 actions=set_field:00:00:5e:00:43:64->nd_sll,set_field:136->icmpv6_type,set_field:2->nd_options_type,set_field:3758096384->nd_reserved,IN_PORT"},
		{Flow{Table: 2, Priority: 36736, Match: NewMatch(Is(EthType, 0x800), Is(Reg0, 1)),
			Actions: Actions("").DecTTL().PushMPLS(77).SetAddr(TunnelDst, netip.MustParseAddr("192.0.2.9")).Output(1)},
			"priority=36736,ip,reg0=0x1 actions=dec_ttl,push_mpls:0x8847,set_field:77->mpls_label,set_field:192.0.2.9->tun_dst,output:1"},
		{Flow{Table: 2, Priority: 36735, Match: NewMatch(Is(Reg0, 1)),
			Actions: Actions("").Set(TunnelID, 5).SetAddr(TunnelDst6, netip.MustParseAddr("2001:db8::9")).Note([]byte("anything at all")).Group(7)},
			"priority=36735,reg0=0x1 actions=set_field:0x5->tun_id,set_field:2001:db8::9->tun_ipv6_dst,group:7"},
	}
}

func add(flows ...Flow) (out []Message) {
	for _, f := range flows {
		out = append(out, AddFlow(f))
	}
	return out
}

func mustExec(t testing.TB, c *Conn, messages ...Message) {
	t.Helper()
	errs := make([]error, len(messages))
	if err := c.Exec(t.Context(), messages, errs); err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if err != nil {
			t.Errorf("%v: %v", messages[i], err)
		}
	}
}

func sortFlows(flows []Flow) {
	slices.SortFunc(flows, func(a, b Flow) int { return strings.Compare(a.String(), b.String()) })
}

// What the switch lists is what it was given, octet for octet; and ovs-ofctl
// reads the same in it.
func TestFlowsComeBack(t *testing.T) {
	t.Parallel()
	s, c := newSwitch(t)
	g := Group{ID: 7, Method: "hash", Param: 9, Fields: []Field{IPSrc, IPDst}, Buckets: []Bucket{
		{ID: 0, Actions: Actions("").DecTTL().Output(1)}, {ID: 5, Actions: Actions("").Set(Reg1, 17).Resubmit(1)}}}
	all := Group{ID: 9, All: true, Buckets: []Bucket{{ID: 0, Actions: Actions("").Output(1)}, {ID: 1, Actions: Actions("").Output(2)}}}
	dp := Group{ID: 8, Method: "dp_hash", Buckets: []Bucket{{ID: 3, Actions: Actions("").Output(1)}}}
	mustExec(t, c, SetGroup(g), SetGroup(dp), SetGroup(all))
	var want []Flow
	for _, f := range everyFlow() {
		f.flow.Cookie = 0xabc0000000000001
		want = append(want, f.flow)
	}
	mustExec(t, c, add(want...)...)
	stats, err := c.Flows(t.Context(), Filter{Cookie: 0xabc0000000000000, Mask: 0xfff0000000000000})
	if err != nil {
		t.Fatal(err)
	}
	var got []Flow
	for _, f := range stats {
		got = append(got, f.Flow)
	}
	sortFlows(want)
	sortFlows(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
	groups, err := c.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(groups, func(a, b Group) int { return int(a.ID) - int(b.ID) })
	if diff := cmp.Diff([]Group{g, dp, all}, groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	dump := s.Ofctl("--no-stats", "dump-flows", "br-mpls")
	for _, f := range everyFlow() {
		text := f.text
		if note, ok := f.flow.Actions.NoteOf(); ok != (string(note) == "anything at all") {
			t.Errorf("note %q", note)
		} else if ok {
			continue
		}
		if !strings.Contains(dump, text+"\n") {
			t.Errorf("ovs-ofctl does not show %q in:\n%s", text, dump)
		}
	}
	n, err := c.CountFlows(t.Context(), Filter{Cookie: 0xabc0000000000001, Mask: ^uint64(0)})
	if err != nil || n != uint64(len(want)) {
		t.Errorf("count %d, %v: want %d", n, err, len(want))
	}
	one, err := c.Flows(t.Context(), Filter{Match: NewMatch(Is(Reg0, 1)), Table: 3})
	if err != nil || len(one) != 3 {
		t.Errorf("%d flows of table 2 with reg0, %v: want 3", len(one), err)
	}
	if v, ok := one[0].Match.Value(Reg0); !ok || v != 1 {
		t.Errorf("reg0 is %d, %v", v, ok)
	}
	mustExec(t, c, DeleteFlow(want[0]))
	mustExec(t, c, DeleteFlow(Flow{Table: want[1].Table, Priority: want[1].Priority, Match: want[1].Match, Cookie: 5})) // another's
	if n, _ := c.CountFlows(t.Context(), Filter{}); n != uint64(len(want)-1) {
		t.Errorf("%d flows after a deletion, want %d", n, len(want)-1)
	}
	mustExec(t, c, DeleteFlows{0xabc0000000000001, ^uint64(0)}, DeleteGroup{7}, DeleteGroup{8}, DeleteGroup{9})
	if n, _ := c.CountFlows(t.Context(), Filter{}); n != 0 {
		t.Errorf("%d flows after deleting all", n)
	}
}

func TestErrorsAreOfTheirMessage(t *testing.T) {
	t.Parallel()
	_, c := newSwitch(t)
	good := Flow{Table: 1, Priority: 1, Match: NewMatch(Is(Reg0, 1)), Cookie: 1}
	bad := Flow{Table: 1, Priority: 2, Match: NewMatch(Is(IPDst, 1)), Cookie: 1} // no Ethernet type
	long := good
	long.Actions = Actions("").Note(make([]byte, maxNote)).Note(make([]byte, maxNote))
	noGroup := Flow{Table: 1, Priority: 3, Cookie: 1, Actions: Actions("").Group(77)}
	errs := make([]error, 5)
	if err := c.Exec(t.Context(), add(good, bad, long, noGroup, good), errs); err != nil {
		t.Fatal(err)
	}
	var refused *Error
	if errs[0] != nil || errs[4] != nil || !errors.As(errs[1], &refused) || !errors.Is(errs[2], ErrTooLong) || !errors.As(errs[3], &refused) {
		t.Errorf("errors %v", errs)
	}
	if want := "switch refuses it: bad action (2), no such group (9)"; errs[3] == nil || errs[3].Error() != want {
		t.Errorf("error %v, want %s", errs[3], want)
	}
	good2 := good
	good2.Priority = 9
	if err := c.Bundle(t.Context(), add(good2, bad)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "message 2 of 2") {
		t.Errorf("bundle with a bad flow: %v", err)
	}
	if n, _ := c.CountFlows(t.Context(), Filter{}); n != 1 {
		t.Errorf("%d flows after a bundle that failed, want 1", n)
	}
	if err := c.Bundle(t.Context(), add(good2)); err != nil {
		t.Error(err)
	}
	if n, _ := c.CountFlows(t.Context(), Filter{}); n != 2 {
		t.Errorf("%d flows after a bundle, want 2", n)
	}
}

func TestLostConnection(t *testing.T) {
	t.Parallel()
	s, c := newSwitch(t)
	ports, err := c.Ports(t.Context())
	if err != nil || len(ports) != 1 || ports[0].Name != "br-mpls" || ports[0].Number != PortLocal || ports[0].MAC.IsZero() {
		t.Errorf("ports %v, %v", ports, err)
	}
	s.Stop("ovs-vswitchd")
	nstest.Eventually(t, 10*time.Second, func() bool { return !c.Alive() }, func() string { return "connection still stands" })
	if err := c.Exec(t.Context(), add(Flow{}), make([]error, 1)); err == nil {
		t.Error("no error on a lost connection")
	}
	if _, err := Dial(t.Context(), s.Socket("br-none")); err == nil {
		t.Error("no error for a bridge that is not there")
	}
}

func BenchmarkAddFlows(b *testing.B) {
	_, c := newSwitch(b)
	const batch = 1000
	messages, errs := make([]Message, batch), make([]error, batch)
	n := uint32(0)
	for b.Loop() {
		for i := range messages {
			n++
			a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			messages[i] = AddFlow(Flow{Table: 2, Priority: 36768, Cookie: 1, Match: NewMatch(Is(EthType, 0x800), Is(Reg0, 1), IsAddr(IPDst, a)),
				Actions: Actions("").DecTTL().PushMPLS(n&0xfffff).SetAddr(TunnelDst, a).Output(1)})
		}
		if err := c.Exec(b.Context(), messages, errs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "flows/s")
}
