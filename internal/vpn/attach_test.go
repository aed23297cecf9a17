// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// Routes that the tests name; the node is 10.77.0.1.
const (
	imet    = "EVI-1 evpn:multicast::10.77.0.1:0:0:10.77.0.1 via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1] pmsi 6/16/10.77.1.1"
	mac1    = "EVI-1 evpn:macadv::10.77.0.1:1:-:0:02:00:00:00:00:01/48:: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]"
	mac1ip5 = "EVI-1 evpn:macadv::10.77.0.1:0:-:0:02:00:00:00:00:01/48:192.0.2.5: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]"
	mac1ip6 = "EVI-1 evpn:macadv::10.77.0.1:0:-:0:02:00:00:00:00:01/48:192.0.2.6: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]"
	mac1v6  = "EVI-1 evpn:macadv::10.77.0.1:0:-:0:02:00:00:00:00:01/48:2001:db8::5: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]"
	mac2ip6 = "EVI-1 evpn:macadv::10.77.0.1:0:-:0:02:00:00:00:00:02/48:192.0.2.6: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]"
	ip5     = "VRF-1 192.0.2.5/32 label 17 next-hop 10.77.2.1 rd 10.77.0.1:0 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
	ip6     = "VRF-1 192.0.2.6/32 label 17 next-hop 10.77.2.1 rd 10.77.0.1:0 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
	mac2vrf = "VRF-1 192.0.2.6/32 label 18 next-hop 10.77.2.1 rd 10.77.0.1:0 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
)

// attachCase is a row of the table in rest-api.md 3.8: what an attach does to
// an instance that has endpoints already.
type attachCase struct {
	name       string
	before     []vpn.Attachment
	in         vpn.Attachment
	wantField  string // of the refusal
	wantRoutes []string
	wantPlane  []string
	wantOps    []string // of the attach alone
}

func (tt attachCase) run(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(tt.before...)
		n.plane.Log()
		before := n.state()
		err := n.Attach(context.Background(), tt.in)
		settle()
		wantRefused(t, err, tt.wantField)
		wantLines(t, "operations", tt.wantOps, n.plane.Log())
		if err != nil {
			n.wantState(before)
			return
		}
		n.wantRoutes(tt.wantRoutes...)
		n.wantPlane(tt.wantPlane...)
	})
}

func TestAttachEVPN(t *testing.T) {
	t.Parallel()
	const red = "evpn red vni 16"
	port1, local1 := "  port dev tap1", "  local-mac dev tap1 02:00:00:00:00:01"
	plug1 := []string{"red: + port dev tap1", "red: + local-mac dev tap1 02:00:00:00:00:01"}
	host := evpn(1, "192.0.2.5")
	for _, tt := range []attachCase{
		{
			name: "new MAC, new IP", in: host, wantRoutes: []string{mac1ip5, imet},
			wantPlane: []string{red, local1, port1}, wantOps: append([]string{"red: open"}, plug1...),
		},
		{name: "same again", before: []vpn.Attachment{host}, in: host, wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1}, wantOps: plug1},
		{
			name: "refresh with local_pref", before: []vpn.Attachment{host}, in: evpn(1, "192.0.2.5", pref(150)),
			wantRoutes: []string{strings.Replace(mac1ip5, "pref 100", "pref 150", 1), imet}, wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{
			name: "address with another mask", before: []vpn.Attachment{host}, in: evpn(1, "192.0.2.5/24"),
			wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{
			name: "same MAC, another IP", before: []vpn.Attachment{host}, in: evpn(1, "192.0.2.6"),
			wantRoutes: []string{mac1ip5, mac1ip6, imet}, wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{
			name: "IPv4 and IPv6 of one MAC", before: []vpn.Attachment{host}, in: evpn(1, "2001:db8::5"),
			wantRoutes: []string{mac1ip5, mac1v6, imet}, wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{name: "same MAC, same IP, other port", before: []vpn.Attachment{host}, in: evpn(1, "192.0.2.5", onPort("tap2")), wantField: "local_port"},
		{name: "same MAC, other IP, other port", before: []vpn.Attachment{host}, in: evpn(1, "192.0.2.6", onPort("tap2")), wantField: "local_port"},
		{name: "wildcard, other port", before: []vpn.Attachment{host}, in: evpn(1, "", onPort("tap2")), wantField: "local_port"},
		{name: "other MAC, same IP", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.5"), wantField: "ip_address"},
		{name: "other MAC, same IP, other port", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.5", onPort("tap2")), wantField: "ip_address"},
		{name: "subnet", in: evpn(1, "192.0.2.5/24", subnet), wantField: "advertise_subnet"},
		{
			name: "other MAC and IP on the same port", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.6"), wantRoutes: []string{mac1ip5, mac2ip6, imet},
			wantPlane: []string{red, local1, "  local-mac dev tap1 02:00:00:00:00:02", port1},
			wantOps:   []string{"red: + port dev tap1", "red: + local-mac dev tap1 02:00:00:00:00:02"},
		},
		{
			name: "other MAC and IP on another port", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.6", onPort("tap2")), wantRoutes: []string{mac1ip5, mac2ip6, imet},
			wantPlane: []string{red, local1, "  local-mac dev tap2 02:00:00:00:00:02", port1, "  port dev tap2"},
			wantOps:   []string{"red: + port dev tap2", "red: + local-mac dev tap2 02:00:00:00:00:02"},
		},
		{
			name: "wildcard, MAC unknown", in: evpn(1, ""), wantRoutes: []string{mac1, imet},
			wantPlane: []string{red, local1, port1}, wantOps: append([]string{"red: open"}, plug1...),
		},
		{
			name: "wildcard, MAC plugged", before: []vpn.Attachment{host}, in: evpn(1, ""), wantRoutes: []string{mac1ip5, mac1, imet},
			wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{
			name: "IP where a wildcard is", before: []vpn.Attachment{evpn(1, "")}, in: host, wantRoutes: []string{mac1ip5, imet},
			wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
		{
			name: "second IP after the wildcard", before: []vpn.Attachment{evpn(1, ""), host}, in: evpn(1, "192.0.2.6"), wantRoutes: []string{mac1ip5, mac1ip6, imet},
			wantPlane: []string{red, local1, port1}, wantOps: plug1,
		},
	} {
		t.Run(tt.name, tt.run)
	}
}

func TestAttachIPVPN(t *testing.T) {
	t.Parallel()
	const blue = "ipvpn blue vni 16"
	const net1 = "VRF-1 192.0.2.0/24 label 17 next-hop 10.77.2.1 rd 10.77.0.1:1 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
	const net2 = "VRF-1 192.0.2.0/24 label 18 next-hop 10.77.2.1 rd 10.77.0.1:2 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
	const v6 = "VRF-1 2001:db8::5/128 label 17 next-hop 10.77.2.1 rd 10.77.0.1:0 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"
	port1, local5 := "  port dev tap1", "  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17"
	wide5, to5, toNet := "  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.0/24 label 17", "  prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS", "  prefix 192.0.2.0/24 via 10.77.2.1/17/MPLS"
	host, wide := vrf(1, "192.0.2.5"), vrf(1, "192.0.2.5/24", subnet)
	plug := "blue: + port dev tap1"
	plug5 := "blue: + local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17"
	route5 := "blue: + prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS"
	for _, tt := range []attachCase{
		{name: "new MAC, new IP", in: host, wantRoutes: []string{ip5}, wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{"blue: open", plug, plug5, route5}},
		{name: "same again", before: []vpn.Attachment{host}, in: host, wantRoutes: []string{ip5}, wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{plug, plug5}},
		{
			name: "same MAC, another IP: same label", before: []vpn.Attachment{host}, in: vrf(1, "192.0.2.6"), wantRoutes: []string{ip5, ip6},
			wantPlane: []string{blue, local5, "  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.6 192.0.2.6/32 label 17", port1, to5, "  prefix 192.0.2.6/32 via 10.77.2.1/17/MPLS"},
			wantOps:   []string{plug, "blue: + local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.6 192.0.2.6/32 label 17", "blue: + prefix 192.0.2.6/32 via 10.77.2.1/17/MPLS"},
		},
		{name: "same MAC, other port", before: []vpn.Attachment{host}, in: vrf(1, "192.0.2.5", onPort("tap2")), wantField: "local_port"},
		{name: "other MAC, same IP", before: []vpn.Attachment{host}, in: vrf(2, "192.0.2.5"), wantField: "ip_address"},
		{name: "other MAC, same IP with mask", before: []vpn.Attachment{host}, in: vrf(2, "192.0.2.5/24"), wantField: "ip_address"},
		{name: "no IP", in: vrf(1, ""), wantField: "ip_address"},
		{
			name: "other MAC, same subnet: own RDs", before: []vpn.Attachment{wide}, in: vrf(2, "192.0.2.5/24", subnet, onPort("tap2")), wantRoutes: []string{net1, net2},
			wantPlane: []string{blue, wide5, "  local-prefix dev tap2 02:00:00:00:00:02 ip 192.0.2.5 192.0.2.0/24 label 18", port1, "  port dev tap2", toNet + " via 10.77.2.1/18/MPLS"},
			wantOps:   []string{"blue: + port dev tap2", "blue: + local-prefix dev tap2 02:00:00:00:00:02 ip 192.0.2.5 192.0.2.0/24 label 18", "blue: + prefix 192.0.2.0/24 via 10.77.2.1/17/MPLS via 10.77.2.1/18/MPLS"},
		},
		{
			name: "other MAC and IP on the same port: own label", before: []vpn.Attachment{host}, in: vrf(2, "192.0.2.6"), wantRoutes: []string{ip5, mac2vrf},
			wantPlane: []string{blue, local5, "  local-prefix dev tap1 02:00:00:00:00:02 ip 192.0.2.6 192.0.2.6/32 label 18", port1, to5, "  prefix 192.0.2.6/32 via 10.77.2.1/18/MPLS"},
			wantOps:   []string{plug, "blue: + local-prefix dev tap1 02:00:00:00:00:02 ip 192.0.2.6 192.0.2.6/32 label 18", "blue: + prefix 192.0.2.6/32 via 10.77.2.1/18/MPLS"},
		},
		{name: "host route becomes subnet", before: []vpn.Attachment{vrf(1, "192.0.2.5/24")}, in: wide, wantRoutes: []string{net1}, wantPlane: []string{blue, wide5, port1, toNet}, wantOps: []string{plug, strings.Replace(plug5, "2.5/32", "2.0/24", 1), "blue: + prefix 192.0.2.0/24 via 10.77.2.1/17/MPLS", "blue: - prefix 192.0.2.5/32"}},
		{name: "subnet becomes host route", before: []vpn.Attachment{wide}, in: vrf(1, "192.0.2.5/24"), wantRoutes: []string{ip5}, wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{plug, plug5, route5, "blue: - prefix 192.0.2.0/24"}},
		{name: "whole host as a subnet", in: vrf(1, "192.0.2.5/32", subnet), wantRoutes: []string{ip5}, wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{"blue: open", plug, plug5, route5}},
		{
			name: "IPv6", in: vrf(1, "2001:db8::5"), wantRoutes: []string{v6},
			wantPlane: []string{blue, "  local-prefix dev tap1 02:00:00:00:00:01 ip 2001:db8::5 2001:db8::5/128 label 17", port1, "  prefix 2001:db8::5/128 via 10.77.2.1/17/MPLS"},
			wantOps:   []string{"blue: open", plug, "blue: + local-prefix dev tap1 02:00:00:00:00:01 ip 2001:db8::5 2001:db8::5/128 label 17", "blue: + prefix 2001:db8::5/128 via 10.77.2.1/17/MPLS"},
		},
		{name: "to-port has a route", in: vrf(1, "192.0.2.5", direction(dataplane.ToPort)), wantRoutes: []string{ip5}, wantPlane: []string{blue, local5 + " to-port", port1 + " to-port", to5}, wantOps: []string{"blue: open", plug + " to-port", plug5 + " to-port", route5}},
		{name: "from-port has none", in: vrf(1, "192.0.2.5", direction(dataplane.FromPort)), wantPlane: []string{blue, local5 + " from-port", port1 + " from-port"}, wantOps: []string{"blue: open", plug + " from-port", plug5 + " from-port"}},
		{
			name: "both becomes from-port", before: []vpn.Attachment{host}, in: vrf(1, "192.0.2.5", direction(dataplane.FromPort)),
			wantPlane: []string{blue, local5 + " from-port", port1 + " from-port"}, wantOps: []string{plug + " from-port", plug5 + " from-port", "blue: - prefix 192.0.2.5/32"},
		},
		{
			name: "hash order", in: vrf(1, "192.0.2.5", func(a *vpn.Attachment) { a.HashOrder = 7 }),
			wantRoutes: []string{strings.Replace(ip5, "[", "[consistentHashSortOrder:7 ", 1)}, wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{"blue: open", plug, plug5, route5},
		},
		{
			name: "no route targets", in: vrf(1, "192.0.2.5", imports(), exports()), wantRoutes: []string{strings.Replace(ip5, " target:64512:1", "", 1)},
			wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{"blue: open", plug, plug5, route5},
		},
		{
			name: "duplicate route targets", in: vrf(1, "192.0.2.5", exports("64512:1", "64512:1")), wantRoutes: []string{ip5},
			wantPlane: []string{blue, local5, port1, to5}, wantOps: []string{"blue: open", plug, plug5, route5},
		},
	} {
		t.Run(tt.name, tt.run)
	}
}

func TestAttachRefusesWhatNoInstanceCanDo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   vpn.Attachment
		want string
	}{
		{"unknown type", attachment("l2vpn", "red", 1, "192.0.2.5", nil), "vpn_type"},
		{"direction on EVPN", evpn(1, "192.0.2.5", direction(dataplane.ToPort)), "direction"},
		{"bridge on IPVPN", vrf(1, "192.0.2.5", func(a *vpn.Attachment) { a.Bridge = "br0" }), "linuxbr"},
		{"multicast MAC", evpn(1, "192.0.2.5", func(a *vpn.Attachment) { a.MAC[0] = 1 }), "mac_address"},
		{"zero MAC", evpn(1, "192.0.2.5", func(a *vpn.Attachment) { a.MAC = [6]byte{} }), "mac_address"},
		{"VNI of 25 bits", evpn(1, "192.0.2.5", vni(1<<24)), "vni"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				before := n.state()
				wantRefused(t, n.Attach(context.Background(), tt.in), tt.want)
				n.wantState(before)
			})
		})
	}
}

func TestParametersOfTheInstance(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		first := vrf(1, "192.0.2.5/24", func(a *vpn.Attachment) {
			a.Gateway, a.InstanceDescription, a.Fallback = addr("192.0.2.1"), json.RawMessage(`"first"`), &vpn.Fallback{Source: ethernet.MAC{2}, MAC: ethernet.MAC{4}, Port: 3, Text: json.RawMessage(`{"src_mac":"a"}`)}
		})
		n.attach(first)
		n.wantPlane("ipvpn blue vni 16 gateway 192.0.2.1/24", "  fallback ovs port 3 04:00:00:00:00:00 from 02:00:00:00:00:00",
			"  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 gateway 192.0.2.1 label 17", "  port dev tap1", "  prefix 192.0.2.5/32 via 10.77.2.1/17/MPLS")
		n.attach(vrf(2, "192.0.2.6/28", vni(5000)))
		i := n.Instance("blue")
		if i.PrefixLen != 24 || i.Gateway != addr("192.0.2.1") || i.VNI != 16 {
			t.Errorf("later attach changed what is fixed: length %d, gateway %s, VNI %d", i.PrefixLen, i.Gateway, i.VNI)
		}
		if s := i.Snapshot(); s.Description != nil || s.Fallback == nil || string(s.Fallback.Text) != `{"src_mac":"a"}` {
			t.Errorf("description %s, want none; fallback %v, want the first", s.Description, s.Fallback)
		}
		if !strings.Contains(n.log.String(), "vni is fixed at creation") {
			t.Errorf("other VNI not logged:\n%s", n.log)
		}
	})
}

func TestSubnetThatBecomesHostGivesItsRDBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		for _, want := range []int{2, 1} {
			a := vrf(1, "192.0.2.5/24")
			a.AdvertiseSubnet = want == 2
			n.attach(a)
			if got := len(n.RDs()); got != want {
				t.Errorf("%d RDs in use, want %d", got, want)
			}
		}
	})
}

func TestOtherTypeIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5"))
		before := n.state()
		wantRefused(t, n.Attach(context.Background(), vrf(1, "192.0.2.5", named("red"))), "vpn_type")
		wantRefused(t, n.Detach(context.Background(), detachment(vrf(1, "192.0.2.5", named("red")))), "vpn_type")
		n.wantState(before)
	})
}

func TestGivenVNI(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(9, "", named("own")), vrf(1, "192.0.2.5")) // have labels 16 and 17 (instances) and 18 (MAC)
		before := n.state()
		wantRefused(t, n.Attach(context.Background(), evpn(1, "192.0.2.5", vni(16))), "vni")
		n.wantState(before)
		red := evpn(1, "192.0.2.5", vni(18)) // an MPLS label is no VNI
		n.attach(red)
		for _, other := range []vpn.Attachment{evpn(2, "192.0.2.6", vni(18), named("green")), vrf(2, "192.0.2.6", vni(18), named("green"))} {
			before := n.state()
			wantRefused(t, n.Attach(context.Background(), other), "vni")
			n.wantState(before)
		}
		n.attach(evpn(3, "", vni(19), named("given")), evpn(4, "", named("free")))
		if got := n.Instance("free").VNI; got != 20 {
			t.Errorf("VNI %d for an instance that gives none, want 20: 19 is another's", got)
		}
		n.detach(red)
		n.attach(evpn(2, "192.0.2.6", vni(18), named("green")))
		if got := n.Instance("green").VNI; got != 18 {
			t.Errorf("VNI %d, want 18", got)
		}
	})
}

func TestInstanceNumbersAreNotUsedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		for want := uint32(1); want < 5; want++ {
			a := evpn(1, "")
			n.attach(a)
			if got := n.Instance("red").Number; got != want {
				t.Errorf("number %d, want %d", got, want)
			}
			n.detach(a)
		}
	})
}

// A MAC has one label, or one for each IP version when the driver needs that.
func TestLabelsPerFamily(t *testing.T) {
	for _, perFamily := range []bool{false, true} {
		t.Run(fmt.Sprint(perFamily), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.LabelPerFamily = perFamily }})
				four, other, six := vrf(1, "192.0.2.5"), vrf(1, "192.0.2.6"), vrf(1, "2001:db8::5")
				n.attach(four, other, six)
				labels := map[string]uint32{}
				for _, e := range n.Instance("blue").Snapshot().Endpoints {
					labels[e.IP.Addr().String()] = e.Label
				}
				if labels["192.0.2.5"] != labels["192.0.2.6"] || (labels["192.0.2.5"] != labels["2001:db8::5"]) != perFamily {
					t.Errorf("labels %v", labels)
				}
				before := len(n.Labels())
				n.detach(six)
				if left := len(n.Labels()); (left == before-1) != perFamily {
					t.Errorf("%d labels after the last IPv6 endpoint left, %d before", left, before)
				}
				n.attach(six)
				n.detach(six, four, other)
				if left := n.Labels(); len(left) > 0 {
					t.Errorf("labels left: %v", left)
				}
			})
		})
	}
}
