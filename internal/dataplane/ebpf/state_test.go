// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// eventuallyState waits until an IPv6 address is found to be a duplicate, or not.
func eventuallyState(t *testing.T, v *vm, addr string, taken bool) {
	t.Helper()
	out := ""
	nstest.Eventually(t, 10*time.Second, func() bool {
		out = v.Run("ip", "-6", "addr", "show", "dev", "eth0", "to", addr)
		return !strings.Contains(out, "tentative") && !taken || strings.Contains(out, "dadfailed") && taken
	}, func() string { return fmt.Sprintf("%s: want taken=%v: %s", addr, taken, out) })
}

func sorted(list []dataplane.Entry) []dataplane.Entry {
	slices.SortFunc(list, func(a, b dataplane.Entry) int { return cmp.Compare(a.String(), b.String()) })
	return list
}

// sameInstalled fails the test unless exactly these entries are installed.
func sameInstalled(t *testing.T, h dataplane.Handle, want []dataplane.Entry) {
	t.Helper()
	got, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, want = sorted(got), sorted(slices.Clone(want))
	if !slices.EqualFunc(got, want, dataplane.Entry.Equal) {
		t.Errorf("installed:\n%v\nwant:\n%v", got, want)
	}
}

// variety returns entries of all shapes for a VM's port.
func variety(x *node, v *vm) []dataplane.Entry {
	out := append(v.ends(1001), v.routes(x.hop(1001, encap.Default))...)
	from := out[1]
	from.IP, from.Gateway, from.Direction = netip.MustParseAddr("198.51.100.9"), netip.Addr{}, dataplane.FromPort
	from.Prefix = netip.MustParsePrefix("203.0.113.0/24")
	var many []dataplane.NextHop
	for i := range maxHops {
		many = append(many, dataplane.NextHop{
			Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), Label: uint32(100 + i), Order: uint32(i), Encap: encap.GRE,
		})
	}
	vx := dataplane.NextHop{
		Addr: netip.MustParseAddr("192.0.2.9"), Label: maxVNI, Encap: encap.VXLAN, RouterMAC: ethernet.MAC{0, 0, 0x5e, 0, 0x53, 1},
	}
	for p, hops := range map[string][]dataplane.NextHop{
		"0.0.0.0/0": many, "::/0": many[:2], "203.0.113.0/25": {vx}, "2001:db8:9::/48": {vx, many[3]},
		"198.51.100.0/24": {{Addr: vx.Addr, Label: 16}}, "255.255.255.255/32": many[:1],
	} {
		out = append(out, dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix(p), NextHops: hops})
	}
	return append(out, from)
}

// A new process finds all that an earlier one installed, and traffic never stops.
func TestRestart(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			p := newPair(t, false, encap.MPLSInUDP, Config{clsact: clsact})
			entries := append(variety(p.x, p.a), p.b.routes(p.y.hop(2001, encap.MPLSInUDP))...)
			add(t, p.ha, entries...)
			sameInstalled(t, p.ha, entries)
			left := p.x.vm(3)
			p.x.open(dataplane.Instance{ID: "left", Type: dataplane.IPVPN, VNI: 102}, left.ends(1003), left.routes(p.x.hop(1003, encap.GRE)))
			p.a.ping(t, p.b.ip4)

			pings := p.a.Command(t.Context(), "ping", "-n", "-q", "-i", "0.005", "-c", "400", p.b.ip4.String())
			var out strings.Builder
			pings.Stdout = &out
			if err := pings.Start(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := p.x.d.Close(); err != nil {
					t.Fatal(err)
				}
				p.x.start()
				p.ha = p.x.open(dataplane.Instance{ID: "red", Type: dataplane.IPVPN, VNI: 100, Number: 7})
				sameInstalled(t, p.ha, entries)
				add(t, p.ha, entries...)
				sameInstalled(t, p.ha, entries)
			}
			if err := pings.Wait(); err != nil || !strings.Contains(out.String(), " 0% packet loss") {
				t.Errorf("pings over a restart: %v %s", err, out.String())
			}
			ids, err := p.x.d.Orphans(t.Context())
			if err != nil || !slices.Equal(ids, []string{"left"}) {
				t.Errorf("orphans %q, %v", ids, err)
			}
			if err := p.x.d.RemoveOrphan(t.Context(), "red"); !errors.Is(err, dataplane.ErrOpen) {
				t.Errorf("removal of an open instance: %v", err)
			}
			if err := p.x.d.RemoveOrphan(t.Context(), "left"); err != nil {
				t.Error(err)
			}
			p.a.ping(t, p.b.ip6)
			if err := p.ha.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			p.a.noPing(t, p.b.ip4)
			p.x.empty(t)
		})
	}
}

// empty fails the test when anything of an instance is left in the kernel.
func (x *node) empty(t *testing.T) {
	t.Helper()
	m := &x.d.maps
	var left []string
	note := func(err error, what string, n int) {
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			left = append(left, fmt.Sprintf("%d %s", n, what))
		}
	}
	n := 0
	count := func() int { c := n; n = 0; return c }
	note(each(m.Ports, func(uint32, portValue) { n++ }), "ports", count())
	note(each(m.Labels, func(labelKey, targetValue) { n++ }), "labels", count())
	note(each(m.Groups, func(groupKey, groupValue) { n++ }), "groups", count())
	note(each(m.Gateways, func(gatewayKey, uint32) { n++ }), "gateways", count())
	note(each(m.Sources, func(sourceKey, sourceValue) { n++ }), "sources", count())
	note(each(m.Endpoints, func(endpointKey, endpointValue) { n++ }), "endpoints", count())
	note(each(m.Plugs, func(plugKey, plugValue) { n++ }), "plugs", count())
	note(each(m.Lists, func(classKey, classList) { n++ }), "lists of classes", count())
	note(each(m.Classes, func(uint32, classValue) { n++ }), "classes", count())
	note(each(m.Fallbacks, func(uint32, fallbackValue) { n++ }), "fallbacks", count())
	note(each(m.VRFs, func(uint32, vrfValue) { n++ }), "instances", count())
	note(eachOne(m.Routes4, func(uint32, uint32) { n++ }), "tables", count())
	note(eachOne(m.Routes6, func(uint32, uint32) { n++ }), "tables", count())
	if len(left) > 0 {
		t.Errorf("left in the kernel: %v", left)
	}
	var err error
	x.ns.Do(func() {
		var removed []string
		_ = x.d.Close()
		if removed, err = Cleanup(t.Context(), nil); len(removed) != 1 {
			t.Errorf("cleanup removed %q, want the underlay's program only", removed)
		}
		if removed, err := Cleanup(t.Context(), nil); len(removed) != 0 || err != nil {
			t.Errorf("second cleanup removed %q, %v", removed, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Deleting what was added leaves nothing, whatever the order.
func TestDelete(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	a := x.vm(1)
	h := x.vrf("red")
	for range 2 {
		entries := variety(x, a)
		add(t, h, entries...)
		for i, e := range entries {
			apply(t, h, changes(true, e, e))
			sameInstalled(t, h, entries[i+1:])
		}
		if err := each(x.d.maps.Groups, func(k groupKey, _ groupValue) { t.Errorf("group %v is left", k) }); err != nil {
			t.Error(err)
		}
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.empty(t)
}

// A full table is an error of its own VRF.
func TestFullTable(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{MaxRoutes: 10, sizes: map[string]uint32{"bp1_endpoints": 2, "bp1_groups": 1}})
	red := x.vrf("red")
	blue := x.open(dataplane.Instance{ID: "blue", Type: dataplane.IPVPN, VNI: 101})
	var entries []dataplane.Entry
	for i := range 12 {
		entries = append(entries, dataplane.Entry{
			Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32),
			NextHops: []dataplane.NextHop{{Addr: netip.MustParseAddr("192.0.2.9"), Label: 100, Encap: encap.GRE}},
		})
	}
	for i, err := range red.Apply(t.Context(), changes(false, entries...)) {
		if i < 10 && err != nil || i >= 10 && (err == nil || !strings.Contains(err.Error(), "no room for more routes of the instance: want at most 10")) {
			t.Errorf("route %d: %v", i, err)
		}
	}
	sameInstalled(t, red, entries[:10])
	apply(t, red, changes(true, entries[0]))
	add(t, red, entries[10])
	add(t, blue, entries[:10]...)
	a := x.vm(1)
	add(t, blue, a.ends(1001)...)
	b := x.vm(2)
	errs := blue.Apply(t.Context(), changes(false, b.ends(1002)...))
	if errs[0] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), "no room for more endpoints: want at most 2") {
		t.Errorf("endpoints: %v", errs)
	}
}

// What the driver cannot do is refused by name, value and what is allowed, and changes nothing.
func TestBadInput(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{Encaps: []encap.Type{encap.GRE}})
	a := x.vm(1)
	h := x.vrf("red")
	good := append(a.ends(1001), a.routes(x.hop(1001, encap.Default))...)
	add(t, h, good...)
	edit := func(i int, f func(*dataplane.Entry)) dataplane.Entry {
		e := good[i]
		e.NextHops = slices.Clone(e.NextHops)
		f(&e)
		return e
	}
	far := dataplane.NextHop{Addr: netip.MustParseAddr("192.0.2.9"), Label: 100, Encap: encap.GRE}
	hops := func(f func(*dataplane.NextHop)) func(*dataplane.Entry) {
		n := far
		f(&n)
		return func(e *dataplane.Entry) { e.NextHops = []dataplane.NextHop{n} }
	}
	for want, e := range map[string]dataplane.Entry{
		"kind mac is not for a VRF":         {Kind: dataplane.RemoteMAC},
		"device nonesuch does not exist":    edit(0, func(e *dataplane.Entry) { e.Port = "nonesuch" }),
		"device  does not exist":            edit(0, func(e *dataplane.Entry) { e.Port = "" }),
		"device lo is not an Ethernet":      edit(0, func(e *dataplane.Entry) { e.Port = "lo" }),
		"device eth0 is where packets":      edit(0, func(e *dataplane.Entry) { e.Port = "eth0" }),
		"ovs port 3 cannot be used":         edit(0, func(e *dataplane.Entry) { e.OVS.Number = 3 }),
		`direction "up" is not valid`:       edit(0, func(e *dataplane.Entry) { e.Direction = "up" }),
		"label 3 is not valid":              edit(1, func(e *dataplane.Entry) { e.Label = 3 }),
		"label 1048576 is not valid":        edit(1, func(e *dataplane.Entry) { e.Label = 1 << 20 }),
		`ip_address: "invalid IP" is not`:   edit(1, func(e *dataplane.Entry) { e.IP = netip.Addr{} }),
		`ip_address: "::ffff:192.0.2.1"`:    edit(1, func(e *dataplane.Entry) { e.IP = netip.MustParseAddr("::ffff:192.0.2.1") }),
		"MAC address 00:00:00:00:00:00 is":  edit(1, func(e *dataplane.Entry) { e.MAC = ethernet.MAC{} }),
		`prefix "198.51.100.1/24" is not`:   edit(1, func(e *dataplane.Entry) { e.Prefix = netip.MustParsePrefix("198.51.100.1/24") }),
		`gateway_ip: "2001:db8::1" is not`:  edit(1, func(e *dataplane.Entry) { e.Gateway = netip.MustParseAddr("2001:db8::1") }),
		`prefix "invalid Prefix" is`:        edit(3, func(e *dataplane.Entry) { e.Prefix = netip.Prefix{} }),
		"0 next hops are not valid":         edit(3, func(e *dataplane.Entry) { e.NextHops = nil }),
		"65 next hops are not valid":        edit(3, func(e *dataplane.Entry) { e.NextHops = slices.Repeat(e.NextHops, 65) }),
		`next hop "2001:db8::1" is not`:     edit(3, hops(func(n *dataplane.NextHop) { n.Addr = netip.MustParseAddr("2001:db8::1") })),
		"encapsulation VXLAN of next hop":   edit(3, hops(func(n *dataplane.NextHop) { n.Encap = encap.VXLAN })),
		"encapsulation encap-99 of next":    edit(3, hops(func(n *dataplane.NextHop) { n.Encap = 99 })),
		"label 15 of next hop 192.0.2.9 is": edit(3, hops(func(n *dataplane.NextHop) { n.Label = 15 })),
	} {
		if err := h.Apply(t.Context(), changes(false, e))[0]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", e, want, err)
		}
	}
	sameInstalled(t, h, good)
	for want, inst := range map[string]dataplane.Instance{
		"VNI 0 is not valid":          {ID: "x", Type: dataplane.IPVPN},
		"instance has no id":          {VNI: 1, Type: dataplane.IPVPN},
		`type "evpn" is not for this`: {ID: "x", VNI: 1, Type: dataplane.EVPN},
		"has 256 octets":              {ID: strings.Repeat("x", 256), VNI: 1, Type: dataplane.IPVPN},
		"it is open already":          {ID: "red", VNI: 1, Type: dataplane.IPVPN},
	} {
		if _, err := x.d.Open(t.Context(), inst); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %v: want %q, got %v", inst, want, err)
		}
	}
	other := x.open(dataplane.Instance{ID: strings.Repeat("y", 255), Type: dataplane.IPVPN, VNI: 101})
	var refused *dataplane.InputError
	if err := other.Apply(t.Context(), changes(false, good[0]))[0]; !errors.As(err, &refused) || !strings.Contains(err.Error(), `instance "red"`) {
		t.Errorf("a port that sends to another instance: %v", err)
	}
	to := good[0]
	to.Direction = dataplane.ToPort
	add(t, other, to)
}

// What others take away is found and made again.
func TestDrift(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			p := newPair(t, false, encap.GRE, Config{clsact: clsact, Underlay: []string{"eth0"}})
			drift := func(want string) {
				t.Helper()
				got, err := p.x.d.Drifted(t.Context())
				if s := fmt.Sprint(got); err != nil || s != want {
					t.Errorf("drifted %s, %v; want %s", s, err, want)
				}
			}
			drift("[]")
			p.a.ping(t, p.b.ip4)
			// A port is made again: another device of the same name.
			p.x.ns.Run("ip", "link", "del", p.a.port)
			drift("[]")
			nstest.Connect(p.x.ns, p.a.port, p.a.NS, "eth0")
			p.a.Run("sh", "-c", fmt.Sprintf("ip link set eth0 address %s; ip addr add %s/28 dev eth0; ip route add default via %s",
				p.a.mac, p.a.ip4, p.a.gw4))
			drift(fmt.Sprintf("[{red false [%s]}]", p.a.port))
			add(t, p.ha, p.a.ends(1001)...)
			drift("[]")
			p.a.ping(t, p.b.ip4)
			// Programs are taken off.
			p.x.ns.Run("tc", "filter", "del", "dev", p.a.port, "ingress")
			drift(fmt.Sprintf("[{red false [%s]}]", p.a.port))
			add(t, p.ha, p.a.ends(1001)[0])
			drift("[]")
			if err := p.x.d.hooks.detach(must(p.x.d.indexOf("eth0")), underlayProgram); err != nil {
				t.Fatal(err)
			}
			drift("[{red true []}]")
			if repaired, err := p.ha.Repair(t.Context()); !repaired || err != nil {
				t.Errorf("repaired %v, %v", repaired, err)
			}
			drift("[]")
			p.a.ping(t, p.b.ip4)
			// The underlay is made again too.
			p.x.ns.Run("ip", "link", "del", "eth0")
			drift("[]")
			nstest.Connect(p.x.ns, "eth0", p.core, "n1")
			p.core.Run("ip", "link", "set", "n1", "master", "br0")
			p.x.ns.Run("ip", "addr", "add", p.x.addr.String()+"/24", "dev", "eth0")
			drift("[{red true []}]")
			if repaired, err := p.ha.Repair(t.Context()); !repaired || err != nil {
				t.Errorf("repaired %v, %v", repaired, err)
			}
			drift("[]")
			p.y.ns.Run("ip", "neigh", "flush", "dev", "eth0")
			p.a.ping(t, p.b.ip4)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The driver says what it needs when it cannot start.
func TestCannotStart(t *testing.T) {
	ns := nstest.New(t, "bad")
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	local := netip.MustParseAddr("192.0.2.1")
	for want, cfg := range map[string]Config{
		"underlay_interfaces":                  {LocalAddr: local},
		"is not one of this host":              {LocalAddr: netip.MustParseAddr("192.0.2.2")},
		`local address "invalid IP"`:           {},
		`local address "0.0.0.0"`:              {LocalAddr: netip.IPv4Unspecified()},
		"device nonesuch does not":             {LocalAddr: local, Underlay: []string{"nonesuch"}},
		"device lo is not an Ethernet":         {LocalAddr: local, Underlay: []string{"lo"}},
		"VXLAN port 6635 is not":               {LocalAddr: local, VXLANPort: 6635},
		"encapsulation MPLS is not valid":      {LocalAddr: local, Encaps: []encap.Type{encap.MPLS}},
		"encapsulation GRE is not valid":       {LocalAddr: local, Encaps: []encap.Type{encap.GRE, encap.GRE}},
		"default encapsulation VXLAN is not v": {LocalAddr: local, Encaps: []encap.Type{encap.GRE}, DefaultEncap: encap.VXLAN},
	} {
		ns.Do(func() {
			if d, err := New(cfg, nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: want %q, got %v", cfg, want, err)
				if err == nil {
					_ = d.Close()
				}
			}
		})
	}
}
