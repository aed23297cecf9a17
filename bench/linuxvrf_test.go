// SPDX-License-Identifier: Apache-2.0

//go:build vm

package bench

import (
	"log/slog"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linuxvrf"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// BenchmarkWireToLinux measures from the first octet of 100k VPNv4 routes on TCP to the
// last route by a nexthop object in the kernel, in 100 VRFs, and compares it with the
// same nexthop objects and routes by prepared netlink messages alone. It needs a kernel
// with VRFs and MPLS: test/vm runs it in one.
func BenchmarkWireToLinux(b *testing.B) {
	if inNamespace(b, "BenchmarkWireToLinux") {
		return
	}
	l := load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyVPNv4, Encap: encap.GRE}
	makePorts(b, l.Instances)
	local := netip.MustParseAddr("192.0.2.1")
	d, err := linuxvrf.New(linuxvrf.Config{LocalAddr: local, Encaps: []encap.Type{encap.GRE}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	e := startEngine(b, l, nil, d, local, speaker.DropIfAsked)
	defer e.stop()
	againstFloor(b, e, l, func() time.Duration { return routeFloor(b, l) }, func() { checkVRFs(b, e, l) })
}

// routeFloor makes the routes of the load and a nexthop object for each group of them,
// and removes them; it returns the time of making.
func routeFloor(b *testing.B, l load) time.Duration {
	b.Helper()
	c := dialNetlink(b)
	defer func() { _ = c.Close() }()
	if out, err := exec.Command("sh", "-c", "ip link set q0 up && ip link set p0 up").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	p0, ok, err := c.LinkByName("p0")
	if err != nil || !ok {
		b.Fatal(ok, err)
	}
	const firstTable = 50_000
	var put, remove []netlinkx.Request
	for n := range l.Routes {
		hop := netlinkx.Nexthop{
			ID: uint32(1 + n/l.Group), Protocol: 200, Index: p0.Index, Via: netip.MustParseAddr("198.51.100.7"), Label: uint32(16 + n/l.Group), OnLink: true,
		}
		if n%l.Group == 0 {
			put = append(put, netlinkx.NexthopRequest{Nexthop: hop})
		}
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)}), 32)
		r := netlinkx.Route{Dst: dst, Table: firstTable + uint32(n%l.Instances), Metric: 1024, Protocol: 200, Nexthop: hop.ID}
		put = append(put, netlinkx.RouteRequest{Route: r})
		// Routes go first: an object that goes with its routes has the kernel walk all tables.
		remove = append(remove, netlinkx.RouteRequest{Delete: true, Route: r})
		if (n+1)%l.Group == 0 {
			remove = append(remove, netlinkx.NexthopRequest{Delete: true, Nexthop: hop})
		}
	}
	errs := make([]error, len(put))
	all := func(reqs []netlinkx.Request) {
		c.Do(reqs, errs[:len(reqs)])
		for _, err := range errs[:len(reqs)] {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	start := time.Now()
	all(put)
	took := time.Since(start)
	all(remove)
	return took
}
