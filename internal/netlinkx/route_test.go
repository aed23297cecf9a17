// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var equalAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
var equalPrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func do(t *testing.T, c *Conn, reqs ...Request) {
	t.Helper()
	errs := make([]error, len(reqs))
	c.Do(reqs, errs)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Requests and what the kernel then lists, without MPLS, which not every kernel has.
func TestRoutesByNexthopObjects(t *testing.T) {
	t.Parallel()
	const mine = 19
	ns := nstest.New(t, "route")
	c := dial(t, ns)
	tunnel(t, ns, c)
	index := mustLink(t, c, "br0").Index
	four, six := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	address := Address{Index: index, Prefix: netip.MustParsePrefix("198.51.100.1/32"), Protocol: mine}
	address6 := Address{Index: index, Prefix: netip.MustParsePrefix("2001:db8:1::1/128"), Protocol: mine}
	hops := []Nexthop{
		{ID: 71, Protocol: mine, Index: index, Via: four, OnLink: true},
		{ID: 72, Protocol: mine, Index: index, Via: netip.MustParseAddr("192.0.2.3"), OnLink: true},
		{ID: 73, Protocol: mine, Index: index, Via: six, OnLink: true},
		{ID: 74, Protocol: mine, Group: []uint32{71, 72}},
	}
	routes := []Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Table: 1001, Metric: 9999, Protocol: mine},
		{Dst: netip.MustParsePrefix("203.0.113.0/24"), Table: 1001, Metric: 1024, Protocol: mine, Nexthop: 74},
		{Dst: netip.MustParsePrefix("203.0.113.0/25"), Table: 1001, Metric: 1024, Protocol: mine, Nexthop: 73},
	}
	route6 := Route{Dst: netip.MustParsePrefix("2001:db8:2::/64"), Table: 1001, Metric: 1024, Protocol: mine, Nexthop: 73}
	rule := Rule{Family: unix.AF_INET, Priority: 5, Table: 1001, Protocol: mine}
	reqs := []Request{AddressRequest{Address: address}, AddressRequest{Address: address6}, RuleRequest{Rule: rule}}
	for _, n := range hops {
		reqs = append(reqs, NexthopRequest{Nexthop: n})
	}
	for _, r := range append(slices.Clone(routes), route6) {
		reqs = append(reqs, RouteRequest{Route: r})
	}
	reqs = append(reqs, RouteRequest{Route: Route{Dst: routes[1].Dst, Table: 1002, Metric: 1, Protocol: 3}})
	do(t, c, reqs...)
	do(t, c, RouteRequest{Route: routes[1]}, NexthopRequest{Nexthop: hops[0]}) // again

	check := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got, equalAddr, equalPrefix); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
	got, err := c.Routes(unix.AF_INET, 1001, mine)
	slices.SortFunc(got, func(a, b Route) int { return a.Dst.Bits() - b.Dst.Bits() })
	check("routes", routes, got, err)
	all, err := c.Routes(unix.AF_INET, 0, mine)
	check("routes of all tables", 3, len(all), err)
	all, err = c.Routes(unix.AF_INET, 1002, 0)
	check("routes of all owners", 1, len(all), err)
	all, err = c.Routes(unix.AF_INET6, 1001, mine)
	check("IPv6 routes", []Route{route6}, all, err)
	all, err = c.Routes(unix.AF_INET, 77, mine)
	check("routes of no table", 0, len(all), err)
	list, err := c.Nexthops()
	slices.SortFunc(list, func(a, b Nexthop) int { return int(a.ID) - int(b.ID) })
	check("nexthop objects", hops, list, err)
	one, ok, err := c.Nexthop(73)
	check("nexthop object", hops[2], one, err)
	_, there, err := c.Nexthop(75)
	check("no nexthop object", []bool{true, false}, []bool{ok, there}, err)
	rules, err := c.Rules(unix.AF_INET)
	check("rules", true, slices.Contains(rules, rule), err)
	addrs, err := c.Addresses(index)
	addrs = slices.DeleteFunc(addrs, func(a Address) bool { return a.Prefix.Addr().IsLinkLocalUnicast() })
	check("addresses", []Address{address, address6}, addrs, err)

	do(t, c, NexthopRequest{Delete: true, Nexthop: hops[2]}, RouteRequest{Delete: true, Route: routes[1]},
		RuleRequest{Delete: true, Rule: rule}, AddressRequest{Delete: true, Address: address})
	got, err = c.Routes(unix.AF_INET, 1001, mine)
	check("routes after deletions", routes[:1], got, err)
	all, err = c.Routes(unix.AF_INET6, 1001, mine)
	check("IPv6 routes after deletions", 0, len(all), err)

	errs := make([]error, 2)
	c.Do([]Request{RouteRequest{Route: Route{Dst: routes[1].Dst, Table: 1001, Metric: 1, Protocol: mine, Nexthop: 99}}, RuleRequest{Rule: rule}}, errs)
	if errs[0] == nil || errs[1] != nil {
		t.Errorf("a route by an object that is not there, and a rule: %v", errs)
	}
}

// What kernels without MPLS or VRFs cannot show: requests read back as what they ask.
func TestRequestsReadBack(t *testing.T) {
	t.Parallel()
	body := func(r Request) []byte { return r.appendTo(nil, 1, true)[unix.SizeofNlMsghdr:] }
	mpls := MPLSRoute{Label: 1048575, Index: 7, MAC: ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1}, Protocol: 19}
	if got, err := parseMPLS(body(MPLSRequest{New: true, MPLSRoute: mpls})); err != nil || got != mpls {
		t.Errorf("MPLS route %+v, %v", got, err)
	}
	for _, via := range []string{"192.0.2.2", "::ffff:192.0.2.2", "fe80::1"} {
		hop := Nexthop{ID: 5, Protocol: 19, Index: 7, Via: netip.MustParseAddr(via), Label: 16, OnLink: true}
		if got, err := parseNexthop(body(NexthopRequest{Nexthop: hop})); err != nil || !cmp.Equal(got, hop, equalAddr) {
			t.Errorf("nexthop object %+v, %v", got, err)
		}
	}
	vrf := Rule{Family: unix.AF_INET6, Priority: 6, VRF: true, Protocol: 19}
	if got, plain, err := parseRule(body(RuleRequest{Rule: vrf})); err != nil || !plain || got != vrf {
		t.Errorf("rule %+v, %v, %v", got, plain, err)
	}
	r := LinkRequest{Name: "v", Kind: "vrf", Table: 1001}
	if got, err := parseLink(r.encode()); err != nil || got.Table != 1001 || got.Kind != "vrf" {
		t.Errorf("VRF device %+v, %v", got, err)
	}
}

// The words of the requests, which errors and tests show.
func TestRequestsInWords(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Request{
		"route replace 203.0.113.0/24 table 1001 metric 1024 proto 19 nhid 5": RouteRequest{Route: Route{
			Dst: netip.MustParsePrefix("203.0.113.0/24"), Table: 1001, Metric: 1024, Protocol: 19, Nexthop: 5}},
		"nexthop replace id 5 encap mpls 16 via 192.0.2.2 dev #7 onlink proto 19": NexthopRequest{Nexthop: Nexthop{
			ID: 5, Protocol: 19, Index: 7, Via: netip.MustParseAddr("192.0.2.2"), Label: 16, OnLink: true}},
		"nexthop replace id 6 group 4/5 proto 19": NexthopRequest{Nexthop: Nexthop{ID: 6, Protocol: 19, Group: []uint32{4, 5}}},
		"nexthop del id 6":                        NexthopRequest{Delete: true, Nexthop: Nexthop{ID: 6}},
		"mpls route del 16":                       MPLSRequest{Delete: true, MPLSRoute: MPLSRoute{Label: 16}},
		"mpls route add 16 via link 00:00:5e:00:53:01 dev #7 proto 19": MPLSRequest{New: true, MPLSRoute: MPLSRoute{
			Label: 16, MAC: ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1}, Index: 7, Protocol: 19}},
		"rule -6 del priority 6 l3mdev":                RuleRequest{Delete: true, Rule: Rule{Family: unix.AF_INET6, Priority: 6, VRF: true}},
		"addr replace 198.51.100.1/32 dev #7 proto 19": AddressRequest{Address: Address{Index: 7, Prefix: netip.MustParsePrefix("198.51.100.1/32"), Protocol: 19}},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
