// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// fromHex reads a message written in hexadecimal.
func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The OPEN and routes of the Python original: two-octet AS, four families, no
// other capability, no End-of-RIB. The octets are recorded ones.
func TestOriginalNode(t *testing.T) {
	t.Parallel()
	const ff = "ffffffffffffffffffffffffffffffff"
	origin := netip.MustParseAddr("10.77.0.1")
	n := startNode(t, func(c *Config) {
		c.AS, c.Families = 64512, wire.Families
		c.Peers = []PeerConfig{{Addr: peerAddr, Passive: true}}
	})
	n.announce(tagged(rt100), macRoute(1))
	p := connect(t, n, peerAddr)
	own := p.handshake(fromHex(t, ff+"003d0104fc0000b40a4d000120"+
		"0206010400010080"+"0206010400010084"+"0206010400010086"+"0206010400190046"))
	if !own.FourOctetAS || !slices.Equal(own.Families, wire.Families) {
		t.Errorf("our OPEN: %+v", own)
	}
	// RTC for 64512:100; VPNv4 192.0.2.10/32; type 2; type 3; FlowSpec.
	p.write(
		fromHex(t, ff+"003e02000000274001010040020040050400000064800e16000184040a4d000100600000fc000002fc0000000064"),
		fromHex(t, ff+"0064020000004d4001010040020040050400000064c01018030c00000000000a0002fc00000000640002fc0000000065800e210001800c00000000000000000a4d0001007800011100010a4d00010000c000020a"),
		fromHex(t, ff+"006b02000000544001010040020040050400000064c01010030c0000000000080002fc000000012c800e30001946040a4d000100022500010a4d0001000000000000000000000000000000003002000000000120c633640a000010"),
		fromHex(t, ff+"0063020000004c4001010040020040050400000064c01010030c0000000000080002fc000000012cc0160900060000100a4d0001800e1c001946040a4d000100031100010a4d0001000000000000200a4d0001"),
		fromHex(t, ff+"005f02000000484001010040020040050400000064c010108008fc000000025a0002fc000000025b800e2400018600001e00010a4d000100030118cb007102100a01038106058150061303e8d507d0"),
	)
	eventually(t, "five routes", func() bool { return len(n.received(peerAddr)) == 5 })
	st := n.neighbour(peerAddr).Status().Negotiated
	if st.FourOctetAS || st.RouteRefresh || st.ExtendedMessage || st.HoldTime != 90*time.Second || st.PeerAS != 64512 {
		t.Errorf("negotiated: %+v", st)
	}
	if diff := cmp.Diff([]wire.Family{wire.VPNv4, wire.EVPN, wire.FlowVPNv4, wire.RTC}, st.Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	type fields struct {
		Label   uint32
		NextHop netip.Addr
		Encaps  uint64
		RTs     []wire.RT
	}
	got := map[string]fields{}
	for name, path := range n.received(peerAddr) {
		if path.NLRI.Kind != wire.KindFlowVPNv4 {
			got[name] = fields{path.Label, path.Attrs.NextHop, path.Attrs.EncapBits, path.Attrs.RTs}
		}
	}
	want := map[string]fields{
		"rtc 64512:target:64512:100":                         {0, origin, 0, nil},
		"10.77.0.1:0 192.0.2.10/32":                          {wire.LabelField(17), origin, encap.MPLS.Bit(), []wire.RT{mustRT("64512:100"), mustRT("64512:101")}},
		"type 2 10.77.0.1:0 02:00:00:00:00:01 198.51.100.10": {16, origin, encap.VXLAN.Bit(), []wire.RT{mustRT("64512:300")}},
		"type 3 10.77.0.1:0 10.77.0.1":                       {0, origin, encap.VXLAN.Bit(), []wire.RT{mustRT("64512:300")}},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// It asks for 64512:100 only, so it gets nothing of ours but what has that.
	n.announce(tagged(mustRT("64512:100")), macRoute(2))
	name := "+" + macRoute(2).NLRI.String()
	if diff := cmp.Diff([]string{"End-of-RIB ipv4/rtc", name}, p.news(name)); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	if n.Converged() {
		t.Error("converged without any End-of-RIB")
	}
	// A withdraw with attributes, as the original sends it.
	p.write(fromHex(t, ff+"004e02000000374001010040020040050400000064c01010030c00000000000a0002fc0000000064800f130001807800011100010a4d00010000c000020a"))
	eventually(t, "withdraw", func() bool { return len(n.received(peerAddr)) == 4 })
}

// attr is a path attribute.
func attr(flags, typ byte, value ...byte) []byte {
	return append([]byte{flags, typ, byte(len(value))}, value...)
}

// withAttrs makes an UPDATE that announces a route with raw attributes.
func withAttrs(r wire.Route, attrs ...[]byte) []byte {
	p := wire.NewPacker(wire.MaxMessage)
	p.Announce(r.NLRI.Kind.Family(), slices.Concat(attrs...), peerAddr)
	p.Add(r)
	return bytes.Clone(p.Flush())
}

var (
	attrOrigin = attr(0x40, 1, 0)
	attrNoPath = attr(0x40, 2)
	attrPref   = attr(0x40, 5, 0, 0, 0, 100)
	attrRT     = attr(0xc0, 16, rt100[:]...)
)

// A fault in an attribute costs the routes of that message only (RFC 7606).
func TestFaultInUpdate(t *testing.T) {
	t.Parallel()
	id := nodeID.As4()
	for _, tt := range []struct {
		name string
		in   []byte // about the route of MAC 2, announced before
		want string // "kept", "withdrawn", or the NOTIFICATION
	}{
		{"no fault", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT), "kept"},
		{"communities of 7 octets", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attr(0xc0, 16, 1, 2, 3, 4, 5, 6, 7)), "withdrawn"},
		{"communities with wrong flags", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attr(0x40, 16, rt100[:]...)), "withdrawn"},
		{"PMSI tunnel of 3 octets", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT, attr(0xc0, 22, 0, 6, 0)), "withdrawn"},
		{"ORIGIN of 2 octets", withAttrs(macRoute(2), attr(0x40, 1, 0, 0), attrNoPath, attrPref, attrRT), "withdrawn"},
		{"LOCAL_PREF of 3 octets", withAttrs(macRoute(2), attrOrigin, attrNoPath, attr(0x40, 5, 0, 0, 1), attrRT), "withdrawn"},
		{"attribute cut off behind the routes", withAttrs(macRoute(2), attrOrigin, attrNoPath, []byte{0x40, 5, 200, 0}), "withdrawn"},
		{"malformed AGGREGATOR is discarded", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT, attr(0xc0, 7, 1)), "kept"},
		{"unknown attribute", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT, attr(0xc0, 200, 1, 2, 3)), "kept"},
		{"our ORIGINATOR_ID", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT, attr(0x80, 9, id[:]...)), "withdrawn"},
		{"the peer's ORIGINATOR_ID", withAttrs(macRoute(2), attrOrigin, attrNoPath, attrPref, attrRT, attr(0x80, 9, 192, 0, 2, 9)), "kept"},
		{"our next hop", announcement(wire.LocalAttrs{NextHop: nodeAddr, RTs: []wire.RT{rt100}}, macRoute(2)), "withdrawn"},
		{"family that was not negotiated", announcement(tagged(rt100), wire.Route{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("198.51.100.0/24")), Label: 0x11}), "kept"},
		{"IPv4 unicast beside", append(wire.AppendHeader(nil, wire.MsgUpdate, 4+4+4), 0, 0, 0, 4, 0x40, 1, 1, 0, 24, 198, 51, 100), "kept"},
		{"IPv4 unicast End-of-RIB", append(wire.AppendHeader(nil, wire.MsgUpdate, 4), 0, 0, 0, 0), "kept"},
		{"two MP_REACH_NLRI", twice(announcement(wire.LocalAttrs{}, macRoute(2))), "3/1"},
		{"lengths beyond the message", append(wire.AppendHeader(nil, wire.MsgUpdate, 4), 0, 0, 0, 50), "3/1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, passivePeer(wire.EVPN))
			p := connect(t, n, peerAddr)
			p.open(peerOpen(wire.EVPN))
			p.write(announcement(tagged(rt100), macRoute(1), macRoute(2)))
			one, two := macRoute(1).NLRI.String(), macRoute(2).NLRI.String()
			eventuallyEqual(t, "before", []string{one, two}, func() []string { return n.names(peerAddr) })
			// A route behind it shows that the message was handled.
			p.write(tt.in, announcement(tagged(rt200), macRoute(3)))
			three := macRoute(3).NLRI.String()
			want := map[string][]string{"kept": {one, two, three}, "withdrawn": {one, three}}[tt.want]
			if want != nil {
				eventuallyEqual(t, "after", want, func() []string { return n.names(peerAddr) })
				if got := n.neighbour(peerAddr).Status(); got.State != session.Established || got.Established != 1 {
					t.Errorf("the session suffered: %+v", got)
				}
				return
			}
			p.expectNotification(tt.want)
			eventuallyEqual(t, "after", []string{}, func() []string { return n.names(peerAddr) })
		})
	}
}

// twice repeats the attributes of an UPDATE.
func twice(msg []byte) []byte {
	attrs := msg[wire.HeaderLen+4:]
	all := append(bytes.Clone(attrs), attrs...)
	b := wire.AppendHeader(nil, wire.MsgUpdate, 4+len(all))
	return append(append(b, 0, 0, byte(len(all)>>8), byte(len(all))), all...)
}

// expectNotification reads to a NOTIFICATION, behind which the connection ends.
func (p *rawPeer) expectNotification(want string) wire.Notification {
	p.t.Helper()
	for {
		typ, body := p.read()
		switch typ {
		case wire.MsgUpdate, wire.MsgKeepalive:
			continue
		case wire.MsgNotification:
		default:
			p.t.Fatalf("%s instead of NOTIFICATION %s", typ, want)
		}
		note, _ := wire.ParseNotification(body)
		if got, _, _ := bytes.Cut([]byte(note.String()), []byte(" ")); string(got) != want {
			p.t.Errorf("NOTIFICATION %s: want %s", note, want)
		}
		if typ, _ := p.read(); typ != 0 {
			p.t.Errorf("%s behind the NOTIFICATION", typ)
		}
		return note
	}
}

// EVPN routes of types that are unknown, or malformed inside their frame, do
// not hurt those beside them (RFC 7606 §5.4).
func TestUnknownEVPNTypes(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	nlri := wire.AppendNLRI(nil, macRoute(1), false)
	for typ := byte(6); typ < 16; typ++ {
		nlri = append(append(nlri, typ, 20), make([]byte, 20)...)
	}
	nlri = append(nlri, 0, 0, 255, 3, 1, 2, 3, 2, 5, 1, 2, 3, 4, 5) // types 0 and 255, a short type 2
	nlri = wire.AppendNLRI(nlri, macRoute(2), false)
	send := func(value []byte, typ byte) {
		attrs := slices.Concat(attrHead(typ, len(value)), value, attrOrigin, attrNoPath, attrRT)
		b := wire.AppendHeader(nil, wire.MsgUpdate, 4+len(attrs))
		p.write(append(append(b, 0, 0, byte(len(attrs)>>8), byte(len(attrs))), attrs...))
	}
	send(append([]byte{0, 25, 70, 4, 127, 0, 0, 9, 0}, nlri...), 14)
	eventuallyEqual(t, "announced", []string{macRoute(1).NLRI.String(), macRoute(2).NLRI.String()}, func() []string { return n.names(peerAddr) })
	send(append([]byte{0, 25, 70}, nlri...), 15)
	eventuallyEqual(t, "withdrawn", []string{}, func() []string { return n.names(peerAddr) })
	if got := n.neighbour(peerAddr).Status().State; got != session.Established {
		t.Errorf("the session is %s", got)
	}
}

func attrHead(typ byte, length int) []byte {
	return []byte{0x90, typ, byte(length >> 8), byte(length)}
}

// AS_PATH is read with the size of AS numbers that the session has.
func TestASNumberSize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   bool   // four octets
		path []byte // two AS numbers in one sequence
	}{
		{"two octets", false, []byte{2, 2, 0xfb, 0xf5, 0xfb, 0xf6}},
		{"four octets", true, []byte{2, 2, 0, 0, 0xfb, 0xf5, 0, 1, 0xfb, 0xf6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, passivePeer(wire.EVPN))
			p := connect(t, n, peerAddr)
			open := peerOpen(wire.EVPN)
			open.FourOctetAS = tt.in
			p.open(open)
			p.write(withAttrs(macRoute(1), attrOrigin, attr(0x40, 2, tt.path...), attrPref, attrRT))
			eventually(t, "the route", func() bool { return len(n.received(peerAddr)) == 1 })
			if got := n.received(peerAddr)[macRoute(1).NLRI.String()].Attrs.ASPathLen; got != 2 {
				t.Errorf("AS_PATH of length %d: want 2", got)
			}
		})
	}
}

// The cause of the end reaches the neighbours.
func TestShutdownText(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	n.established(peerAddr)
	n.stop(errors.New("node is being updated"))
	if got := p.expectNotification("6/2").Communication(); got != "node is being updated" {
		t.Errorf("communication %q", got)
	}
}
