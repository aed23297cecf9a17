// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/google/go-cmp/cmp"
)

func TestOpenMakesDevices(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		local string
		zero  bool
	}{{local4, false}, {local6, true}} {
		t.Run(tt.local, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "open")
			d := host.driver(tt.local)
			h := mustOpen(t, d, instance("evpn_7f0c-red net", 100))
			alias := "bagpipe evpn evpn_7f0c-red net"
			want := []netlinkx.Link{
				{Name: devname.Candidate(bridgePrefix, bridgeDigits, h.inst.ID, 0), Alias: alias, Kind: "bridge", MTU: 1500, Up: true, Carrier: true, Ethernet: true, NoAddrGen: true},
				{
					Name: devname.Candidate(vxlanPrefix, vxlanDigits, h.inst.ID, 0), Alias: alias, Kind: "vxlan", MTU: 1500, Up: true, Carrier: true, Ethernet: true, NoAddrGen: true,
					SlaveKind: "bridge", Port: tunnelPort, Master: h.bridge,
					VXLAN: netlinkx.VXLANOptions{VNI: 100, Local: netip.MustParseAddr(tt.local), Port: 4789, ZeroChecksum6: tt.zero},
				},
			}
			links, err := host.conn().Links(0)
			if err != nil {
				t.Fatal(err)
			}
			var got []netlinkx.Link
			for _, l := range links {
				if l.Index == h.bridge || l.Index == h.vxlan {
					l.Index = 0
					got = append(got, l)
				}
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			for key, want := range map[string]string{
				"ipv4/conf/%s/rp_filter": "1", "ipv4/conf/%s/forwarding": "0",
				"ipv6/conf/%s/accept_ra": "0", "ipv6/conf/%s/autoconf": "0", "ipv6/conf/%s/disable_ipv6": "0",
			} {
				path := "/proc/sys/net/" + strings.Replace(key, "%s", h.bridgeName, 1)
				if got := strings.TrimSpace(host.Run("cat", path)); got != want {
					t.Errorf("%s = %s, want %s", path, got, want)
				}
			}
			if err := h.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if host.exists(h.bridgeName) || host.exists(h.vxlanName) {
				t.Error("devices are left after Remove")
			}
			if err := h.Remove(t.Context()); err != nil {
				t.Errorf("second Remove: %v", err)
			}
		})
	}
}

func TestOpenErrorsLeaveNothing(t *testing.T) {
	t.Parallel()
	host := newHost(t, "openerr")
	host.ports("p1")
	host.ip("link add theirs type vxlan id 300 dstport 4789")
	d := host.driver(local4)
	green := mustOpen(t, d, instance("green", 400))
	before := host.state()
	with := func(i dataplane.Instance, f func(*dataplane.Instance)) dataplane.Instance { f(&i); return i }
	for _, tt := range []struct {
		name string
		in   dataplane.Instance
		want []string
	}{
		{"bad VNI 0", instance("red", 0), []string{"red", "VNI 0"}},
		{"bad VNI", instance("red", 1<<24), []string{"VNI 16777216"}},
		{"bad no id", instance("", 1), []string{"no id"}},
		{"bad type", with(instance("red", 1), func(i *dataplane.Instance) { i.Type = dataplane.IPVPN }), []string{"ipvpn"}},
		{"bad missing bridge", with(instance("red", 1), func(i *dataplane.Instance) { i.Bridge = "brq0" }), []string{"brq0 does not exist"}},
		{"bad no bridge", with(instance("red", 1), func(i *dataplane.Instance) { i.Bridge = "p1" }), []string{"p1 is not a bridge"}},
		{"bad bridge of ours", with(instance("red", 1), func(i *dataplane.Instance) { i.Bridge = green.bridgeName }), []string{"green"}},
		{"bad VNI of others", instance("red", 300), []string{"VNI 300", "device theirs"}},
		{"bad VNI of ours", instance("red", 400), []string{"VNI 400", green.vxlanName, "green"}},
		{"bad open already", instance("green", 400), []string{"green", "open already"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := d.Open(t.Context(), tt.in)
			wantErr(t, err, tt.want...)
			wantSame(t, "state", before, host.state())
		})
	}
	// The id is free again after a failure.
	mustOpen(t, d, instance("red", 500))
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	for _, local := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("fe80::1%eth0")} {
		if _, err := New(Config{LocalAddr: local}, nil); err == nil {
			t.Errorf("New with local address %q: no error", local)
		}
	}
}

func TestKernelDefaultPort(t *testing.T) {
	t.Parallel()
	host := newHost(t, "port0")
	host.Do(func() {
		d, err := New(Config{LocalAddr: netip.MustParseAddr(local4)}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		h := mustOpen(t, d, instance("red", 1))
		if out := host.ip("-d link show %s", h.vxlanName); !strings.Contains(out, "dstport 8472") {
			t.Errorf("device: %s", out)
		}
	})
}

// A device of others that has our name is not touched, whatever its alias.
func TestNameCollision(t *testing.T) {
	t.Parallel()
	host := newHost(t, "collision")
	for n, alias := range []string{"", "bagpipe evpn blue"} {
		host.ip("link add %s type bridge", devname.Candidate(bridgePrefix, bridgeDigits, "red", n))
		if alias != "" {
			host.Run("ip", "link", "set", devname.Candidate(bridgePrefix, bridgeDigits, "red", n), "alias", alias)
		}
	}
	host.ip("link add %s type vxlan id 7 dstport 4789", devname.Candidate(vxlanPrefix, vxlanDigits, "red", 0))
	before := host.state()
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	if want := devname.Candidate(bridgePrefix, bridgeDigits, "red", 2); h.bridgeName != want {
		t.Errorf("bridge is %s, want %s", h.bridgeName, want)
	}
	if want := devname.Candidate(vxlanPrefix, vxlanDigits, "red", 1); h.vxlanName != want {
		t.Errorf("VXLAN device is %s, want %s", h.vxlanName, want)
	}
	wantSame(t, "devices of others", before, host.state(h.bridgeName, h.vxlanName))
	// An earlier name becomes free: the devices are adopted all the same.
	host.ip("link del %s", devname.Candidate(bridgePrefix, bridgeDigits, "red", 0))
	again := mustOpen(t, host.driver(local4), instance("red", 100))
	if again.bridge != h.bridge || again.vxlan != h.vxlan {
		t.Errorf("adopted %s and %s, want %s and %s", again.bridgeName, again.vxlanName, h.bridgeName, h.vxlanName)
	}
	if err := again.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if host.exists(h.bridgeName) || !host.exists(devname.Candidate(bridgePrefix, bridgeDigits, "red", 1)) {
		t.Error("Remove took the wrong bridge")
	}
}

// An instance that comes back with another VNI, or another local address, gets
// a new VXLAN device; bridge and ports stay.
func TestChangedTunnelIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, local string
		vni         uint32
	}{{"VNI", local4, 200}, {"local address", "192.0.2.77", 100}, {"address family", local6, 100}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "anew")
			host.ports("p1")
			h := mustOpen(t, host.driver(local4), instance("red", 100))
			mustApply(t, h, add(localPort("p1"), localMAC(1, "p1"), remoteMAC(2, "192.0.2.9", 100))...)
			again := mustOpen(t, host.driver(tt.local), instance("red", tt.vni))
			if again.bridge != h.bridge || again.vxlan == h.vxlan {
				t.Errorf("bridge #%d then #%d, VXLAN #%d then #%d", h.bridge, again.bridge, h.vxlan, again.vxlan)
			}
			out := host.ip("-d link show %s", again.vxlanName)
			if !strings.Contains(out, "local "+tt.local+" ") || again.vni != tt.vni {
				t.Errorf("device: %s", out)
			}
			wantInstalled(t, again, localPort("p1"), localMAC(1, "p1"))
		})
	}
}

func TestAdoptionCorrectsWhatIsWrong(t *testing.T) {
	t.Parallel()
	host := newHost(t, "adopt")
	host.ports("p1")
	entries := []dataplane.Entry{localPort("p1"), localMAC(1, "p1"), remoteMAC(2, "192.0.2.9", 100), neighbour("198.51.100.2", 2), flood("192.0.2.9", 100)}
	first := mustOpen(t, host.driver(local4), instance("red", 100))
	mustApply(t, first, add(entries...)...)
	before := host.state()
	for _, breakIt := range []string{
		"link set %[2]s mtu 1400",
		"link set %[2]s type bridge_slave learning on neigh_suppress off",
		"link set %[2]s nomaster",
		"link set %[1]s type bridge stp_state 1",
		"link set %[2]s down",
	} {
		host.ip(breakIt, first.bridgeName, first.vxlanName)
		h := mustOpen(t, host.driver(local4), instance("red", 100))
		mustApply(t, h, add(entries...)...)
		t.Log(breakIt)
		wantSame(t, "state after adoption", before, host.state())
	}
}

// A crash between making a device and marking it leaves a device without alias.
func TestHalfMadeDevicesAreRemoved(t *testing.T) {
	t.Parallel()
	host := newHost(t, "halfmade")
	before := host.state()
	host.ip("link add %s group %d type vxlan id 100 dstport 4789", devname.Candidate(vxlanPrefix, vxlanDigits, "red", 0), devname.HalfMade)
	host.ip("link add %s group %d type bridge", devname.Candidate(bridgePrefix, bridgeDigits, "blue", 0), devname.HalfMade)
	d := host.driver(local4)
	wantSame(t, "state", before, host.state())
	mustOpen(t, d, instance("red", 100))
}

func TestMTU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, local string
		mtu         int // of the underlay
		onLoopback  bool
		want        int
		warns       bool
	}{
		{"IPv4 1500", local4, 1500, false, 1500, true},
		{"IPv4 1549", local4, 1549, false, 1500, true},
		{"IPv4 1550", local4, 1550, false, 1500, false},
		{"IPv4 9000", local4, 9000, false, 8950, false},
		{"IPv6 9000", local6, 9000, false, 8930, false},
		{"IPv6 1569", local6, 1569, false, 1500, true},
		{"IPv4 on loopback", local4, 9000, true, 8950, false},
		{"IPv6 on loopback", local6, 9000, true, 8930, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newHost(t, "mtu")
			host.ports("eth0")
			host.ip("link set eth0 mtu %d up", tt.mtu)
			host.ip("link set eth0-x mtu %d", tt.mtu)
			bits, gateway := 32, "inet 203.0.113.254 onlink"
			if tt.want == tt.mtu-overhead6 || tt.local == local6 {
				bits, gateway = 128, "2001:db8:eeee::1 onlink"
			}
			dev := "eth0"
			if tt.onLoopback {
				dev = "lo"
			}
			host.ip("addr add %s/%d dev %s", tt.local, bits, dev)
			if tt.onLoopback {
				host.ip("route add default via %s dev eth0", gateway)
			}
			h := mustOpen(t, host.driver(tt.local), instance("red", 100))
			l, _, err := host.conn().LinkByIndex(h.vxlan)
			if err != nil || l.MTU != tt.want || h.mtu != tt.want {
				t.Errorf("MTU is %d (described as %d), want %d (%v)", l.MTU, h.mtu, tt.want, err)
			}
			mustOpen(t, h.d, instance("blue", 101))
			warnings := 0
			if tt.warns {
				warnings = 1
			}
			if n := strings.Count(host.log.String(), "underlay is too small"); n != warnings {
				t.Errorf("%d warnings, want %d: %s", n, warnings, host.log.String())
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	host := newHost(t, "describe")
	d := host.driver(local4)
	h := mustOpen(t, d, instance("red", 100))
	want := []dataplane.Member{
		{Name: "linux_bridge", Value: h.bridgeName}, {Name: "vxlan_if", Value: h.vxlanName},
		{Name: "vni", Value: uint32(100)}, {Name: "mtu", Value: 1500},
	}
	if diff := cmp.Diff(want, h.Describe()); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	want = []dataplane.Member{{Name: "vxlan_dst_port", Value: uint16(4789)}}
	if diff := cmp.Diff(want, d.Describe()); diff != "" {
		t.Errorf("driver (-want +got):\n%s", diff)
	}
	c := d.Capabilities()
	if c.ECMP || !c.AcceptDefault || !c.ExistingBridge || c.IPv6Underlay || !host.driver(local6).Capabilities().IPv6Underlay {
		t.Errorf("capabilities = %+v", c)
	}
}
