// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// sample is one of each, for a host with ports p1 and p2 and VNI 100.
func sample() []dataplane.Entry {
	return []dataplane.Entry{
		localPort("p1"), localPort("p2"), localMAC(1, "p1"), localMAC(2, "p2"),
		remoteMAC(11, "192.0.2.9", 100), remoteMAC(12, "192.0.2.8", 200),
		neighbour("198.51.100.11", 11), neighbour("2001:db8:1::11", 11),
		flood("192.0.2.9", 100), flood("192.0.2.8", 200), flood("192.0.2.8", 100),
	}
}

func TestInstalledEqualsApplied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, local string
		entries     []dataplane.Entry
	}{
		{"IPv4 underlay", local4, sample()},
		{"IPv6 underlay", local6, []dataplane.Entry{
			localPort("p1"), remoteMAC(11, "2001:db8:ffff::9", 100), remoteMAC(12, "2001:db8:ffff::8", 7),
			neighbour("198.51.100.11", 11), neighbour("2001:db8:1::11", 11), flood("2001:db8:ffff::9", 100),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "installed")
			host.ports("p1", "p2")
			h := mustOpen(t, host.driver(tt.local), instance("red", 100))
			wantInstalled(t, h)
			mustApply(t, h, add(tt.entries...)...)
			wantInstalled(t, h, tt.entries...)

			before := host.state()
			mustApply(t, h, add(tt.entries...)...)
			wantSame(t, "state after applying again", before, host.state())

			again := mustOpen(t, host.driver(tt.local), instance("red", 100))
			wantSame(t, "state after a restart", before, host.state())
			wantInstalled(t, again, tt.entries...)

			mustApply(t, again, del(tt.entries...)...)
			wantInstalled(t, again)
			empty := host.state()
			mustApply(t, again, del(tt.entries...)...)
			wantSame(t, "state after deleting again", empty, host.state())
		})
	}
}

func TestNextHopChangeReplaces(t *testing.T) {
	t.Parallel()
	host := newHost(t, "nexthop")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, h, add(remoteMAC(11, "192.0.2.9", 100))...)
	for _, e := range []dataplane.Entry{
		remoteMAC(11, "192.0.2.8", 100), remoteMAC(11, "192.0.2.8", 7), remoteMAC(11, "192.0.2.9", 100),
	} {
		mustApply(t, h, add(e)...)
		wantInstalled(t, h, e)
		if n := strings.Count(host.bridge("fdb show dev %s", h.vxlanName), mac(11).String()+" dst"); n != 1 {
			t.Errorf("MAC has %d far ends, want 1", n)
		}
	}
}

// The kernel forgets a bridge's neighbours when its MAC changes, which it does
// when a port with a lower one comes or goes, unless the MAC was set.
func TestNeighboursSurvivePortsComingAndGoing(t *testing.T) {
	t.Parallel()
	host := newHost(t, "lowmac")
	host.ports("p1")
	host.ip("link set p1 address 00:00:00:00:00:01")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	entries := []dataplane.Entry{neighbour("198.51.100.1", 1), neighbour("2001:db8:1::1", 1)}
	mustApply(t, h, add(entries...)...)
	mustApply(t, h, add(localPort("p1"))...)
	wantInstalled(t, h, append(entries, localPort("p1"))...)
	mustApply(t, h, del(localPort("p1"))...)
	wantInstalled(t, h, entries...)
}

func TestNeighbourChangeReplaces(t *testing.T) {
	t.Parallel()
	host := newHost(t, "neigh")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	for _, e := range []dataplane.Entry{neighbour("198.51.100.1", 1), neighbour("198.51.100.1", 2)} {
		mustApply(t, h, add(e)...)
		wantInstalled(t, h, e)
	}
}

// A MAC moves between hosts and ports, with the deletion before or after the addition.
func TestMACMoves(t *testing.T) {
	t.Parallel()
	host := newHost(t, "moves")
	host.ports("p1", "p2")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	ports := []dataplane.Entry{localPort("p1"), localPort("p2")}
	mustApply(t, h, add(ports...)...)
	at := func(e ...dataplane.Entry) []dataplane.Entry { return append(e, ports...) }
	remote, p1, p2 := remoteMAC(5, "192.0.2.9", 100), localMAC(5, "p1"), localMAC(5, "p2")
	mustApply(t, h, add(p1)...)
	for _, step := range []struct{ from, to dataplane.Entry }{{p1, remote}, {remote, p2}, {p2, remote}, {remote, p1}} {
		mustApply(t, h, append(add(step.to), del(step.from)...)...)
		wantInstalled(t, h, at(step.to)...)
	}
	for _, step := range []struct{ from, to dataplane.Entry }{{p1, remote}, {remote, p2}} {
		mustApply(t, h, append(del(step.from), add(step.to)...)...)
		wantInstalled(t, h, at(step.to)...)
	}
	mustApply(t, h, add(p1)...)
	wantInstalled(t, h, at(p1)...)
	mustApply(t, h, del(p2)...) // deletion is by MAC: the caller may have the port of before
	wantInstalled(t, h, at()...)
}

func TestHalfRemoteMACIsRepaired(t *testing.T) {
	t.Parallel()
	want := []dataplane.Entry{localPort("p1"), remoteMAC(5, "192.0.2.9", 100)}
	half := dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: mac(5)}
	for name, breakIt := range map[string]func(host *host, vxlan string){
		"bridge entry deleted": func(host *host, vxlan string) { host.bridge("fdb del %s dev %s master", mac(5), vxlan) },
		"VXLAN entry deleted":  func(host *host, vxlan string) { host.bridge("fdb del %s dev %s self", mac(5), vxlan) },
		// One frame from the MAC through the local port, and none later: the
		// neighbour entry leaves ARP nothing to repeat.
		"taken over by learning": func(host *host, _ string) {
			nstest.Eventually(host.t, 10*time.Second, func() bool {
				_, _ = host.Try("ping", "-n", "-c", "1", "-W", "1", "203.0.113.2")
				return strings.Contains(host.bridge("fdb show dev p1"), mac(5).String())
			}, func() string { return host.bridge("fdb show") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "half")
			host.ports("p1")
			host.ip("link set p1-x address %s", mac(5))
			host.ip("addr add 203.0.113.1/24 dev p1-x")
			host.ip("neigh add 203.0.113.2 lladdr %s dev p1-x", mac(6))
			h := mustOpen(t, host.driver(local4), instance("red", 100))
			mustApply(t, h, add(want...)...)
			breakIt(host, h.vxlanName)
			wantInstalled(t, h, localPort("p1"), half)
			mustApply(t, h, add(want...)...)
			wantInstalled(t, h, want...)
			breakIt(host, h.vxlanName)
			mustApply(t, h, del(half)...)
			wantInstalled(t, h, localPort("p1"))
		})
	}
}

// After a crash in the middle, at whatever message, a new process converges.
func TestCrashInTheMiddleConverges(t *testing.T) {
	t.Parallel()
	host := newHost(t, "crash")
	host.ports("p1", "p2")
	host.driver(local4) // a process that died before it opened anything
	var changes []dataplane.Change
	old := []dataplane.Entry{remoteMAC(20, "192.0.2.7", 100), neighbour("198.51.100.20", 20), flood("192.0.2.7", 100), localPort("p1"), localMAC(20, "p1")}
	old[4].MAC = mac(21)
	changes = append(changes, del(old...)...)
	changes = append(changes, add(sample()...)...)
	for cut := range len(changes) + 1 {
		first := mustOpen(t, host.driver(local4), instance("red", 100))
		mustApply(t, first, add(old...)...)
		mustApply(t, first, changes[:cut]...)
		second := mustOpen(t, host.driver(local4), instance("red", 100))
		mustApply(t, second, changes...)
		wantInstalled(t, second, sample()...)
		mustApply(t, second, del(sample()...)...)
	}
}

// A deletion of two messages of which only the first was sent.
func TestCrashInsideDeletion(t *testing.T) {
	t.Parallel()
	host := newHost(t, "crashdel")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	e := remoteMAC(5, "192.0.2.9", 100)
	mustApply(t, h, add(e)...)
	p := planner{bridge: h.bridge, vxlan: h.vxlan, local: h.d.cfg.LocalAddr}
	msgs, err := p.plan(nil, del(e)[0], 0)
	if err != nil || len(msgs) != 2 {
		t.Fatal(msgs, err)
	}
	errs := make([]error, 1)
	h.d.conn.Exec(msgs[:1], errs)
	again := mustOpen(t, host.driver(local4), instance("red", 100))
	installed, err := again.Installed(t.Context())
	if err != nil || len(installed) != 1 {
		t.Fatalf("installed = %v, %v; want the half entry", installed, err)
	}
	mustApply(t, again, del(installed...)...)
	wantInstalled(t, again)
	if fdb := host.bridge("fdb show dev %s", h.vxlanName); strings.Contains(fdb, mac(5).String()) {
		t.Errorf("entry is left: %s", fdb)
	}
}

func TestPortErrors(t *testing.T) {
	t.Parallel()
	host := newHost(t, "porterr")
	host.ports("p1", "p2", "p3")
	host.ip("link add foreign type bridge")
	host.ip("link set p1 master foreign")
	d := host.driver(local4)
	red, blue := mustOpen(t, d, instance("red", 100)), mustOpen(t, d, instance("blue", 200))
	mustApply(t, blue, add(localPort("p2"))...)
	before := host.state()
	errs := red.Apply(t.Context(), add(
		localPort("none"), localPort("p1"), localPort("p2"), localMAC(1, "none"), localMAC(1, "p1"), localMAC(1, "p3"),
		remoteMAC(1, "2001:db8::9", 100), remoteMAC(0, "192.0.2.9", 100)))
	for i, words := range [][]string{
		{"port dev none", "none does not exist"},
		{"p1 belongs to foreign"},
		{"p2 belongs to instance \"blue\""},
		{"none does not exist"},
		{"p1 is in foreign", red.bridgeName},
		{"p3 is not in bridge"},
		{"2001:db8::9", "address family"},
	} {
		wantErr(t, errs[i], words...)
	}
	if errs[7] != nil {
		t.Errorf("a good change between bad ones failed: %v", errs[7])
	}
	mustApply(t, red, del(remoteMAC(0, "192.0.2.9", 100))...)
	mustApply(t, red, del(localPort("none"), localPort("p1"), localPort("p2"), localMAC(1, "none"))...)
	wantSame(t, "state", before, host.state())
}

// A device that vanished takes its entries with it; deleting them is no error.
func TestVanishedPort(t *testing.T) {
	t.Parallel()
	host := newHost(t, "vanished")
	host.ports("p1")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, h, add(localPort("p1"), localMAC(1, "p1"))...)
	host.ip("link del p1")
	wantInstalled(t, h)
	mustApply(t, h, del(localMAC(1, "p1"), localPort("p1"))...)
}

func TestPortIsBroughtUp(t *testing.T) {
	t.Parallel()
	host := newHost(t, "portup")
	host.ports("p1")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	for _, breakIt := range []string{"link set p1 down", "link set p1 down nomaster", "link set p1 up"} {
		host.ip("%s", breakIt)
		mustApply(t, h, add(localPort("p1"))...)
		if out := host.ip("-o link show p1"); !strings.Contains(out, ",UP") || !strings.Contains(out, "master "+h.bridgeName) {
			t.Errorf("after %q: %s", breakIt, out)
		}
	}
}

// What others put in our devices, without our marks, is not ours to delete.
func TestLocalMACOfOthersIsKept(t *testing.T) {
	t.Parallel()
	host := newHost(t, "others")
	host.ports("p1")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, h, add(localPort("p1"))...)
	host.bridge("fdb add %s dev p1 master static", mac(7))
	before := host.state()
	mustApply(t, h, del(localMAC(7, "p1"))...)
	wantInstalled(t, h, localPort("p1"))
	wantSame(t, "state", before, host.state())
}

func TestBulk(t *testing.T) {
	t.Parallel()
	host := newHost(t, "bulk")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	var entries []dataplane.Entry
	for i := range 3*flushSize + 7 {
		entries = append(entries, remoteMAC(i+1, "192.0.2.9", 100), neighbour(fmt.Sprintf("10.0.%d.%d", i>>8, i&255), i+1))
	}
	entries[0].MAC[0] = 1 // multicast: refused
	entries[5000].NextHops, entries[5000].Kind = nil, dataplane.RemoteMAC
	errs := h.Apply(t.Context(), add(entries...))
	for i, err := range errs {
		if (err != nil) != (i == 0 || i == 5000) {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	var want []dataplane.Entry
	for i, e := range entries {
		if i != 0 && i != 5000 {
			want = append(want, e)
		}
	}
	wantBulk(t, h, want)
	mustApply(t, h, del(want...)...)
	wantInstalled(t, h)
}

// wantBulk is wantInstalled without comparing each with each.
func wantBulk(t *testing.T, h dataplane.Handle, want []dataplane.Entry) {
	t.Helper()
	got, err := h.Installed(t.Context())
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d entries installed (%v), want %d", len(got), err, len(want))
	}
	seen := map[string]bool{}
	for _, e := range got {
		seen[e.String()] = true
	}
	for _, e := range want {
		if !seen[e.String()] {
			t.Fatalf("%s is not installed", e)
		}
	}
}

func TestApplyStopsWithContext(t *testing.T) {
	t.Parallel()
	host := newHost(t, "ctx")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range h.Apply(ctx, add(flood("192.0.2.9", 100), remoteMAC(1, "192.0.2.9", 1))) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("result %v, want %v", err, context.Canceled)
		}
	}
	wantInstalled(t, h)
}
