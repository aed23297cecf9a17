// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"golang.org/x/sys/unix"
)

// Rules with every selector and action, as the kernel lists them, in order.
func TestRules(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "rule")
	c := dial(t, ns)
	prefix := netip.MustParsePrefix
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		from, to := prefix("198.51.100.0/24"), prefix("203.0.113.7/32")
		if family == unix.AF_INET6 {
			from, to = prefix("2001:db8:1::/64"), prefix("2001:db8:2::7/128")
		}
		rules := []Rule{
			{Input: "tap7", Goto: 1 << 31, Protocol: 19},
			{Input: "tap8", Goto: 1 << 31, Protocol: 19},
			{Priority: 1 << 31, From: from, To: to, IPProtocol: 6, Table: 1001, Protocol: 19},
			{Priority: 1 << 31, From: from, IPProtocol: 17, SourcePorts: Ports{1, 65534, 0}, DestinationPorts: Ports{53, 53, 0}, Table: 1002, Protocol: 19},
			{Priority: 1<<31 + 1, IPProtocol: 132, DestinationPorts: Ports{65534, 65534, 0xfffe}, Table: 1003, Protocol: 19},
			{Priority: 1<<32 - 1, Unreachable: true, Protocol: 19},
		}
		for i := range rules {
			rules[i].Family = family
			do(t, c, RuleRequest{Rule: rules[i]})
		}
		errs := make([]error, 1)
		if c.Do([]Request{RuleRequest{Rule: rules[2]}}, errs); errs[0] == nil {
			t.Error("a rule was made twice")
		}
		ip := map[uint8]string{unix.AF_INET: "ip -4", unix.AF_INET6: "ip -6"}[family]
		ns.Run("sh", "-c", ip+" rule add fwmark 1 priority 9 lookup 19 protocol 19; "+ip+" rule add not iif tap9 priority 9 lookup 19 protocol 19")
		ours := func() []Rule {
			got, err := c.Rules(family)
			if err != nil {
				t.Fatal(err)
			}
			return slices.DeleteFunc(got, func(r Rule) bool { return r.Protocol != 19 })
		}
		got := ours()
		if len(got) == len(rules) && got[4].DestinationPorts.Mask == 0 {
			t.Log("this kernel has no port masks")
			rules[4].DestinationPorts.Mask = 0
		}
		if !slices.Equal(got, rules) {
			t.Errorf("got %v\nwant %v", got, rules)
		}
		for i, r := range rules {
			do(t, c, RuleRequest{Delete: true, Rule: r})
			if left := ours(); !slices.Equal(left, rules[i+1:]) {
				t.Fatalf("after the deletion of %v: %v", r, left)
			}
		}
	}
}

func TestRulesInWords(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Rule{
		"rule -4 add priority 0 iif tap0 goto 7": {Family: unix.AF_INET, Input: "tap0", Goto: 7},
		"rule -4 add priority 7 unreachable":     {Family: unix.AF_INET, Priority: 7, Unreachable: true},
		"rule -6 add priority 8 from 2001:db8::/64 to 2001:db8:1::/64 ipproto 6 sport 80 dport 1-1023 lookup 1001": {
			Family: unix.AF_INET6, Priority: 8, From: netip.MustParsePrefix("2001:db8::/64"), To: netip.MustParsePrefix("2001:db8:1::/64"),
			IPProtocol: 6, SourcePorts: Ports{First: 80, Last: 80}, DestinationPorts: Ports{First: 1, Last: 1023}, Table: 1001},
		"rule -4 add priority 9 dport 65534/0xfffe lookup 1001": {
			Family: unix.AF_INET, Priority: 9, DestinationPorts: Ports{65534, 65534, 0xfffe}, Table: 1001},
	} {
		if got := (RuleRequest{Rule: r}).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Ports by mask decide as a range that ends with 65535 would.
func TestPortMasks(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "mask")
	c := dial(t, ns)
	rule := Rule{Family: unix.AF_INET, Priority: 9, IPProtocol: 17, DestinationPorts: Ports{65534, 65534, 0xfffe}, Unreachable: true}
	do(t, c, RuleRequest{Rule: rule})
	list, err := c.Rules(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(list, rule) {
		t.Skip("this kernel has no port masks: they came with Linux 6.15")
	}
	ns.Run("ip", "route", "add", "default", "dev", "lo")
	for port, want := range map[string]bool{"65533": true, "65534": false, "65535": false, "1": true} {
		out, err := ns.Try("ip", "route", "get", "203.0.113.1", "ipproto", "udp", "sport", "1", "dport", port)
		if (err == nil) != want {
			t.Errorf("port %s: %v, %s", port, err, out)
		}
	}
}
