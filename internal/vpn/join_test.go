// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// pairs is a Joiner in memory.
type pairs struct {
	there map[string]bool
	err   error
}

func (p *pairs) Ensure(evi, vrf string, _ int) (eviPort, vrfPort string, err error) {
	if p.err != nil {
		return "", "", p.err
	}
	p.there[evi+" "+vrf] = true
	return "evi-" + evi, "vrf-" + vrf, nil
}

func (p *pairs) Remove(evi, vrf string) error {
	delete(p.there, evi+" "+vrf)
	return nil
}

// behind has an endpoint of a VRF be behind an E-VPN instance.
func behind(evi string) edit {
	return func(a *vpn.Attachment) { a.Port, a.EVI.ID = "", evi }
}

func TestJoin(t *testing.T) {
	for _, tt := range []struct {
		name, eviPort, vrfPort string
		caps                   func(*dataplane.Capabilities)
	}{
		{"pair", "evi-red", "vrf-blue", func(c *dataplane.Capabilities) { c.OVSPorts = false }},
		{"pair for Open vSwitch", "evi-red", "vrf-blue", nil},
		{"the bridge itself", "br-red", "br-red", func(c *dataplane.Capabilities) { c.BridgePorts = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := &pairs{there: map[string]bool{}}
				n := newNode(t, setup{joiner: p, ipvpnCaps: tt.caps})
				n.attach(evpn(1, "198.51.100.11/24", vni(100)))
				a := vrf(1, "198.51.100.11/24", behind("red"))
				for range 2 { // the second time they are joined
					n.attach(a)
				}
				n.attach(vrf(2, "198.51.100.12/24", behind("red")))
				if diff := cmp.Diff(map[string]string{"red": "blue"}, n.Joined()); diff != "" {
					t.Errorf("Joined() (-want +got):\n%s", diff)
				}
				if s := n.Instance("red").Snapshot(); s.GatewayPort != tt.eviPort || s.VRF != "blue" {
					t.Errorf("gateway port %q of VRF %q, want %q of blue", s.GatewayPort, s.VRF, tt.eviPort)
				}
				for _, e := range n.Instance("blue").Snapshot().Endpoints {
					if e.Port != tt.vrfPort {
						t.Errorf("endpoint %s on port %s, want %s", e.IP, e.Port, tt.vrfPort)
					}
				}
				ports := n.Instance("red").Forwarding().Entries()
				if !hasGateway(ports, tt.eviPort) {
					t.Errorf("E-VPN instance has no gateway at %s: %v", tt.eviPort, ports)
				}

				// The first endpoint leaves: still joined. The E-VPN's own endpoint leaves: it stays for the VRF.
				n.detach(vrf(1, "198.51.100.11"))
				n.detach(evpn(1, "198.51.100.11"))
				if n.Instance("red") == nil || len(n.Joined()) != 1 {
					t.Fatal("the E-VPN instance ended while a VRF was plugged in")
				}
				n.detach(vrf(2, "198.51.100.12"))
				if n.Count() != 0 || len(n.Joined()) != 0 || len(p.there) != 0 {
					t.Errorf("%d instances, joined %v, pairs %v: want none", n.Count(), n.Joined(), p.there)
				}
			})
		})
	}
}

func hasGateway(entries []dataplane.Entry, port string) bool {
	for _, e := range entries {
		if e.Kind == dataplane.LocalMAC && e.Port == port && e.MAC == dataplane.GatewayMAC {
			return true
		}
	}
	return false
}

func TestJoinRefusals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := &pairs{there: map[string]bool{}}
		n := newNode(t, setup{joiner: p})
		n.attach(evpn(1, "198.51.100.11/24", vni(100)))
		n.attach(evpn(1, "198.51.100.11/24", named("green")))
		n.attach(vrf(1, "198.51.100.11/24", behind("red")))
		n.attach(vrf(9, "203.0.113.9/24", named("other")))
		for name, a := range map[string]vpn.Attachment{
			"no such instance":               vrf(2, "198.51.100.12/24", named("new"), behind("pink")),
			"a VRF as E-VPN instance":        vrf(2, "198.51.100.12/24", named("new"), behind("other")),
			"VRF joined to another":          vrf(2, "198.51.100.12/24", behind("green")),
			"E-VPN instance joined already":  vrf(2, "198.51.100.12/24", named("new"), behind("red")),
			"device of others without place": vrf(2, "198.51.100.12/24", named("new"), behind("green"), func(a *vpn.Attachment) { a.EVI.Device = "veth1" }),
		} {
			var refused *vpn.RequestError
			if err := n.Attach(t.Context(), a); !errors.As(err, &refused) || refused.Field != "local_port" {
				t.Errorf("%s: %v, want a refusal of local_port", name, err)
			}
		}
		if n.Instance("new") != nil {
			t.Error("a refused join left a VRF")
		}
		if want := map[string]bool{"red blue": true}; !maps.Equal(p.there, want) {
			t.Errorf("pairs %v, want %v", p.there, want)
		}
	})
}

// A join that was made for an attach that fails is undone.
func TestJoinIsUndone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := &pairs{there: map[string]bool{}}
		n := newNode(t, setup{joiner: p})
		n.attach(evpn(1, "198.51.100.11/24", vni(100)))
		before := n.plane.String()
		a := vrf(1, "198.51.100.11/24", behind("red"))
		p.err = errors.New("no devices")
		if err := n.Attach(t.Context(), a); !errors.Is(err, p.err) {
			t.Errorf("Attach() = %v, want %v", err, p.err)
		}
		p.err = nil
		for _, instance := range []string{"red", "blue"} { // the gateway's port, then the VRF's
			n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "apply" && o.Instance == instance })
			if err := n.Attach(t.Context(), a); err == nil {
				t.Errorf("Attach() succeeded though %s failed", instance)
			}
			if len(p.there) != 0 || len(n.Joined()) != 0 || n.Instance("blue") != nil {
				t.Errorf("after a failure in %s: pairs %v, joined %v", instance, p.there, n.Joined())
			}
			if diff := cmp.Diff(before, n.plane.String()); diff != "" {
				t.Errorf("plane after a failure in %s (-want +got):\n%s", instance, diff)
			}
		}
		n.attach(a)
	})
}
