// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/google/go-cmp/cmp"
)

func class(dst string, protocol int16, to, from dataplane.PortRange) dataplane.Classifier {
	c := dataplane.Classifier{
		Destination: prefix(dst), Source: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Protocol: protocol, DestinationPorts: to, SourcePorts: from,
	}
	if c.Destination.Addr().Is6() {
		c.Source = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return c
}

func redirectTo(target string, c dataplane.Classifier) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: target}
}

func portsFrom(first, last uint16) dataplane.PortRange {
	return dataplane.PortRange{First: first, Last: last}
}

func TestMasks(t *testing.T) {
	t.Parallel()
	for _, r := range []dataplane.PortRange{{First: 80, Last: 80}, {First: 80, Last: 90}, {First: 0, Last: 65535}, {First: 1, Last: 65534}, {First: 1024, Last: 65535}, {First: 0, Last: 0}} {
		list := masks(r)
		for n := range 65536 {
			hits := 0
			for _, m := range list {
				if uint16(n)&m.mask == m.value {
					hits++
				}
			}
			if want := n >= int(r.First) && n <= int(r.Last); (hits == 1) != want || hits > 1 {
				t.Fatalf("%v: port %d is in %d of %v", r, n, hits, list)
			}
		}
	}
}

func TestRedirectFlows(t *testing.T) {
	t.Parallel()
	f := newFake()
	d := f.driver(t, nil)
	red, out := mustOpen(t, d, instance("red")), mustOpen(t, d, instance("out"))
	empty := f.text()
	entries := []dataplane.Entry{
		redirectTo("out", class("203.0.113.0/24", 6, portsFrom(80, 80), dataplane.AllPorts)),
		redirectTo("out", class("203.0.113.0/24", 17, dataplane.AllPorts, portsFrom(6, 8))),
		redirectTo("out", class("0.0.0.0/0", 6, portsFrom(80, 80), dataplane.AllPorts)),
		redirectTo("out", class("0.0.0.0/0", 1, dataplane.AllPorts, dataplane.AllPorts)),
		redirectTo("out", class("::/0", 132, portsFrom(1, 1), portsFrom(2, 2))),
		redirectTo("out", class("2001:db8::/32", dataplane.AnyProtocol, dataplane.AllPorts, dataplane.AllPorts)),
	}
	mustApply(t, red, add(entries...)...)
	var got []string
	for line := range strings.Lines(f.text()) {
		if !strings.Contains(empty, line) {
			got = append(got, strings.TrimSpace(line))
		}
	}
	const to = " actions=set_field:0x2->reg0,resubmit(,2)"
	want := []string{
		"table=2, priority=36880,icmp,reg0=0x1,reg2=0x0" + to,
		"table=2, priority=36880,ipv6,reg0=0x1,reg2=0x0,nw_proto=132,ip_frag=0/3,sctp_src=2,sctp_dst=1" + to,
		"table=2, priority=36880,tcp,reg0=0x1,reg2=0x0,ip_frag=0/3,tcp_dst=80" + to,
		"table=2, priority=36880,udp,reg0=0x1,reg2=0x0,ip_frag=0/3,nw_dst=203.0.113.0/24,udp_src=6/65534" + to,
		"table=2, priority=36880,udp,reg0=0x1,reg2=0x0,ip_frag=0/3,nw_dst=203.0.113.0/24,udp_src=8" + to,
		"table=2, priority=36881,ipv6,reg0=0x1,reg2=0x0,ipv6_dst=2001:db8::/32" + to,
		"table=2, priority=36881,tcp,reg0=0x1,reg2=0x0,ip_frag=0/3,nw_dst=203.0.113.0/24,tcp_dst=80" + to,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
	wantNoDrift(t, d)
	wantInstalled(t, red, entries...)
	again := f.driver(t, nil)
	h := mustOpen(t, again, instance("red")) // before its target
	wantInstalled(t, h, entries...)
	wantErr(t, h.Apply(t.Context(), add(entries[0]))[0], `no instance "out"`)
	again.open["new"] = &handle{} // that is being opened, and has no number yet
	wantErr(t, h.Apply(t.Context(), add(redirectTo("new", *entries[0].Class)))[0], `no instance "new"`)
	delete(again.open, "new")
	wantInstalled(t, h, entries...)
	mustOpen(t, again, instance("out"))
	mustApply(t, h, add(entries...)...)
	wantInstalled(t, h, entries...)
	mustApply(t, h, del(entries...)...)
	if diff := cmp.Diff(empty, f.text()); diff != "" {
		t.Errorf("left after deletion (-want +got):\n%s", diff)
	}
	_ = out
	for _, tt := range []struct {
		name string
		e    dataplane.Entry
		want string
	}{
		{"no such target", redirectTo("none", class("203.0.113.0/24", 6, dataplane.AllPorts, dataplane.AllPorts)), `"none"`},
		{"no class", dataplane.Entry{Kind: dataplane.Redirect, Target: "out"}, "class"},
		{"host bits", redirectTo("out", dataplane.Classifier{Destination: netip.MustParsePrefix("203.0.113.1/24"), Source: prefix("0.0.0.0/0")}), "host bits"},
		{"mixed", redirectTo("out", dataplane.Classifier{Destination: prefix("203.0.113.0/24"), Source: prefix("::/0")}), "one IP version"},
	} {
		wantErr(t, h.Apply(t.Context(), add(tt.e))[0], tt.want)
	}
}

// Classes of packets take the way of another instance, to a machine of the same address. A
// machine that forwards for others may send from any address.
func TestRedirectedTraffic(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d := n.driver(func(c *Config) { c.ARPResponder = true })
	red, blue, out := mustOpen(t, d, instance("red")), mustOpen(t, d, instance("blue")), mustOpen(t, d, instance("out"))
	a, b, c := newVM(n, 1, "tapa", 0), newVM(n, 2, "tapb", 0), newVM(n, 2, "tapc", 0)
	c.label = 2002
	for _, v := range []*vm{a, b} {
		mustApply(t, red, add(append(v.entries(), v.routes(n, encap.GRE)...)...)...)
	}
	mustApply(t, blue, add(append(c.entries(), append(c.routes(n, encap.GRE), a.routes(n, encap.GRE)...)...)...)...)
	mustApply(t, out, add(c.routes(n, encap.GRE)...)...)
	entries := []dataplane.Entry{
		redirectTo("out", class(b.ip4+"/32", 6, portsFrom(5201, 5201), dataplane.AllPorts)),
		redirectTo("out", class("::/0", 58, dataplane.AllPorts, dataplane.AllPorts)),
	}
	wantTCP(t, a, b, b.ip4)
	mustApply(t, red, add(entries...)...)
	wantTCP(t, a, c, c.ip4)
	wantPing(t, a.NS, b.ip4)
	echos := func(v *vm) string { return v.Run("grep", "Icmp6InEchos", "/proc/net/snmp6") }
	before := echos(b)
	wantPing(t, a.NS, a.gw6) // the gateway still answers
	wantPing(t, a.NS, c.ip6)
	if now := echos(b); now != before {
		t.Errorf("b has received pings: %s, before %s", now, before)
	}
	mustApply(t, red, del(entries...)...)
	wantTCP(t, a, b, b.ip4)

	a.Run("ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
	mustApply(t, red, add(route4("203.0.113.1/32", hop(n.addr, a.label, encap.GRE)))...)
	from := []string{"ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-I", "203.0.113.1", b.ip4}
	if text, err := a.Try(from...); err == nil {
		t.Errorf("a foreign source passes: %s", text)
	}
	port := a.entries()[0]
	port.Transit = true
	mustApply(t, red, add(port)...)
	if text, err := a.Try(from...); err != nil {
		t.Errorf("a machine that forwards for others cannot send: %v: %s", err, text)
	}
	list, err := red.Installed(t.Context())
	if err != nil || !slices.ContainsFunc(list, port.Equal) {
		t.Errorf("installed %v (%v), want %s", list, err, port)
	}
}
