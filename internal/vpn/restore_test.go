// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// everything are attachments of all kinds, in the order in which they are made.
func everything() []vpn.Attachment {
	text := json.RawMessage(`{"a":[1,"x"]}`)
	return []vpn.Attachment{
		evpn(1, "192.0.2.5", vni(7001), pref(200)), evpn(2, ""), evpn(1, "2001:db8::5"),
		evpn(3, "192.0.2.7", named("green"), func(a *vpn.Attachment) { a.Bridge, a.Description, a.InstanceDescription = "br9", text, text }),
		vrf(1, "192.0.2.5/24", subnet), vrf(1, "2001:db8::5"), vrf(4, "192.0.2.5/24", subnet, onPort("tap4"), order(9)),
		vrf(5, "192.0.2.9", named("type5"), onPort("tap5"), advertise(vpn.AsBoth), func(a *vpn.Attachment) { a.Gateway = addr("192.0.2.1") }),
		vrf(6, "10.1.0.1", named("hop"), onPort("tap6"), readvertise("64512:501", "64512:502"),
			attract("64512:603 192.0.2.1:9", "64512:502", wire.Flow{Source: prefix("10.0.0.0/8"), DestinationPorts: []wire.Range{{First: 80, Last: 90}}}, "203.0.113.0/24")),
		vrf(7, "10.1.0.2", named("hop"), onPort("tap7"), direction(dataplane.ToPort), func(a *vpn.Attachment) { a.OVS = dataplane.OVSPort{Plugged: true, Name: "tap7"} }),
		vrf(8, "10.2.0.1", named("fallback"), onPort("tap8"), func(a *vpn.Attachment) {
			a.Fallback = &vpn.Fallback{Source: mac(8), MAC: ethernet.MAC{2, 9}, Port: 7, Text: text}
		}),
		vrf(9, "198.51.100.9/24", named("joined"), behind("green")),
	}
}

func TestRestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		joiner := &pairs{there: map[string]bool{}}
		n := newNode(t, setup{store: t.TempDir(), rtc: true, ipvpnCaps: overVXLAN, joiner: joiner})
		if n.Kept() {
			t.Error("a new node has kept something")
		}
		all := everything()
		n.attach(all...)
		gone := evpn(4, "192.0.2.8", named("gone"))
		n.attach(gone, evpn(4, "192.0.2.8"))
		n.detach(gone, evpn(4, "192.0.2.8"), all[3]) // the last is in a VRF and stays as its port
		before, plane := n.state(), n.plane.String()
		for range 2 {
			n = n.restarted()
			if got := len(n.Unrestored()); !n.Kept() || got != 7 || n.Count() != 0 {
				t.Fatalf("kept %v, %d instances to be restored, %d there; %s", n.Kept(), got, n.Count(), n.log)
			}
			n.Restore(t.Context())
			settle()
			n.wantState(before)
			n.reconciler.Sweep(t.Context())
			if diff := cmp.Diff(plane, n.plane.String()); diff != "" || len(n.Unrestored()) > 0 {
				t.Errorf("the plane after the sweep (-before +after), %v:\n%s", n.Unrestored(), diff)
			}
		}
		n.detach(all[:3]...)
		n.detach(all[4:]...)
		n = n.restarted()
		n.Restore(t.Context())
		if n.Count() != 0 || len(n.Labels())+len(n.RDs()) > 0 || !n.Kept() {
			t.Errorf("left: %s", n.state())
		}
	})
}

// A number that was given to an endpoint which has gone is not given to the next one after a restart.
func TestRestartGivesNewNumbers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{store: t.TempDir()})
		n.attach(vrf(1, "192.0.2.5"), vrf(2, "192.0.2.6"), vrf(3, "192.0.2.7")) // labels 17, 18, 19
		n.detach(vrf(2, "192.0.2.6"))
		n = n.restarted()
		n.attach(vrf(4, "192.0.2.8"))
		for _, e := range n.Instance("blue").Snapshot().Endpoints {
			if e.MAC == mac(4) && e.Label != 20 {
				t.Errorf("label %d", e.Label)
			}
		}
	})
}

// Requests that come before their instance is there again find it as it was.
func TestRequestsBeforeRestore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{store: t.TempDir()})
		n.attach(evpn(1, "192.0.2.5"), evpn(2, "192.0.2.6"), vrf(3, "192.0.2.7"), vrf(4, "192.0.2.8"))
		before := n.state()
		n = n.restarted()
		n.attach(evpn(1, "192.0.2.5"))
		n.attach(vrf(3, "192.0.2.7"))
		n.wantState(before)
		n = n.restarted()
		n.detach(vrf(4, "192.0.2.8"))
		n.attach(vrf(4, "192.0.2.8"))
		n.detach(vrf(3, "192.0.2.7"), vrf(4, "192.0.2.8"))
		n.Restore(t.Context())
		if n.Instance("blue") != nil || n.Instance("red").Endpoints() != 2 {
			t.Error(n.state())
		}
	})
}

// What the dataplane refuses after a restart comes when it no longer does: an instance as a whole, and
// an endpoint whose port is not there.
func TestRestoreIsRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{store: t.TempDir()})
		n.attach(evpn(1, "192.0.2.5"), vrf(3, "192.0.2.7"), vrf(4, "192.0.2.8", onPort("tap2")))
		before := n.state()
		plane := n.plane
		plane.Lose(dataplane.IPVPN, "blue") // the host was started anew
		plane.Fail(fake.Forever, func(o fake.Op) bool {
			return o.Instance == "red" && o.Verb == "open" || o.Verb == "apply" && o.Change.Entry.Port == "tap2"
		})
		n = n.restarted()
		n.Restore(t.Context())
		if err := n.Unrestored()["red"]; err == nil || n.Instance("red") != nil || n.Instance("blue") == nil {
			t.Fatalf("red: %v", err)
		}
		if err := n.Attach(t.Context(), evpn(1, "192.0.2.5")); err == nil {
			t.Error("an attach to an instance that cannot be restored goes well")
		}
		if p := n.reconciler.Problems(); len(p) != 1 || p[0].Instance != "blue" {
			t.Errorf("problems: %v", p)
		}
		plane.Heal()
		pass()
		settle()
		n.wantState(before)
		if !strings.Contains(n.log.String(), "is there again") || len(n.Unrestored()) > 0 {
			t.Errorf("log: %s", n.log)
		}
	})
}

// Records that make no sense are left out, and it is known that not all was kept.
func TestBadRecords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change store.Change
		left   int // endpoints
	}{
		{"no JSON", store.Change{Name: "instance\x00bad", Value: []byte("{")}, 2},
		{"an unknown field", store.Change{Name: "endpoint\x00blue\x00x", Value: []byte(`{"Instance":"blue","Colour":1}`)}, 2},
		{"a route target that is none", store.Change{Name: "instance\x00bad", Value: []byte(`{"ID":"bad","Type":"evpn","RD":9,"VNI":9,"Imports":["x"]}`)}, 2},
		{"another's RD", store.Change{Name: "instance\x00z", Value: []byte(`{"ID":"z","Type":"evpn","Number":9,"VNI":9}`)}, 2},
		{"another's VNI", store.Change{Name: "instance\x00z", Value: []byte(`{"ID":"z","Type":"evpn","Number":9,"RD":9,"VNI":900}`)}, 2},
		{"an unknown type", store.Change{Name: "instance\x00z", Value: []byte(`{"ID":"z","Type":"l9vpn","Number":9,"RD":9,"VNI":9}`)}, 2},
		{"no instance", store.Change{Name: "instance\x00blue"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{store: t.TempDir()})
				n.attach(vrf(1, "192.0.2.5"), vrf(2, "192.0.2.6"), evpn(3, "", vni(900)))
				n.Store.Stage(tt.change)(context.Background())
				n = n.restarted()
				n.Restore(t.Context())
				got := 0
				if i := n.Instance("blue"); i != nil {
					got = i.Endpoints()
				}
				if n.Kept() || got != tt.left || !strings.Contains(n.log.String(), "not usable") {
					t.Errorf("kept %v, %d endpoints, want %d; log %s", n.Kept(), got, tt.left, n.log)
				}
			})
		})
	}
}

// A canceled request waits no longer for the disk.
func TestAttachOfACanceledRequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{store: t.TempDir()})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Attach(ctx, vrf(1, "192.0.2.5")); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
