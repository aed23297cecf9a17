// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// stuck is a driver whose instances do not come back from Apply when they are held.
type stuck struct {
	dataplane.Driver
	held     atomic.Bool
	entered  chan struct{} // somebody is in Apply
	released chan struct{}
}

type stuckHandle struct {
	dataplane.Handle
	d *stuck
}

func (d *stuck) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	h, err := d.Driver.Open(ctx, inst)
	return stuckHandle{h, d}, err
}

func (h stuckHandle) Apply(ctx context.Context, changes []dataplane.Change) []error {
	if h.d.held.Load() {
		h.d.entered <- struct{}{}
		<-h.d.released
	}
	return h.Handle.Apply(ctx, changes)
}

// Who asks for problems does not wait for a driver that is stuck, and is told what was known.
func TestProblemsOfStuckDriver(t *testing.T) {
	t.Parallel()
	plane := fake.NewPlane()
	drivers := plane.Drivers()
	d := &stuck{Driver: drivers[dataplane.EVPN], entered: make(chan struct{}), released: make(chan struct{})}
	drivers[dataplane.EVPN] = d
	r := dataplane.NewReconciler(drivers, slog.New(slog.DiscardHandler))
	f, err := r.Open(t.Context(), dataplane.Instance{ID: "red", Type: dataplane.EVPN, Number: 1, VNI: 100})
	if err != nil {
		t.Fatal(err)
	}
	plane.FailWith(errors.New("no room"), 1, func(o fake.Op) bool { return o.Verb == "apply" })
	f.Sync(t.Context(), add(remoteMAC(2, 1)))
	d.held.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Sync(t.Context(), add(remoteMAC(3, 1)))
	}()
	<-d.entered
	problems := make(chan []dataplane.Problem, 1)
	go func() { problems <- r.Problems() }()
	select {
	case got := <-problems:
		if len(got) != 1 || got[0].Count != 1 || got[0].Instance != "red" {
			t.Errorf("problems %v, want the one of before", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("no answer while the driver is stuck")
	}
	close(d.released)
	<-done
}
