// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// network is a core that joins nodes, each of which is a namespace with a driver.
type network struct {
	t    *testing.T
	core *nstest.NS
	v6   bool // the underlay
	vms  int
}

func newNetwork(t *testing.T, v6 bool) *network {
	t.Helper()
	n := &network{t: t, core: nstest.New(t, "core"), v6: v6}
	n.core.Run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	n.core.Run("ip", "link", "set", "br0", "up")
	return n
}

// node is a host with a driver.
type node struct {
	n      *network
	number int
	ns     *nstest.NS
	addr   netip.Addr
	cfg    Config
	d      *Driver
}

// node makes a host whose underlay address ends in number, and starts its driver.
func (n *network) node(number int, cfg Config) *node {
	n.t.Helper()
	x := &node{n: n, number: number, ns: nstest.New(n.t, fmt.Sprintf("n%d", number))}
	link := fmt.Sprintf("n%d", number)
	nstest.Connect(x.ns, "eth0", n.core, link)
	n.core.Run("ip", "link", "set", link, "master", "br0")
	x.addr = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", number))
	bits := 24
	if n.v6 {
		x.addr, bits = netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff::%d", number)), 64
	}
	x.ns.Run("ip", "addr", "add", fmt.Sprintf("%s/%d", x.addr, bits), "dev", "eth0", "nodad")
	x.cfg = cfg
	x.cfg.LocalAddr = x.addr
	x.start()
	return x
}

func (x *node) start() {
	x.n.t.Helper()
	var err error
	x.ns.Do(func() { x.d, err = New(x.cfg, nil) })
	if err != nil {
		x.n.t.Fatal(err)
	}
	d := x.d
	x.n.t.Cleanup(func() { _ = d.Close() })
}

// vm is a namespace behind a port of a node.
type vm struct {
	*nstest.NS
	port string
	mac  ethernet.MAC
	// ip4 and ip6 are its addresses, gw4 and gw6 its gateways.
	ip4, ip6, gw4, gw6 netip.Addr
}

// vm makes one with addresses that end in host. Different networks may have equal ones.
func (x *node) vm(host int) *vm {
	x.n.t.Helper()
	x.n.vms++
	v := &vm{
		NS: nstest.New(x.n.t, fmt.Sprintf("vm%d", x.n.vms)), port: fmt.Sprintf("tap%d", x.n.vms),
		mac: ethernet.MAC{0x00, 0x00, 0x5e, 0x00, 0x53, byte(x.n.vms)},
		ip4: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", host)), ip6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::%d", host/16, host)),
		gw4: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", host/16*16+14)), gw6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::fe", host/16)),
	}
	nstest.Connect(x.ns, v.port, v.NS, "eth0")
	v.Run("sh", "-c", strings.Join([]string{
		"ip link set eth0 address " + v.mac.String(),
		fmt.Sprintf("ip addr add %s/28 dev eth0", v.ip4),
		fmt.Sprintf("ip addr add %s/64 dev eth0 nodad", v.ip6),
		fmt.Sprintf("ip route add default via %s", v.gw4),
		fmt.Sprintf("ip -6 route add default via %s", v.gw6),
	}, " && "))
	return v
}

// ends returns the entries of its port and its two endpoints, which have one label.
func (v *vm) ends(label uint32) []dataplane.Entry {
	e := dataplane.Entry{
		Kind: dataplane.LocalPrefix, Port: v.port, MAC: v.mac, Label: label, Direction: dataplane.Both,
		IP: v.ip4, Prefix: netip.PrefixFrom(v.ip4, 32), Gateway: v.gw4,
	}
	e6 := e
	e6.IP, e6.Prefix, e6.Gateway = v.ip6, netip.PrefixFrom(v.ip6, 128), v.gw6
	return []dataplane.Entry{{Kind: dataplane.LocalPort, Port: v.port, Direction: dataplane.Both}, e, e6}
}

// routes returns the routes to a VM of a node.
func (v *vm) routes(hops ...dataplane.NextHop) []dataplane.Entry {
	return []dataplane.Entry{
		{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(v.ip4, 32), NextHops: hops},
		{Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(v.ip6, 128), NextHops: hops},
	}
}

func (x *node) hop(label uint32, e encap.Type) dataplane.NextHop {
	return dataplane.NextHop{Addr: x.addr, Label: label, Encap: e}
}

// vrf opens an instance.
func (x *node) vrf(id string, entries ...[]dataplane.Entry) dataplane.Handle {
	x.n.t.Helper()
	return x.open(dataplane.Instance{ID: id, Type: dataplane.IPVPN, VNI: 100}, entries...)
}

func (x *node) open(inst dataplane.Instance, entries ...[]dataplane.Entry) dataplane.Handle {
	x.n.t.Helper()
	h, err := x.d.Open(x.n.t.Context(), inst)
	if err != nil {
		x.n.t.Fatal(err)
	}
	for _, list := range entries {
		add(x.n.t, h, list...)
	}
	return h
}

func changes(del bool, entries ...dataplane.Entry) (out []dataplane.Change) {
	for _, e := range entries {
		out = append(out, dataplane.Change{Delete: del, Entry: e})
	}
	return out
}

func apply(t *testing.T, h dataplane.Handle, list []dataplane.Change) {
	t.Helper()
	for _, err := range h.Apply(t.Context(), list) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func add(t *testing.T, h dataplane.Handle, entries ...dataplane.Entry) {
	t.Helper()
	apply(t, h, changes(false, entries...))
}

// ping sends pings until one is answered, and fails the test when none is.
func (v *vm) ping(t *testing.T, to netip.Addr, options ...string) {
	t.Helper()
	args := append([]string{"ping", "-n", "-c", "1", "-W", "1"}, append(options, to.String())...)
	var out string
	nstest.Eventually(t, 10*time.Second, func() bool {
		var err error
		out, err = v.Try(args...)
		return err == nil
	}, func() string { return out })
}

// noPing fails the test when a ping is answered.
func (v *vm) noPing(t *testing.T, to netip.Addr, options ...string) {
	t.Helper()
	args := append([]string{"ping", "-n", "-c", "2", "-i", "0.2", "-W", "1"}, append(options, to.String())...)
	if out, err := v.Try(args...); err == nil {
		t.Errorf("%s is reached: %s", to, out)
	}
}

// dropped returns how many packets were dropped for a reason, in an instance or in none.
func (x *node) dropped(id, reason string) uint64 {
	x.n.t.Helper()
	list, err := x.d.Counters(x.n.t.Context())
	if err != nil {
		x.n.t.Fatal(err)
	}
	for _, c := range list {
		if c.Instance == id && c.Name == reason && c.Dropped {
			return c.Packets
		}
	}
	x.n.t.Fatalf("no counter %q of instance %q", reason, id)
	return 0
}

// pair is a VRF on two nodes with a VM on each.
type pair struct {
	*network
	x, y   *node
	a, b   *vm
	ha, hb dataplane.Handle
}

func newPair(t *testing.T, v6 bool, e encap.Type, cfg Config) *pair {
	t.Helper()
	n := newNetwork(t, v6)
	p := &pair{network: n, x: n.node(1, cfg), y: n.node(2, cfg)}
	p.a, p.b = p.x.vm(1), p.y.vm(17)
	p.ha = p.x.vrf("red", p.a.ends(1001), p.a.routes(p.x.hop(1001, e)), p.b.routes(p.y.hop(2001, e)))
	p.hb = p.y.vrf("red", p.b.ends(2001), p.b.routes(p.y.hop(2001, e)), p.a.routes(p.x.hop(1001, e)))
	return p
}
