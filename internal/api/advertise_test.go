// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"strings"
	"testing"
)

// A VRF shows advertise_as, last, where it is not the default, and its type 5 routes.
func TestAdvertiseAs(t *testing.T) {
	t.Parallel()
	const route = `"evpn:prefix::10.77.0.1:0:-:0:192.0.2.10/32: label 1 (16)":{"afi-safi":"l2vpn/evpn",` +
		`"attributes":{"extended-community":"[ target:64512:100 encap:VXLAN router-mac:00:00:5e:00:53:01 ]","local-preference":"100"}`
	for _, tt := range []struct {
		in     any
		want   string
		routes int // of type 5
	}{
		{absent, "", 0}, {nil, "", 0}, {"vpn", "", 0}, {"evpn", `,"advertise_as":"evpn"}`, 1}, {"both", `,"advertise_as":"both"}`, 1},
	} {
		t.Run(fmt.Sprint(tt.in), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newServer(t)
				s.overVXLAN()
				in := ipvpnBody().with("advertise_as", tt.in)
				s.accept("/attach_localport", in)
				got := strings.TrimSpace(s.get("/looking-glass/vpns/instances/blue").Body.String())
				if tt.want == "" && strings.Contains(got, "advertise_as") || !strings.HasSuffix(got, tt.want) {
					t.Errorf("instance %s, want it to end in %q", got, tt.want)
				}
				adv := s.get("/looking-glass/vpns/instances/blue/adv_routes").Body.String()
				if n := strings.Count(adv, route); n != tt.routes || strings.Count(adv, "evpn:prefix") != tt.routes {
					t.Errorf("%d type 5 routes, want %d: %s", n, tt.routes, adv)
				}
				s.accept("/detach_localport", in)
			})
		})
	}
}
