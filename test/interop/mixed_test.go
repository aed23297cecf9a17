// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

func addrs(a ...netip.Addr) []netip.Addr { return a }

// TestMixedNetwork runs an original node and one of ours in one E-VPN through
// GoBGP: each holds the other's routes with every field as sent, traffic
// flows both ways although the VNIs differ, changes and withdraws arrive.
func TestMixedNetwork(t *testing.T) {
	f := newFabric(t)
	ho, hn := f.host("original", 1), f.host("ours", 2)
	rr := newGoBGP(f, ho.v4, hn.v4)
	peer := rr.v4.String()
	original := newOriginal(ho, originalConfig{peers: []string{peer}})
	ours := newOurs(hn, []string{peer}, quickRetry)
	vmO := ho.vm("vm-o", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	vmN := hn.vm("vm-n", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24")
	vmN2 := hn.vm("vm-n2", "tap1", "02:aa:00:00:00:0c", "198.51.100.12/24")
	ours.established(peer)
	original.waitAPI()
	original.established(peer)

	const rt = "64512:300"
	original.attachVM(vmO, "red", 0, rt)
	ours.attachVM(vmN, "red", 7001, rt)
	ours.attachVM(vmN2, "red", 7001, rt)
	eviO, eviN := original.evi("red", rt), ours.evi("red", rt)
	mixedExchange(t, rr, original, eviO.routes(vmO), ours, eviN.routes(vmN, vmN2))
	for _, v := range []*vm{vmN, vmN2} {
		vmO.mustReach(v.ip(0))
		v.mustReach(vmO.ip(0))
	}

	t.Log("our node changes its targets: all routes of the instance leave the original's instance")
	for _, v := range []*vm{vmN, vmN2} {
		change := v.evpn("red", 7001, rt).withIP(v.ips[0])
		change.ExportRT = []string{"64512:301"}
		ours.attach(change)
	}
	wantRoutes(t, "the original has", original.from(peer))
	vmO.mustNotReach(vmN.ip(0))
	ours.attachVM(vmN, "red", 7001, rt)
	mixedExchange(t, rr, original, eviO.routes(vmO), ours, eviN.routes(vmN, vmN2))
	vmO.mustReach(vmN.ip(0))

	t.Log("our node withdraws one port")
	ours.detach(vmN2.evpn("red", 7001, rt).withIP(vmN2.ips[0]))
	mixedExchange(t, rr, original, eviO.routes(vmO), ours, eviN.routes(vmN))
	vmO.mustNotReach(vmN2.ip(0))
	vmO.mustReach(vmN.ip(0))

	t.Log("the original withdraws; it answers with an error and keeps its multicast route")
	original.detachBroken(vmO.evpn("red", 0, rt).withIP(vmO.ips[0]))
	wantRoutes(t, "we have", ours.from(peer), reflected(eviO.routes(), original.routerID, peer))
}

// mixedExchange waits until two nodes have each other's routes through the
// reflector and the original's instance imports all of ours.
func mixedExchange(t *testing.T, rr *gobgp, original *node, sent []evpnRoute, ours *node, oursSent []evpnRoute) {
	t.Helper()
	peer := rr.v4.String()
	wantRoutes(t, "GoBGP has from us", rr.adjIn(ours.v4), oursSent)
	wantRoutes(t, "GoBGP has from the original", rr.adjIn(original.v4), sent)
	wantRoutes(t, "we have", ours.from(peer), reflected(sent, original.routerID, peer))
	wantRoutes(t, "the original has", original.from(peer), reflected(oursSent, ours.routerID, peer))
	wantRoutes(t, "we announce", ours.own, oursSent)
	var names []string
	var err error
	nstest.Eventually(t, routeTimeout, func() bool {
		names, err = original.imported("red")
		for _, r := range oursSent {
			if r.Kind == kindMACIP && !slices.Contains(names, "('MAC', "+strings.ToUpper(r.MAC)+")") {
				return false
			}
		}
		return err == nil
	}, func() string { return fmt.Sprintf("the original's instance has imported only %q, %v", names, err) })
}

// TestOriginalDialsUs connects an original node, which never listens, directly
// to one of ours that does. Its OPEN has a two-octet AS only, no route refresh
// and hold time 180; once with RT constraint and once without. A hold time of
// 31 is the least it can live with.
func TestOriginalDialsUs(t *testing.T) {
	for _, tt := range []struct {
		name     string
		noRTC    bool
		holdTime int
		bgp      options
	}{
		{"configured peer with RTC", false, 90, options{"listen": "true", "peers": "10.77.0.1", "passive_peers": "10.77.0.1"}},
		{"dynamic neighbor without RTC", true, 31, options{"listen": "true", "dynamic_neighbors": "10.77.0.0/24", "hold_time": "31"}},
	} {
		t.Run(tt.name, func(t *testing.T) { originalDialsUs(t, tt.noRTC, tt.holdTime, tt.bgp) })
	}
}

func originalDialsUs(t *testing.T, noRTC bool, holdTime int, bgp options) {
	t.Helper()
	f := newFabric(t)
	ho, hn := f.host("original", 1), f.host("ours", 2)
	ours := newOurs(hn, nil, bgp)
	original := newOriginal(ho, originalConfig{peers: []string{hn.v4.String()}, noRTC: noRTC})
	vmO := ho.vm("vm-o", "tap0", "02:aa:00:00:00:0a", "198.51.100.10/24")
	vmN := hn.vm("vm-n", "tap0", "02:aa:00:00:00:0b", "198.51.100.11/24")
	original.waitAPI()
	seen := original.established(ours.local)
	mine := ours.established(original.local)
	// The original shows three times its keepalive interval.
	if seen.Protocol.HoldTime != holdTime/3*3 || mine.Protocol.HoldTime != holdTime {
		t.Errorf("hold times: original %d, ours %d; want %d", seen.Protocol.HoldTime, mine.Protocol.HoldTime, holdTime)
	}
	if mine.AS.Peer != 64512 || mine.RTC.Active == noRTC {
		t.Errorf("our view of the session: %+v; want peer AS 64512, RTC active %t", mine, !noRTC)
	}

	// The original is first: without RTC we have its routes before we import
	// them, and cannot ask for them again.
	const rt = "64512:300"
	original.attachVM(vmO, "red", 0, rt)
	eviO := original.evi("red", rt)
	if noRTC {
		wantRoutes(t, "we have all of the original's", ours.from(original.local), eviO.routes(vmO))
	}
	ours.attachVM(vmN, "red", 7001, rt)
	eviN := ours.evi("red", rt)
	wantRoutes(t, "we have", ours.from(original.local), eviO.routes(vmO))
	wantRoutes(t, "the original has", original.from(ours.local), eviN.routes(vmN))
	vmO.mustReach(vmN.ip(0))
	vmN.mustReach(vmO.ip(0))

	ours.detach(vmN.evpn("red", 7001, rt).withIP(vmN.ips[0]))
	wantRoutes(t, "the original has nothing left", original.from(ours.local))
	if again := ours.established(original.local); again.Protocol.Since != mine.Protocol.Since {
		t.Errorf("the session did not stay: up since %s, then %s", mine.Protocol.Since, again.Protocol.Since)
	}
}
