// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// byValue lets cmp compare addresses.
var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// originalOpen is the OPEN of the Python original: two-octet AS, no
// capabilities but the families.
const originalOpen = "ffffffffffffffffffffffffffffffff003d0104fc0000b40a4d000120" +
	"020601040001008002060104000100840206010400010086020601040019" + "0046"

// openBody makes the body of an OPEN message from its fields.
func openBody(version byte, as uint16, hold uint16, id string, params ...byte) []byte {
	a := netip.MustParseAddr(id).As4()
	b := []byte{version, byte(as >> 8), byte(as), byte(hold >> 8), byte(hold)}
	b = append(append(b, a[:]...), byte(len(params)))
	return append(b, params...)
}

// gobgpOpen makes the body of an OPEN message with GoBGP.
func gobgpOpen(t testing.TB, as uint16, caps ...bgp.ParameterCapabilityInterface) []byte {
	t.Helper()
	m, err := bgp.NewBGPOpenMessage(as, 90, netip.MustParseAddr("192.0.2.1"),
		[]bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b[HeaderLen:]
}

// allCapabilities are those that GoBGP can announce.
func allCapabilities() []bgp.ParameterCapabilityInterface {
	tuple := bgp.NewCapGracefulRestartTuple(bgp.RF_EVPN, true)
	return []bgp.ParameterCapabilityInterface{
		bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC),
		bgp.NewCapMultiProtocol(bgp.RF_EVPN),
		bgp.NewCapMultiProtocol(bgp.RF_IPv6_VPN),
		bgp.NewCapMultiProtocol(bgp.RF_EVPN),
		bgp.NewCapRouteRefresh(),
		bgp.NewCapRouteRefreshCisco(),
		bgp.NewCapEnhancedRouteRefresh(),
		bgp.NewCapCarryingLabelInfo(),
		bgp.NewCapExtendedMessage(),
		bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_VPN, 2)}),
		bgp.NewCapGracefulRestart(true, true, 120, []*bgp.CapGracefulRestartTuple{tuple}),
		bgp.NewCapLongLivedGracefulRestart([]*bgp.CapLongLivedGracefulRestartTuple{bgp.NewCapLongLivedGracefulRestartTuple(bgp.RF_EVPN, true, 3600)}),
		bgp.NewCapFourOctetASNumber(4200000001),
		bgp.NewCapAddPath([]*bgp.CapAddPathTuple{bgp.NewCapAddPathTuple(bgp.RF_EVPN, bgp.BGP_ADD_PATH_BOTH)}),
		bgp.NewCapFQDN("rr1", "example.org"),
		bgp.NewCapSoftwareVersion("GoBGP"),
		bgp.NewCapUnknown(200, []byte{1, 2, 3}),
	}
}

func TestParseOpen(t *testing.T) {
	t.Parallel()
	id := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name string
		in   []byte
		want Open
		err  string
	}{
		{
			name: "OK original", in: unhex(t, originalOpen)[HeaderLen:],
			want: Open{AS: 64512, HoldTime: 180, RouterID: netip.MustParseAddr("10.77.0.1"), Families: []Family{VPNv4, RTC, FlowVPNv4, EVPN}},
		},
		{name: "OK without parameters", in: openBody(4, 64512, 90, "192.0.2.1"), want: Open{AS: 64512, HoldTime: 90, RouterID: id}},
		{name: "OK hold time 0", in: openBody(4, 64512, 0, "192.0.2.1"), want: Open{AS: 64512, RouterID: id}},
		{name: "OK hold time 3", in: openBody(4, 64512, 3, "192.0.2.1"), want: Open{AS: 64512, HoldTime: 3, RouterID: id}},
		{
			name: "OK all capabilities", in: gobgpOpen(t, 23456, allCapabilities()...),
			want: Open{
				AS: 4200000001, HoldTime: 90, RouterID: id, Families: []Family{{1, 1}, EVPN, VPNv6},
				FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true,
				GracefulRestart: &GracefulRestart{Restarting: true, Notification: true, Time: 120, Families: []ForwardingState{{EVPN, true}}},
				LongLived:       []LongLived{{EVPN, true, 3600}}, NextHops: []ExtendedNextHop{{VPNv4, 2}}, Hostname: "rr1.example.org",
			},
		},
		{
			name: "OK four-octet AS wins over zero two-octet AS", in: gobgpOpen(t, 0, bgp.NewCapFourOctetASNumber(64512)),
			want: Open{AS: 64512, HoldTime: 90, RouterID: id, FourOctetAS: true},
		},
		{
			name: "OK unknown capability", in: openBody(4, 64512, 90, "192.0.2.1", 2, 4, 250, 2, 0xca, 0xfe),
			want: Open{AS: 64512, HoldTime: 90, RouterID: id},
		},
		{name: "bad short body", in: openBody(4, 64512, 90, "192.0.2.1")[:9], err: "session reset 1/2 "},
		{name: "bad version 3", in: openBody(3, 64512, 90, "192.0.2.1"), err: "session reset 2/1 0004"},
		{name: "bad hold time 1", in: openBody(4, 64512, 1, "192.0.2.1"), err: "session reset 2/6 0001"},
		{name: "bad hold time 2", in: openBody(4, 64512, 2, "192.0.2.1"), err: "session reset 2/6 0002"},
		{name: "bad identifier", in: openBody(4, 64512, 90, "0.0.0.0"), err: "session reset 2/3 "},
		{name: "bad AS 0", in: openBody(4, 0, 90, "192.0.2.1"), err: "session reset 2/2 "},
		{name: "bad four-octet AS 0", in: gobgpOpen(t, 64512, bgp.NewCapFourOctetASNumber(0)), err: "session reset 2/2 "},
		{name: "bad parameter type", in: openBody(4, 64512, 90, "192.0.2.1", 1, 1, 0), err: "session reset 2/4 "},
		{name: "bad parameter cut off", in: openBody(4, 64512, 90, "192.0.2.1", 2, 6, 1, 4), err: "session reset 2/0 "},
		{name: "bad parameter length octet", in: append(openBody(4, 64512, 90, "192.0.2.1")[:9], 40), err: "session reset 2/0 "},
		{name: "bad capability length", in: openBody(4, 64512, 90, "192.0.2.1", 2, 4, 65, 2, 0, 1), err: "session reset 2/0 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseOpen(tt.in)
			if diff := cmp.Diff(tt.err, fault(err)); diff != "" {
				t.Fatalf("error (-want +got):\n%s\n%v", diff, err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.want, got, byValue); diff != "" {
				t.Errorf("OPEN (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoBGPReadsOpen(t *testing.T) {
	t.Parallel()
	id := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name string
		in   Open
		as   uint16 // two-octet field
		caps int
	}{
		{name: "plain", in: Open{AS: 64512, HoldTime: 180, RouterID: id}, as: 64512},
		{name: "all families", in: Open{AS: 64512, HoldTime: 9, RouterID: id, Families: Families, FourOctetAS: true}, as: 64512, caps: 7},
		{
			name: "large AS and all capabilities", as: 23456, caps: 4,
			in: Open{AS: 4200000001, RouterID: id, Families: []Family{EVPN}, FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg, err := tt.in.Message()
			if err != nil {
				t.Fatal(err)
			}
			m, err := bgp.ParseBGPMessage(msg)
			if err != nil {
				t.Fatal(err)
			}
			peer := m.Body.(*bgp.BGPOpen)
			var caps []bgp.ParameterCapabilityInterface
			for _, p := range peer.OptParams {
				caps = append(caps, p.(*bgp.OptionParameterCapability).Capability...)
			}
			if peer.MyAS != tt.as || peer.HoldTime != tt.in.HoldTime || peer.ID != id || len(caps) != tt.caps {
				t.Errorf("GoBGP reads AS %d hold %d id %s, %d capabilities", peer.MyAS, peer.HoldTime, peer.ID, len(caps))
			}
			wantReadBack(t, tt.in, msg)
		})
	}
}

// wantReadBack checks that an OPEN message is read as what it was made of.
func wantReadBack(t *testing.T, want Open, msg []byte) {
	t.Helper()
	got, err := ParseOpen(msg[HeaderLen:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("OPEN read back (-want +got):\n%s", diff)
	}
}

func TestOpenRefusesIPv6Identifier(t *testing.T) {
	t.Parallel()
	if _, err := (Open{AS: 1, RouterID: netip.MustParseAddr("2001:db8::1")}).Message(); err == nil {
		t.Error("an IPv6 BGP identifier was accepted")
	}
}
