// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// Overlay addresses of the two virtual machines.
var (
	vmIP4 = [2]string{"198.51.100.1", "198.51.100.2"}
	vmIP6 = [2]string{"2001:db8:1::1", "2001:db8:1::2"}
)

func vmMAC(i int) ethernet.MAC { return mac(0x100 + i) }

// vm makes a namespace for virtual machine i, attached to device tap of a host.
func vm(t *testing.T, host *host, i int, tap string) *nstest.NS {
	t.Helper()
	ns := nstest.New(t, "vm")
	ns.Run("ip", "link", "add", "eth0", "address", vmMAC(i).String(), "type", "veth", "peer", "name", tap, "netns", host.Name)
	ns.Run("ip", "link", "set", "eth0", "up")
	ns.Run("ip", "addr", "add", vmIP4[i]+"/24", "dev", "eth0")
	ns.Run("ip", "addr", "add", vmIP6[i]+"/64", "dev", "eth0", "nodad")
	return ns
}

func wantPing(t *testing.T, from *nstest.NS, to string) {
	t.Helper()
	var out string
	nstest.Eventually(t, 20*time.Second, func() bool {
		var err error
		out, err = from.Try("ping", "-n", "-c", "1", "-W", "1", to)
		return err == nil
	}, func() string { return "ping " + to + ": " + out })
}

// Two hosts, each with a driver. With the flood list deleted, ARP and ND are
// answered by the local bridge, or there is no ping.
func TestOverlay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		vtep   [2]string
		prefix string
	}{
		{"IPv4 underlay", [2]string{"192.0.2.1", "192.0.2.2"}, "/24"},
		{"IPv6 underlay", [2]string{"2001:db8:ffff::1", "2001:db8:ffff::2"}, "/64 nodad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hosts := [2]*host{newHost(t, "left"), newHost(t, "right")}
			nstest.Connect(hosts[0].NS, "eth0", hosts[1].NS, "eth0")
			var vms [2]*nstest.NS
			var handles [2]*handle
			for i, h := range hosts {
				h.ip("addr add %s%s dev eth0", tt.vtep[i], tt.prefix)
				vms[i] = vm(t, h, i, "tap0")
				handles[i] = mustOpen(t, h.driver(tt.vtep[i]), instance("red", 100))
				mustApply(t, handles[i], add(localPort("tap0"), dataplane.Entry{Kind: dataplane.LocalMAC, MAC: vmMAC(i), Port: "tap0"},
					flood(tt.vtep[1-i], 100))...)
			}
			wantPing(t, vms[0], vmIP4[1])
			wantPing(t, vms[0], vmIP6[1])

			for i, h := range handles {
				far := 1 - i
				e := remoteMAC(0x100+far, tt.vtep[far], 100)
				mustApply(t, h, add(e, neighbour(vmIP4[far], 0x100+far), neighbour(vmIP6[far], 0x100+far))...)
				mustApply(t, h, del(flood(tt.vtep[far], 100))...)
				vms[i].Run("ip", "neigh", "flush", "dev", "eth0")
			}
			wantPing(t, vms[0], vmIP4[1])
			wantPing(t, vms[0], vmIP6[1])
			for i, h := range handles {
				far := 1 - i
				wantInstalled(t, h, localPort("tap0"), localMAC(0x100+i, "tap0"), remoteMAC(0x100+far, tt.vtep[far], 100),
					neighbour(vmIP4[far], 0x100+far), neighbour(vmIP6[far], 0x100+far))
			}
			// The proof that nothing was flooded: without the neighbours there is no answer.
			mustApply(t, handles[0], del(neighbour(vmIP4[1], 0x101))...)
			vms[0].Run("ip", "neigh", "flush", "dev", "eth0")
			if out, err := vms[0].Try("ping", "-n", "-c", "1", "-W", "1", vmIP4[1]); err == nil {
				t.Errorf("ping without ARP suppression and flood list: %s", out)
			}
		})
	}
}

// The VNI of a remote MAC may differ from the local instance's.
func TestOverlayWithTwoVNIs(t *testing.T) {
	t.Parallel()
	hosts := [2]*host{newHost(t, "left"), newHost(t, "right")}
	nstest.Connect(hosts[0].NS, "eth0", hosts[1].NS, "eth0")
	var vms [2]*nstest.NS
	vtep, vni := [2]string{"192.0.2.1", "192.0.2.2"}, [2]uint32{100, 200}
	for i, h := range hosts {
		far := 1 - i
		h.ip("addr add %s/24 dev eth0", vtep[i])
		vms[i] = vm(t, h, i, "tap0")
		opened := mustOpen(t, h.driver(vtep[i]), instance("red", vni[i]))
		mustApply(t, opened, add(localPort("tap0"), flood(vtep[far], vni[far]), remoteMAC(0x100+far, vtep[far], vni[far]))...)
	}
	wantPing(t, vms[0], vmIP4[1])
}

// A Linux host answers ARP for all its addresses on all devices; a tenant must
// not get an answer.
func TestHostIsNotReachableFromTenant(t *testing.T) {
	t.Parallel()
	host := newHost(t, "shield")
	host.ip("addr add %s/32 dev lo", local4)
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	tenants := [2]*nstest.NS{vm(t, host, 0, "tap0"), vm(t, host, 1, "tap1")}
	mustApply(t, h, add(localPort("tap0"), localPort("tap1"))...)
	wantPing(t, tenants[0], vmIP4[1])
	tenants[0].Run("ip", "route", "add", "default", "dev", "eth0")
	_, _ = tenants[0].Try("ping", "-n", "-c", "1", "-W", "1", local4)
	if out := tenants[0].Run("ip", "neigh", "show", local4); strings.Contains(out, "lladdr") {
		t.Errorf("the host answered ARP: %s", out)
	}
	if out := host.ip("-6 addr show dev %s", h.bridgeName) + host.ip("-6 addr show dev %s", h.vxlanName); out != "" {
		t.Errorf("IPv6 addresses: %s", out)
	}
}
