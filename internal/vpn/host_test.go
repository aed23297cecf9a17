// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Addresses that no host has make no endpoint.
func TestAddressOfNoHost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		for _, ip := range []string{"0.0.0.0", "::", "224.0.0.1", "ff02::1", "0.0.0.0/0", "::/64"} {
			wantRefused(t, n.Attach(context.Background(), evpn(1, ip)), "ip_address")
			wantRefused(t, n.Attach(context.Background(), vrf(1, ip)), "ip_address")
		}
		for _, ip := range []string{"0.0.0.0/0", "::/0"} { // all that there is may be behind an endpoint
			wantRefused(t, n.Attach(context.Background(), vrf(1, ip, subnet)), "")
		}
		wantRefused(t, n.Attach(context.Background(), vrf(1, "0.0.0.0/32", subnet)), "ip_address")
		wantRefused(t, n.Attach(context.Background(), vrf(1, "224.0.0.0/4", subnet)), "ip_address")
	})
}

// Routes for addresses that no host has are kept and shown, and forward nothing: no
// dataplane could, and it is no fault of this node.
func TestImportOfAddressOfNoHost(t *testing.T) {
	t.Parallel()
	attrs := remoteAttrs(9, "64512:1")
	of := func(m ethernet.MAC, ip string) received {
		return received{route: wire.Route{NLRI: wire.MACIPRoute(remoteRD(9), m, addr(ip)), Label: 99}, attrs: attrs}
	}
	to7 := "mac 02:00:00:00:00:07 via 10.77.1.9/99/VXLAN"
	for _, tt := range []importCase{
		{name: "unspecified", in: []received{of(mac(7), "0.0.0.0"), of(mac(7), "::")}, want: []string{to7}},
		{name: "multicast", in: []received{of(mac(7), "224.0.0.1"), of(mac(7), "ff02::1")}, want: []string{to7}},
		{name: "mapped", in: []received{of(mac(7), "::ffff:192.0.2.7")}, want: []string{to7}},
		{name: "multicast MAC", in: []received{of(ethernet.MAC{1}, "192.0.2.7")}},
		{name: "zero MAC", in: []received{of(ethernet.MAC{}, "192.0.2.7")}},
		{name: "a good one beside", in: []received{of(mac(7), "0.0.0.0"), of(mac(7), "192.0.2.7")}, want: []string{to7, "neigh 02:00:00:00:00:07 ip 192.0.2.7"}},
	} {
		t.Run(tt.name, tt.run(dataplane.EVPN, evpn(1, "192.0.2.5")))
	}
}
