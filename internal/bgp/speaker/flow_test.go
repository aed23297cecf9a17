// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// testFlow makes a flow without a session, on a node that does not run.
func testFlow(t *testing.T, families ...wire.Family) (*node, *flow) {
	t.Helper()
	n := &node{t: t, rib: rib.New()}
	var err error
	if n.instance, err = n.rib.AddSource("VRF-1", rib.Local); err != nil {
		t.Fatal(err)
	}
	if n.Speaker, err = New(Config{RouterID: nodeID, Local: nodeAddr, Peers: []PeerConfig{{Addr: peerAddr}}, Log: slog.New(slog.DiscardHandler)}, n.rib); err != nil {
		t.Fatal(err)
	}
	f := n.neighbour(peerAddr).Up(session.Negotiated{Local: nodeAddr, Families: families, FourOctetAS: true}).(*flow)
	t.Cleanup(func() { f.timer.Stop() })
	return n, f
}

// update hands messages to a flow.
func update(t *testing.T, f *flow, msgs ...[]byte) {
	t.Helper()
	for _, m := range msgs {
		if err := f.Update(m[wire.HeaderLen:]); err != nil {
			t.Fatal(err)
		}
	}
}

// Routes are applied in batches: when nothing more is at hand, when there are
// many, and before an End-of-RIB counts.
func TestBatches(t *testing.T) {
	t.Parallel()
	many := make([][]byte, batchLimit)
	for i := range many {
		many[i] = announcement(tagged(rt100), macRoute(i))
	}
	for _, tt := range []struct {
		name string
		in   func(*testing.T, *flow)
		want int // routes applied
	}{
		{"more is at hand", func(t *testing.T, f *flow) { update(t, f, many[0], many[1]) }, 0},
		{"nothing more is at hand", func(t *testing.T, f *flow) { update(t, f, many[0], many[1]); _ = f.Flush() }, 2},
		{"as many as a batch may have", func(t *testing.T, f *flow) { update(t, f, many...) }, 0},
		{"one more", func(t *testing.T, f *flow) { update(t, f, append(many, many[0])...) }, batchLimit},
		{"End-of-RIB", func(t *testing.T, f *flow) { update(t, f, many[0], wire.EndOfRIBMessage(wire.EVPN)) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, f := testFlow(t, wire.EVPN)
			tt.in(t, f)
			if got := n.rib.Stats().Paths; got != tt.want {
				t.Errorf("%d routes applied: want %d", got, tt.want)
			}
		})
	}
}

// What goes out together: RTC first, so that the peer can begin; withdrawals
// before announcements; routes with the same attributes side by side.
func TestOrderOfMessages(t *testing.T) {
	t.Parallel()
	_, f := testFlow(t, wire.Families...)
	a, b := tagged(rt100).Build(), tagged(rt200).Build()
	a.NextHop, b.NextHop = nodeAddr, nodeAddr
	vpn := wire.Route{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("198.51.100.0/24")), Label: wire.LabelField(16)}
	f.exports = []rib.Export{
		{Route: vpn, Attrs: a}, {Route: macRoute(1), Attrs: a}, {Route: macRoute(2), Attrs: b}, {Route: macRoute(3)},
		{Route: macRoute(4), Attrs: a}, {Route: rtcRoute(testAS, rt100), Attrs: a}, {Route: macRoute(5), Attrs: b}, {Route: macRoute(6)},
	}
	packer := wire.NewPacker(wire.MaxMessage)
	f.pack(packer)
	var got [][]string
	for msgs := packer.Flush(); len(msgs) > 0; {
		_, length, err := wire.ParseHeader(msgs, wire.MaxMessage)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, updateTexts(t, msgs[wire.HeaderLen:length]))
		msgs = msgs[length:]
	}
	name := func(sign string, i int) string { return sign + macRoute(i).NLRI.String() }
	want := [][]string{
		{"+rtc 64500:target:64500:100"}, {name("-", 3), name("-", 6)}, {name("+", 1), name("+", 4)}, {name("+", 2), name("+", 5)},
		{"+" + vpn.NLRI.String()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// After Down nothing of the flow is left in the RIB, nor its routes.
func TestDown(t *testing.T) {
	t.Parallel()
	n, f := testFlow(t, wire.EVPN)
	update(t, f, announcement(tagged(rt100), macRoute(1)))
	_ = f.Flush()
	f.Down(session.Loss{})
	for {
		select {
		case <-f.Wake():
			continue
		default:
		}
		break
	}
	n.announce(tagged(rt100), macRoute(2))
	select {
	case <-f.Wake():
		t.Error("the flow is still told of changes")
	default:
	}
	if got := n.names(peerAddr); len(got) != 0 {
		t.Errorf("routes left: %q", got)
	}
	if got := n.neighbour(peerAddr).Announced(); got != nil {
		t.Errorf("announced: %v", got)
	}
}

// The end of an old session does not touch a new one's flow.
func TestDropOfOldFlow(t *testing.T) {
	t.Parallel()
	n, old := testFlow(t, wire.EVPN)
	nb := n.neighbour(peerAddr)
	f := nb.Up(session.Negotiated{Families: []wire.Family{wire.EVPN}}).(*flow)
	defer f.Down(session.Loss{})
	old.Down(session.Loss{})
	if nb.Announced() == nil {
		t.Error("the new flow is gone")
	}
}
