// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var (
	_ dataplane.Driver = (*Driver)(nil)
	_ dataplane.Handle = (*handle)(nil)
)

func port(name string) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.LocalPort, Port: name, Direction: dataplane.Both}
}

func local(name string, label uint32, ip, gateway string) dataplane.Entry {
	addr := netip.MustParseAddr(ip)
	e := dataplane.Entry{
		Kind: dataplane.LocalPrefix, Port: name, Label: label, MAC: ethernet.MAC{0, 0, 0x5e, 0, 0x53, byte(label)}, IP: addr,
		Prefix: netip.PrefixFrom(addr, addr.BitLen()), Direction: dataplane.Both,
	}
	if gateway != "" {
		e.Gateway = netip.MustParseAddr(gateway)
	}
	return e
}

func route(prefix string, hops ...string) dataplane.Entry {
	e := dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix(prefix)}
	for _, h := range hops {
		var nh dataplane.NextHop
		f := strings.Split(h, "/")
		nh.Addr = netip.MustParseAddr(f[0])
		_, _ = fmt.Sscan(f[1], &nh.Label)
		nh.Encap = map[string]encap.Type{"gre": encap.GRE, "mpls": encap.MPLS, "udp": encap.MPLSInUDP, "vxlan": encap.VXLAN}[f[2]]
		e.NextHops = append(e.NextHops, nh)
	}
	return e
}

func plus(entries ...dataplane.Entry) (out []dataplane.Change) {
	for _, e := range entries {
		out = append(out, dataplane.Change{Entry: e})
	}
	return out
}

func minus(entries ...dataplane.Entry) (out []dataplane.Change) {
	for _, e := range entries {
		out = append(out, dataplane.Change{Delete: true, Entry: e})
	}
	return out
}

func open(t testing.TB, d *Driver, id string) *handle {
	t.Helper()
	h, err := d.Open(t.Context(), dataplane.Instance{ID: id, Type: dataplane.IPVPN})
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handle)
}

func apply(t testing.TB, h *handle, changes ...dataplane.Change) {
	t.Helper()
	for _, err := range h.Apply(t.Context(), changes) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What each change becomes, and that it becomes nothing when it comes again.
func TestRequests(t *testing.T) {
	t.Parallel()
	alias := farAlias(encap.GRE, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))
	gre, mpls := devname.Candidate("bgre-", digits, alias, 0), "eth0"
	have := []dataplane.Entry{port("tap0"), local("tap0", 16, "198.51.100.2", "198.51.100.1")}
	for _, tt := range []struct {
		name    string
		have    []dataplane.Entry
		changes []dataplane.Change
		want    []string
	}{
		{"endpoint", []dataplane.Entry{port("tap0")}, plus(local("tap0", 16, "198.51.100.2", "198.51.100.1")), []string{
			"neigh replace 198.51.100.2 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
			"addr replace 198.51.100.1/32 dev tap0 proto 19",
			"mpls route add 16 via link 00:00:5e:00:53:10 dev tap0 proto 19",
		}},
		{"second address of an endpoint", have, plus(local("tap0", 16, "2001:db8::2", "")), []string{
			"neigh replace 2001:db8::2 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
			"mpls route replace 16 via link 00:00:5e:00:53:10 dev tap0 proto 19",
		}},
		{"route by GRE", nil, plus(route("203.0.113.0/24", "192.0.2.2/100/gre")), []string{
			"nexthop replace id 1600000001 encap mpls 100 via 192.0.2.2 dev " + gre + " onlink proto 19",
			"route replace 203.0.113.0/24 table 1001 metric 1024 proto 19 nhid 1600000001",
		}},
		{"IPv6 route by MPLS over IPv4", nil, plus(route("2001:db8:1::/64", "192.0.2.2/100/mpls")), []string{
			"nexthop replace id 1600000001 encap mpls 100 via ::ffff:192.0.2.2 dev " + mpls + " onlink proto 19",
			"route replace 2001:db8:1::/64 table 1001 metric 1024 proto 19 nhid 1600000001",
		}},
		{"two routes by one next hop", nil, plus(route("203.0.113.0/24", "192.0.2.2/100/mpls"), route("203.0.113.0/25", "192.0.2.2/100/mpls")), []string{
			"nexthop replace id 1600000001 encap mpls 100 via 192.0.2.2 dev " + mpls + " onlink proto 19",
			"route replace 203.0.113.0/24 table 1001 metric 1024 proto 19 nhid 1600000001",
			"route replace 203.0.113.0/25 table 1001 metric 1024 proto 19 nhid 1600000001",
		}},
		{"several next hops", nil, plus(route("203.0.113.0/24", "192.0.2.2/100/mpls", "192.0.2.3/101/mpls", "192.0.2.2/100/mpls")), []string{
			"nexthop replace id 1600000001 encap mpls 100 via 192.0.2.2 dev " + mpls + " onlink proto 19",
			"nexthop replace id 1600000002 encap mpls 101 via 192.0.2.3 dev " + mpls + " onlink proto 19",
			"nexthop replace id 1600000003 group 1600000001/1600000002 proto 19",
			"route replace 203.0.113.0/24 table 1001 metric 1024 proto 19 nhid 1600000003",
		}},
		{"a next hop less", []dataplane.Entry{route("203.0.113.0/24", "192.0.2.2/100/mpls", "192.0.2.3/101/mpls")},
			plus(route("203.0.113.0/24", "192.0.2.3/101/mpls")), []string{
				"route replace 203.0.113.0/24 table 1001 metric 1024 proto 19 nhid 1600000002",
				"nexthop del id 1600000003",
				"nexthop del id 1600000001",
			}},
		{"last route of a next hop", []dataplane.Entry{route("203.0.113.0/24", "192.0.2.2/100/mpls")}, minus(route("203.0.113.0/24")), []string{
			"route del 203.0.113.0/24 table 1001 metric 1024 proto 19",
			"nexthop del id 1600000001",
		}},
		{"route to our own label, which is not there yet", nil, plus(route("198.51.100.2/32", "192.0.2.1/16/gre")), []string{
			"route replace 198.51.100.2/32 table 1001 metric 1024 proto 19",
		}},
		{"endpoint after the route to it", []dataplane.Entry{port("tap0"), route("198.51.100.2/32", "192.0.2.1/16/gre")},
			plus(local("tap0", 16, "198.51.100.2", "")), []string{
				"neigh replace 198.51.100.2 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
				"mpls route add 16 via link 00:00:5e:00:53:10 dev tap0 proto 19",
				"nexthop replace id 1600000001 via 198.51.100.2 dev tap0 onlink proto 19",
				"route replace 198.51.100.2/32 table 1001 metric 1024 proto 19 nhid 1600000001",
			}},
		{"endpoint without address", []dataplane.Entry{port("tap0"), route("0.0.0.0/0", "192.0.2.1/16/gre")},
			plus(local("tap0", 16, "0.0.0.0", "")), []string{
				"neigh replace 169.254.255.254 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
				"mpls route add 16 via link 00:00:5e:00:53:10 dev tap0 proto 19",
				"nexthop replace id 1600000001 via 169.254.255.254 dev tap0 onlink proto 19",
				"route replace 0.0.0.0/0 table 1001 metric 1024 proto 19 nhid 1600000001",
			}},
		{"end of an endpoint with a route to it", append(slices.Clone(have), route("198.51.100.2/32", "192.0.2.1/16/gre")), minus(have[1]), []string{
			"route replace 198.51.100.2/32 table 1001 metric 1024 proto 19",
			"nexthop del id 1600000001",
			"neigh del 198.51.100.2 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
			"addr del 198.51.100.1/32 dev tap0 proto 19",
			"mpls route del 16",
		}},
		{"end of one of two endpoints with a label", append(slices.Clone(have), local("tap0", 16, "198.51.100.3", "198.51.100.1")), minus(have[1]), []string{
			"neigh del 198.51.100.2 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
		}},
		{"default route", nil, plus(route("0.0.0.0/0", "192.0.2.2/100/mpls")), []string{
			"nexthop replace id 1600000001 encap mpls 100 via 192.0.2.2 dev " + mpls + " onlink proto 19",
			"route replace 0.0.0.0/0 table 1001 metric 1024 proto 19 nhid 1600000001",
		}},
		{"deletion of what is not there", nil, minus(local("tap0", 16, "198.51.100.2", ""), route("203.0.113.0/24"), port("tap0")), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFakeKernel("tap0")
			h := open(t, fakeDriver(t, k, encap.MPLS, encap.GRE), "red")
			apply(t, h, plus(tt.have...)...)
			k.log = nil
			apply(t, h, tt.changes...)
			if diff := cmp.Diff(tt.want, k.log); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			before := k.state()
			k.log = nil
			apply(t, h, tt.changes...)
			if !cmp.Equal(before, k.state()) {
				t.Errorf("the same changes again made a difference: %q", k.log)
			}
		})
	}
}

// What cannot be: the error says what, and nothing is left half done.
func TestRefusals(t *testing.T) {
	t.Parallel()
	unwilling := func(kind string) func(netlinkx.Request) error {
		return func(r netlinkx.Request) error {
			if strings.HasPrefix(r.String(), kind) {
				return unix.EINVAL
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name   string
		have   []dataplane.Entry
		entry  dataplane.Entry
		refuse func(netlinkx.Request) error
		want   string
	}{
		{"encapsulation", nil, route("203.0.113.0/24", "192.0.2.2/100/vxlan"), nil, "encapsulation VXLAN is not one of [MPLS GRE]"},
		{"no next hop", nil, route("203.0.113.0/24"), nil, "has no next hop"},
		{"host bits", nil, route("203.0.113.1/24", "192.0.2.2/100/gre"), nil, "without host bits"},
		{"IP version of a next hop", nil, route("203.0.113.0/24", "2001:db8::1/100/gre"), nil, "not of the IP version of ours, 192.0.2.1"},
		{"label of a next hop", nil, route("203.0.113.0/24", "192.0.2.2/1048576/gre"), nil, "label 1048576 is not valid: want 0 to 1048575"},
		{"local label", nil, local("tap0", 3, "198.51.100.2", ""), nil, "label 3 is not valid: want 16 to 1048575"},
		{"no such device", nil, port("tap9"), nil, "local_port: device tap9 does not exist"},
		{"device of others", nil, port("taken"), nil, "local_port: device taken belongs to eth0"},
		{"the underlay", nil, port("eth0"), nil, "local_port: device eth0 is mpls_interface"},
		{"device outside of the VRF", nil, local("tap1", 16, "198.51.100.2", ""), nil, "local_port: device tap1 is not in VRF bvrf-"},
		{"label of others", []dataplane.Entry{port("tap0")}, local("tap0", 500, "198.51.100.2", ""), nil, "mpls route add 500"},
		{"nexthop refused", nil, route("203.0.113.0/24", "192.0.2.2/100/gre"), unwilling("nexthop replace"), "nexthop replace id"},
		{"group refused", nil, route("203.0.113.0/24", "192.0.2.2/100/gre", "192.0.2.3/100/gre"), unwilling("nexthop replace id 1600000003"), "group"},
		{"route refused", nil, route("203.0.113.0/24", "192.0.2.2/100/gre"), unwilling("route replace"), "route replace 203.0.113.0/24"},
		{"neighbour refused", []dataplane.Entry{port("tap0")}, local("tap0", 16, "198.51.100.2", "198.51.100.1"), unwilling("neigh replace"), "neigh replace"},
		{"kind", nil, dataplane.Entry{Kind: dataplane.RemoteMAC}, nil, `no entry of kind "mac"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFakeKernel("tap0", "tap1", "taken")
			taken, _, _ := k.LinkByName("taken")
			taken.Master = 1
			k.links[taken.Index] = taken
			k.mpls[500] = netlinkx.MPLSRoute{Label: 500, Protocol: unix.RTPROT_STATIC, Index: 1}
			d := fakeDriver(t, k, encap.MPLS, encap.GRE)
			h := open(t, d, "red")
			apply(t, h, plus(tt.have...)...)
			before := k.state()
			k.refuse = tt.refuse
			err := h.Apply(t.Context(), plus(tt.entry))[0]
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			k.refuse = nil
			if _, err := d.Drifted(t.Context()); err != nil { // removes tunnels that nothing uses
				t.Error(err)
			}
			if diff := cmp.Diff(before, k.state()); diff != "" {
				t.Errorf("left (-before +after):\n%s", diff)
			}
			if tt.refuse != nil {
				apply(t, h, plus(tt.entry)...)
				have, err := h.Installed(t.Context())
				if err != nil || !slices.ContainsFunc(have, tt.entry.Equal) {
					t.Errorf("after another try: %v, %v", have, err)
				}
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Encaps: []encap.Type{encap.GRE}}, "local address"},
		{Config{LocalAddr: four}, "no encapsulation"},
		{Config{LocalAddr: four, Encaps: []encap.Type{encap.VXLAN}}, "encapsulation VXLAN is not for this driver"},
		{Config{LocalAddr: four, Encaps: []encap.Type{encap.MPLS}}, "needs mpls_interface"},
		{Config{LocalAddr: six, Encaps: []encap.Type{encap.MPLSInUDP}}, "mpls-udp is for IPv4 only"},
	} {
		if _, err := New(tt.cfg, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
	k := newFakeKernel()
	delete(k.sysctls, "net/mpls/platform_labels")
	if _, err := start(Config{LocalAddr: four, Encaps: []encap.Type{encap.GRE}}, k, nil); err == nil || !strings.Contains(err.Error(), "mpls_router") {
		t.Errorf("no MPLS: %v", err)
	}
	if _, err := start(Config{LocalAddr: four, Encaps: []encap.Type{encap.MPLS}, MPLSInterface: "eth9"}, newFakeKernel(), nil); err == nil ||
		!strings.Contains(err.Error(), "mpls_interface: device eth9 does not exist") {
		t.Errorf("no device: %v", err)
	}
}

// Entries in any order, by several instances that lead into each other, with failures
// of the kernel and new processes in between: in the end the kernel has what is asked,
// and no nexthop object that no route has.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		k := newFakeKernel("a0", "a1", "b0", "b1")
		d := fakeDriver(t, k, encap.MPLS, encap.GRE)
		ids := []string{"a", "b"}
		handles := map[string]*handle{}
		models := map[string]map[string]dataplane.Entry{}
		for _, id := range ids {
			handles[id] = open(t, d, id)
			models[id] = map[string]dataplane.Entry{}
			apply(t, handles[id], plus(port(id+"0"), port(id+"1"))...)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			id := rapid.SampledFrom(ids).Draw(rt, "instance")
			if rapid.IntRange(0, 15).Draw(rt, "restart") == 0 {
				d = fakeDriver(t, k, encap.MPLS, encap.GRE)
				for _, id := range ids {
					handles[id] = open(t, d, id)
				}
				for _, id := range ids { // as the daemon does
					for _, e := range models[id] {
						apply(t, handles[id], plus(e)...)
					}
				}
			}
			e := drawEntry(rt, id)
			key := fmt.Sprint(e.Kind, e.Prefix, e.Label, e.IP)
			if e.Kind == dataplane.LocalPrefix {
				key = fmt.Sprint(e.Label, e.IP)
			}
			if rapid.IntRange(0, 2).Draw(rt, "delete") == 0 {
				apply(t, handles[id], minus(e)...)
				delete(models[id], key)
				continue
			}
			if rapid.IntRange(0, 5).Draw(rt, "failure") == 0 {
				left := rapid.IntRange(0, 3).Draw(rt, "after")
				k.refuse = func(r netlinkx.Request) error {
					if left--; left < 0 && !isDelete(r) {
						return unix.ENOMEM
					}
					return nil
				}
				_ = handles[id].Apply(t.Context(), plus(e))
				k.refuse = nil
			}
			apply(t, handles[id], plus(e)...)
			models[id][key] = e
		}
		used := map[uint32]bool{}
		for _, id := range ids {
			var want, got []string
			for _, e := range models[id] {
				want = append(want, e.String())
			}
			have, err := handles[id].Installed(t.Context())
			if err != nil {
				rt.Fatal(err)
			}
			for _, e := range have {
				if e.Kind != dataplane.LocalPort {
					got = append(got, e.String())
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("instance %s (-want +got):\n%s\n%s", id, diff, strings.Join(k.state(), "\n"))
			}
		}
		for _, r := range k.routes {
			used[r.Nexthop] = true
			for _, m := range k.nexthops[r.Nexthop].Group {
				used[m] = true
			}
		}
		for id := range k.nexthops {
			if !used[id] {
				rt.Fatalf("nexthop object %d is left over:\n%s", id, strings.Join(k.state(), "\n"))
			}
		}
		for _, h := range handles {
			if err := h.Remove(t.Context()); err != nil {
				rt.Fatal(err)
			}
		}
		if len(k.nexthops)+len(k.routes)+len(k.mpls)+len(k.neighbours)+len(k.addresses) != 0 {
			rt.Fatalf("left after removal:\n%s", strings.Join(k.state(), "\n"))
		}
	})
}

// drawEntry draws an endpoint or a route. A label is of one instance, and of one port.
func drawEntry(t *rapid.T, id string) dataplane.Entry {
	n := rapid.IntRange(0, 1).Draw(t, "port")
	labels := map[string]uint32{"a0": 16, "a1": 17, "b0": 18, "b1": 19}
	name := fmt.Sprint(id, n)
	if rapid.Bool().Draw(t, "endpoint") {
		ip := rapid.SampledFrom([]string{"198.51.100.2", "198.51.100.3", "0.0.0.0", "2001:db8::2"}).Draw(t, "ip")
		gateway := map[bool]string{true: "2001:db8::1", false: "198.51.100.1"}[strings.Contains(ip, ":")]
		return local(name, labels[name], ip, gateway)
	}
	prefix := rapid.SampledFrom([]string{"203.0.113.0/24", "198.51.100.2/32", "2001:db8:1::/64"}).Draw(t, "prefix")
	hops := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"192.0.2.1/16/mpls", "192.0.2.1/17/mpls", "192.0.2.1/18/mpls", "192.0.2.1/19/mpls",
		"192.0.2.2/100/gre", "192.0.2.2/100/mpls", "192.0.2.3/101/gre",
	}), 1, 3, func(s string) string { return s }).Draw(t, "hops")
	return route(prefix, hops...)
}

// A port without carrier has no routes, and gets them when its machine comes.
func TestCarrier(t *testing.T) {
	t.Parallel()
	k := newFakeKernel("tap0")
	d := fakeDriver(t, k, encap.GRE)
	h, other := open(t, d, "red"), open(t, d, "blue")
	carrier := func(on bool) {
		t.Helper()
		l, _, _ := k.LinkByName("tap0")
		if l.Carrier = on; !on {
			k.down(l.Index)
		}
		k.links[l.Index] = l
		if drifts, err := d.Drifted(t.Context()); err != nil || len(drifts) != 0 {
			t.Errorf("drift %v, %v", drifts, err)
		}
	}
	carrier(false)
	entries := []dataplane.Entry{port("tap0"), local("tap0", 16, "198.51.100.2", "198.51.100.1"), route("198.51.100.2/32", "192.0.2.1/16/gre")}
	apply(t, h, plus(entries...)...)
	apply(t, other, plus(entries[2])...)
	for _, on := range []bool{false, true, false, true} {
		carrier(on)
		by := 0
		for _, r := range k.routes {
			if r.Nexthop != 0 {
				by++
			}
		}
		if want := map[bool]int{true: 2}[on]; by != want || len(k.nexthops) != want/2 {
			t.Errorf("carrier %v: %d routes to the port, %d nexthop objects; want %d:\n%s", on, by, len(k.nexthops), want, strings.Join(k.state(), "\n"))
		}
	}
}

func TestHandleErrors(t *testing.T) {
	t.Parallel()
	d := fakeDriver(t, newFakeKernel("tap0"), encap.GRE)
	h := open(t, d, "red")
	if _, err := d.Open(t.Context(), dataplane.Instance{ID: "red", Type: dataplane.IPVPN}); err == nil {
		t.Error("an instance was opened twice")
	}
	if _, err := d.Open(t.Context(), dataplane.Instance{ID: "x", Type: dataplane.EVPN}); err == nil {
		t.Error("an E-VPN instance was opened")
	}
	if err := d.RemoveOrphan(t.Context(), "red"); !errors.Is(err, dataplane.ErrOpen) {
		t.Errorf("removing an open instance: %v", err)
	}
	var input *dataplane.InputError
	if err := d.Check(t.Context(), h.inst, dataplane.Port{Name: "tap9"}); !errors.As(err, &input) || !input.Missing {
		t.Errorf("check of a device that is not there: %v", err)
	}
	if err := d.Check(t.Context(), h.inst, dataplane.Port{Name: "tap0"}); err != nil {
		t.Error(err)
	}
}
