// SPDX-License-Identifier: Apache-2.0

//go:build vm

package linuxvrf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
)

// answers makes a machine say its name on ports of TCP and UDP.
func (m *machine) answers(name string, ports ...int) {
	m.t.Helper()
	for _, ip := range []netip.Addr{m.ip4, m.ip6} {
		for _, port := range ports {
			at := netip.AddrPortFrom(ip, uint16(port))
			var l net.Listener
			var u *net.UDPConn
			var err, err2 error
			m.Do(func() {
				l, err = net.Listen("tcp", at.String())
				u, err2 = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			})
			if err = errors.Join(err, err2); err != nil {
				m.t.Fatal(err)
			}
			m.t.Cleanup(func() { _, _ = l.Close(), u.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write([]byte(name))
					_ = c.Close()
				}
			}()
			go func() {
				b := make([]byte, 65536)
				for {
					_, from, err := u.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					_, _ = u.WriteToUDPAddrPort([]byte(name), from)
				}
			}()
		}
	}
}

// flow is what a machine asks another one by.
type flow struct {
	network  string // "tcp" or "udp"
	from, to int    // ports; from is 0 for any
	size     int    // of what is sent by UDP
}

// asks returns who answers a flow to an address, "" when nobody does.
func (m *machine) asks(f flow, ip netip.Addr) string {
	self := m.ip4
	if ip.Is6() {
		self = m.ip6
	}
	d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: self.AsSlice(), Port: f.from}}
	if f.network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: self.AsSlice(), Port: f.from}
	}
	var c net.Conn
	var err error
	m.Do(func() {
		c, err = d.DialContext(context.Background(), f.network, net.JoinHostPort(ip.String(), strconv.Itoa(f.to)))
	})
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	b := make([]byte, 100)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // the port is free at once
		b, _ = io.ReadAll(c)
		return string(b)
	}
	if _, err := c.Write(make([]byte, max(f.size, 1))); err != nil {
		return ""
	}
	n, _ := c.Read(b)
	return string(b[:n])
}

// wantAt fails the test unless one machine answers a flow.
func (m *machine) wantAt(who string, f flow, ip netip.Addr) {
	m.t.Helper()
	got := ""
	nstest.Eventually(m.t, deadline, func() bool {
		got = m.asks(f, ip)
		return got == who
	}, func() string {
		return fmt.Sprintf("%+v to %s is answered by %q, want %q\n%s", f, ip, got, who, m.host.state())
	})
}

// steered is a client with two servers of the same address: "near" in its own VRF, and "far",
// on another node, by a VRF that classes lead to.
type steered struct {
	t           *testing.T
	node        *node
	d           *Driver
	red         *handle
	a, near     *machine
	far         *machine
	own         []dataplane.Entry // of red, without classes
	rulesBefore string
}

func newSteered(t *testing.T) *steered {
	nodes := newNodes(t, 2, 4, encap.GRE)
	s := &steered{t: t, node: nodes[0], a: newMachine(nodes[0], 1, "tapa", 1000)}
	s.near, s.far = newMachine(nodes[0], 2, "tapb", 1001), newMachine(nodes[1], 2, "tapc", 1002)
	ports := []int{80, 81, 4999, 5000, 5010, 5011, 6000}
	s.near.answers("near", ports...)
	s.far.answers("far", ports...)
	s.near.Run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1", "net.ipv6.icmp.echo_ignore_all=1")
	green := open(t, nodes[1].driver(), "green")
	apply(t, green, plus(append(s.far.entries(), s.a.routes(encap.GRE)...)...)...)
	s.own = slices.Concat(s.a.entries(), s.near.entries(), s.a.routes(encap.GRE), s.near.routes(encap.GRE))
	s.start()
	s.rulesBefore = s.rules()
	return s
}

// start is that of a new process, with the entries that a daemon sets.
func (s *steered) start(classes ...dataplane.Entry) {
	s.d = s.node.driver()
	s.red = open(s.t, s.d, "red")
	for _, id := range []string{"far", "nowhere"} {
		h := open(s.t, s.d, id)
		if id == "far" {
			apply(s.t, h, plus(s.far.routes(encap.GRE)...)...)
		}
	}
	if classes != nil {
		wantInstalled(s.t, s.red, append(slices.Clone(s.own), classes...)...)
	}
	apply(s.t, s.red, plus(append(slices.Clone(s.own), classes...)...)...)
}

func (s *steered) rules() string { return s.node.Run("sh", "-c", "ip rule; ip -6 rule") }

// anywhere leaves out of rules where in a block a class is.
func anywhere(rules string) []string {
	lines := strings.Split(regexp.MustCompile(`(?m)^2147[0-9]{6}:`).ReplaceAllString(rules, ""), "\n")
	slices.Sort(lines)
	return lines
}

// addrs are those of both servers.
func (s *steered) addrs() []netip.Addr { return []netip.Addr{s.near.ip4, s.near.ip6} }

func (s *steered) wantAt(who string, flows ...flow) {
	s.t.Helper()
	for _, ip := range s.addrs() {
		for _, f := range flows {
			s.a.wantAt(who, f, ip)
		}
	}
}

// both returns an entry for each IP version; what is told of an address is of the servers' or the client's.
func (s *steered) both(text, target string) []dataplane.Entry {
	four, six := redirect("to "+s.near.ip4.String()+"/32 "+text, target), redirect("to "+s.near.ip6.String()+"/128 "+text, target)
	if six.Class.Protocol == 1 {
		six.Class.Protocol = 58
	}
	return []dataplane.Entry{four, six}
}

// Classes of TCP, UDP and ICMP, of IPv4 and IPv6, lead into another VRF, and nothing else does.
func TestKernelRedirect(t *testing.T) {
	s := newSteered(t)
	all := []flow{{"tcp", 0, 80, 0}, {"tcp", 0, 81, 0}, {"udp", 0, 4999, 0}, {"udp", 0, 5000, 0}, {"udp", 0, 5010, 0}, {"udp", 0, 5011, 0},
		{"udp", 1999, 6000, 0}, {"udp", 2000, 6000, 0}, {"udp", 2010, 6000, 0}, {"udp", 2011, 6000, 0}, {"tcp", 2005, 6000, 0}, {"udp", 0, 5000, 3000}}
	s.wantAt("near", all...)
	classes := slices.Concat(s.both("protocol 6 port 80", "far"), s.both("protocol 17 port 5000-5010", "far"),
		s.both("protocol 17 source-port 2000-2010", "far"))
	classes[4].Class.Source, classes[5].Class.Source = netip.PrefixFrom(s.a.ip4, 32), netip.PrefixFrom(s.a.ip6, 128)
	apply(t, s.red, plus(classes...)...)
	check := func() {
		t.Helper()
		s.wantAt("far", all[0], all[3], all[4], all[7], all[8])
		// The last one is in fragments, which have no ports.
		s.wantAt("near", all[1], all[2], all[5], all[6], all[9], all[10], all[11])
	}
	check()
	for _, ip := range s.addrs() {
		s.a.cutOff(ip)
	}
	ping := s.both("protocol 1", "far")
	apply(t, s.red, plus(ping...)...)
	s.a.pings(s.addrs()...)
	apply(t, s.red, minus(ping...)...)
	for _, ip := range s.addrs() {
		s.a.cutOff(ip)
	}
	check()

	// A wider class comes after: its target has no route, and the VRF's own is not taken for it.
	wide := []dataplane.Entry{redirect("to 0.0.0.0/0 protocol 6", "nowhere"), redirect("to ::/0 protocol 6", "nowhere")}
	apply(t, s.red, plus(wide...)...)
	s.wantAt("far", all[0])
	s.wantAt("", all[1])
	s.wantAt("near", all[2])
	apply(t, s.red, minus(wide...)...)
	check()

	// A class of all packets leaves the VRF's gateways to it, and who has them.
	rest := []dataplane.Entry{redirect("to 0.0.0.0/0", "far"), redirect("to ::/0", "far")}
	apply(t, s.red, plus(rest...)...)
	s.a.Run("sh", "-c", "ip neigh flush dev eth0; ip -6 neigh flush dev eth0")
	s.a.pings(s.a.gw4, s.a.gw6)
	s.wantAt("far", all...)
	s.a.pings(s.addrs()...)
	apply(t, s.red, minus(rest...)...)
	check()

	apply(t, s.red, minus(classes...)...)
	s.wantAt("near", all...)
	if diff := cmp.Diff(s.rulesBefore, s.rules()); diff != "" {
		t.Errorf("rules are left (-before +after):\n%s", diff)
	}
}

// Port 65535: a class with it is exact, or refused where the kernel cannot say it.
func TestKernelRedirectHighPorts(t *testing.T) {
	s := newSteered(t)
	high := s.both("protocol 17 port 5000-65535", "far")
	masks, err := s.d.hasPortMasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range s.red.Apply(t.Context(), plus(high...)) {
		if masks && err != nil || !masks && (err == nil || !strings.Contains(err.Error(), "want Linux 6.15")) {
			t.Errorf("masks %v: %v", masks, err)
		}
	}
	who := map[bool]string{true: "far", false: "near"}[masks]
	s.wantAt("near", flow{"udp", 0, 4999, 0}, flow{"udp", 0, 5000, 3000})
	s.wantAt(who, flow{"udp", 0, 5000, 0}, flow{"udp", 0, 6000, 0})
	low := s.both("protocol 17 port 0-5000", "far")
	apply(t, s.red, plus(low...)...)
	s.wantAt("far", flow{"udp", 0, 4999, 0}, flow{"udp", 0, 5000, 0})
	s.wantAt(who, flow{"udp", 0, 5010, 0})
}

// A new process takes over the classes that are there; what others delete comes back; cleanup
// leaves no rule.
func TestKernelRedirectStays(t *testing.T) {
	s := newSteered(t)
	classes := append(s.both("protocol 6 port 80", "far"), s.both("protocol 17 port 0-4999", "far")...)
	apply(t, s.red, plus(classes...)...)
	far, near := []flow{{"tcp", 0, 80, 0}, {"udp", 0, 4999, 0}}, []flow{{"tcp", 0, 81, 0}, {"udp", 0, 5000, 0}}
	check := func() {
		t.Helper()
		s.wantAt("far", far...)
		s.wantAt("near", near...)
	}
	check()
	before, rules := s.node.state(), s.rules()
	_ = s.d.Close()
	s.start(classes...)
	if diff := cmp.Diff(before, s.node.state()); diff != "" {
		t.Errorf("a new process changed (-before +after):\n%s", diff)
	}
	check()

	for _, tt := range []struct{ name, command string }{
		{"dispatch", "ip rule del iif tapa; ip -6 rule del iif " + s.red.name},
		{"classes", "ip rule del ipproto tcp dport 80; ip -6 rule del ipproto tcp dport 80"},
		{"guard and end", "ip rule del pref 2147483648; ip rule del unreachable; ip -6 rule del unreachable"},
		{"VRF device", "ip link del " + s.red.name},
		{"port taken out", "ip link set tapa nomaster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.node.Run("sh", "-c", tt.command)
			nstest.Eventually(t, deadline, func() bool {
				repaired(t, s.d, s.red, append(slices.Clone(s.own), classes...))
				return s.a.asks(far[0], s.near.ip4) == "far" && s.a.asks(far[0], s.near.ip6) == "far"
			}, s.node.state)
			check()
			if diff := cmp.Diff(anywhere(rules), anywhere(s.rules())); diff != "" {
				t.Errorf("rules are not as before (-before +after):\n%s", diff)
			}
		})
	}

	_ = s.d.Close()
	s.node.Run("ip", "rule", "add", "iif", "tapa", "to", "192.0.2.0/24", "priority", "2147745792", "lookup", "main")
	s.node.Do(func() {
		if _, err := Cleanup(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
	if text := s.rules(); strings.Contains(text, "goto") || strings.Contains(text, "lookup 10") || strings.Contains(text, "bgp") ||
		!strings.Contains(text, "iif tapa lookup main") {
		t.Errorf("rules after cleanup:\n%s", text)
	}
}

// Many classes in any order: the last of them decides still.
func TestKernelRedirectMany(t *testing.T) {
	s := newSteered(t)
	const n = 1024
	var many []dataplane.Entry
	for i := range n {
		at := i * 7 % n
		many = append(many, redirect(fmt.Sprintf("to 10.%d.%d.0/24 protocol 6 port 80", at/250, at%250), "nowhere"))
	}
	start := time.Now()
	apply(t, s.red, plus(many...)...)
	t.Logf("%d classes took %v", n, time.Since(start))
	apply(t, s.red, plus(redirect("to 198.51.0.0/16 protocol 6 port 80", "far"))...)
	s.a.wantAt("far", flow{"tcp", 0, 80, 0}, s.near.ip4)
	s.a.wantAt("near", flow{"tcp", 0, 81, 0}, s.near.ip4)
	wantInstalled(t, s.red, slices.Concat(s.own, many, []dataplane.Entry{redirect("to 198.51.0.0/16 protocol 6 port 80", "far")})...)
	start = time.Now()
	apply(t, s.red, minus(many...)...)
	t.Logf("%d withdrawals took %v", n, time.Since(start))
	s.a.wantAt("far", flow{"tcp", 0, 80, 0}, s.near.ip4)
}
