// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// A fabric is an IP underlay: one Ethernet segment, 10.77.0.0/24 and
// fd00:77::/64, that hosts are connected to.
type fabric struct {
	t      testing.TB
	bridge *nstest.NS
	shows  []func()
}

// A host is a namespace on the fabric.
type host struct {
	*nstest.NS
	t      testing.TB
	fabric *fabric
	label  string
	v4     netip.Addr
	v6     netip.Addr
}

// newFabric makes an underlay without hosts.
func newFabric(t testing.TB) *fabric {
	t.Helper()
	need(t, needNet)
	f := &fabric{t: t, bridge: nstest.New(t, "fabric")}
	f.bridge.Run("ip", "link", "add", "underlay", "type", "bridge", "mcast_snooping", "0")
	f.bridge.Run("ip", "link", "set", "underlay", "up")
	return f
}

// host adds a host with addresses 10.77.0.<number> and fd00:77::<number> on eth0.
func (f *fabric) host(label string, number int) *host {
	f.t.Helper()
	h := &host{
		NS: nstest.New(f.t, label), t: f.t, fabric: f, label: label,
		v4: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", number)),
		v6: netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", number)),
	}
	port := "to-" + label
	nstest.Connect(h.NS, "eth0", f.bridge, port)
	f.bridge.Run("ip", "link", "set", port, "master", "underlay")
	h.Run("ip", "address", "add", h.v4.String()+"/24", "dev", "eth0")
	h.Run("ip", "address", "add", h.v6.String()+"/64", "dev", "eth0", "nodad")
	return h
}

// onFailure registers something to show when the test has failed. It is shown
// before any process is stopped.
func (f *fabric) onFailure(show func()) {
	f.shows = append(f.shows, show)
	// The last clean-up registered runs first, and shows all.
	f.t.Cleanup(func() {
		if f.t.Failed() {
			for _, show := range f.shows {
				show()
			}
		}
		f.shows = nil
	})
}

// dumpForwarding shows the kernel's forwarding state.
func (h *host) dumpForwarding() {
	for _, cmd := range []string{
		"ip -brief address", "ip -details link show type vxlan", "bridge link", "bridge fdb show", "ip neighbor",
	} {
		out, err := h.Try(strings.Fields(cmd)...)
		h.t.Logf("%s: %s (%v):\n%s", h.label, cmd, err, out)
	}
}

// A vm is a namespace behind a port of a host, like a virtual machine: the
// host sees the port, the vm has eth0 with a MAC and addresses.
type vm struct {
	*nstest.NS
	t    testing.TB
	port string
	mac  string
	ips  []string
}

// vm makes a virtual machine with the given addresses ("198.51.100.11/24") on
// port of the host.
func (h *host) vm(label, port, mac string, ips ...string) *vm {
	h.t.Helper()
	v := &vm{NS: nstest.New(h.t, label), t: h.t, port: port, mac: mac, ips: ips}
	nstest.Connect(v.NS, "eth0", h.NS, port)
	v.Run("ip", "link", "set", "eth0", "address", mac)
	for _, ip := range ips {
		args := []string{"ip", "address", "add", ip, "dev", "eth0"}
		if strings.Contains(ip, ":") {
			args = append(args, "nodad")
		}
		v.Run(args...)
	}
	h.fabric.onFailure(func() {
		out, err := v.Try("ip", "neighbor")
		h.t.Logf("%s: ip neighbor (%v):\n%s", label, err, out)
	})
	return v
}

// ip returns address i of the vm without the prefix length.
func (v *vm) ip(i int) string {
	v.t.Helper()
	p, err := netip.ParsePrefix(v.ips[i])
	if err != nil {
		v.t.Fatal(err)
	}
	return p.Addr().String()
}

// mustReach waits until the vm gets an answer to a ping from ip, then until
// three in a row are answered.
func (v *vm) mustReach(ip string) {
	v.t.Helper()
	var out string
	var err error
	defer noteSlow(v.t, "first answer from "+ip+" to "+v.ips[0])()
	nstest.Eventually(v.t, routeTimeout, func() bool {
		out, err = v.Try("ping", "-n", "-c", "1", "-W", "1", ip)
		return err == nil
	}, func() string { return fmt.Sprintf("ping %s from %s: %v: %s", ip, v.ips[0], err, out) })
	if out, err := v.Try("ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", ip); err != nil || !strings.Contains(out, " 0% packet loss") {
		v.t.Errorf("ping %s from %s lost packets: %v: %s", ip, v.ips[0], err, out)
	}
}

// reaches reports whether one ping is answered within a second.
func (v *vm) reaches(ip string) bool {
	_, err := v.Try("ping", "-n", "-c", "1", "-W", "1", ip)
	return err == nil
}

// mustNotReach waits until a ping of ip is not answered any more.
func (v *vm) mustNotReach(ip string) {
	v.t.Helper()
	defer noteSlow(v.t, "no answer from "+ip+" to "+v.ips[0])()
	nstest.Eventually(v.t, routeTimeout, func() bool { return !v.reaches(ip) },
		func() string { return fmt.Sprintf("%s still answers to %s", ip, v.ips[0]) })
}
