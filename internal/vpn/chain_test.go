// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

func words(s string) []string { return strings.Fields(s) }

// readvertise and attract set what an attachment asks for; route targets stand in
// words with blanks between.
func readvertise(from, to string) edit {
	return func(a *vpn.Attachment) {
		a.Readvertise = &vpn.Readvertise{From: rts(words(from)...), To: rts(words(to)...)}
	}
}

func attract(redirect, to string, class wire.Flow, static ...string) edit {
	return func(a *vpn.Attachment) {
		a.Attract = &vpn.Attract{Redirect: rts(words(redirect)...), To: rts(words(to)...), Class: class}
		for _, s := range static {
			a.Attract.Static = append(a.Attract.Static, prefix(s))
		}
	}
}

func order(n uint32) edit { return func(a *vpn.Attachment) { a.HashOrder = n } }

// hop is an endpoint of the VRF "hop", which imports and exports nothing.
func hop(m int, ip string, edits ...edit) vpn.Attachment {
	return vrf(m, ip, append([]edit{named("hop"), imports(), exports(), onPort(fmt.Sprint("tap", m))}, edits...)...)
}

var tcp80 = wire.Flow{Protocols: []wire.Range{{First: 6, Last: 6}}, DestinationPorts: []wire.Range{{First: 80, Last: 80}}}

// from announces routes of a peer: "prefix" or "prefix rd", with communities.
func (p *peer) vpn(rd byte, pfx string, comms ...wire.ExtCommunity) wire.Route {
	r := wire.Route{NLRI: wire.VPNRoute(wire.RD{0, 0, 0xfc, 0, 0, 0, 0, rd}, prefix(pfx)), Label: wire.LabelField(99)}
	p.announce(r, wire.LocalAttrs{NextHop: addr("10.77.2.9"), Communities: comms})
	return r
}

func target(s string) wire.ExtCommunity { return wire.ExtCommunity(rts(s)[0]) }
func record(s string) wire.ExtCommunity { return wire.RTRecord(rts(s)[0]) }

// chainLines lists what a VRF announces of others, without labels and own addresses.
func (n *node) chainLines(id string) []string {
	out := []string{}
	i := n.Instance(id)
	if i == nil {
		return out
	}
	for _, p := range i.Readvertised() {
		var comms []string
		for _, c := range p.Attrs.Communities {
			if s := c.String(); s != "encap:MPLS" {
				comms = append(comms, s)
			}
		}
		slices.Sort(comms)
		what := p.NLRI.Prefix().String()
		if p.NLRI.Kind.Family().SAFI == 134 {
			what = "flow " + wire.FlowText(p.Raw, p.NLRI.Kind == wire.KindFlowVPNv6)
		}
		out = append(out, fmt.Sprintf("%s rd %s pref %d %s", what, p.NLRI.RD, p.Attrs.LocalPref, strings.Join(comms, " ")))
	}
	slices.Sort(out)
	return out
}

func (n *node) wantChain(id string, want ...string) {
	n.tb.Helper()
	wantLines(n.tb, "chain routes of "+id, want, n.chainLines(id))
}

// TestReadvertise has the rules of routes.md 6.1, one after the other on one node.
func TestReadvertise(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true})
		p := n.peer("BGP-10.77.0.9")
		a := hop(1, "10.1.0.1", readvertise("64512:501 64512:777", "64512:502"), order(5))
		n.attach(a)
		n.wantChain("hop")
		if !slices.ContainsFunc(n.routes(), func(s string) bool { return strings.Contains(s, "rtc 64512:target:64512:501") }) {
			t.Error("nobody is asked for the routes")
		}
		r := p.vpn(1, "203.0.113.0/24", target("64512:501"), target("64512:777"), record("64512:9"))
		line := "203.0.113.0/24 rd 10.77.0.1:%d pref 100 consistentHashSortOrder:%d rtrecord:64512:501 rtrecord:64512:777 rtrecord:64512:9 target:64512:502"
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))
		p.vpn(1, "198.51.100.0/24", target("64512:1")) // another's
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))

		t.Log("several RDs of a prefix are announced once, as the one that came the shortest way")
		second := p.vpn(2, "203.0.113.0/24", target("64512:501"))
		short := "203.0.113.0/24 rd 10.77.0.1:1 pref 100 consistentHashSortOrder:5 rtrecord:64512:501 target:64512:502"
		n.wantChain("hop", short)
		p.withdraw(r)
		n.wantChain("hop", short)
		p.vpn(1, "203.0.113.0/24", target("64512:501"), target("64512:777"), record("64512:9"))
		p.withdraw(second)
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))

		t.Log("a second endpoint announces all of it, with an RD of its own")
		b := hop(2, "10.1.0.2", order(6))
		n.attach(b)
		n.wantChain("hop", fmt.Sprintf(line, 1, 5), fmt.Sprintf(line, 2, 6))
		n.attach(hop(3, "10.1.0.3", direction(dataplane.FromPort)))
		n.wantChain("hop", fmt.Sprintf(line, 1, 5), fmt.Sprintf(line, 2, 6))
		n.attach(hop(2, "10.1.0.2", order(7)))
		n.wantChain("hop", fmt.Sprintf(line, 1, 5), fmt.Sprintf(line, 2, 7))
		n.detach(hop(2, "10.1.0.2"))
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))

		t.Log("nothing of it is in the VRF's own dataplane: only the endpoints are")
		for _, e := range n.plane.Entries(dataplane.IPVPN, "hop") {
			if strings.Contains(e, "203.0.113") || strings.HasPrefix(e, "port ") && !strings.HasSuffix(e, " transit") {
				t.Errorf("entry %s", e)
			}
		}

		t.Log("route targets change")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:503 64512:504"), order(5)))
		n.wantChain("hop", strings.Replace(fmt.Sprintf(line, 1, 5), "target:64512:502", "target:64512:503 target:64512:504", 1))
		n.attach(hop(1, "10.1.0.1", readvertise("64512:778", "64512:503"), order(5)))
		n.wantChain("hop")
		n.attach(hop(1, "10.1.0.1", imports("64512:501"), readvertise("64512:501", "64512:502"), order(5)))
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))
		n.attach(hop(1, "10.1.0.1", order(5))) // the import goes, the other subscription stays
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))

		t.Log("the loop rule, also for route targets that come to be such")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:9"), order(5)))
		n.wantChain("hop")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:502"), order(5)))
		n.wantChain("hop", fmt.Sprintf(line, 1, 5))
		p.vpn(1, "203.0.113.0/24", target("64512:501"), record("64512:502"))
		n.wantChain("hop")
		p.vpn(1, "203.0.113.0/24", target("64512:501"))
		n.wantChain("hop", short)

		t.Log("nothing more")
		n.attach(hop(1, "10.1.0.1", readvertise("", ""), order(5)))
		n.wantChain("hop")
		for _, e := range n.plane.Entries(dataplane.IPVPN, "hop") {
			if strings.HasSuffix(e, " transit") {
				t.Errorf("entry %s", e)
			}
		}
		wantLines(t, "breaches", nil, n.plane.Breaches())
	})
}

// IPv6 prefixes go through IPv6 endpoints, IPv4 ones through IPv4 endpoints.
func TestReadvertiseIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:502")), hop(1, "2001:db8:1::1"))
		p.vpn(1, "203.0.113.0/24", target("64512:501"))
		p.vpn(1, "2001:db8:2::/48", target("64512:501"))
		tail := " pref 100 consistentHashSortOrder:0 rtrecord:64512:501 target:64512:502"
		n.wantChain("hop", "2001:db8:2::/48 rd 10.77.0.1:2"+tail, "203.0.113.0/24 rd 10.77.0.1:1"+tail)
		n.detach(hop(1, "10.1.0.1"))
		n.wantChain("hop", "2001:db8:2::/48 rd 10.77.0.1:2"+tail)
	})
}

// An endpoint may announce a subnet of its own that it also announces for others.
func TestReadvertiseOwnSubnet(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		a := hop(1, "10.1.0.1/24", subnet, exports("64512:7"), readvertise("64512:501", "64512:502"))
		n.attach(a)
		p.vpn(1, "10.1.0.0/24", target("64512:501"))
		own := "VRF-1 10.1.0.0/24 label 17 next-hop 10.77.2.1 rd 10.77.0.1:1 via 10.77.2.1 pref 100 [encap:MPLS target:64512:7]"
		n.wantRoutes(own, "VRF-1 10.1.0.0/24 label 17 next-hop 10.77.2.1 rd 10.77.0.1:2 via 10.77.2.1 pref 100 "+
			"[consistentHashSortOrder:0 encap:MPLS rtrecord:64512:501 target:64512:502]")
		n.attach(hop(1, "10.1.0.1/24", subnet, exports("64512:7"), readvertise("", "")))
		n.wantRoutes(own)
	})
}

// TestAttract has the rules of routes.md 6.2 and 6.3.
func TestAttract(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		a := hop(1, "10.1.0.1", readvertise("64512:501", "64512:502"), attract("64512:603 64512:604", "", tcp80), order(3))
		n.attach(a)
		n.wantChain("hop")
		p.vpn(1, "203.0.113.0/24", target("64512:501"))
		flow := "flow destination-ipv4 %s protocol =tcp destination-port =80 rd 10.77.0.1:0 pref 100 redirect:64512:502%s target:64512:603 target:64512:604"
		deflt := "0.0.0.0/0 rd 10.77.0.1:%d pref 100 consistentHashSortOrder:%d rtrecord:64512:501 target:64512:502"
		one := fmt.Sprintf(flow, "203.0.113.0/24", " rtrecord:64512:501")
		n.wantChain("hop", fmt.Sprintf(deflt, 1, 3), one)
		second := p.vpn(1, "198.51.100.0/24", target("64512:501"))
		other := fmt.Sprintf(flow, "198.51.100.0/24", " rtrecord:64512:501")
		n.wantChain("hop", fmt.Sprintf(deflt, 1, 3), other, one)

		t.Log("endpoints come and go: a default route for each, FlowSpec while there is any")
		n.attach(hop(2, "10.1.0.2", order(4)))
		n.wantChain("hop", fmt.Sprintf(deflt, 1, 3), fmt.Sprintf(deflt, 2, 4), other, one)
		n.detach(hop(1, "10.1.0.1"))
		n.wantChain("hop", fmt.Sprintf(deflt, 2, 4), other, one)
		n.attach(hop(2, "10.1.0.2", direction(dataplane.FromPort)))
		n.wantChain("hop")
		n.attach(hop(2, "10.1.0.2", order(4)))
		n.wantChain("hop", fmt.Sprintf(deflt, 2, 4), other, one)

		t.Log("the loop rule has the redirect RTs")
		p.vpn(1, "198.51.100.0/24", target("64512:501"), record("64512:604"))
		n.wantChain("hop", fmt.Sprintf(deflt, 2, 4), one)
		p.withdraw(second)

		t.Log("static prefixes")
		n.attach(hop(2, "10.1.0.2", order(4), readvertise("", ""), attract("64512:603 64512:604", "64512:502", tcp80, "192.0.2.0/24", "192.0.2.0/25")))
		static := fmt.Sprintf(flow, "192.0.2.0/24", "")
		half := fmt.Sprintf(flow, "192.0.2.0/25", "")
		unrecorded := strings.Replace(fmt.Sprintf(deflt, 2, 4), " rtrecord:64512:501", "", 1)
		n.wantChain("hop", unrecorded, static, half)
		n.attach(hop(2, "10.1.0.2", order(4), readvertise("64512:501", "64512:502")))
		n.wantChain("hop", unrecorded, static, half, one)

		t.Log("an IPv6 class takes IPv6 only")
		six := tcp80
		six.Source = prefix("2001:db8::/32")
		n.attach(hop(2, "10.1.0.2", order(4), attract("64512:603 64512:604", "", six)))
		n.wantChain("hop")
		n.attach(hop(2, "2001:db8:1::2", order(4)))
		n.wantChain("hop")
		p.vpn(1, "2001:db8:9::/48", target("64512:501"))
		n.wantChain("hop", "::/0 rd 10.77.0.1:3 pref 100 consistentHashSortOrder:4 rtrecord:64512:501 target:64512:502",
			"flow destination-ipv6 2001:db8:9::/48 source-ipv6 2001:db8::/32 protocol =tcp destination-port =80 rd 10.77.0.1:0 pref 100 redirect:64512:502 rtrecord:64512:501 target:64512:603 target:64512:604")

		t.Log("no longer attracted: announced as prefixes again")
		n.attach(hop(2, "10.1.0.2", order(4), attract("", "", wire.Flow{})))
		n.wantChain("hop", "2001:db8:9::/48 rd 10.77.0.1:3 pref 100 consistentHashSortOrder:4 rtrecord:64512:501 target:64512:502",
			"203.0.113.0/24 rd 10.77.0.1:2 pref 100 consistentHashSortOrder:4 rtrecord:64512:501 target:64512:502")
		n.detach(hop(2, "10.1.0.2"), hop(2, "2001:db8:1::2"))
		if len(n.RDs())+len(n.Labels()) > 0 {
			t.Errorf("left: RDs %v, labels %v", n.RDs(), n.Labels())
		}
	})
}

// A FlowSpec route that is to be re-advertised is announced again with an RD of ours, and
// redirects to our redirect RT. One that is made for a prefix may be the same flow.
func TestReadvertiseFlowSpec(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501", "64512:502")))
		f := wire.FlowRoute(wire.RD{0, 0, 0xfc, 0, 0, 0, 0, 1}, wire.Flow{Destination: prefix("203.0.113.0/24")})
		p.announce(f, wire.LocalAttrs{Communities: []wire.ExtCommunity{wire.RedirectCommunity(rts("64512:700")[0]), target("64512:501")}})
		n.wantChain("hop")
		n.attach(hop(1, "10.1.0.1", attract("64512:603", "", tcp80)))
		want := "flow destination-ipv4 203.0.113.0/24 rd 10.77.0.1:2 pref 100 redirect:64512:603 rtrecord:64512:501 target:64512:502"
		n.wantChain("hop", want)
		p.announce(f, wire.LocalAttrs{Communities: []wire.ExtCommunity{wire.RedirectCommunity(rts("64512:700")[0]), target("64512:501"), record("64512:603")}})
		n.wantChain("hop")
		p.announce(f, wire.LocalAttrs{Communities: []wire.ExtCommunity{wire.RedirectCommunity(rts("64512:700")[0]), target("64512:501")}})
		n.wantChain("hop", want)
		n.attach(hop(1, "10.1.0.1", attract("64512:603", "", wire.Flow{})))
		made := p.vpn(1, "203.0.113.0/24", target("64512:501"))
		n.wantChain("hop", "0.0.0.0/0 rd 10.77.0.1:1 pref 100 consistentHashSortOrder:0 rtrecord:64512:501 target:64512:502",
			"flow destination-ipv4 203.0.113.0/24 rd 10.77.0.1:0 pref 100 redirect:64512:502 rtrecord:64512:501 target:64512:603", want)
		p.withdraw(made)
		n.wantChain("hop", want)
		p.withdraw(f)
		n.wantChain("hop")
	})
}

// The octets are those of the original, but for what routes.md says we do better.
func TestChainRoutesOnTheWire(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(hop(1, "10.1.0.1", readvertise("64512:501 64512:777", "64512:502"), order(5)))
		p.vpn(1, "203.0.113.0/24", target("64512:501"), target("64512:777"), record("64512:9"))
		n.attach(vrf(2, "10.1.0.2", named("static"), imports(), exports(), onPort("tap2"), order(3), attract("64512:603", "64512:602", wire.Flow{
			Source: prefix("10.1.0.0/16"), Protocols: tcp80.Protocols, DestinationPorts: tcp80.DestinationPorts, SourcePorts: []wire.Range{{First: 1000, Last: 2000}},
		}, "203.0.113.0/24")))
		want := map[string]string{
			"4001010040020040050400000064c01030030c00000000000a0013fc00000000090013fc00000001f50013fc000000030903140000000500000002fc00000001f6": "7000010a4d00010001cb0071",
			"4001010040020040050400000064c01018030c00000000000a03140000000300000002fc000000025a":                                                 "5800010a4d00010003",
			"4001010040020040050400000064c010108008fc000000025a0002fc000000025b":                                                                 "1e00010a4d000100020118cb007102100a01038106058150061303e8d507d0",
		}
		for _, id := range []string{"hop", "static"} {
			for _, path := range n.Instance(id).Readvertised() {
				attrs, nlri := hex.EncodeToString(path.Attrs.Raw), hex.EncodeToString(wire.AppendNLRI(nil, path.Route, false))
				if want[attrs] == "" {
					t.Errorf("attributes %s of %s", attrs, path.NLRI)
				}
				flow := path.NLRI.Kind == wire.KindFlowVPNv4
				if !flow {
					nlri = nlri[:2] + nlri[8:] // all but the label
				}
				if nlri != want[attrs] {
					t.Errorf("NLRI %s, want %s", nlri, want[attrs])
				}
				if flow == path.Attrs.NextHop.IsValid() {
					t.Errorf("%s has the next hop %s", path.NLRI, path.Attrs.NextHop)
				}
			}
		}
	})
}

func TestChainRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{ipvpnCaps: overVXLAN})
		n.attach(hop(1, "10.1.0.1"))
		many := strings.Repeat("64512:1 ", vpn.MaxRouteTargets+1)
		six := wire.Flow{Source: prefix("2001:db8::/32")}
		for _, tt := range []struct {
			name  string
			a     vpn.Attachment
			field string
		}{
			{"no to_rt", hop(1, "10.1.0.1", readvertise("64512:1", "")), "readvertise"},
			{"too many", hop(1, "10.1.0.1", readvertise(many, "64512:1")), "readvertise"},
			{"too many to_rt", hop(1, "10.1.0.1", readvertise("64512:1", many)), "readvertise"},
			{"too many to redirect", hop(1, "10.1.0.1", attract(many, "64512:1", tcp80)), "attract_traffic"},
			{"two to_rt", hop(1, "10.1.0.1", readvertise("64512:1", "64512:2 64512:3"), attract("64512:4", "", tcp80)), "attract_traffic"},
			{"different to_rt", hop(1, "10.1.0.1", readvertise("64512:1", "64512:2"), attract("64512:4", "64512:3", tcp80, "192.0.2.0/24")), "attract_traffic"},
			{"mixed IP versions", hop(1, "10.1.0.1", attract("64512:4", "64512:3", six, "192.0.2.0/24")), "attract_traffic"},
			{"evpn", evpn(1, "10.1.0.1", readvertise("64512:1", "64512:2")), "readvertise"},
			{"evpn attracts", evpn(1, "10.1.0.1", attract("64512:4", "64512:3", tcp80, "192.0.2.0/24")), "readvertise"},
			{"type 5 only", hop(1, "10.1.0.1", named("five"), advertise(vpn.AsEVPN), readvertise("64512:1", "64512:2")), "advertise_as"},
			{"type 5 attracts", hop(1, "10.1.0.1", named("five"), advertise(vpn.AsEVPN), attract("64512:4", "64512:3", tcp80, "192.0.2.0/24")), "advertise_as"},
			{"reserved id", hop(1, "10.1.0.1", named("redirect-to-ipvpn-64512_1")), "vpn_instance_id"},
		} {
			before := n.state()
			err := n.Attach(context.Background(), tt.a)
			settle()
			t.Log(tt.name)
			wantRefused(t, err, tt.field)
			n.wantState(before)
		}
	})
}

// redirects is a FlowSpec route of a peer.
func (p *peer) flow(rd byte, f wire.Flow, comms ...wire.ExtCommunity) wire.Route {
	r := wire.FlowRoute(wire.RD{0, 0, 0xfc, 0, 0, 0, 0, rd}, f)
	p.announce(r, wire.LocalAttrs{Communities: comms})
	return r
}

func redirect(s string) wire.ExtCommunity { return wire.RedirectCommunity(rts(s)[0]) }

// redirectLines lists the redirects in the plane.
func (n *node) wantRedirects(id string, want ...string) {
	n.tb.Helper()
	var got []string
	for _, e := range n.plane.Entries(dataplane.IPVPN, id) {
		if s, ok := strings.CutPrefix(e, "redirect "); ok {
			got = append(got, s)
		}
	}
	wantLines(n.tb, "redirects of "+id, want, got)
	wantLines(n.tb, "breaches", nil, n.plane.Breaches())
}

func (n *node) wantInstances(want ...string) {
	n.tb.Helper()
	got := []string{}
	for _, i := range n.Instances() {
		got = append(got, i.ID)
	}
	slices.Sort(got)
	wantLines(n.tb, "instances", want, got)
}

// TestRedirect has the rules of routes.md 6.4.
func TestRedirect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"), vrf(2, "10.2.0.1", named("green"), onPort("tap2")))
		to80 := wire.Flow{Destination: prefix("203.0.113.0/24"), Protocols: tcp80.Protocols, DestinationPorts: tcp80.DestinationPorts}
		r := p.flow(1, to80, redirect("64512:300"), target("64512:1"))
		line := "to 203.0.113.0/24 protocol 6 port 80 in redirect-to-ipvpn-64512_"
		n.wantRedirects("blue", line+"300")
		n.wantRedirects("green", line+"300")
		n.wantInstances("blue", "green", "redirect-to-ipvpn-64512_300")
		if !slices.ContainsFunc(n.routes(), func(s string) bool { return strings.Contains(s, "rtc 64512:target:64512:300") }) {
			t.Error("nobody is asked for the routes to redirect to")
		}
		p.vpn(9, "0.0.0.0/0", target("64512:300"))
		wantLines(t, "redirect instance", []string{"prefix 0.0.0.0/0 via 10.77.2.9/99/MPLS"}, n.plane.Entries(dataplane.IPVPN, "redirect-to-ipvpn-64512_300"))

		t.Log("another target: made before the first goes")
		p.flow(1, to80, redirect("64512:400"), target("64512:1"))
		n.wantRedirects("blue", line+"400")
		n.wantInstances("blue", "green", "redirect-to-ipvpn-64512_400")

		t.Log("the same class by other octets, and another RD")
		p.flow(2, to80, redirect("64512:500"), target("64512:1"))
		n.wantRedirects("blue", line+"400") // the lower RD
		p.withdraw(r)
		n.wantRedirects("blue", line+"500")
		same := p.flow(3, wire.Flow{Destination: to80.Destination, Protocols: to80.Protocols, DestinationPorts: []wire.Range{{First: 80, Last: 80}, {First: 443, Last: 443}}}, redirect("64512:600"), target("64512:1"))
		https := "to 203.0.113.0/24 protocol 6 port 443 in redirect-to-ipvpn-64512_600"
		n.wantRedirects("blue", https, line+"600")
		p.withdraw(same)
		n.wantRedirects("blue", line+"500")

		t.Log("its last user goes")
		n.attach(vrf(1, "10.1.0.1", imports("64512:2")))
		n.wantRedirects("blue")
		n.wantInstances("blue", "green", "redirect-to-ipvpn-64512_500")
		n.detach(vrf(2, "10.2.0.1", named("green"), onPort("tap2")))
		n.wantInstances("blue")

		t.Log("what cannot be used is told, and nothing is left of it")
		n.attach(vrf(1, "10.1.0.1"))
		n.wantRedirects("blue", line+"500")
		for _, tt := range []struct {
			why   string
			flow  wire.Route
			comms []wire.ExtCommunity
		}{
			{"its actions are not one redirect", wire.FlowRoute(wire.RD{7: 2}, to80), nil},
			{"its actions are not one redirect", wire.FlowRoute(wire.RD{7: 2}, to80), []wire.ExtCommunity{redirect("64512:1"), redirect("64512:2")}},
			{"its actions are not one redirect", wire.FlowRoute(wire.RD{7: 2}, to80), []wire.ExtCommunity{redirect("64512:1"), {0x80, 0x06}}},
			{"tcp-flags (type 9) is not supported", wire.RawFlowRoute(wire.RD{7: 2}, []byte{9, 0x81, 2}, false), []wire.ExtCommunity{redirect("64512:1")}},
			{"its protocols have no ports", wire.FlowRoute(wire.RD{7: 2}, wire.Flow{Protocols: []wire.Range{{First: 1, Last: 1}}, Ports: tcp80.DestinationPorts}), []wire.ExtCommunity{redirect("64512:1")}},
		} {
			before := n.log.Len()
			p.announce(tt.flow, wire.LocalAttrs{Communities: append(tt.comms, target("64512:1"))})
			if logged := n.log.String()[before:]; !strings.Contains(logged, tt.why) {
				t.Errorf("log %q, want %q", logged, tt.why)
			}
			p.withdraw(tt.flow)
			n.wantRedirects("blue", line+"500")
		}
		n.detach(vrf(1, "10.1.0.1"))
		n.wantInstances()
	})
}

// A redirect instance is tried again when it cannot be made, and a driver that cannot
// redirect says so.
func TestRedirectFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"))
		n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "open" })
		p.flow(1, wire.Flow{Destination: prefix("203.0.113.0/24")}, redirect("64512:300"), target("64512:1"))
		n.wantInstances("blue")
		n.wantRedirects("blue")
		pass()
		n.wantRedirects("blue", "to 203.0.113.0/24 in redirect-to-ipvpn-64512_300")
		n.detach(vrf(1, "10.1.0.1"))
		n.wantInstances()

		old := newNode(t, setup{number: 2, ipvpnCaps: func(c *dataplane.Capabilities) { c.Redirect = false }})
		old.attach(vrf(1, "10.1.0.1"))
		old.peer("BGP-10.77.0.9").flow(1, wire.Flow{}, redirect("64512:300"), target("64512:1"))
		if !strings.Contains(old.log.String(), "cannot redirect traffic") {
			t.Errorf("log %q", old.log)
		}
		old.wantInstances("blue")
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	r := func(first, last uint16) wire.Range { return wire.Range{First: first, Last: last} }
	one := func(list ...wire.Range) []wire.Range { return list }
	for _, tt := range []struct {
		name string
		flow wire.Flow
		want []string
	}{
		{"all", wire.Flow{}, []string{"to 0.0.0.0/0"}},
		{"all of IPv6", wire.Flow{IPv6: true}, []string{"to ::/0"}},
		{"source", wire.Flow{Source: prefix("10.0.0.0/8")}, []string{"to 0.0.0.0/0 from 10.0.0.0/8"}},
		{"protocol", wire.Flow{Protocols: one(r(1, 1))}, []string{"to 0.0.0.0/0 protocol 1"}},
		{"protocols", wire.Flow{Protocols: one(r(6, 6), r(17, 17))}, []string{"to 0.0.0.0/0 protocol 17", "to 0.0.0.0/0 protocol 6"}},
		{"destination port", wire.Flow{DestinationPorts: one(r(80, 80))}, []string{"to 0.0.0.0/0 protocol 17 port 80", "to 0.0.0.0/0 protocol 6 port 80"}},
		{"source port", wire.Flow{Protocols: one(r(6, 6)), SourcePorts: one(r(80, 90))}, []string{"to 0.0.0.0/0 protocol 6 source-port 80-90"}},
		{"either port", wire.Flow{Protocols: one(r(6, 6)), Ports: one(r(80, 80))}, []string{"to 0.0.0.0/0 protocol 6 port 80", "to 0.0.0.0/0 protocol 6 source-port 80"}},
		{"either port, and one", wire.Flow{Protocols: one(r(6, 6)), Ports: one(r(80, 80)), DestinationPorts: one(r(70, 90))}, []string{
			"to 0.0.0.0/0 protocol 6 port 70-90 source-port 80", "to 0.0.0.0/0 protocol 6 port 80",
		}},
		{"of all protocols those with ports", wire.Flow{Protocols: one(r(0, 255)), DestinationPorts: one(r(80, 80))}, []string{
			"to 0.0.0.0/0 protocol 132 port 80", "to 0.0.0.0/0 protocol 17 port 80", "to 0.0.0.0/0 protocol 6 port 80",
		}},
		{"either port, and both", wire.Flow{Protocols: one(r(6, 6)), Ports: one(r(80, 80)), DestinationPorts: one(r(80, 80)), SourcePorts: one(r(80, 80))}, []string{
			"to 0.0.0.0/0 protocol 6 port 80 source-port 80",
		}},
	} {
		list, err := vpn.Classify(tt.flow)
		var got []string
		for _, c := range list {
			got = append(got, c.String())
		}
		slices.Sort(got)
		wantLines(t, tt.name, tt.want, got)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	var many []wire.Range
	for n := range uint16(17) {
		many = append(many, r(2*n, 2*n))
	}
	if list, err := vpn.Classify(wire.Flow{DestinationPorts: many[:16]}); len(list) != 32 || err != nil {
		t.Errorf("32 classes are %d: %v", len(list), err)
	}
	for _, tt := range []struct {
		flow wire.Flow
		want string
	}{
		{wire.Flow{DestinationPorts: many[:11], Protocols: one(r(0, 255))}, "make 33 combinations of protocols and port ranges: want at most 32"},
		{wire.Flow{Ports: one(r(80, 80)), DestinationPorts: one(r(90, 90)), SourcePorts: one(r(90, 90))}, "its components match no packet"},
		{wire.Flow{Protocols: one(r(1, 5)), SourcePorts: one(r(90, 90))}, "its protocols have no ports"},
	} {
		if list, err := vpn.Classify(tt.flow); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, %v: want %s", tt.flow, list, err, tt.want)
		}
	}
}
