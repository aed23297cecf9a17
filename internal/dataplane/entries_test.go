// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// red is the instance of most tests.
var red = dataplane.Instance{Number: 1, ID: "red", Type: dataplane.EVPN, VNI: 100}

func hop(n int) dataplane.NextHop {
	return dataplane.NextHop{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), Label: 100, Encap: encap.VXLAN}
}

func macOf(n int) ethernet.MAC { return ethernet.MAC{2, 0, 0, 0, 0, byte(n)} }

func remoteMAC(n, via int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: macOf(n), NextHops: []dataplane.NextHop{hop(via)}}
}

func neighbour(n, mac int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Neighbour, IP: netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), MAC: macOf(mac)}
}

func flood(via int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Flood, NextHops: []dataplane.NextHop{hop(via)}}
}

func prefix(n int, via ...int) dataplane.Entry {
	e := dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(n), 0}), 24)}
	for _, v := range via {
		nh := hop(v)
		nh.Encap = encap.MPLS
		e.NextHops = append(e.NextHops, nh)
	}
	return e
}

func port(n int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalPort, Port: fmt.Sprintf("tap%d", n)}
}

func localMAC(n, onPort int) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalMAC, MAC: macOf(n), Port: fmt.Sprintf("tap%d", onPort)}
}

func add(entries ...dataplane.Entry) []dataplane.Change {
	var out []dataplane.Change
	for _, e := range entries {
		out = append(out, dataplane.Change{At: dataplane.Place(e), Entry: e})
	}
	return out
}

func del(entries ...dataplane.Entry) []dataplane.Change {
	out := add(entries...)
	for i := range out {
		out[i].Delete = true
	}
	return out
}

// node is a reconciler over a plane; restart makes another one.
type node struct {
	*dataplane.Reconciler
	plane   *fake.Plane
	drivers map[dataplane.VPNType]dataplane.Driver
}

func newNode(plane *fake.Plane) *node {
	d := plane.Drivers()
	return &node{dataplane.NewReconciler(d, slog.New(slog.DiscardHandler)), plane, d}
}

// restart ends the node's drivers and returns the next run of the node.
func (n *node) restart(tb testing.TB) *node {
	tb.Helper()
	for _, d := range n.drivers {
		if err := d.Close(); err != nil {
			tb.Fatal(err)
		}
	}
	return newNode(n.plane)
}

func (n *node) open(tb testing.TB, inst dataplane.Instance) *dataplane.Forwarding {
	tb.Helper()
	f, err := n.Open(tb.Context(), inst)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// do carries out changes that must succeed.
func do(tb testing.TB, f *dataplane.Forwarding, changes []dataplane.Change) {
	tb.Helper()
	if err := f.Do(tb.Context(), changes); err != nil {
		tb.Fatal(err)
	}
}

// wantLog compares what reached the plane since the last look.
func wantLog(tb testing.TB, p *fake.Plane, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, p.Log()); diff != "" {
		tb.Errorf("operations (-want +got):\n%s", diff)
	}
}

func wantPlane(tb testing.TB, p *fake.Plane, want string) {
	tb.Helper()
	if diff := cmp.Diff(want, p.String()); diff != "" {
		tb.Errorf("plane (-want +got):\n%s", diff)
	}
	wantNoBreach(tb, p)
}

func wantNoBreach(tb testing.TB, p *fake.Plane) {
	tb.Helper()
	for _, b := range p.Breaches() {
		tb.Errorf("contract of the driver broken: %s", b)
	}
}

// wantEntries compares what is desired.
func wantEntries(tb testing.TB, f *dataplane.Forwarding, want ...dataplane.Entry) {
	tb.Helper()
	if diff := cmp.Diff(texts(want), texts(f.Entries())); diff != "" {
		tb.Errorf("desired entries (-want +got):\n%s", diff)
	}
}

func texts(entries []dataplane.Entry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

// refuse matches operations by their text, as Op.String has it.
func refuse(text string) func(fake.Op) bool {
	return func(o fake.Op) bool { return o.String() == text }
}
