// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// The peer's RTC routes select what it gets (RFC 4684 §6).
func TestPeerSelectsByRTC(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.RTC))
	n.imports(rt100)
	n.announce(tagged(rt100), macRoute(1), macRoute(2))
	n.announce(tagged(rt100, rt200), macRoute(3))
	n.announce(tagged(rt200), macRoute(4))
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.RTC))

	check := func(what string, want ...string) {
		t.Helper()
		got := p.news(want...)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
	}
	name := func(sign string, i int) string { return sign + macRoute(i).NLRI.String() }
	// marker is a route that the peer gets behind all that came before.
	markers := 100
	marker := func() string {
		n.announce(tagged(rt100, rt200), macRoute(markers))
		markers++
		return name("+", markers-1)
	}
	asked := func(count int) {
		t.Helper()
		eventually(t, "the node has the RTC routes", func() bool { return n.neighbour(peerAddr).Received()[wire.RTC] == count })
	}

	// Our own RTC routes come first, and before the peer's nothing else.
	want := []string{"+rtc 64500:target:64500:100", "End-of-RIB ipv4/rtc"}
	if diff := cmp.Diff(want, p.news("End-of-RIB ipv4/rtc")); diff != "" {
		t.Fatalf("first (-want +got):\n%s", diff)
	}
	p.write(announcement(wire.LocalAttrs{}, rtcRoute(testAS, rt100)), wire.EndOfRIBMessage(wire.RTC))
	check("rt 100", name("+", 1), name("+", 2), name("+", 3), "End-of-RIB l2vpn/evpn")
	if diff := cmp.Diff([]string{"match:ipv4/rtc,*", "match:l2vpn/evpn,target:64500:100"}, n.neighbour(peerAddr).Subscriptions()); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}

	// The same target once more, with another origin AS: nothing is new.
	p.write(announcement(wire.LocalAttrs{}, rtcRoute(4200000000, rt100)))
	asked(2)
	m := marker()
	check("second origin AS", m)

	p.write(announcement(wire.LocalAttrs{}, rtcRoute(testAS, rt200)))
	check("rt 200", name("+", 4))

	// One of two origins goes: nothing changes.
	p.write(withdrawal(rtcRoute(testAS, rt100)))
	asked(2)
	m = marker()
	check("one origin AS less", m)

	// The other goes too: routes with another wanted target stay.
	p.write(withdrawal(rtcRoute(4200000000, rt100)))
	asked(1)
	m = marker()
	check("no origin AS left", m, name("-", 1), name("-", 2))

	// The default route asks for everything, whatever else there is.
	def := wire.Route{NLRI: wire.NLRI{Kind: wire.KindRTC}}
	p.write(announcement(wire.LocalAttrs{}, def))
	asked(2)
	m = marker()
	check("default", m, name("+", 1), name("+", 2))
	p.write(withdrawal(def, rtcRoute(testAS, rt200)))
	asked(0)
	all := []string{name("-", 1), name("-", 2), name("-", 3), name("-", 4)}
	for i := 100; i < markers; i++ {
		all = append(all, name("-", i))
	}
	check("nothing wanted", all...)

	// A prefix of the route target asks for all that begin so.
	short := wire.Route{NLRI: wire.NLRI{Kind: wire.KindRTC, Bits: 64, Tag: testAS, RD: wire.RD{0, 2, 0xfb, 0xf4}}}
	p.write(announcement(wire.LocalAttrs{}, short))
	for i := range all {
		all[i] = "+" + all[i][1:]
	}
	check("short prefix", all...)
}

// We send RTC routes as instances come and go.
func TestOwnRTCFollowsImports(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.RTC))
	table := n.imports(rt100)
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.RTC))
	p.news("End-of-RIB ipv4/rtc")
	table.SetImports([]wire.RT{rt200})
	if got := p.news("+rtc 64500:target:64500:200", "-rtc 64500:target:64500:100"); len(got) != 2 {
		t.Errorf("got %q", got)
	}
}

// Without RTC on the session everything is sent at once.
func TestPeerWithoutRTC(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4, wire.RTC))
	n.imports(rt100)
	n.announce(tagged(rt200), macRoute(1))
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	want := []string{"+" + macRoute(1).NLRI.String(), "End-of-RIB l2vpn/evpn"}
	if diff := cmp.Diff(want, p.news("End-of-RIB l2vpn/evpn")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"match:l2vpn/evpn,*"}, n.neighbour(peerAddr).Subscriptions()); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
}

// End-of-RIB for the VPN families waits for the peer's RTC End-of-RIB, but not
// for ever.
func TestEndOfRIBWaitsForRTC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   []wire.Family // families of the session
		eor  wire.Family   // End-of-RIB from the peer after a second; zero: none
		want map[time.Duration][]string
	}{
		{
			"no RTC", []wire.Family{wire.EVPN, wire.VPNv4}, wire.Family{},
			map[time.Duration][]string{0: {"End-of-RIB l2vpn/evpn", "End-of-RIB ipv4/mpls-vpn"}},
		}, {
			"RTC, marker received", []wire.Family{wire.EVPN, wire.RTC}, wire.RTC,
			map[time.Duration][]string{0: {"End-of-RIB ipv4/rtc"}, time.Second: {"End-of-RIB l2vpn/evpn"}},
		}, {
			"RTC, no marker", []wire.Family{wire.EVPN, wire.RTC}, wire.Family{},
			map[time.Duration][]string{0: {"End-of-RIB ipv4/rtc"}, rtcWait: {"End-of-RIB l2vpn/evpn"}},
		}, {
			"RTC, marker of another family", []wire.Family{wire.EVPN, wire.RTC}, wire.EVPN,
			map[time.Duration][]string{0: {"End-of-RIB ipv4/rtc"}, rtcWait: {"End-of-RIB l2vpn/evpn"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, err := New(Config{Peers: []PeerConfig{{Addr: peerAddr}}}, rib.New())
				if err != nil {
					t.Fatal(err)
				}
				f := newFlow(s.neighbours[peerAddr], session.Negotiated{Families: tt.in})
				defer f.Down(session.Loss{})
				got := map[time.Duration][]string{}
				packer := wire.NewPacker(wire.MaxMessage)
				for start, told := time.Now(), false; time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
					if tt.eor != (wire.Family{}) && !told && time.Since(start) >= time.Second {
						told = true
						if err := f.Update(wire.EndOfRIBMessage(tt.eor)[wire.HeaderLen:]); err != nil {
							t.Error(err)
						}
					}
					synctest.Wait()
					select {
					case <-f.Wake():
					default:
						continue
					}
					for f.Fill(packer) {
					}
					for b := packer.Flush(); len(b) > 0; {
						_, length, _ := wire.ParseHeader(b, wire.MaxMessage)
						at := time.Since(start)
						got[at] = append(got[at], updateTexts(t, b[wire.HeaderLen:length])...)
						b = b[length:]
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
