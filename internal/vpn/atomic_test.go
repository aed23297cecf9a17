// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"errors"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// TestAttachIsAllOrNothing lets the driver fail at each step of an attach in
// turn: no trace is left, and the same attach works afterwards.
func TestAttachIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before []vpn.Attachment
		in     vpn.Attachment
		steps  int // of the driver; one failure for each
	}{
		{"first endpoint of an EVI", nil, evpn(1, "192.0.2.5"), 5},
		{"wildcard endpoint", nil, evpn(1, ""), 5},
		{"given VNI", nil, evpn(1, "192.0.2.5", vni(5000)), 5},
		{"first endpoint of a VRF", nil, vrf(1, "192.0.2.5"), 5},
		{"subnet", nil, vrf(1, "192.0.2.5/24", subnet), 5},
		{"second endpoint on the port", []vpn.Attachment{evpn(1, "192.0.2.5")}, evpn(2, "192.0.2.6"), 2},
		{"second port", []vpn.Attachment{evpn(1, "192.0.2.5")}, evpn(2, "192.0.2.6", onPort("tap2")), 2},
		{"second IP", []vpn.Attachment{evpn(1, "192.0.2.5")}, evpn(1, "192.0.2.6"), 2},
		{"IP in place of a wildcard", []vpn.Attachment{evpn(1, "")}, evpn(1, "192.0.2.6"), 2},
		{"wildcard beside an IP", []vpn.Attachment{evpn(1, "192.0.2.5")}, evpn(1, ""), 2},
		{"other route targets", []vpn.Attachment{evpn(1, "192.0.2.5")}, evpn(1, "192.0.2.5", exports("64512:2"), imports("64512:3")), 2},
		{"second MAC in a VRF", []vpn.Attachment{vrf(1, "192.0.2.5")}, vrf(2, "192.0.2.6", onPort("tap2")), 2},
		{"host becomes subnet", []vpn.Attachment{vrf(1, "192.0.2.5/24")}, vrf(1, "192.0.2.5/24", subnet), 1},
		{"subnet becomes host", []vpn.Attachment{vrf(1, "192.0.2.5/24", subnet)}, vrf(1, "192.0.2.5"), 1},
		{"other direction", []vpn.Attachment{vrf(1, "192.0.2.5")}, vrf(1, "192.0.2.5", direction(dataplane.FromPort)), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{rtc: true})
				n.attach(tt.before...)
				before := n.state()
				for step := range tt.steps {
					count := -1
					n.plane.Fail(1, func(fake.Op) bool { count++; return count == step })
					err := n.Attach(context.Background(), tt.in)
					settle()
					var refused *vpn.RequestError
					if err == nil || errors.As(err, &refused) {
						t.Fatalf("failure at step %d: error %v, want one of the driver", step, err)
					}
					n.plane.Heal()
					if n.wantState(before); t.Failed() {
						t.Fatalf("a trace is left by the failure at step %d: %v", step, err)
					}
				}
				n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "never" })
				n.attach(tt.in)
				if d := n.plane.Breaches(); len(d) > 0 {
					t.Errorf("contract of the driver broken: %v", d)
				}
				for _, a := range append(tt.before, tt.in) {
					_ = n.Detach(context.Background(), detachment(a))
				}
				settle()
				n.wantNothing()
			})
		})
	}
}

// When even the undo fails, nothing but the plane differs, and that is mended.
func TestFailedAttachWithFailingUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5"))
		before := n.state()
		n.plane.Fail(1, func(o fake.Op) bool { return o.Change.Entry.MAC == mac(2) })
		n.plane.Fail(2, func(o fake.Op) bool { return o.Change.Delete })
		if err := n.Attach(context.Background(), evpn(2, "192.0.2.6", onPort("tap2"))); err == nil {
			t.Fatal("attach succeeded")
		}
		settle()
		n.wantPlane("evpn red vni 16", "  local-mac dev tap1 02:00:00:00:00:01", "  port dev tap1", "  port dev tap2")
		pass()
		settle()
		n.wantState(before)
	})
}

func TestFailedFirstAttachWithFailingRemove(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "apply" })
		n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "remove" })
		if err := n.Attach(context.Background(), evpn(1, "192.0.2.5")); err == nil {
			t.Fatal("attach succeeded")
		}
		settle()
		n.wantPlane("evpn red vni 16")
		pass()
		settle()
		n.wantNothing()
	})
}

// RDs are a small space: using it up must not hurt what is there, and what is
// given back can be used.
func TestRDsUsedUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true})
		n.UseUpRDs(2)
		n.attach(evpn(1, "")) // one for the instance, one for the wildcard
		before := n.state()
		for _, a := range []vpn.Attachment{evpn(2, ""), evpn(1, "192.0.2.5", named("green")), vrf(1, "192.0.2.5")} {
			var refused *vpn.RequestError
			if err := n.Attach(context.Background(), a); err == nil || errors.As(err, &refused) {
				t.Fatalf("%s: error %v, want one that says that RDs are used up", a.InstanceID, err)
			}
			n.wantState(before)
		}
		n.detach(evpn(1, ""))
		n.attach(vrf(1, "192.0.2.5/24", subnet))
		before = n.state()
		if err := n.Attach(context.Background(), vrf(2, "192.0.2.6/24", subnet)); err == nil {
			t.Fatal("attach of a subnet succeeded without an RD")
		}
		n.wantState(before) // its label too
	})
}

// A driver that panics takes down the call, and not the instance with it.
func TestPanicInDriverBlocksNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5"))
		panicked := true
		n.plane.Fail(fake.Forever, func(fake.Op) bool {
			if panicked {
				panic("in a driver")
			}
			return false
		})
		func() {
			defer func() { _ = recover() }()
			_ = n.Attach(context.Background(), evpn(2, "192.0.2.6"))
			panicked = false
		}()
		if !panicked {
			t.Fatal("attach did not reach the driver")
		}
		panicked = false
		n.attach(evpn(2, "192.0.2.6")) // hangs, which the bubble reports, if a lock is held
		n.wantRoutes(mac1ip5, mac2ip6, imet)
	})
}
