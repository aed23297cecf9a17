// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"slices"
	"testing"
)

// TestOriginalsThroughGoBGP runs the peers alone: two original nodes and
// GoBGP as their reflector. It proves that the harness reads all of them
// right, and holds on to what the original does and does not do.
func TestOriginalsThroughGoBGP(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("orig-a", 1), f.host("orig-b", 2)
	rr := newGoBGP(f, ha.v4, hb.v4)
	config := originalConfig{peers: []string{rr.v4.String()}}
	a, b := newOriginal(ha, config), newOriginal(hb, config)
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	vmB := hb.vm("vm-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24")
	a.waitAPI()
	b.waitAPI()
	for _, n := range []*node{a, b} {
		p := n.established(rr.v4.String())
		if p.Protocol.HoldTime != 90 || !p.RTC.Active {
			t.Errorf("%s: hold time %d, RTC active %t; want 90, true", n.label, p.Protocol.HoldTime, p.RTC.Active)
		}
		want := []string{"(ipv4, flow-vpn)", "(ipv4, mpls-vpn)", "(ipv4, rtc)", "(l2vpn, evpn)"}
		if got := slices.Sorted(slices.Values(p.Families)); !slices.Equal(got, want) {
			t.Errorf("%s: families %v, want %v", n.label, got, want)
		}
	}

	a.attachVM(vmA, "red", 0, "64512:300")
	b.attachVM(vmB, "red", 0, "64512:300")
	routesA := a.evi("red", "64512:300").routes(vmA)
	routesB := b.evi("red", "64512:300").routes(vmB)
	wantRoutes(t, "sent by a", rr.adjIn(ha.v4), routesA)
	wantRoutes(t, "sent to b", rr.adjOut(hb.v4), reflected(routesA, a.routerID, rr.v4.String()))
	wantRoutes(t, "received by b", b.from(rr.v4.String()), reflected(routesA, a.routerID, rr.v4.String()))
	wantRoutes(t, "received by a", a.from(rr.v4.String()), reflected(routesB, b.routerID, rr.v4.String()))
	rr.wantRTC(ha.v4, "64512:64512:300")
	vmA.mustReach(vmB.ip(0))
	vmB.mustReach(vmA.ip(0))

	// Unplugging withdraws the route although the driver fails.
	b.detachBroken(vmB.evpn("red", 0, "64512:300").withIP(vmB.ips[0]))
	left := b.evi("red", "64512:300").routes()
	wantRoutes(t, "left of b at a", a.from(rr.v4.String()), reflected(left, b.routerID, rr.v4.String()))
}

// TestFRRSpeakerWithOriginal runs FRR as E-VPN speaker with the kernel's VXLAN
// and an original node that dials it: routes are understood both ways.
func TestFRRSpeakerWithOriginal(t *testing.T) {
	f := newFabric(t)
	ho, hf := f.host("orig", 1), f.host("frr", 3)
	speaker := newFRRSpeaker(hf)
	o := newOriginal(ho, originalConfig{peers: []string{hf.v4.String()}})
	vmO := ho.vm("vm-o", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	vmF := hf.vm("vm-f", "tap0", "02:aa:00:00:00:0f", "198.51.100.15/24")
	speaker.plug(vmF)
	o.waitAPI()
	o.established(hf.v4.String())
	speaker.neighbor(ho.v4.String())

	o.attachVM(vmO, "red", speakerVNI, speakerRT)
	wantRoutes(t, "FRR has from the original", speaker.from(ho.v4.String()), frrView(o.evi("red", speakerRT).routes(vmO)))
	// FRR learns the MAC of its host from traffic and announces no address,
	// having none in its bridge.
	vmF.reaches(vmO.ip(0))
	wantRoutes(t, "the original has from FRR", o.from(hf.v4.String()),
		[]evpnRoute{speaker.evi().multicast(), speaker.evi().macIP(vmF.mac, "")})
}
