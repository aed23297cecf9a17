// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// TestGoBGPReflectorRTC runs two of our nodes as clients of GoBGP's route
// reflector with RT constraint: a node receives what it imports and nothing
// else, also when route targets change while ports are attached.
func TestGoBGPReflectorRTC(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	rr := newGoBGP(f, ha.v4, hb.v4)
	peer := rr.v4.String()
	a, b := newOurs(ha, []string{peer}, quickRetry), newOurs(hb, []string{peer}, quickRetry)
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	redB := hb.vm("red-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24")
	blueB := hb.vm("blue-b", "tap1", "02:bb:00:00:00:0b", "198.51.100.12/24")
	for _, n := range []*node{a, b} {
		if p := n.established(peer); !p.RTC.Active || p.Protocol.HoldTime != 90 {
			t.Errorf("%s: session %+v; want RTC active, hold time 90", n.label, p)
		}
	}
	rr.wantRTC(ha.v4)

	b.attachVM(blueB, "blue", 0, "64512:400")
	b.attachVM(redB, "red", 0, "64512:300")
	a.attachVM(vmA, "red", 0, "64512:300")
	red := func(n *node, rts ...string) evi { return n.evi("red", rts...) }
	eviA, eviB, blue := red(a, "64512:300"), red(b, "64512:300"), b.evi("blue", "64512:400")
	fromB := func(routes ...evpnRoute) []evpnRoute { return reflected(routes, b.routerID, peer) }
	rr.wantRTC(ha.v4, "64512:64512:300")
	rr.wantRTC(hb.v4, "64512:64512:300", "64512:64512:400")
	wantRoutes(t, "GoBGP has from a", rr.adjIn(ha.v4), eviA.routes(vmA))
	wantRoutes(t, "GoBGP has from b", rr.adjIn(hb.v4), eviB.routes(redB), blue.routes(blueB))
	wantRoutes(t, "a has, without blue", a.from(peer), fromB(eviB.routes(redB)...))
	wantRoutes(t, "b has", b.from(peer), reflected(eviA.routes(vmA), a.routerID, peer))
	vmA.mustReach(redB.ip(0))

	t.Log("a imports blue too")
	change := vmA.evpn("red", 0, "64512:300").withIP(vmA.ips[0])
	change.ImportRT = []string{"64512:300", "64512:400"}
	a.attach(change)
	rr.wantRTC(ha.v4, "64512:64512:300", "64512:64512:400")
	wantRoutes(t, "a has red and blue", a.from(peer), fromB(eviB.routes(redB)...), fromB(blue.routes(blueB)...))
	wantRoutes(t, "GoBGP has from a, nothing new", rr.adjIn(ha.v4), eviA.routes(vmA))

	t.Log("a imports blue only")
	change.ImportRT = []string{"64512:400"}
	a.attach(change)
	rr.wantRTC(ha.v4, "64512:64512:400")
	wantRoutes(t, "a has blue", a.from(peer), fromB(blue.routes(blueB)...))
	vmA.mustNotReach(redB.ip(0))

	t.Log("a exports what nobody imports: its routes are taken back")
	change.ImportRT, change.ExportRT = []string{"64512:300"}, []string{"64512:301", "64512:302"}
	a.attach(change)
	rr.wantRTC(ha.v4, "64512:64512:300")
	wantRoutes(t, "GoBGP has from a", rr.adjIn(ha.v4))
	wantRoutes(t, "b has", b.from(peer))

	t.Log("b imports that: every route of a's instance has the new targets")
	change = redB.evpn("red", 0, "64512:300").withIP(redB.ips[0])
	change.ImportRT = []string{"64512:302"}
	b.attach(change)
	renamed := red(a, "64512:301", "64512:302").routes(vmA)
	wantRoutes(t, "GoBGP has from a", rr.adjIn(ha.v4), renamed)
	wantRoutes(t, "b has", b.from(peer), reflected(renamed, a.routerID, peer))
	wantRoutes(t, "a has", a.from(peer), fromB(eviB.routes(redB)...))
	vmA.mustReach(redB.ip(0))

	t.Log("withdraws")
	a.detach(vmA.evpn("red", 0, "64512:300").withIP(vmA.ips[0]))
	wantRoutes(t, "GoBGP has from a", rr.adjIn(ha.v4))
	wantRoutes(t, "b has", b.from(peer))
	wantRoutes(t, "a imports nothing any more", a.from(peer))
	rr.wantRTC(ha.v4)
}

// TestShortHoldTime proposes 3 seconds from GoBGP's side: our keepalives have
// to be in time, and a reflector that hangs is noticed.
func TestShortHoldTime(t *testing.T) {
	f := newFabric(t)
	ha, hb := f.host("node-a", 1), f.host("node-b", 2)
	rr := &gobgp{host: f.host("gobgp", 254), clients: addrs(ha.v4, hb.v4), holdTime: 3}
	rr.start()
	peer := rr.v4.String()
	a, b := newOurs(ha, []string{peer}, quickRetry), newOurs(hb, []string{peer}, quickRetry)
	vmA := ha.vm("vm-a", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	b.established(peer)
	up := a.established(peer)
	if up.Protocol.HoldTime != 3 {
		t.Errorf("hold time %d, want 3", up.Protocol.HoldTime)
	}
	a.attachVM(vmA, "red", 0, "64512:300")
	b.attachVM(hb.vm("vm-b", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24"), "red", 0, "64512:300")
	routes := reflected(a.evi("red", "64512:300").routes(vmA), a.routerID, peer)
	wantRoutes(t, "b has", b.from(peer), routes)

	// More than two hold times without any update.
	start := time.Now()
	nstest.Eventually(t, time.Minute, func() bool {
		p, err := a.peer(peer)
		if err != nil || p.Protocol.State != "Established" || p.Protocol.Since != up.Protocol.Since {
			t.Fatalf("the session did not stay: %+v, %v", p.Protocol, err)
		}
		return time.Since(start) > 7*time.Second
	}, func() string { return "time passes" })

	rr.proc.signal(syscall.SIGSTOP)
	a.down(peer)
	b.down(peer)
	wantRoutes(t, "b has from a peer that hangs", b.from(peer))
	rr.proc.signal(syscall.SIGCONT)
	a.established(peer)
	b.established(peer)
	wantRoutes(t, "b has again", b.from(peer), routes)
}
