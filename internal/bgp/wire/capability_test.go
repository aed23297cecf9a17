// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// capability makes a capability.
func capability(code byte, value ...byte) []byte {
	return append([]byte{code, byte(len(value))}, value...)
}

// parameter makes an optional parameter of the classic form.
func parameter(typ byte, value ...[]byte) []byte {
	all := bytes.Join(value, nil)
	return append([]byte{typ, byte(len(all))}, all...)
}

// extendedBody makes the body of an OPEN message with the parameters of RFC
// 9072, of the given length in the old field.
func extendedBody(length byte, params ...byte) []byte {
	b := openBody(4, 64512, 90, "192.0.2.1")
	b[9] = length
	return append(append(b, 255, byte(len(params)>>8), byte(len(params))), params...)
}

func TestOpenParameters(t *testing.T) {
	t.Parallel()
	classic := func(params ...[]byte) []byte {
		return openBody(4, 64512, 90, "192.0.2.1", bytes.Join(params, nil)...)
	}
	base := Open{AS: 64512, HoldTime: 90, RouterID: netip.MustParseAddr("192.0.2.1")}
	with := func(change func(*Open)) Open {
		o := base
		change(&o)
		return o
	}
	evpn, vpn4 := capability(1, 0, 25, 0, 70), capability(1, 0, 1, 0, 128)
	restart := capability(64, 0x80, 120, 0, 25, 70, 0x80)
	families := with(func(o *Open) { o.Families = []Family{EVPN, VPNv4} })
	refresh := with(func(o *Open) { o.RouteRefresh = true })
	tests := []struct {
		name string
		in   []byte
		want Open
		err  string
	}{
		{name: "OK parameter without capabilities", in: classic(parameter(2)), want: base},
		{name: "OK several capabilities in a parameter", in: classic(parameter(2, evpn, vpn4)), want: families},
		{name: "OK a parameter for each capability", in: classic(parameter(2, evpn), parameter(2, vpn4)), want: families},
		{name: "OK repeated family", in: classic(parameter(2, evpn, vpn4, evpn)), want: families},
		{name: "OK reserved octet of a family", in: classic(parameter(2, capability(1, 0, 25, 7, 70), vpn4)), want: families},
		{name: "OK capability without value, with one", in: classic(parameter(2, capability(2, 9))), want: refresh},
		{name: "OK unknown capabilities", in: classic(parameter(2, capability(128), capability(200, 1, 2), capability(2))), want: refresh},
		{name: "OK extended parameters", in: extendedBody(255, 2, 0, 6, 1, 4, 0, 25, 0, 70, 2, 0, 6, 1, 4, 0, 1, 0, 128), want: families},
		{name: "OK extended parameters whatever the old length", in: extendedBody(1, 2, 0, 2, 2, 0), want: refresh},
		{name: "OK extended form without parameters", in: extendedBody(255), want: base},
		{
			name: "OK enhanced refresh and host name", in: classic(parameter(2, capability(70), capability(73, 2, 'r', '1', 0))),
			want: with(func(o *Open) { o.EnhancedRefresh, o.Hostname = true, "r1" }),
		},
		{
			name: "OK last four-octet AS", in: classic(parameter(2, capability(65, 0, 0, 0, 1), capability(65, 0, 1, 0, 0))),
			want: with(func(o *Open) { o.FourOctetAS, o.AS = true, 65536 }),
		},
		{
			name: "OK last graceful restart (RFC 4724 §3)", in: classic(parameter(2, restart, capability(64, 0x4f, 0xff))),
			want: with(func(o *Open) { o.GracefulRestart = &GracefulRestart{Notification: true, Time: 4095} }),
		},
		{
			name: "OK graceful restart and long-lived", in: classic(parameter(2, capability(71, 0, 25, 70, 0x80, 0, 1, 2, 0, 1, 128, 0x7f, 255, 255, 255), restart)),
			want: with(func(o *Open) {
				o.GracefulRestart = &GracefulRestart{Restarting: true, Time: 120, Families: []ForwardingState{{EVPN, true}}}
				o.LongLived = []LongLived{{EVPN, true, 258}, {VPNv4, false, 1<<24 - 1}}
			}),
		},
		{name: "OK long-lived without graceful restart is disregarded", in: classic(parameter(2, capability(71, 0, 25, 70, 0x80, 0, 1, 2))), want: base},
		{name: "OK graceful restart of 1 octet is absent", in: classic(parameter(2, capability(64, 0))), want: base},
		{name: "OK graceful restart with half a family is absent", in: classic(parameter(2, capability(64, 0, 9, 0, 25))), want: base},
		{name: "OK long-lived with half a family is absent", in: classic(parameter(2, capability(64, 0, 9), capability(71, 0, 25))), want: with(func(o *Open) { o.GracefulRestart = &GracefulRestart{Time: 9} })},
		{
			name: "OK next hops of two capabilities", in: classic(parameter(2, capability(5, 0, 1, 0, 128, 0, 2), capability(5, 0, 1, 0, 128, 0, 2, 0, 2, 0, 128, 0, 1))),
			want: with(func(o *Open) { o.NextHops = []ExtendedNextHop{{VPNv4, 2}, {VPNv6, 1}} }),
		},
		{name: "OK next hops of 5 octets are absent", in: classic(parameter(2, capability(5, 0, 1, 0, 128, 0))), want: base},
		{name: "OK next hop of SAFI 257", in: classic(parameter(2, capability(5, 0, 1, 1, 1, 0, 2))), want: base},
		{name: "OK host name cut off is absent", in: classic(parameter(2, capability(73, 3, 'r', '1'))), want: base},
		{name: "OK host name with octets behind is absent", in: classic(parameter(2, capability(73, 1, 'r', 0, 0))), want: base},
		{name: "OK host name with a line break is absent", in: classic(parameter(2, capability(73, 2, 'r', '\n', 0))), want: base},
		{name: "OK host name not in UTF-8 is absent", in: classic(parameter(2, capability(73, 2, 0xc3, 0x28, 0))), want: base},
		{name: "bad family of 3 octets", in: classic(parameter(2, capability(1, 0, 25, 70))), err: "session reset 2/0 "},
		{name: "bad family of 5 octets", in: classic(parameter(2, capability(1, 0, 25, 0, 70, 0))), err: "session reset 2/0 "},
		{name: "bad capability beyond its parameter", in: classic(parameter(2, []byte{200, 2, 1}), parameter(2)), err: "session reset 2/0 "},
		{name: "bad capability of one octet", in: classic(parameter(2, []byte{200})), err: "session reset 2/0 "},
		{name: "bad octets behind the parameters", in: append(classic(parameter(2)), 0), err: "session reset 2/0 "},
		{name: "bad octets without parameters", in: append(classic(), 2, 0), err: "session reset 2/0 "},
		{name: "bad parameter of one octet", in: classic([]byte{2}), err: "session reset 2/0 "},
		{name: "bad authentication parameter", in: classic(parameter(1, []byte{1})), err: "session reset 2/4 "},
		{name: "bad unknown parameter behind a good one", in: classic(parameter(2), parameter(3)), err: "session reset 2/4 "},
		{name: "bad extended length", in: extendedBody(255, 2, 0, 1), err: "session reset 2/0 "},
		{name: "bad extended length beyond the message", in: extendedBody(255, 2, 1, 0)[:14], err: "session reset 2/0 "},
		{name: "bad extended form cut off", in: extendedBody(255)[:12], err: "session reset 2/0 "},
		{name: "bad extended parameter of two octets", in: extendedBody(255, 2, 0), err: "session reset 2/0 "},
		{name: "bad extended parameter of another type", in: extendedBody(255, 9, 0, 0), err: "session reset 2/4 "},
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

// fullOpen has every member.
func fullOpen() Open {
	return Open{
		AS: 4200000001, HoldTime: 180, RouterID: netip.MustParseAddr("192.0.2.1"), Families: Families,
		FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true,
		GracefulRestart: &GracefulRestart{Restarting: true, Notification: true, Time: 4095, Families: []ForwardingState{{EVPN, true}, {VPNv4, false}}},
		LongLived:       []LongLived{{EVPN, true, 1<<24 - 1}, {VPNv4, false, 0}},
		NextHops:        []ExtendedNextHop{{VPNv4, 2}},
		Hostname:        "node1.example.org",
	}
}

func TestGoBGPReadsCapabilities(t *testing.T) {
	t.Parallel()
	m := must(bgp.ParseBGPMessage(must(fullOpen().Message())(t)))(t)
	var got []bgp.ParameterCapabilityInterface
	for _, p := range m.Body.(*bgp.BGPOpen).OptParams {
		got = append(got, p.(*bgp.OptionParameterCapability).Capability...)
	}
	var want []bgp.ParameterCapabilityInterface
	for _, f := range Families {
		want = append(want, bgp.NewCapMultiProtocol(gobgpFamily(f)))
	}
	want = append(want,
		bgp.NewCapRouteRefresh(), bgp.NewCapEnhancedRouteRefresh(), bgp.NewCapExtendedMessage(), bgp.NewCapFourOctetASNumber(4200000001),
		bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_VPN, 2)}),
		bgp.NewCapGracefulRestart(true, true, 4095, []*bgp.CapGracefulRestartTuple{
			bgp.NewCapGracefulRestartTuple(bgp.RF_EVPN, true), bgp.NewCapGracefulRestartTuple(bgp.RF_IPv4_VPN, false),
		}),
		bgp.NewCapLongLivedGracefulRestart([]*bgp.CapLongLivedGracefulRestartTuple{
			bgp.NewCapLongLivedGracefulRestartTuple(bgp.RF_EVPN, true, 1<<24-1), bgp.NewCapLongLivedGracefulRestartTuple(bgp.RF_IPv4_VPN, false, 0),
		}),
		bgp.NewCapFQDN("node1", "example.org"))
	if len(got) != len(want) {
		t.Fatalf("GoBGP reads %d capabilities, want %d", len(got), len(want))
	}
	for i := range want {
		if diff := cmp.Diff(must(want[i].Serialize())(t), must(got[i].Serialize())(t)); diff != "" {
			t.Errorf("capability %d (-want +gobgp):\n%s", want[i].Code(), diff)
		}
	}
}

func TestOpenIsReadBack(t *testing.T) {
	t.Parallel()
	base := Open{AS: 64512, HoldTime: 9, RouterID: netip.MustParseAddr("192.0.2.1")}
	with := func(change func(*Open)) Open {
		o := base
		change(&o)
		return o
	}
	families := func(n int) (fams []Family) {
		for i := range n {
			fams = append(fams, Family{uint16(i), 1})
		}
		return fams
	}
	tests := []struct {
		name     string
		in       Open
		extended bool
	}{
		{name: "bare", in: base},
		{name: "every member", in: fullOpen()},
		{name: "most that fits the classic form", in: with(func(o *Open) { o.Families = families(42) })},
		{name: "one family more", in: with(func(o *Open) { o.Families = families(43) }), extended: true},
		{name: "every member and many families", in: with(func(o *Open) { *o = fullOpen(); o.Families = families(600) }), extended: true},
		{name: "host only", in: with(func(o *Open) { o.Hostname = "node1" })},
		{name: "host that ends with a dot", in: with(func(o *Open) { o.Hostname = "node1." })},
		{name: "host that begins with a dot", in: with(func(o *Open) { o.Hostname = ".node1" })},
		{name: "graceful restart without families", in: with(func(o *Open) { o.GracefulRestart = &GracefulRestart{} })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := must(tt.in.Message())(t)
			if _, length, err := ParseHeader(msg, MaxMessage); err != nil || length != len(msg) {
				t.Fatalf("header of length %d for %d octets: %v", length, len(msg), err)
			}
			if extended := len(msg) > HeaderLen+10 && msg[HeaderLen+10] == 255; extended != tt.extended {
				t.Errorf("extended form %v, want %v", extended, tt.extended)
			}
			wantReadBack(t, tt.in, msg)
		})
	}
}

func TestOpenRefusesWhatHasNoForm(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*Open)
		want   string
	}{
		{"no identifier", func(o *Open) { o.RouterID = netip.Addr{} }, "BGP identifier invalid IP: want an IPv4 address"},
		{"restart time", func(o *Open) { o.GracefulRestart.Time = 4096 }, "graceful restart time 4096 s: want 0 to 4095"},
		{"stale time", func(o *Open) { o.LongLived[0].Time = 1 << 24 }, "long-lived stale time 16777216 s of l2vpn/evpn: want 0 to 16777215"},
		{"host name", func(o *Open) { o.Hostname = strings.Repeat("a", 254) }, "host name of 254 octets: want at most 253"},
		{"restart families", func(o *Open) { o.GracefulRestart.Families = make([]ForwardingState, 64) }, "capability 64 of 258 octets: want at most 255"},
		{"families", func(o *Open) { o.Families = make([]Family, 700) }, "OPEN of 4303 octets: want at most 4096"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := fullOpen()
			tt.change(&o)
			_, err := o.Message()
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
