// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// originalsElsewhere are more messages of the Python original: FlowSpec, a
// prefix with its own length, two encapsulations, record of route targets.
var originalsElsewhere = []string{
	"ffffffffffffffffffffffffffffffff005f02000000484001010040020040050400000064c010108008fc000000025a0002fc000000025b800e2400018600001e00010a4d000100030118cb007102100a01038106058150061303e8d507d0",
	"ffffffffffffffffffffffffffffffff006002000000494001010040020040050400000064c01018030c00000000000a03140000000300000002fc000000025a800e1d0001800c00000000000000000a4d0001005800014100010a4d00010004",
	"ffffffffffffffffffffffffffffffff0064020000004d4001010040020040050400000064c01018030c000000000002030c0000000000080002fc000000001e800e210001800c00000000000000000a4d0001007800011100010a4d000100000a080005",
	"ffffffffffffffffffffffffffffffff007b02000000644001010040020040050400000064c01030030c00000000000a0013fc00000000090013fc00000001f50013fc000000030903140000000500000002fc00000001f6800e200001800c00000000000000000a4d0001007000011100010a4d00010001cb0071",
}

// exabgpMessages come from the encoder of ExaBGP 4.2.21.
var exabgpMessages = []struct{ name, hex, want string }{
	{"VPNv4, all attributes", "ffffffffffffffffffffffffffffffff00b4020000009d4001010140021002010000fbf401020000fbf50000fbf6400304c000020180040400000007400504000000c8400600c007080000fbfec0000203c00808fc000001ffffff01800904c0000209800a08c0000208c0000207c010100002fc00000000640003c00002010007c0200c0000fc000000000100000002800e210001800c0000000000000000c000020100780001110001c00002010005c000020a", "ok +1 -0 kept [3 4 6 7 8 9 10 16 32]"},
	{"VPNv6, AIGP", "ffffffffffffffffffffffffffffffff0065020000004e4001010040020040050400000064801a0b01000b000000000000004d800e2f00028018000000000000000020010db80000000000000000000000010088fffff10000fc000000000920010db80000", "ok +1 -0 kept [26]"},
	{"VPNv4, label stack and unknown attribute", "ffffffffffffffffffffffffffffffff0058020000004140010100400200400304c000020140050400000064c063020102800e240001800c0000000000000000c000020100890001100001210002fa56ea010009c6336400", "ok +1 -0 kept [3 99]"},
	{"VPN FlowSpec", "ffffffffffffffffffffffffffffffff0075020000005e4001010040020040050400000064c010108008fc00000000058006000046160000800e3a0001860000340001c000020100050120c63364070218cb00710301068111041204005407d081500900020004c0010a02c8d4012c0b81080c8004", "ok +1 -0 kept [16]"},
}

const exabgpOpen = "ffffffffffffffffffffffffffffffff007f0104fc0000b4c000020162020601040001000102060104000100800206010400010086020601040002008002060104000200860206010400190046020641040000fc00021c401a0078000101800001808000018680000280800002868000194680020202000202460002020600"

func TestMessagesOfOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range exabgpMessages {
		msg := unhex(t, tt.hex)
		if diff := cmp.Diff(tt.want, outcome(msg[HeaderLen:], ibgp)); diff != "" {
			t.Errorf("ExaBGP, %s (-want +got):\n%s", tt.name, diff)
		}
	}
	for _, h := range originalsElsewhere {
		if diff := cmp.Diff("ok +1 -0 kept [16]", outcome(unhex(t, h)[HeaderLen:], ibgp2)); diff != "" {
			t.Errorf("original, %s (-want +got):\n%s", h, diff)
		}
	}
}

func TestOpenOfExaBGP(t *testing.T) {
	t.Parallel()
	got, err := ParseOpen(unhex(t, exabgpOpen)[HeaderLen:])
	if err != nil {
		t.Fatal(err)
	}
	unicast4 := Family{1, 1}
	families := []Family{unicast4, VPNv4, FlowVPNv4, VPNv6, FlowVPNv6, EVPN}
	want := Open{
		AS: 64512, HoldTime: 180, RouterID: netip.MustParseAddr("192.0.2.1"), Families: families,
		FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true, GracefulRestart: &GracefulRestart{Time: 120},
	}
	for _, f := range families {
		want.GracefulRestart.Families = append(want.GracefulRestart.Families, ForwardingState{f, true})
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("OPEN (-want +got):\n%s", diff)
	}
}
