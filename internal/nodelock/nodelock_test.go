// SPDX-License-Identifier: Apache-2.0

package nodelock

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// There is one lock per network namespace, and who comes second is told who was first.
func TestOnePerNamespace(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t, "lka"), nstest.New(t, "lkb")
	take := func(ns *nstest.NS) (l *Lock, err error) {
		ns.Do(func() { l, err = Take() })
		return l, err
	}
	first, err := take(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := take(b)
	if err != nil {
		t.Fatalf("in another namespace: %v", err)
	}
	for range 3 {
		_, err = take(a)
		if want := fmt.Sprintf("process %d of user %d (", os.Getpid(), os.Getuid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("second lock: error %v, want one with %q", err, want)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := take(a)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	for _, l := range []*Lock{again, other} {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
