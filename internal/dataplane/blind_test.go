// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
)

// away is a driver whose forwarding plane is away at times.
type away struct {
	dataplane.Driver
	is atomic.Bool
}

var errAway = errors.New("the switch is away")

func (d *away) Drifted(ctx context.Context) ([]dataplane.Drift, error) {
	if d.is.Load() {
		return nil, errAway
	}
	return d.Driver.Drifted(ctx)
}

// A forwarding plane that is away is a fault even when nothing changes, told once in the log. When
// it is back, what failed is tried at once, whatever the back-off.
func TestBlindDriver(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]func(fake.Op) bool{
		"all":     func(fake.Op) bool { return true },
		"entries": func(o fake.Op) bool { return o.Verb == "apply" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testBlindDriver(t, refused) })
		})
	}
}

func testBlindDriver(t *testing.T, refused func(fake.Op) bool) {
	plane, book := fake.NewPlane(), &logbook.Book{}
	drivers := plane.Drivers()
	d := &away{Driver: drivers[dataplane.EVPN]}
	drivers[dataplane.EVPN] = d
	r := dataplane.NewReconciler(drivers, slog.New(book.Handler(slog.DiscardHandler)))
	f, err := r.Open(t.Context(), dataplane.Instance{ID: "red", Type: dataplane.EVPN, Number: 1, VNI: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	pass := func(d time.Duration) {
		time.Sleep(d)
		synctest.Wait()
	}
	pass(11 * time.Second)
	if got := r.Blind(); len(got) != 0 {
		t.Fatalf("blind: %v, want none", got)
	}
	d.is.Store(true)
	plane.FailWith(errAway, fake.Forever, refused)
	f.Sync(t.Context(), add(remoteMAC(2, 1)))
	pass(10*time.Minute + 3*time.Second) // the pause is as long as it gets, and has just begun
	got := r.Blind()
	if len(got) != 1 || got[0].Type != dataplane.EVPN || got[0].Driver != "fake" || !errors.Is(got[0].Err, errAway) ||
		time.Since(got[0].Since) < 9*time.Minute || time.Since(got[0].Since) > 11*time.Minute {
		t.Errorf("blind: %+v, want the driver for 10 minutes", got)
	}
	if len(r.Problems()) != 1 || book.Total() != 2 {
		t.Errorf("problems %v, log %v: want one problem, and a line for either", r.Problems(), book.Records(""))
	}
	changes := r.Changes()
	d.is.Store(false)
	plane.Heal()
	for range 10 {
		pass(time.Second)
		if len(r.Blind()) == 0 {
			break
		}
	}
	if len(r.Blind()) != 0 || len(r.Problems()) != 0 || r.Changes() == changes {
		t.Errorf("blind %v, problems %v once the switch is back", r.Blind(), r.Problems())
	}
}
