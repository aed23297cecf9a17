// SPDX-License-Identifier: Apache-2.0

//go:build vm

package linuxvrf

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
)

// These tests need a kernel with VRFs and MPLS: test/vm runs them in one.

const deadline = 20 * time.Second

// node is a host of the underlay.
type node struct {
	*nstest.NS
	t    testing.TB
	addr netip.Addr
	cfg  Config
}

// newNodes makes hosts on one Ethernet link.
func newNodes(t testing.TB, n, family int, encaps ...encap.Type) []*node {
	t.Helper()
	link := nstest.New(t, "link")
	link.Run("ip", "link", "add", "name", "core", "type", "bridge")
	link.Run("ip", "link", "set", "core", "up")
	var nodes []*node
	for i := range n {
		at := &node{NS: nstest.New(t, "pe"), t: t, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		length := 24
		if family == 6 {
			at.addr, length = netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff::%d", i+1)), 64
		}
		port := fmt.Sprintf("p%d", i)
		nstest.Connect(link, port, at.NS, "eth0")
		link.Run("ip", "link", "set", port, "master", "core")
		args := []string{"ip", "addr", "add", fmt.Sprintf("%s/%d", at.addr, length), "dev", "eth0"}
		if family == 6 {
			args = append(args, "nodad")
		}
		at.Run(args...)
		at.cfg = Config{LocalAddr: at.addr, Encaps: encaps, MPLSInterface: "eth0"}
		nodes = append(nodes, at)
	}
	return nodes
}

// driver starts a driver, as a process start would.
func (n *node) driver() *Driver {
	n.t.Helper()
	var d *Driver
	var err error
	n.Do(func() { d, err = New(n.cfg, slog.New(slog.NewTextHandler(os.Stdout, nil))) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = d.Close() })
	return d
}

// machine is a virtual machine with one address of each IP version.
type machine struct {
	*nstest.NS
	t         testing.TB
	name, tap string
	ip4, ip6  netip.Addr
	gw4, gw6  netip.Addr
	mac       ethernet.MAC
	label     uint32
	host      *node
}

// newMachine makes machine number i of a VRF behind device tap of a node.
func newMachine(n *node, i int, tap string, label uint32) *machine {
	n.t.Helper()
	m := &machine{
		NS: nstest.New(n.t, "vm"), t: n.t, name: tap, tap: tap, mac: ethernet.MAC{0, 0, 0x5e, 0, 0x53, byte(i)}, label: label, host: n,
		ip4: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i*16+2)), gw4: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i*16+1)),
		ip6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::2", i)), gw6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::1", i)),
	}
	m.Run("ip", "link", "add", "eth0", "address", m.mac.String(), "type", "veth", "peer", "name", tap, "netns", n.Name)
	m.Run("sh", "-c", strings.Join([]string{
		"ip link set eth0 mtu 1400 up", fmt.Sprintf("ip addr add %s/28 dev eth0", m.ip4), fmt.Sprintf("ip addr add %s/64 dev eth0 nodad", m.ip6),
		fmt.Sprintf("ip route add default via %s", m.gw4), fmt.Sprintf("ip -6 route add default via %s", m.gw6),
	}, " && "))
	return m
}

func (m *machine) entries() []dataplane.Entry {
	e := dataplane.Entry{Kind: dataplane.LocalPrefix, Port: m.tap, Label: m.label, MAC: m.mac, Direction: dataplane.Both}
	v4, v6 := e, e
	v4.IP, v4.Prefix, v4.Gateway = m.ip4, netip.PrefixFrom(m.ip4, 32), m.gw4
	v6.IP, v6.Prefix, v6.Gateway = m.ip6, netip.PrefixFrom(m.ip6, 128), m.gw6
	return []dataplane.Entry{{Kind: dataplane.LocalPort, Port: m.tap, Direction: dataplane.Both}, v4, v6}
}

// routes lead to the machine.
func (m *machine) routes(e encap.Type) []dataplane.Entry {
	hops := []dataplane.NextHop{{Addr: m.host.addr, Label: m.label, Encap: e}}
	return []dataplane.Entry{
		{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(m.ip4, 32), NextHops: hops},
		{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(m.ip6, 128), NextHops: hops},
	}
}

// pings fails the test when there is no answer.
func (m *machine) pings(to ...netip.Addr) {
	m.t.Helper()
	for _, ip := range to {
		var out string
		nstest.Eventually(m.t, deadline, func() bool {
			var err error
			out, err = m.Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
			return err == nil
		}, func() string { return fmt.Sprintf("ping from %s to %s: %s\n%s", m.tap, ip, out, m.host.state()) })
	}
}

func (m *machine) cutOff(to netip.Addr) {
	m.t.Helper()
	if out, err := m.Try("ping", "-n", "-c", "2", "-i", "0.3", "-W", "1", to.String()); err == nil {
		m.t.Errorf("ping from %s to %s has an answer: %s\n%s", m.tap, to, out, m.host.state())
	}
}

// sends moves a megabyte by TCP to another machine.
func (m *machine) sends(to *machine, ip netip.Addr) {
	m.t.Helper()
	const size = 1 << 20
	l := to.listen(ip)
	defer func() { _ = l.Close() }()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		_ = c.SetDeadline(time.Now().Add(deadline))
		n, _ := io.Copy(io.Discard, c)
		_ = c.Close()
		got <- n
	}()
	c := m.dial(l.Addr().String())
	_ = c.SetDeadline(time.Now().Add(deadline))
	_, err := c.Write(make([]byte, size))
	_ = c.Close()
	if n := <-got; err != nil || n != size {
		m.t.Errorf("TCP from %s to %s: %d of %d octets, %v", m.tap, ip, n, size, err)
	}
}

func (m *machine) listen(ip netip.Addr) (l net.Listener) {
	m.t.Helper()
	var err error
	m.Do(func() { l, err = net.Listen("tcp", net.JoinHostPort(ip.String(), "0")) })
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

func (m *machine) dial(addr string) (c net.Conn) {
	m.t.Helper()
	var err error
	m.Do(func() { c, err = net.DialTimeout("tcp", addr, deadline) })
	if err != nil {
		m.t.Fatalf("TCP from %s to %s: %v\n%s", m.tap, addr, err, m.host.state())
	}
	return c
}

// state is what the kernel has, without what counts or ages.
func (n *node) state() string {
	out, _ := n.Try("sh", "-c", "ip -d link show type vrf; ip nexthop; ip route show table all; ip -6 route show table all; ip -f mpls route; "+
		"ip neigh show nud permanent; ip -6 neigh show nud permanent; ip rule; ip -6 rule; ip -br addr; ip -br link")
	// Link-local addresses come when the kernel has looked for others with them.
	lines := slices.DeleteFunc(strings.Split(out, "\n"), func(s string) bool { return strings.Contains(s, "fe80:") })
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func texts(entries []dataplane.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

func wantInstalled(t testing.TB, h *handle, want ...dataplane.Entry) {
	t.Helper()
	got, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
}

// pair is two nodes with a machine each in one VRF, whose traffic passes.
type pair struct {
	nodes    []*node
	machines [2]*machine
	drivers  [2]*Driver
	handles  [2]*handle
	encap    encap.Type
}

func newPair(t *testing.T, family int, e encap.Type) *pair {
	t.Helper()
	p := &pair{nodes: newNodes(t, 2, family, e), encap: e}
	for i, n := range p.nodes {
		p.machines[i] = newMachine(n, i+1, "tap0", uint32(1000+i))
		p.drivers[i] = n.driver()
		p.handles[i] = open(t, p.drivers[i], "red")
	}
	for i := range p.nodes {
		apply(t, p.handles[i], plus(p.entries(i)...)...)
	}
	return p
}

func (p *pair) entries(i int) []dataplane.Entry {
	return slices.Concat(p.machines[i].entries(), p.machines[0].routes(p.encap), p.machines[1].routes(p.encap))
}

func (p *pair) wantTraffic() {
	a, b := p.machines[0], p.machines[1]
	a.pings(b.ip4, b.ip6)
	b.pings(a.ip4, a.ip6)
}

// Two nodes, two VRFs with the same addresses, IPv4 and IPv6 inside, by each encapsulation.
func TestKernelTraffic(t *testing.T) {
	for _, tt := range []struct {
		encap  encap.Type
		family int
	}{{encap.MPLS, 4}, {encap.GRE, 4}, {encap.MPLSInUDP, 4}, {encap.MPLS, 6}, {encap.GRE, 6}} {
		t.Run(fmt.Sprintf("%s over IPv%d", tt.encap, tt.family), func(t *testing.T) {
			p := newPair(t, tt.family, tt.encap)
			a, b := p.machines[0], p.machines[1]
			x, y := newMachine(p.nodes[0], 1, "tapx", 2000), newMachine(p.nodes[1], 3, "tapy", 2001)
			for i, m := range []*machine{x, y} {
				h := open(t, p.drivers[i], "blue")
				apply(t, h, plus(slices.Concat(x.routes(tt.encap), m.entries(), y.routes(tt.encap))...)...)
			}
			p.wantTraffic()
			x.pings(y.ip4, y.ip6, x.gw4, x.gw6)
			a.pings(a.gw4, a.gw6)
			a.cutOff(y.ip4)
			a.cutOff(y.ip6)
			a.sends(b, b.ip4)
			b.sends(a, a.ip6)
			y.sends(x, x.ip4)
			for i, h := range p.handles {
				wantInstalled(t, h, p.entries(i)...)
			}
			apply(t, p.handles[0], minus(p.entries(0)...)...)
			wantInstalled(t, p.handles[0])
			y.pings(x.ip4, x.ip6)
		})
	}
}

// One node: ports of a VRF reach each other, a route leads into another VRF, the
// host's own addresses are not reached from a VRF, and hosts' routes are left alone.
func TestKernelOneHost(t *testing.T) {
	n := newNodes(t, 1, 4, encap.GRE)[0]
	n.Run("sh", "-c", "ip route add 203.0.113.0/24 dev eth0 && ip nexthop add id 7 dev eth0 && sysctl -qw net.mpls.platform_labels=1000 && "+
		"ip -f mpls route add 500 via inet 192.0.2.9 dev eth0 && ip route add 203.0.113.0/24 dev eth0 table 1001")
	before := n.Run("sh", "-c", "ip route; ip nexthop; ip -f mpls route; ip route show table 1001; ip rule")
	d := n.driver()
	red, blue := open(t, d, "red"), open(t, d, "blue")
	if red.table != 1002 || blue.table != 1003 {
		t.Errorf("tables %d and %d, want the first ones that are free", red.table, blue.table)
	}
	a, b, x, y := newMachine(n, 1, "tapa", 1000), newMachine(n, 2, "tapb", 1001), newMachine(n, 1, "tapx", 2000), newMachine(n, 3, "tapy", 2001)
	for _, m := range []*machine{a, b} {
		apply(t, red, plus(slices.Concat(a.routes(encap.GRE), b.routes(encap.GRE), m.entries())...)...)
	}
	for _, m := range []*machine{x, y} {
		apply(t, blue, plus(append(m.entries(), m.routes(encap.GRE)...)...)...)
	}
	a.pings(b.ip4, b.ip6)
	b.pings(a.ip4, a.ip6)
	x.pings(y.ip4, y.ip6)
	a.sends(b, b.ip4)
	b.cutOff(y.ip4)
	b.cutOff(n.addr)
	// b's subnet is on blue's side, too, and it knows nothing of y without a route.
	apply(t, red, plus(y.routes(encap.GRE)...)...)
	apply(t, blue, plus(b.routes(encap.GRE)...)...)
	b.pings(y.ip4, y.ip6)
	y.pings(b.ip4)
	// An endpoint takes another label: routes to the old one lead nowhere, others there.
	old := y.routes(encap.GRE)
	apply(t, blue, minus(y.entries()[1:]...)...)
	b.cutOff(y.ip4)
	y.label = 2005
	apply(t, blue, plus(y.entries()...)...)
	b.cutOff(y.ip4)
	apply(t, red, plus(y.routes(encap.GRE)...)...)
	apply(t, blue, plus(y.routes(encap.GRE)...)...)
	b.pings(y.ip4, y.ip6)
	apply(t, red, minus(old...)...)
	b.cutOff(y.ip4)
	if got := d.Capabilities(); !got.ECMP || got.Encaps[0] != encap.GRE {
		t.Errorf("capabilities %+v", got)
	}
	for _, h := range []*handle{red, blue} {
		if err := h.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	_ = d.Close()
	n.Do(func() {
		if _, err := Cleanup(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
	after := n.Run("sh", "-c", "ip route; ip nexthop; ip -f mpls route; ip route show table 1001; ip rule | grep -v l3mdev") // the kernel's own stays
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after cleanup (-before +after):\n%s", diff)
	}
	if left := n.Run("ip", "-br", "link", "show", "type", "vrf"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// A machine's address at two nodes: connections go to both.
func TestKernelSeveralNextHops(t *testing.T) {
	nodes := newNodes(t, 3, 4, encap.GRE)
	client := newMachine(nodes[0], 1, "tap0", 1000)
	h := open(t, nodes[0].driver(), "red")
	apply(t, h, plus(append(client.entries(), client.routes(encap.GRE)...)...)...)
	seen := make(chan string, 100)
	both := dataplane.Entry{Kind: dataplane.Prefix}
	for i, n := range nodes[1:] {
		m := newMachine(n, 2, "tap0", uint32(2000+i))
		hn := open(t, n.driver(), "red")
		apply(t, hn, plus(slices.Concat(m.entries(), m.routes(encap.GRE), client.routes(encap.GRE))...)...)
		r := m.routes(encap.GRE)[0]
		both.Prefix, both.NextHops = r.Prefix, append(both.NextHops, r.NextHops...)
		var l net.Listener
		m.Do(func() {
			var err error
			if l, err = net.Listen("tcp", m.ip4.String()+":5000"); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				seen <- n.Name
				_ = c.Close()
			}
		}()
	}
	nodes[0].Run("sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
	apply(t, h, plus(both)...)
	wantInstalled(t, h, slices.Concat(client.entries(), client.routes(encap.GRE), []dataplane.Entry{both})...)
	at := map[string]int{}
	nstest.Eventually(t, deadline, func() bool {
		c := client.dial(both.Prefix.Addr().String() + ":5000")
		_ = c.Close()
		at[<-seen]++
		return len(at) == 2
	}, func() string { return fmt.Sprint(at) })
	one := both
	one.NextHops = both.NextHops[1:]
	apply(t, h, plus(one)...)
	wantInstalled(t, h, slices.Concat(client.entries(), client.routes(encap.GRE), []dataplane.Entry{one})...)
	for range 4 {
		c := client.dial(both.Prefix.Addr().String() + ":5000")
		_ = c.Close()
		if got := <-seen; got != nodes[2].Name {
			t.Errorf("a connection went to %s, which is no next hop any more", got)
		}
	}
}

// A new process finds what the one before left and changes nothing.
func TestKernelAdoption(t *testing.T) {
	p := newPair(t, 4, encap.GRE)
	p.wantTraffic()
	n, want := p.nodes[0], p.entries(0)
	before := n.state()
	apply(t, p.handles[0], plus(want...)...)
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("applying again changed (-before +after):\n%s", diff)
	}
	_ = p.drivers[0].Close()
	d := n.driver()
	if ids, err := d.Orphans(t.Context()); err != nil || !cmp.Equal(ids, []string{"red"}) {
		t.Errorf("orphans %q, %v", ids, err)
	}
	h := open(t, d, "red")
	wantInstalled(t, h, want...)
	apply(t, h, plus(want...)...)
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("adoption changed (-before +after):\n%s", diff)
	}
	p.wantTraffic()
	apply(t, h, minus(p.machines[1].routes(encap.GRE)...)...)
	p.machines[0].cutOff(p.machines[1].ip4)
	_ = d.Close()
	d = n.driver()
	if err := d.RemoveOrphan(t.Context(), "red"); err != nil {
		t.Error(err)
	}
	if text := n.state(); strings.Contains(text, "bvrf") || strings.Contains(text, "1000 via") || strings.Contains(text, "id 16000") {
		t.Errorf("left over:\n%s", text)
	}
}

// Others take things away: the driver sees it, and what is missing is set again.
func TestKernelDrift(t *testing.T) {
	p := newPair(t, 4, encap.GRE)
	p.wantTraffic()
	n, h, d := p.nodes[0], p.handles[0], p.drivers[0]
	want := p.entries(0)
	for _, tt := range []struct{ name, command string }{
		{"VRF device", "ip link del " + h.name},
		{"tunnels", "for d in $(ip -br link show type gre | sed 's/@.*//' | grep bgre); do ip link del $d; done"},
		{"port down and up", "ip link set tap0 down; ip link set tap0 up"},
		{"carrier of a port", "ip -n " + p.machines[0].Name + " link set eth0 down; sleep 0.2; ip -n " + p.machines[0].Name + " link set eth0 up; " +
			"ip -n " + p.machines[0].Name + " route replace default via " + p.machines[0].gw4.String() + "; ip -n " + p.machines[0].Name +
			" addr replace " + p.machines[0].ip6.String() + "/64 dev eth0 nodad; ip -n " + p.machines[0].Name + " -6 route replace default via " + p.machines[0].gw6.String()},
		{"port taken out", "ip link set tap0 nomaster"},
		{"underlay down and up", "ip link set eth0 down; ip link set eth0 up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Run("sh", "-c", tt.command)
			nstest.Eventually(t, deadline, func() bool {
				repaired(t, d, h, want)
				_, err := p.machines[0].Try("ping", "-n", "-c", "1", "-W", "1", p.machines[1].ip4.String())
				return err == nil
			}, n.state)
			p.wantTraffic()
			wantInstalled(t, h, want...)
			if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
				t.Errorf("drift %v, %v", drifts, err)
			}
		})
	}
}

// repaired does what the reconciler does about drift.
func repaired(t *testing.T, d *Driver, h *handle, want []dataplane.Entry) {
	t.Helper()
	drifts, err := d.Drifted(t.Context())
	if err != nil {
		t.Log(err)
		return
	}
	for _, drift := range drifts {
		if drift.Whole {
			if ok, err := h.Repair(t.Context()); err != nil || !ok {
				t.Logf("repair: %v, %v", ok, err)
			}
			have, err := h.Installed(t.Context())
			if err != nil {
				t.Log(err)
				continue
			}
			for _, e := range want {
				if !slices.ContainsFunc(have, e.Equal) {
					if err := h.Apply(t.Context(), plus(e))[0]; err != nil {
						t.Log(err)
					}
				}
			}
			continue
		}
		for _, e := range want {
			if slices.Contains(drift.Ports, e.Port) {
				if err := h.Apply(t.Context(), plus(e))[0]; err != nil {
					t.Log(err)
				}
			}
		}
	}
}
