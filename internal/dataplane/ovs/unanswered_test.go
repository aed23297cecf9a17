// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"testing"

	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// unanswered does what a fake does, and loses one answer: that to call at, counted from 1.
type unanswered struct {
	*fake
	calls, at int
}

func (u *unanswered) answer(err error) error {
	if u.calls++; u.calls == u.at {
		return errors.New("connection with the switch lost")
	}
	return err
}

func (u *unanswered) Exec(ctx context.Context, messages []of.Message, errs []error) error {
	return u.answer(u.fake.Exec(ctx, messages, errs))
}

func (u *unanswered) Bundle(ctx context.Context, messages []of.Message) error {
	return u.answer(u.fake.Bundle(ctx, messages))
}

// driver starts a driver on the switch.
func (u *unanswered) driver(t *testing.T) *Driver {
	d := u.fake.driver(t, nil)
	d.dial = func(context.Context) (bridge, error) { return u, nil }
	d.conn = nil
	return d
}

// An instance that Open failed for, and whose flows may have been made, gets the same number with
// the next Open: the switch does not have it twice.
func TestOpenUnanswered(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 2} { // shared flows, flows of the instance
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			u := &unanswered{fake: newFake(), at: at}
			d := u.driver(t)
			if _, err := d.Open(t.Context(), instance("red")); err == nil {
				t.Fatal("open without an answer")
			}
			mustOpen(t, d, instance("red"))
			records := 0
			for _, f := range u.flows {
				if id, ok := idOf(&f); ok && id == "red" {
					records++
				}
			}
			if records != 1 {
				t.Errorf("the switch has the instance %d times", records)
			}
		})
	}
}

// Changes that failed for want of an answer may have been done: Repair tells, and Installed has them.
func TestApplyUnanswered(t *testing.T) {
	t.Parallel()
	u := &unanswered{fake: newFake()}
	d := u.driver(t)
	h := mustOpen(t, d, instance("red"))
	end := endpoint("tap1", "198.51.100.2", 17)
	port := attached("tap1", 0, end.Direction)
	mustApply(t, h, add(port)...)
	u.at = u.calls + 1
	if errs := h.Apply(t.Context(), add(end)); errs[0] == nil {
		t.Fatal("done without an answer")
	}
	if repaired, err := h.Repair(t.Context()); err != nil || !repaired {
		t.Errorf("repaired %v, %v: nobody looks for what was done", repaired, err)
	}
	wantInstalled(t, h, port, end)
	if repaired, err := h.Repair(t.Context()); err != nil || repaired {
		t.Errorf("repaired again: %v, %v", repaired, err)
	}
}
