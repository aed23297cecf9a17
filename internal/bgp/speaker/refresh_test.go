// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// refreshes reads messages up to an UPDATE or ROUTE-REFRESH that is wanted, and
// returns all that came, ROUTE-REFRESH as "refresh family subtype".
func (p *rawPeer) until(last string) []string {
	p.t.Helper()
	var all []string
	for !slices.Contains(all, last) {
		switch typ, body := p.read(); typ {
		case wire.MsgUpdate:
			all = append(all, updateTexts(p.t, body)...)
		case wire.MsgRouteRefresh:
			f, sub, err := wire.ParseRouteRefresh(body)
			if err != nil {
				p.t.Fatal(err)
			}
			all = append(all, "refresh "+f.String()+" "+string('0'+rune(sub)))
		case wire.MsgKeepalive:
		default:
			p.t.Fatalf("%s %x while waiting for %q; so far %q", typ, body, last, all)
		}
	}
	return all
}

// RFC 7313 §4: an answer to a request is marked, where the peer knows that.
func TestRefreshAnswered(t *testing.T) {
	t.Parallel()
	one := "+" + macRoute(1).NLRI.String()
	for _, tt := range []struct {
		name     string
		enhanced bool
		want     []string
	}{
		{"plain", false, []string{one, "-" + macRoute(2).NLRI.String()}},
		{"enhanced", true, []string{"refresh l2vpn/evpn 1", one, "refresh l2vpn/evpn 2", "-" + macRoute(2).NLRI.String()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
			n.announce(tagged(rt100), macRoute(1), vpnRoute)
			p := connect(t, n, peerAddr)
			o := peerOpen(wire.EVPN, wire.VPNv4)
			o.EnhancedRefresh = tt.enhanced
			p.open(o)
			p.news("End-of-RIB l2vpn/evpn", "End-of-RIB ipv4/mpls-vpn")
			p.write(wire.RouteRefresh(wire.EVPN, wire.RefreshRequest))
			p.write(wire.RouteRefresh(wire.RTC, wire.RefreshRequest)) // was not negotiated
			got := p.until(tt.want[len(tt.want)-2])
			n.announce(tagged(rt100), macRoute(2))
			p.until("+" + macRoute(2).NLRI.String())
			n.withdraw(macRoute(2).NLRI)
			got = append(got, p.until(tt.want[len(tt.want)-1])...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a peer did not repeat between begin and end of a refresh is gone.
func TestEnhancedRefreshReceived(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
	p := connect(t, n, peerAddr)
	o := peerOpen(wire.EVPN, wire.VPNv4)
	o.EnhancedRefresh = true
	p.open(o)
	p.write(announcement(tagged(rt100), macRoute(1), macRoute(2)), announcement(tagged(rt100), vpnRoute))
	n.has(macRoute(1), macRoute(2), vpnRoute)
	p.write(wire.RouteRefresh(wire.EVPN, wire.RefreshEnd)) // without a begin: no meaning
	p.write(wire.RouteRefresh(wire.EVPN, wire.RefreshBegin), announcement(tagged(rt100), macRoute(2), macRoute(3)))
	n.has(macRoute(1), macRoute(2), macRoute(3), vpnRoute)
	p.write(wire.RouteRefresh(wire.EVPN, wire.RefreshEnd))
	n.has(macRoute(2), macRoute(3), vpnRoute)
}

func TestRefreshAskedByTheOperator(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
	nb := n.neighbour(peerAddr)
	if err := nb.Refresh(); err == nil {
		t.Error("no error without a session")
	}
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.VPNv4))
	n.established(peerAddr)
	if err := nb.Refresh(wire.RTC); err == nil {
		t.Error("no error for a family that was not negotiated")
	}
	if err := nb.Refresh(wire.EVPN); err != nil {
		t.Error(err)
	}
	p.until("refresh l2vpn/evpn 0")
}

// Routes that nothing imports are not kept, and asked for when something does.
func TestIrrelevantRoutes(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *Config) {
		passivePeer(wire.EVPN, wire.VPNv4)(c)
		c.Irrelevant = DropIfAsked
	})
	evi := n.rib.NewTable(rib.TableConfig{View: rib.EVI, Source: n.instance})
	evi.SetImports([]wire.RT{rt200})
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN, wire.VPNv4))
	all := [][]byte{
		announcement(tagged(rt100), macRoute(1), macRoute(2)), announcement(tagged(rt200), macRoute(3)), announcement(tagged(rt100, rt200), macRoute(4)),
		announcement(tagged(rt200), vpnRoute),
	}
	p.write(all...)
	n.has(macRoute(3), macRoute(4))
	eventually(t, "routes counted", func() bool { return n.rib.Stats().Irrelevant == 3 })

	evi.SetImports([]wire.RT{rt100, rt200})
	p.until("refresh l2vpn/evpn 0")
	p.write(all...)
	n.has(macRoute(1), macRoute(2), macRoute(3), macRoute(4))

	vrf := n.rib.NewTable(rib.TableConfig{View: rib.VRF, Source: n.instance})
	vrf.SetImports([]wire.RT{rt200})
	p.until("refresh ipv4/mpls-vpn 0")
	p.write(all...)
	n.has(macRoute(1), macRoute(2), macRoute(3), macRoute(4), vpnRoute)

	// A route that becomes irrelevant goes: by its attributes, or by the imports.
	p.write(announcement(tagged(mustRT("64500:300")), macRoute(1)))
	n.has(macRoute(2), macRoute(3), macRoute(4), vpnRoute)
	evi.SetImports([]wire.RT{rt100})
	n.has(macRoute(2), macRoute(4), vpnRoute)
	vrf.Close()
	evi.Close()
	n.has()
	if st := n.rib.Stats(); st.Paths != 0 || st.Sets != 0 {
		t.Errorf("left: %+v", st)
	}
}

// With RT constraint the peer sends only what is wanted, and all of it is kept.
func TestRelevanceIsLeftToRTConstraint(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		mode    Irrelevant
		rtc, rr bool
		kept    bool
	}{
		{"auto", DropIfAsked, false, true, false},
		{"auto, RTC", DropIfAsked, true, true, true},
		{"auto, no route refresh", DropIfAsked, false, false, true},
		{"drop, RTC", Drop, true, true, false},
		{"drop, no route refresh", Drop, false, false, true},
		{"keep", Keep, false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			families := []wire.Family{wire.EVPN}
			if tt.rtc {
				families = append(families, wire.RTC)
			}
			n := startNode(t, func(c *Config) { passivePeer(families...)(c); c.Irrelevant = tt.mode })
			p := connect(t, n, peerAddr)
			o := peerOpen(families...)
			o.RouteRefresh = tt.rr
			p.open(o)
			p.write(announcement(tagged(rt100), macRoute(1)), wire.EndOfRIBMessage(wire.EVPN))
			if tt.rtc {
				p.write(wire.EndOfRIBMessage(wire.RTC))
			}
			eventually(t, "End-of-RIB", n.Converged)
			if kept := len(n.names(peerAddr)) == 1; kept != tt.kept {
				t.Errorf("kept: %t", kept)
			}
		})
	}
}

// eBGP: AS_PATH is ours, no LOCAL_PREF; routes that passed through our AS are not taken.
func TestExternalPeer(t *testing.T) {
	t.Parallel()
	const peerAS = 64501
	for _, allow := range []int{0, 1} {
		n := startNode(t, func(c *Config) {
			passivePeer(wire.EVPN)(c)
			c.Settings.AS, c.AllowOwnAS = peerAS, allow
		})
		n.announce(wire.LocalAttrs{RTs: []wire.RT{rt100}, LocalPref: 200}, macRoute(9))
		p := connect(t, n, peerAddr)
		o := peerOpen(wire.EVPN)
		o.AS = peerAS
		p.open(o)
		typ, body := p.read()
		u, err := wire.ParseUpdate(body, nil)
		if typ != wire.MsgUpdate || err != nil {
			t.Fatal(typ, err)
		}
		a, err := wire.DecodeAttrs(u.Attrs, u.NextHop, wire.Rules{FourOctetAS: true, External: true})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.ASPath, []uint32{testAS}) || a.LocalPref != wire.DefaultLocalPref || a.NextHop != nodeAddr || len(a.RTs) != 1 {
			t.Errorf("sent: %+v", a)
		}
		path := func(as ...byte) []byte { return attr(0x40, 2, append([]byte{2, byte(len(as) / 4)}, as...)...) }
		p.write(withAttrs(macRoute(1), attrOrigin, path(0, 0, 0xfb, 0xf5), attrRT),
			withAttrs(macRoute(2), attrOrigin, path(0, 0, 0xfb, 0xf5, 0, 0, 0xfb, 0xf4), attrRT),
			withAttrs(macRoute(3), attrOrigin, path(0, 0, 0xfb, 0xf5), attrPref, attr(0x80, 9, 192, 0, 2, 5), attrRT))
		if allow == 0 {
			n.has(macRoute(1), macRoute(3)) // LOCAL_PREF and ORIGINATOR_ID mean nothing here
		} else {
			n.has(macRoute(1), macRoute(2), macRoute(3))
		}
	}
}

// RFC 8950: an IPv4 route with an IPv6 next hop goes only to those who take it.
func TestExtendedNextHop(t *testing.T) {
	t.Parallel()
	for _, capable := range []bool{true, false} {
		n := startNode(t, passivePeer(wire.VPNv4))
		six := netip.MustParseAddr("2001:db8::5")
		n.announce(wire.LocalAttrs{NextHop: six, RTs: []wire.RT{rt100}}, vpnRoute)
		p := connect(t, n, peerAddr)
		o := peerOpen(wire.VPNv4)
		if capable {
			o.NextHops = []wire.ExtendedNextHop{{Family: wire.VPNv4, AFI: 2}}
		}
		if own := p.open(o); !slices.Equal(own.NextHops, []wire.ExtendedNextHop{{Family: wire.VPNv4, AFI: 2}}) {
			t.Errorf("our OPEN: %+v", own)
		}
		got := p.news("End-of-RIB ipv4/mpls-vpn")
		if sent := len(got) == 2; sent != capable {
			t.Errorf("sent %q with capability %t", got, capable)
		}
	}
}
