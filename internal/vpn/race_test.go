// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// TestManyCallersAtOnce attaches and detaches the same and different instances
// from many goroutines while routes come and go and the driver fails now and
// then. The race detector looks on; at the end nothing may be left.
func TestManyCallersAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true, ipvpnCaps: overVXLAN})
		p := n.peer("BGP-10.77.0.9")
		calls := 0
		n.plane.Fail(fake.Forever, func(o fake.Op) bool {
			calls++
			return calls%11 == 0 && o.Verb != "installed"
		})
		ctx := context.Background()
		var wg, churn sync.WaitGroup
		stop := make(chan struct{})
		churn.Go(func() { routesComeAndGo(p, stop) })
		churn.Go(func() { look(n, stop) })
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 7))
				for range 60 {
					a := randomAttachment(r)
					if r.IntN(3) > 0 {
						checkError(t, n.Attach(ctx, a), true)
					} else {
						checkError(t, n.Detach(ctx, detachment(a)), false)
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		churn.Wait()
		n.plane.Heal()
		pass()
		settle()
		detachAll(t, n)
		n.rib.Purge(p.id)
		pass()
		settle()
		n.wantNothing()
	})
}

func randomAttachment(r *rand.Rand) vpn.Attachment {
	ip := []string{"192.0.2.5", "192.0.2.6", "2001:db8::5"}[r.IntN(3)]
	edits := []edit{onPort([]string{"tap1", "tap1", "tap2"}[r.IntN(3)])}
	if r.IntN(5) == 0 {
		edits = append(edits, exports("64512:2"), imports("64512:1", "64512:2"))
	}
	switch r.IntN(3) {
	case 0:
		as := []vpn.Advertise{vpn.AsVPN, vpn.AsEVPN, vpn.AsBoth}[r.IntN(3)]
		return vrf(1+r.IntN(3), ip, append(edits, advertise(as), named([]string{"blue", "pink"}[r.IntN(2)]))...)
	case 1:
		return evpn(1+r.IntN(3), "", append(edits, named("green"))...)
	}
	return evpn(1+r.IntN(3), ip, edits...)
}

// checkError takes refusals, and failures of the driver if it may fail the call.
func checkError(t *testing.T, err error, driver bool) {
	t.Helper()
	var refused *vpn.RequestError
	if err != nil && !driver && !errors.As(err, &refused) {
		t.Errorf("detach failed: %v", err)
	}
}

func routesComeAndGo(p *peer, stop chan struct{}) {
	r := rand.New(rand.NewPCG(1, 1))
	for {
		select {
		case <-stop:
			return
		default:
		}
		var b rib.Batch
		for range 5 {
			route := remoteMAC(9, 1+r.IntN(4), "192.0.2.6")
			if r.IntN(3) == 0 {
				b.Withdraw(route.NLRI)
				continue
			}
			set := p.in.InternLocal(withSeq(remoteAttrs(9, "64512:1"), uint32(r.IntN(5))).Build())
			b.Hold(set)
			b.Announce(route, set)
		}
		p.n.rib.Apply(p.id, &b)
	}
}

// look reads all that the looking glass and the metrics read.
func look(n *node, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		for _, i := range n.Instances() {
			i.Snapshot()
			i.Routes()
			i.Announced()
			i.Endpoints()
			if f := i.Forwarding(); f != nil {
				f.Entries()
				f.Desired()
			}
		}
		n.Labels()
		n.RDs()
		n.reconciler.Problems()
	}
}

// detachAll detaches every endpoint there is.
func detachAll(t *testing.T, n *node) {
	t.Helper()
	for _, i := range n.Instances() {
		for _, e := range i.Snapshot().Endpoints {
			d := vpn.Detachment{Type: i.Type, InstanceID: i.ID, MAC: e.MAC, IP: e.IP.Addr()}
			var refused *vpn.RequestError // a wildcard detach took it already
			if err := n.Detach(context.Background(), d); err != nil && !errors.As(err, &refused) {
				t.Errorf("detach %+v: %v", d, err)
			}
		}
	}
}

// TestSameInstanceEndsAndBegins has two callers for one endpoint each: the
// instance ends and begins all the time.
func TestSameInstanceEndsAndBegins(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		var wg sync.WaitGroup
		for m := 1; m <= 4; m++ {
			wg.Go(func() {
				for range 100 {
					if err := n.Attach(context.Background(), evpn(m, "")); err != nil {
						t.Errorf("attach: %v", err)
					}
					if err := n.Detach(context.Background(), detachment(evpn(m, ""))); err != nil {
						t.Errorf("detach: %v", err)
					}
				}
			})
		}
		wg.Wait()
		settle()
		n.wantNothing()
	})
}
