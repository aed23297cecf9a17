// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestPlanIsSound checks what must hold for any plan.
func TestPlanIsSound(t *testing.T) {
	t.Parallel()
	for name, o := range combinations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Name = strings.Repeat("x", 32)
			p, err := NewPlan(o)
			if err != nil {
				t.Fatal(err)
			}
			isSound(t, p)
		})
	}
}

func isSound(t *testing.T, p *Plan) {
	t.Helper()
	namespaces, addresses := map[string]bool{}, map[netip.Addr]string{}
	ends := map[string]End{}
	for _, ns := range p.Namespaces {
		if namespaces[ns] || !strings.HasPrefix(ns, p.Options.Name+"-") {
			t.Errorf("namespace %s", ns)
		}
		namespaces[ns] = true
	}
	add := func(e End) {
		if _, twice := ends[e.Namespace+" "+e.Name]; twice || !namespaces[e.Namespace] || len(e.Name) > 15 {
			t.Errorf("end %s", e)
		}
		ends[e.Namespace+" "+e.Name] = e
		for _, a := range e.Addresses {
			if was, ok := addresses[a.Addr()]; ok {
				t.Errorf("%s is at %s and %s", a, was, e)
			}
			addresses[a.Addr()] = e.Namespace
		}
		for _, gateway := range e.Gateways {
			if !slices.ContainsFunc(e.Addresses, func(a netip.Prefix) bool { return a.Addr() != gateway && a.Contains(gateway) }) {
				t.Errorf("gateway of %s is in no subnet of it", e)
			}
		}
	}
	for _, v := range p.Veths {
		add(v.A)
		add(v.B)
		if v.A.Switch != "" && !v.B.Checksums {
			t.Errorf("%s is plugged in a switch that will find no checksums", v.A)
		}
	}
	macs := map[string]bool{}
	for _, n := range p.Nodes {
		if (n.Switch != nil) != (p.Options.Dataplane == DataplaneOVS) {
			t.Errorf("switch of %s: %+v", n.Name, n.Switch)
		}
		if n.Switch != nil {
			add(n.Switch.Port)
			isSoundSwitch(t, p, n)
		}
		if addresses[n.Address] != n.Namespace {
			t.Errorf("%s has not its address %s", n.Name, n.Address)
		}
	}
	for _, e := range ends {
		if e.MAC != "" && macs[e.MAC] {
			t.Errorf("MAC address of %s is there twice", e)
		}
		macs[e.MAC] = true
	}
	for _, a := range p.Attachments {
		port, ok := ends[p.Nodes[a.Node].Namespace+" "+a.Request.LocalPort.LinuxIF]
		if !ok {
			t.Errorf("attachment of %s, which is not there", a)
		}
		if ovs := a.Request.LocalPort.OVS; (port.Switch == bridgeVPN) != (ovs != nil && ovs.Plugged && ovs.PortName == port.Name) {
			t.Errorf("attachment %s of %s", a, port)
		}
		ip := netip.MustParsePrefix(a.Request.IPAddress)
		if gateway, err := netip.ParseAddr(a.Request.GatewayIP); (err == nil) != (p.Options.VPN == VPNIPVPN) ||
			err == nil && (!ip.Contains(gateway) || addresses[gateway] != "") {
			t.Errorf("gateway of %s", a)
		}
	}
	for _, c := range slices.Concat(p.Underlay, p.Pings) {
		if addresses[c.Address] != c.To || c.From == c.To {
			t.Errorf("check %s", c)
		}
	}
}

// isSoundSwitch checks that a node's switch has all its cables, and that sockets
// fit in the kernel's limit.
func isSoundSwitch(t *testing.T, p *Plan, n Node) {
	t.Helper()
	plug := strings.Join(n.Switch.Plug, " ") + " "
	for _, v := range p.Veths {
		if v.A.Namespace == n.Namespace && !strings.Contains(plug, " add-port "+v.A.Switch+" "+v.A.Name+" ") {
			t.Errorf("%s is not plugged: %s", v.A, plug)
		}
	}
	for _, path := range []string{n.Switch.socket(), n.Switch.management(bridgeVPN), n.Switch.management(bridgeUnderlay)} {
		if len(strings.TrimPrefix(path, "unix:")) > len(n.Switch.Dir)+len("/ovs-vswitchd.ctl") {
			t.Errorf("socket %s is longer than the one that is accounted for", path)
		}
	}
	if len(p.Dir)+len(longestSocket) != len(n.Switch.Dir)+len("/ovs-vswitchd.ctl") {
		t.Errorf("%s is not as long as %s%s", n.Switch.Dir, p.Dir, longestSocket)
	}
}
