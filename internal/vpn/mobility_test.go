// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// seqOf returns the mobility sequence number that a node announces for a MAC,
// and how many of its MAC/IP routes carry it.
func (n *node) seqOf(id string, m int) (seq uint32, routes int) {
	n.tb.Helper()
	for _, p := range n.Instance(id).Announced() {
		if p.NLRI.MAC == mac(m) {
			if routes > 0 && p.Attrs.MobilitySeq != seq {
				n.tb.Errorf("routes of %s with different sequence numbers %d and %d", mac(m), seq, p.Attrs.MobilitySeq)
			}
			seq = p.Attrs.MobilitySeq
			routes++
		}
	}
	return seq, routes
}

func (n *node) wantSeq(m int, want uint32) {
	n.tb.Helper()
	if seq, routes := n.seqOf("red", m); seq != want || routes == 0 {
		n.tb.Errorf("node %s announces %s with sequence %d in %d routes, want %d", n.Local, mac(m), seq, routes, want)
	}
}

// entryOf returns what a node's plane has for a MAC.
func (n *node) entryOf(m int) string {
	for _, e := range n.plane.Entries(dataplane.EVPN, "red") {
		if strings.Contains(e, mac(m).String()) && !strings.HasPrefix(e, "neigh") {
			return e
		}
	}
	return ""
}

func (n *node) wantEntry(m int, want string) {
	n.tb.Helper()
	if got := n.entryOf(m); got != want {
		n.tb.Errorf("node %s has %q for %s, want %q", n.Local, got, mac(m), want)
	}
}

func TestAttachOutrunsKnownRemoteRoute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		p.announce(remoteMAC(9, 7, "192.0.2.7"), withSeq(remoteAttrs(9, "64512:1"), 4))
		n.attach(evpn(7, "192.0.2.7")) // the instance is new, too
		n.wantSeq(7, 5)
		n.attach(evpn(7, "192.0.2.8"), evpn(7, "192.0.2.7"))
		n.wantSeq(7, 5)
		pass()
		p.announce(remoteMAC(9, 7, "192.0.2.7"), withSeq(remoteAttrs(9, "64512:1"), 9))
		n.wantSeq(7, 5) // no answer once the window has passed: it may have moved on
	})
}

func TestUnusableRouteIsNotOutrun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.peer("BGP-10.77.0.9").announce(remoteMAC(9, 7, ""), withEncaps(remoteAttrs(9, "64512:1")))
		n.attach(evpn(7, ""))
		n.wantSeq(7, 0)
	})
}

func TestRouteLearnedLateIsOutrunOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(evpn(7, "192.0.2.7"), evpn(7, "192.0.2.8"))
		n.wantSeq(7, 0)
		time.Sleep(5 * time.Second)
		p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 3))
		n.wantSeq(7, 4)
		p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 8))
		n.wantSeq(7, 4)
		n.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
	})
}

// Beyond the highest number there is none: ours stays there, and does not begin
// anew at 0, with which it would lose against all.
func TestHighestSequenceNumberStays(t *testing.T) {
	t.Parallel()
	const highest = 0xffffffff
	for _, tt := range []struct {
		name      string
		before    uint32 // known at the attach; 0 for none
		late      uint32 // learned after it
		want      uint32
		announced uint64 // by us, for the late route
	}{
		{name: "known", before: highest, late: highest - 5, want: highest},
		{name: "one below", before: highest - 1, late: highest, want: highest},
		{name: "learned late", late: highest, want: highest, announced: 1},
		{name: "one ahead, learned late", before: highest - 2, late: highest, want: highest, announced: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				p := n.peer("BGP-10.77.0.9")
				if tt.before != 0 {
					p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), tt.before))
				}
				n.attach(evpn(7, ""))
				before := n.rib.Stats().Announced
				p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), tt.late))
				n.wantSeq(7, tt.want)
				if got := n.rib.Stats().Announced - before - 1; got != tt.announced {
					t.Errorf("%d announcements after the late route, want %d", got, tt.announced)
				}
				n.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
			})
		})
	}
}

// With the highest number on both sides, a third node takes the lowest next hop
// until the old node withdraws.
func TestMoveAtHighestSequenceNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		number int // of the new node; the old one is 9
		during string
	}{
		{"new node is lower", 1, "10.77.1.1"},
		{"new node is higher", 10, "10.77.1.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, c := newNode(t, setup{number: tt.number}), newNode(t, setup{number: 3})
				defer connect(a, c)()
				c.attach(evpn(3, ""))
				route, attrs := remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 0xffffffff)
				atA, atC := a.peer("BGP-10.77.0.9"), c.peer("BGP-10.77.0.9")
				atA.announce(route, attrs)
				atC.announce(route, attrs)
				a.attach(evpn(7, ""))
				if got := c.entryOf(7); !strings.Contains(got, tt.during+"/") {
					t.Errorf("third node sends to %q, want %s", got, tt.during)
				}
				atA.withdraw(route)
				atC.withdraw(route)
				if got := c.entryOf(7); !strings.Contains(got, fmt.Sprintf("10.77.1.%d/", tt.number)) {
					t.Errorf("third node sends to %q after the withdrawal", got)
				}
			})
		})
	}
}

// A route one ahead of ours is what the next node announces when the MAC moves
// on: only right after the attach is it taken for an old one.
func TestRouteOneAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after time.Duration
		want  uint32
	}{
		{"at once", 0, 2},
		{"after five seconds", 5 * time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				n.attach(evpn(7, "192.0.2.7"))
				time.Sleep(tt.after)
				n.peer("BGP-10.77.0.9").announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 1))
				n.wantSeq(7, tt.want)
			})
		})
	}
}

func TestLateLowerRouteIsNotAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 3))
		n.attach(evpn(7, ""))
		n.wantSeq(7, 4)
		p.announce(remoteMAC(9, 7, ""), withSeq(remoteAttrs(9, "64512:1"), 2))
		n.wantSeq(7, 4)
	})
}

// Two nodes that both hold a MAC come to rest, however they learn of each other.
func TestNodesDoNotRace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		run  func(a, b *node) (end func())
	}{
		{"attached together, connected later", func(a, b *node) func() {
			a.attach(evpn(7, "192.0.2.7"))
			b.attach(evpn(7, "192.0.2.7"))
			return connect(a, b)
		}},
		{"connected, attached together", func(a, b *node) func() {
			end := connect(a, b)
			a.attach(evpn(7, "192.0.2.7"))
			b.attach(evpn(7, "192.0.2.7"))
			return end
		}},
		{"attached long ago, connected later", func(a, b *node) func() {
			a.attach(evpn(7, "192.0.2.7"))
			b.attach(evpn(7, "192.0.2.7"))
			pass()
			return connect(a, b)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, b, c := newNode(t, setup{number: 1}), newNode(t, setup{number: 2}), newNode(t, setup{number: 3})
				c.attach(evpn(3, ""))
				end := tt.run(a, b)
				more := connect(a, c)
				for range 3 {
					settle()
					pass()
				}
				x, _ := a.seqOf("red", 7)
				y, _ := b.seqOf("red", 7)
				if max(x, y) > 3 {
					t.Errorf("sequence numbers %d and %d: the nodes race", x, y)
				}
				before := a.rib.Stats().Announced + b.rib.Stats().Announced
				pass()
				settle()
				if got := a.rib.Stats().Announced + b.rib.Stats().Announced; got != before {
					t.Errorf("%d announcements after the nodes came to rest", got-before)
				}
				a.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
				b.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
				more()
				end()
			})
		})
	}
}

// TestPortMove moves a port from A to B as live migration does: B attaches
// while A still has it, then A detaches. A third node never loses the MAC.
func TestPortMove(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		pause time.Duration // between attach at A and at B
	}{
		{"long attached", time.Hour},
		{"just attached", time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, b, c := newNode(t, setup{number: 1}), newNode(t, setup{number: 2}), newNode(t, setup{number: 3})
				defer connect(a, b, c)()
				c.attach(evpn(3, "192.0.2.3"))
				port := evpn(7, "192.0.2.7")
				a.attach(port)
				c.wantEntry(7, "mac 02:00:00:00:00:07 via 10.77.1.1/16/VXLAN")
				time.Sleep(tt.pause)
				c.plane.Log()
				b.attach(port)
				b.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
				a.wantEntry(7, "local-mac dev tap1 02:00:00:00:00:07")
				c.wantEntry(7, "mac 02:00:00:00:00:07 via 10.77.1.2/16/VXLAN")
				a.detach(port)
				c.wantEntry(7, "mac 02:00:00:00:00:07 via 10.77.1.2/16/VXLAN")
				for _, op := range c.plane.Log() {
					if strings.HasPrefix(op, "red: - mac") || strings.HasPrefix(op, "red: - neigh") {
						t.Errorf("node C loses forwarding: %s", op)
					}
				}
				for round, next := range []*node{a, b, a} { // and back and forth
					last := []*node{b, a, b}[round]
					next.attach(port)
					last.detach(port)
					c.wantEntry(7, fmt.Sprintf("mac 02:00:00:00:00:07 via %s/%d/VXLAN", next.Tunnel[dataplane.EVPN], next.Instance("red").VNI))
				}
			})
		})
	}
}

// At no time is the old node without an entry either: what covers its own
// endpoint is in place of it, or frames are flooded to the new one.
func TestPortMoveSeenFromTheOldNode(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := newNode(t, setup{number: 1}), newNode(t, setup{number: 2})
		defer connect(a, b)()
		other := evpn(1, "192.0.2.1")
		port := evpn(7, "192.0.2.7", onPort("tap7"))
		a.attach(other, port)
		b.attach(port)
		a.plane.Log()
		a.detach(port)
		wantLines(t, "operations on A", []string{
			"red: - local-mac dev tap7 02:00:00:00:00:07", "red: - port dev tap7",
			"red: + mac 02:00:00:00:00:07 via 10.77.1.2/16/VXLAN", "red: + neigh 02:00:00:00:00:07 ip 192.0.2.7",
		}, a.plane.Log())
		if got := a.plane.Entries(dataplane.EVPN, "red"); !slices.Contains(got, "flood via 10.77.1.2/16/VXLAN") {
			t.Errorf("node A does not flood to B: %v", got)
		}
	})
}

// What one node announces, another can use: all kinds of endpoints.
func TestTwoNodes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := newNode(t, setup{number: 1}), newNode(t, setup{number: 2})
		end := connect(a, b)
		all := []vpn.Attachment{
			evpn(1, "192.0.2.5"), evpn(1, "2001:db8::5"), evpn(2, "", vni(5000), named("green"), imports("64512:2"), exports("64512:2")),
			vrf(4, "192.0.2.9"), vrf(5, "198.51.100.9/24", subnet),
		}
		a.attach(all...)
		b.attach(evpn(3, ""), evpn(4, "", named("green"), imports("64512:2"), exports("64512:2")), vrf(6, "192.0.2.10"))
		b.wantPlane(
			"evpn green vni 17", "  flood via 10.77.1.1/5000/VXLAN", "  local-mac dev tap1 02:00:00:00:00:04", "  mac 02:00:00:00:00:02 via 10.77.1.1/5000/VXLAN", "  port dev tap1",
			"evpn red vni 16", "  flood via 10.77.1.1/16/VXLAN", "  local-mac dev tap1 02:00:00:00:00:03", "  mac 02:00:00:00:00:01 via 10.77.1.1/16/VXLAN",
			"  neigh 02:00:00:00:00:01 ip 192.0.2.5", "  neigh 02:00:00:00:00:01 ip 2001:db8::5", "  port dev tap1",
			"ipvpn blue vni 18", "  local-prefix dev tap1 02:00:00:00:00:06 ip 192.0.2.10 192.0.2.10/32 label 19", "  port dev tap1",
			"  prefix 192.0.2.10/32 via 10.77.2.2/19/MPLS", "  prefix 192.0.2.9/32 via 10.77.2.1/18/MPLS", "  prefix 198.51.100.0/24 via 10.77.2.1/19/MPLS",
		)
		end()
		b.wantPlane(
			"evpn green vni 17", "  local-mac dev tap1 02:00:00:00:00:04", "  port dev tap1",
			"evpn red vni 16", "  local-mac dev tap1 02:00:00:00:00:03", "  port dev tap1",
			"ipvpn blue vni 18", "  local-prefix dev tap1 02:00:00:00:00:06 ip 192.0.2.10 192.0.2.10/32 label 19", "  port dev tap1", "  prefix 192.0.2.10/32 via 10.77.2.2/19/MPLS",
		)
	})
}
