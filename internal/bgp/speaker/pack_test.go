// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Many routes with few sets of attributes need few messages, none too long.
func TestPacking(t *testing.T) {
	t.Parallel()
	const macs, sets = 6000, 3
	octets := macs*35 + 1000*24 // of the NLRIs alone
	for _, tt := range []struct {
		name     string
		extended bool
		limit    int
	}{{"normal messages", false, wire.MaxMessage}, {"extended messages", true, wire.MaxExtMessage}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, passivePeer(wire.EVPN, wire.VPNv4))
			var groups [sets][]wire.Route
			for i := range macs {
				groups[i%sets] = append(groups[i%sets], macRoute(i))
			}
			for i, g := range groups {
				n.announce(wire.LocalAttrs{RTs: []wire.RT{rt100}, LocalPref: uint32(100 + i)}, g...)
			}
			for i := range 1000 {
				prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
				n.announce(tagged(rt100), wire.Route{NLRI: wire.VPNRoute(rd1, prefix), Label: wire.LabelField(uint32(16 + i))})
			}
			p := connect(t, n, peerAddr)
			open := peerOpen(wire.EVPN, wire.VPNv4)
			open.ExtendedMessage = tt.extended
			p.open(open)

			messages, seen := count(t, p, tt.limit, "+", macs+1000)
			// The least is what the octets ask for, plus, for each batch, one
			// message that is not full per set.
			most := octets/(tt.limit-100) + 1 + (sets+1)*((macs+1000)/exportLimit+2)
			t.Logf("%d messages", messages)
			if messages > most {
				t.Errorf("%d messages: want at most %d", messages, most)
			}
			for name, times := range seen {
				if times != 1 && !strings.HasPrefix(name, "End-of-RIB") {
					t.Errorf("%s was sent %d times", name, times)
				}
			}

			var gone []wire.NLRI
			for i := range macs {
				gone = append(gone, macRoute(i).NLRI)
			}
			n.withdraw(gone...)
			messages, _ = count(t, p, tt.limit, "-", macs)
			if most := macs*35/(tt.limit-100) + 1 + macs/exportLimit + 2; messages > most {
				t.Errorf("%d messages to withdraw: want at most %d", messages, most)
			}
		})
	}
}

// count reads messages until routes announced or withdrawn (as sign says) have
// come.
func count(t *testing.T, p *rawPeer, limit int, sign string, routes int) (messages int, seen map[string]int) {
	t.Helper()
	seen = map[string]int{}
	for n := 0; n < routes; {
		typ, body := p.read()
		if typ == wire.MsgKeepalive {
			continue
		}
		if typ != wire.MsgUpdate || len(body)+wire.HeaderLen > limit {
			t.Fatalf("%s of %d octets: want UPDATE of at most %d", typ, len(body)+wire.HeaderLen, limit)
		}
		messages++
		for _, text := range updateTexts(t, body) {
			seen[text]++
			if strings.HasPrefix(text, sign) {
				n++
			}
		}
	}
	return messages, seen
}

// A route that changes many times while the peer is slow costs few messages,
// and the last state arrives.
func TestLatestStateArrives(t *testing.T) {
	t.Parallel()
	n := startNode(t, passivePeer(wire.EVPN))
	p := connect(t, n, peerAddr)
	p.open(peerOpen(wire.EVPN))
	const changes = 5000
	for i := range changes {
		n.announce(wire.LocalAttrs{RTs: []wire.RT{rt100}, LocalPref: uint32(i + 1)}, macRoute(1))
	}
	for messages := 1; ; messages++ {
		typ, body := p.read()
		if typ != wire.MsgUpdate {
			t.Fatal(fmt.Sprint("got ", typ))
		}
		u, err := wire.ParseUpdate(body, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !u.Reach.Present {
			continue
		}
		a, err := wire.DecodeAttrs(u.Attrs, u.NextHop, wire.Rules{FourOctetAS: true})
		if err != nil {
			t.Fatal(err)
		}
		if a.LocalPref == changes {
			if messages > changes {
				t.Errorf("%d messages for %d changes", messages, changes)
			}
			return
		}
	}
}
