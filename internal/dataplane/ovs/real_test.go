// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
	"github.com/google/go-cmp/cmp"
)

var (
	_ dataplane.Driver   = (*Driver)(nil)
	_ dataplane.Handle   = (*handle)(nil)
	_ dataplane.Counting = (*Driver)(nil)
)

// lockedBuffer is a log that tests read while drivers write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// node is a host with an Open vSwitch: br-phy is the underlay, br-mpls has VPNs.
type node struct {
	*ovstest.Switch
	t    testing.TB
	addr string
	log  lockedBuffer
}

const (
	underMAC = "00:00:5e:00:53:f%d"
	bare     = "p-phy" // the port of br-mpls for MPLS over Ethernet
)

// newNodes makes two hosts whose underlay is joined.
func newNodes(t testing.TB) [2]*node {
	t.Helper()
	var nodes [2]*node
	for i := range nodes {
		nodes[i] = &node{Switch: ovstest.New(t, nstest.New(t, "ovs")), t: t, addr: fmt.Sprintf("192.0.2.%d", i+1)}
	}
	nstest.Connect(nodes[0].NS, "eth0", nodes[1].NS, "eth0")
	for i, n := range nodes {
		n.AddBridge("br-phy", fmt.Sprintf("other-config:hwaddr="+underMAC, i+1), "--", "set-fail-mode", "br-phy", "standalone",
			"--", "add-port", "br-phy", "eth0")
		n.AddBridge("br-mpls", fmt.Sprintf("other-config:hwaddr="+underMAC, i+3),
			"--", "add-port", "br-mpls", bare, "--", "set", "interface", bare, "type=patch", "options:peer=p-mpls",
			"--", "add-port", "br-phy", "p-mpls", "--", "set", "interface", "p-mpls", "type=patch", "options:peer="+bare)
		n.Ofctl("add-flow", "br-phy", "priority=100,in_port=eth0,mpls,actions=output:p-mpls")
		n.Run("ip", "addr", "add", n.addr+"/24", "dev", "br-phy")
		n.Run("ip", "link", "set", "br-phy", "up")
		n.Run("ip", "link", "set", "br-mpls", "up")
	}
	// A switch learns a tunnel's neighbour from what passes, if it has seen its own new
	// address by then. These know theirs.
	for i, n := range nodes {
		far := nodes[1-i].addr
		wantPing(t, n.NS, far)
		n.Appctl("tnl/neigh/set", "br-phy", far, fmt.Sprintf(underMAC, 2-i))
		var out string
		nstest.Eventually(t, 20*time.Second, func() bool {
			out, _ = n.Try("ovs-appctl", "-t", n.Dir+"/vswitchd.ctl", "ovs/route/lookup", far)
			return strings.Contains(out, "dev br-phy")
		}, func() string { return "the switch's route to " + far + ": " + out })
	}
	return nodes
}

func (n *node) config(change func(*Config)) Config {
	cfg := Config{
		LocalAddr: netip.MustParseAddr(n.addr), OVSDB: n.DB(), RunDir: n.Dir, ARPResponder: true,
		GRETunnelOptions: map[string]string{"packet_type": "legacy_l3"},
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// driver starts a driver, as a process start would.
func (n *node) driver(change func(*Config)) *Driver {
	n.t.Helper()
	var d *Driver
	var err error
	n.Do(func() { d, err = New(n.config(change), slog.New(slog.NewTextHandler(&n.log, nil))) })
	if err != nil {
		n.t.Fatal(err)
	}
	// What looks for devices must look in the namespace, whatever thread it is on.
	d.device = func(name string) (bool, error) {
		_, err := n.Try("ip", "link", "show", "dev", name)
		return err == nil, nil
	}
	n.t.Cleanup(func() { _ = d.Close() })
	return d
}

func instance(id string) dataplane.Instance {
	return dataplane.Instance{ID: id, Type: dataplane.IPVPN, VNI: 100, Number: 1}
}

func mustOpen(t testing.TB, d *Driver, inst dataplane.Instance) *handle {
	t.Helper()
	h, err := d.Open(t.Context(), inst)
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handle)
}

func add(entries ...dataplane.Entry) (out []dataplane.Change) {
	for _, e := range entries {
		out = append(out, dataplane.Change{Entry: e})
	}
	return out
}

func del(entries ...dataplane.Entry) (out []dataplane.Change) {
	for _, e := range entries {
		out = append(out, dataplane.Change{Delete: true, Entry: e})
	}
	return out
}

func mustApply(t testing.TB, h dataplane.Handle, changes ...dataplane.Change) {
	t.Helper()
	for _, err := range h.Apply(t.Context(), changes) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func texts(entries []dataplane.Entry) []string {
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.String())
	}
	slices.Sort(list)
	return list
}

func wantInstalled(t testing.TB, h dataplane.Handle, want ...dataplane.Entry) {
	t.Helper()
	got, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, w.Equal) {
			t.Errorf("installed has nothing equal to %s", w)
		}
	}
}

func wantErr(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not contain %q", err, w)
		}
	}
}

func vmMAC(i int) ethernet.MAC { return ethernet.MAC{0, 0, 0x5e, 0, 0x53, byte(i)} }

// vm is a virtual machine with one address of each family.
type vm struct {
	*nstest.NS
	tap, ip4, ip6, gw4, gw6 string
	mac                     ethernet.MAC
	label                   uint32
	vlan                    int
}

// newVM makes a machine number i behind device tap of a node. Its addresses are
// 198.51.100.i/28 and 2001:db8:i/64, or those given.
func newVM(n *node, i int, tap string, vlan int) *vm {
	n.t.Helper()
	v := &vm{
		NS: nstest.New(n.t, "vm"), tap: tap, mac: vmMAC(i), label: uint32(1000 + i), vlan: vlan,
		ip4: fmt.Sprintf("198.51.100.%d", i*16+2), gw4: fmt.Sprintf("198.51.100.%d", i*16+1),
		ip6: fmt.Sprintf("2001:db8:%d::2", i), gw6: fmt.Sprintf("2001:db8:%d::1", i),
	}
	v.Run("ip", "link", "add", "eth0", "address", v.mac.String(), "type", "veth", "peer", "name", tap, "netns", n.Name)
	n.Run("ip", "link", "set", tap, "up")
	v.Run("ip", "link", "set", "eth0", "mtu", "1400", "up")
	if vlan != 0 {
		n.trunk(tap, vlan)
	}
	v.Run("ethtool", "-K", "eth0", "tx", "off") // a veth gives the userspace datapath frames without checksum
	v.Run("ip", "addr", "add", v.ip4+"/28", "dev", "eth0")
	v.Run("ip", "addr", "add", v.ip6+"/64", "dev", "eth0", "nodad")
	v.Run("ip", "route", "add", "default", "via", v.gw4)
	v.Run("ip", "-6", "route", "add", "default", "via", v.gw6)
	return v
}

// trunk is the port of br-mpls by which frames of br-int come, with VLAN tags.
const trunk = "p-int"

// trunk puts a device into br-int as an access port, as Neutron's agent does.
func (n *node) trunk(tap string, vlan int) {
	n.Vsctl("--may-exist", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type="+ovstest.Datapath(),
		"--", "--may-exist", "add-port", "br-mpls", trunk, "--", "set", "interface", trunk, "type=patch", "options:peer=p-vpn",
		"--", "--may-exist", "add-port", "br-int", "p-vpn", "--", "set", "interface", "p-vpn", "type=patch", "options:peer="+trunk,
		"--", "add-port", "br-int", tap, fmt.Sprintf("tag=%d", vlan))
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s).Masked() }

// entries are the port and the two endpoints of a machine, with one label for both families.
func (v *vm) entries() []dataplane.Entry {
	ovs := dataplane.OVSPort{}
	if v.vlan != 0 {
		ovs = dataplane.OVSPort{Plugged: true, Name: trunk, VLAN: uint16(v.vlan)}
	}
	return []dataplane.Entry{
		{Kind: dataplane.LocalPort, Port: v.tap, OVS: ovs, Direction: dataplane.Both},
		{Kind: dataplane.LocalPrefix, Port: v.tap, Label: v.label, MAC: v.mac, IP: netip.MustParseAddr(v.ip4),
			Prefix: prefix(v.ip4 + "/32"), Gateway: netip.MustParseAddr(v.gw4), Direction: dataplane.Both},
		{Kind: dataplane.LocalPrefix, Port: v.tap, Label: v.label, MAC: v.mac, IP: netip.MustParseAddr(v.ip6),
			Prefix: prefix(v.ip6 + "/128"), Gateway: netip.MustParseAddr(v.gw6), Direction: dataplane.Both},
	}
}

func route4(p string, hops ...dataplane.NextHop) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Prefix, Prefix: prefix(p), NextHops: hops}
}

func hop(addr string, label uint32, e encap.Type) dataplane.NextHop {
	return dataplane.NextHop{Addr: netip.MustParseAddr(addr), Label: label, Encap: e}
}

// routes are those to a machine behind a node, as seen from anywhere.
func (v *vm) routes(at *node, e encap.Type) []dataplane.Entry {
	nh := hop(at.addr, v.label, e)
	return []dataplane.Entry{route4(v.ip4+"/32", nh), route4(v.ip6+"/128", nh)}
}

func wantPing(t testing.TB, from *nstest.NS, to string) {
	t.Helper()
	var out string
	nstest.Eventually(t, 20*time.Second, func() bool {
		var err error
		out, err = from.Try("ping", "-n", "-c", "1", "-W", "1", to)
		return err == nil
	}, func() string { return "ping " + to + ": " + out })
}

// wantNoPing waits until there is no answer: the datapath forwards by its cache until it has
// looked through that.
func wantNoPing(t testing.TB, from *nstest.NS, to string) {
	t.Helper()
	var out string
	nstest.Eventually(t, 5*time.Second, func() (silent bool) {
		var err error
		out, err = from.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", to)
		return err != nil
	}, func() string { return fmt.Sprintf("ping %s has an answer: %s", to, out) })
}

// wantTCP moves some octets between machines.
func wantTCP(t testing.TB, from, to *vm, addr string) {
	t.Helper()
	done := make(chan string, 1)
	go func() {
		out, _ := to.Try("timeout", "20", "iperf3", "-s", "-1", "-B", addr)
		done <- out
	}()
	var out string
	nstest.Eventually(t, 20*time.Second, func() bool {
		var err error
		out, err = from.Try("timeout", "10", "iperf3", "-c", addr, "-n", "2M")
		return err == nil
	}, func() string { return "TCP to " + addr + ": " + out })
	<-done
}

// newNode makes one host without underlay.
func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{Switch: ovstest.New(t, nstest.New(t, "ovs")), t: t, addr: "192.0.2.1"}
	n.AddBridge("br-mpls")
	return n
}
