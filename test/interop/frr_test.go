// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"strings"
	"testing"
)

// quickRetry makes our daemon try again soon after a session is lost.
var quickRetry = options{"connect_retry_time": "1"}

// TestFRRReflector runs two of our nodes as clients of FRR's route reflector:
// routes with all their fields, traffic, withdraws, and a reflector that goes
// away and comes back.
func TestFRRReflector(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	rr := newFRR(f.host("frr", 254))
	rr.startReflector(false, ha.v4, hb.v4)
	peer := rr.v4.String()
	a, b := newOurs(ha, []string{peer}, quickRetry), newOurs(hb, []string{peer}, quickRetry)
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24", "2001:db8:1::10/64")
	vmB := hb.vm("vm-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24", "2001:db8:1::11/64")
	for _, n := range []*node{a, b} {
		if p := n.established(peer); p.Protocol.HoldTime != 90 || p.RTC.Active || p.AS.Peer != 64512 {
			t.Errorf("%s: session %+v; want hold time 90, no RTC, AS 64512", n.label, p)
		}
		checkFRRNeighbor(t, rr.neighbor(n.local), n)
	}

	// The VNIs differ: each node sends with that of the other.
	a.attachVM(vmA, "red", 1001, "64512:300")
	b.attachVM(vmB, "red", 1002, "64512:300")
	eviA, eviB := a.evi("red", "64512:300"), b.evi("red", "64512:300")
	if eviA.vni != 1001 || eviB.vni != 1002 {
		t.Errorf("VNIs %d and %d, want 1001 and 1002", eviA.vni, eviB.vni)
	}
	received := func(e evi, n *node, vms ...*vm) []evpnRoute {
		return reflectedByFRR(e.routes(vms...), n.routerID, peer)
	}
	exchanged := func() {
		t.Helper()
		wantRoutes(t, "FRR has from a", rr.from(a.local), frrView(eviA.routes(vmA)))
		wantRoutes(t, "FRR has from b", rr.from(b.local), frrView(eviB.routes(vmB)))
		wantRoutes(t, "a has from FRR", a.from(peer), received(eviB, b, vmB))
		wantRoutes(t, "b has from FRR", b.from(peer), received(eviA, a, vmA))
		for i := range vmA.ips {
			vmA.mustReach(vmB.ip(i))
			vmB.mustReach(vmA.ip(i))
		}
	}
	exchanged()

	t.Log("a second port without address comes and goes")
	vmC := hb.vm("vm-c", "tap1", "02:aa:00:00:00:0c")
	b.attach(vmC.evpn("red", 1002, "64512:300"))
	macOnly := eviB.macIP(vmC.mac, "")
	macOnly.RD = ownRD(t, b, vmC.mac)
	wantRoutes(t, "a has with b's MAC-only route", a.from(peer), received(eviB, b, vmB),
		reflectedByFRR([]evpnRoute{macOnly}, b.routerID, peer))
	b.detach(vmC.evpn("red", 1002, "64512:300"))
	wantRoutes(t, "a has without it", a.from(peer), received(eviB, b, vmB))

	t.Log("one address of two is withdrawn")
	b.detach(vmB.evpn("red", 1002, "64512:300").withIP(vmB.ips[1]))
	left := []evpnRoute{eviB.multicast(), eviB.macIP(vmB.mac, vmB.ip(0))}
	wantRoutes(t, "FRR has from b", rr.from(b.local), frrView(left))
	wantRoutes(t, "a has from FRR", a.from(peer), reflectedByFRR(left, b.routerID, peer))
	vmA.mustReach(vmB.ip(0))
	b.attach(vmB.evpn("red", 1002, "64512:300").withIP(vmB.ips[1]))
	exchanged()

	t.Log("FRR restarts")
	if !rr.bgpd.stop() {
		t.Error("bgpd did not stop when asked")
	}
	for _, n := range []*node{a, b} {
		n.down(peer)
		wantRoutes(t, n.label+" has from a peer that is gone", n.from(peer))
	}
	vmA.mustNotReach(vmB.ip(0))
	rr.startReflector(false, ha.v4, hb.v4)
	a.established(peer)
	b.established(peer)
	exchanged()

	t.Log("the last port goes, and the instance with it")
	for _, ip := range vmB.ips {
		b.detach(vmB.evpn("red", 1002, "64512:300").withIP(ip))
	}
	wantRoutes(t, "FRR has from b", rr.from(b.local))
	wantRoutes(t, "a has from FRR", a.from(peer))
	vmA.mustNotReach(vmB.ip(0))

	t.Log("FRR asks for our routes again")
	before := rr.neighbor(a.local)
	rr.do("clear bgp l2vpn evpn " + a.local + " soft in")
	rr.neighborUntil(a.local, func(n frrNeighbor) bool {
		return n.Messages.RefreshesSent > before.Messages.RefreshesSent && n.Messages.UpdatesReceived > before.Messages.UpdatesReceived
	})
	wantRoutes(t, "FRR has from a", rr.from(a.local), frrView(eviA.routes(vmA)))
	after := rr.neighbor(a.local)
	if after.Established != before.Established || after.Messages.NotificationsReceived != 0 {
		t.Errorf("the session did not stay: %+v, before %+v", after, before)
	}

	t.Log("a stops, and says so")
	if !a.proc.stop() {
		t.Error("our daemon did not stop when asked")
	}
	down := rr.neighborUntil(a.local, func(n frrNeighbor) bool { return n.State != "Established" })
	// FRR counts a notification with text twice.
	if down.Messages.NotificationsReceived == 0 || down.LastNotification != "Cease/Administrative Shutdown" || down.ShutdownText == "" {
		t.Errorf("FRR got %d notifications, the last %q with text %q (%q); want Cease/Administrative Shutdown with a text",
			down.Messages.NotificationsReceived, down.LastNotification, down.ShutdownText, down.LastReset)
	}
}

// TestFRRCollision lets FRR and our daemon dial each other at the same time:
// one session has to remain (RFC 4271 section 6.8), whoever dials first.
func TestFRRCollision(t *testing.T) {
	f := newFabric(t)
	low, high := f.host("low", 1), f.host("high", 99)
	rr := newFRR(f.host("frr", 50))
	rr.startReflector(true, low.v4, high.v4)
	peer := rr.v4.String()
	for _, h := range []*host{low, high} {
		n := newOurs(h, []string{peer}, options{"listen": "true", "connect_retry_time": "1"})
		v := h.vm("vm-"+h.label, "tap0", fmt.Sprintf("02:aa:00:00:00:%02x", h.v4.As4()[3]), fmt.Sprintf("198.51.100.%d/24", h.v4.As4()[3]))
		up := n.established(peer)
		n.attachVM(v, "red", 0, "64512:300")
		wantRoutes(t, "FRR has from "+h.label, rr.from(n.local), frrView(n.evi("red", "64512:300").routes(v)))
		if again := n.established(peer); again.Protocol.Since != up.Protocol.Since {
			t.Errorf("%s: the session did not stay: up since %s, then %s", h.label, up.Protocol.Since, again.Protocol.Since)
		}
	}
}

// checkFRRNeighbor checks what FRR made of our OPEN.
func checkFRRNeighbor(t *testing.T, p frrNeighbor, n *node) {
	t.Helper()
	if p.RouterID != n.routerID || p.HoldTime != 90_000 {
		t.Errorf("FRR sees %s as %s with hold time %d ms, want %s and 90000", n.label, p.RouterID, p.HoldTime, n.routerID)
	}
	if p.Capabilities.FourOctetAS != "advertisedAndReceived" {
		t.Errorf("FRR: four-octet AS of %s: %q", n.label, p.Capabilities.FourOctetAS)
	}
	if !strings.HasPrefix(p.Capabilities.RouteRefresh, "advertisedAndReceived") {
		t.Errorf("FRR: route refresh of %s: %q", n.label, p.Capabilities.RouteRefresh)
	}
	for _, family := range []string{"l2VpnEvpn", "ipv4Vpn", "ipv6Vpn"} {
		if !p.Capabilities.Families[family].Both {
			t.Errorf("FRR: family %s not agreed with %s: %+v", family, n.label, p.Capabilities.Families)
		}
	}
}

// ownRD returns the route distinguisher of a node's own route for a MAC.
func ownRD(t *testing.T, n *node, mac string) string {
	t.Helper()
	routes, err := n.own()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.MAC == mac {
			return r.RD
		}
	}
	t.Fatalf("%s announces no route for %s: %v", n.label, mac, routes)
	return ""
}

// TestFRRSpeaker runs one of our nodes against FRR as an E-VPN speaker with a
// VNI of its own on the kernel's VXLAN: traffic by MAC routes alone, and a MAC
// that moves from FRR to us.
func TestFRRSpeaker(t *testing.T) {
	f := newFabric(t)
	ha, hf := f.host("node-a", 1), f.host("frr", 3)
	speaker := newFRRSpeaker(hf)
	peer := hf.v4.String()
	vmF := hf.vm("vm-f", "tap0", "02:aa:00:00:00:0f", "198.51.100.15/24")
	vmF.Run("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
	speaker.plug(vmF)
	a := newOurs(ha, []string{peer}, quickRetry)
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	a.established(peer)
	a.attachVM(vmA, "red", speakerVNI, speakerRT)
	eviA := a.evi("red", speakerRT)
	wantRoutes(t, "FRR has from us", speaker.from(a.local), frrView(eviA.routes(vmA)))
	wantRoutes(t, "we have from FRR before its host spoke", a.from(peer), []evpnRoute{speaker.evi().multicast()})

	vmF.mustReach(vmA.ip(0))
	vmA.mustReach(vmF.ip(0))
	hostRoute := speaker.evi().macIP(vmF.mac, "")
	wantRoutes(t, "we have from FRR", a.from(peer), []evpnRoute{speaker.evi().multicast(), hostRoute})
	forwarding := ha.Run("bridge", "fdb", "show")
	if !hasLine(forwarding, vmF.mac, "dst "+peer, "self") {
		t.Errorf("no FDB entry for %s towards FRR:\n%s", vmF.mac, forwarding)
	}

	t.Log("the MAC moves from FRR to us")
	moved := ha.vm("moved", "tap1", vmF.mac, vmF.ips...)
	a.attachVM(moved, "red", speakerVNI, speakerRT)
	route := eviA.macIP(moved.mac, moved.ip(0))
	route.Communities = []string{encapVXLAN, "mac-mobility:1"}
	wantRoutes(t, "FRR has from us", speaker.from(a.local), frrView(append(eviA.routes(vmA), route)))
	own := speaker.evi().multicast()
	own.LocalPref = 0 // FRR shows none for routes of its own
	wantRoutes(t, "FRR has taken back its own route", speaker.from("0.0.0.0"), frrView([]evpnRoute{own}))
	wantRoutes(t, "we have from FRR", a.from(peer), []evpnRoute{speaker.evi().multicast()})
	vmA.mustReach(moved.ip(0))
}

// hasLine reports whether a line of text contains all the words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}
