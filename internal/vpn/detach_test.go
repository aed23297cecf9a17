// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// TestDetach has the situations of rest-api.md 5.
func TestDetach(t *testing.T) {
	t.Parallel()
	const red, blue = "evpn red vni 16", "ipvpn blue vni 16"
	host, second, wild := evpn(1, "192.0.2.5"), evpn(1, "192.0.2.6"), evpn(1, "")
	local1, port1 := "  local-mac dev tap1 02:00:00:00:00:01", "  port dev tap1"
	to6 := "  prefix 192.0.2.6/32 via 10.77.2.1/17/MPLS"
	for _, tt := range []struct {
		name       string
		before     []vpn.Attachment
		in         vpn.Attachment
		wantField  string
		wantRoutes []string
		wantPlane  []string
		wantOps    []string
	}{
		{name: "unknown instance", in: host, wantField: "vpn_instance_id"},
		{name: "MAC not plugged", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.6"), wantField: "mac_address"},
		{name: "IP not plugged", before: []vpn.Attachment{host}, in: second, wantField: "ip_address"},
		{name: "IP of another MAC", before: []vpn.Attachment{host}, in: evpn(2, "192.0.2.5"), wantField: "ip_address"},
		{name: "IP where only a wildcard is", before: []vpn.Attachment{wild}, in: host, wantField: "ip_address"},
		{name: "VRF: MAC not plugged", before: []vpn.Attachment{vrf(1, "192.0.2.5")}, in: vrf(2, "192.0.2.6"), wantField: "mac_address"},
		{name: "VRF: IP not plugged", before: []vpn.Attachment{vrf(1, "192.0.2.5")}, in: vrf(1, "192.0.2.6"), wantField: "ip_address"},
		{
			name: "exact, one of two IPs", before: []vpn.Attachment{host, second}, in: second,
			wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1},
		},
		{
			name: "exact, last of its MAC", before: []vpn.Attachment{host, evpn(2, "192.0.2.6")}, in: evpn(2, "192.0.2.6"),
			wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1}, wantOps: []string{"red: - local-mac dev tap1 02:00:00:00:00:02"},
		},
		{
			name: "exact, last of its port", before: []vpn.Attachment{host, evpn(2, "192.0.2.6", onPort("tap2"))}, in: evpn(2, "192.0.2.6"),
			wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1},
			wantOps: []string{"red: - local-mac dev tap2 02:00:00:00:00:02", "red: - port dev tap2"},
		},
		{
			name: "exact, last of all", before: []vpn.Attachment{host}, in: host,
			wantOps: []string{"red: - local-mac dev tap1 02:00:00:00:00:01", "red: - port dev tap1", "red: remove"},
		},
		{
			name: "wildcard detach of a MAC with IPs", before: []vpn.Attachment{host, second, evpn(2, "")}, in: wild,
			wantRoutes: []string{"EVI-1 evpn:macadv::10.77.0.1:1:-:0:02:00:00:00:00:02/48:: label 1 (16) via 10.77.1.1 pref 100 [encap:VXLAN target:64512:1]", imet},
			wantPlane:  []string{red, "  local-mac dev tap1 02:00:00:00:00:02", port1}, wantOps: []string{"red: - local-mac dev tap1 02:00:00:00:00:01"},
		},
		{
			name: "wildcard detach of all", before: []vpn.Attachment{host, second, wild}, in: wild,
			wantOps: []string{"red: - local-mac dev tap1 02:00:00:00:00:01", "red: - port dev tap1", "red: remove"},
		},
		{
			name: "wildcard detach of a wildcard", before: []vpn.Attachment{wild, evpn(2, "192.0.2.6")}, in: wild,
			wantRoutes: []string{mac2ip6, imet}, wantPlane: []string{red, "  local-mac dev tap1 02:00:00:00:00:02", port1},
			wantOps: []string{"red: - local-mac dev tap1 02:00:00:00:00:01"},
		},
		{
			name: "wildcard detach of an unknown MAC", before: []vpn.Attachment{host}, in: evpn(2, ""),
			wantRoutes: []string{mac1ip5, imet}, wantPlane: []string{red, local1, port1},
		},
		{
			name: "VRF: with another mask than at attach", before: []vpn.Attachment{vrf(1, "192.0.2.5/24"), vrf(1, "192.0.2.6")}, in: vrf(1, "192.0.2.5"),
			wantRoutes: []string{ip6}, wantPlane: []string{blue, "  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.6 192.0.2.6/32 label 17", port1, to6},
			wantOps: []string{"blue: - local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17", "blue: - prefix 192.0.2.5/32"},
		},
		{
			name: "VRF: from-port", before: []vpn.Attachment{vrf(1, "192.0.2.5", direction(dataplane.FromPort)), vrf(1, "192.0.2.6")}, in: vrf(1, "192.0.2.5"),
			wantRoutes: []string{ip6}, wantPlane: []string{blue, "  local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.6 192.0.2.6/32 label 17", port1, to6},
			wantOps: []string{"blue: - local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.5/32 label 17 from-port"},
		},
		{
			name: "VRF: subnet of two MACs", before: []vpn.Attachment{vrf(1, "192.0.2.5/24", subnet), vrf(2, "192.0.2.5/24", subnet)}, in: vrf(1, "192.0.2.5"),
			wantRoutes: []string{"VRF-1 192.0.2.0/24 label 18 next-hop 10.77.2.1 rd 10.77.0.1:2 via 10.77.2.1 pref 100 [encap:MPLS target:64512:1]"},
			wantPlane:  []string{blue, "  local-prefix dev tap1 02:00:00:00:00:02 ip 192.0.2.5 192.0.2.0/24 label 18", port1, "  prefix 192.0.2.0/24 via 10.77.2.1/18/MPLS"},
			wantOps:    []string{"blue: - local-prefix dev tap1 02:00:00:00:00:01 ip 192.0.2.5 192.0.2.0/24 label 17", "blue: + prefix 192.0.2.0/24 via 10.77.2.1/18/MPLS"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				n.attach(tt.before...)
				n.plane.Log()
				before := n.state()
				err := n.Detach(context.Background(), detachment(tt.in))
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
		})
	}
}

func TestSecondDetachIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5"), evpn(2, "192.0.2.6"))
		n.detach(evpn(1, "192.0.2.5"))
		wantRefused(t, n.Detach(context.Background(), detachment(evpn(1, "192.0.2.5"))), "mac_address")
		n.detach(evpn(2, "192.0.2.6"))
		wantRefused(t, n.Detach(context.Background(), detachment(evpn(2, "192.0.2.6"))), "vpn_instance_id")
	})
}

// wantNothing checks that nothing is left of all instances.
func (n *node) wantNothing() {
	n.tb.Helper()
	n.wantPlane()
	st := n.rib.Stats()
	if st.Paths != 0 || st.Sets != 0 {
		n.tb.Errorf("%d paths and %d sets are left", st.Paths, st.Sets)
	}
	for what, m := range map[string]map[uint32]string{"labels": n.Labels(), "RDs": n.RDs()} {
		if len(m) > 0 {
			n.tb.Errorf("%s are left: %v", what, m)
		}
	}
	if c := n.Behind(); c != 0 {
		n.tb.Errorf("labels behind %d type 5 routes are left", c)
	}
	if c := n.Count(); c != 0 {
		n.tb.Errorf("%d instances are left", c)
	}
	if p := n.reconciler.Problems(); len(p) > 0 {
		n.tb.Errorf("problems are left: %v", p)
	}
}

func TestEndOfInstancesFreesEverything(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true})
		all := []vpn.Attachment{
			evpn(1, ""), evpn(2, "192.0.2.6"), evpn(2, "2001:db8::6"), evpn(3, "192.0.2.7", vni(5000), named("green")),
			vrf(1, "192.0.2.5/24", subnet), vrf(2, "192.0.2.5/24", subnet), vrf(2, "192.0.2.6"),
		}
		n.attach(all...)
		if got, want := len(n.Labels()), 4; got != want { // red, blue, two MACs of blue
			t.Errorf("%d labels in use, want %d: %v", got, want, n.Labels())
		}
		if got, want := len(n.RDs()), 6; got != want { // three instances, wildcard, two subnets
			t.Errorf("%d RDs in use, want %d: %v", got, want, n.RDs())
		}
		n.detach(all...)
		n.wantNothing()
		// The sources are free too: the next ones take their places.
		n.attach(all...)
		n.detach(all...)
		n.wantNothing()
	})
}

// A detach never fails because of the dataplane: what the driver refuses is
// tried again, and an attach meanwhile gets a clean instance.
func TestDetachWithFailingDriver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		a := evpn(1, "192.0.2.5")
		n.attach(a, evpn(2, "192.0.2.6", onPort("tap2")))
		n.plane.Fail(fake.Forever, func(o fake.Op) bool { return o.Change.Delete || o.Verb == "remove" })
		n.detach(a)
		n.wantRoutes(mac2ip6, imet)
		if p := n.reconciler.Problems(); len(p) != 1 || p[0].Count != 2 {
			t.Errorf("problems %v, want one for the MAC and the port", p)
		}
		n.detach(evpn(2, "192.0.2.6"))
		n.wantRoutes()
		if p := n.reconciler.Problems(); len(p) != 1 || p[0].Change.String() != "- instance" {
			t.Errorf("problems %v, want the instance", p)
		}
		if err := n.Attach(context.Background(), a); err == nil {
			t.Error("attach succeeded although the earlier instance is not gone")
		}
		n.plane.Heal()
		n.attach(a)
		pass()
		settle()
		n.wantPlane("evpn red vni 18", "  local-mac dev tap1 02:00:00:00:00:01", "  port dev tap1")
		n.detach(a)
		n.wantNothing()
	})
}
