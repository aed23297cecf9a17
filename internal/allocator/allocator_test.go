// SPDX-License-Identifier: Apache-2.0

package allocator

import (
	"testing"

	"pgregory.net/rapid"
)

func TestFreedNumbersAreUsedLastAndOldestFirst(t *testing.T) {
	t.Parallel()
	a := New("label", 16, 19)
	take := func(want uint32) {
		t.Helper()
		if got, err := a.Allocate("x"); err != nil || got != want {
			t.Fatalf("got %d, %v: want %d", got, err, want)
		}
	}
	take(16)
	take(17)
	a.Free(17)
	a.Free(16)
	take(18)
	take(19)
	take(17)
	take(16)
	if n, err := a.Allocate("x"); err == nil {
		t.Fatalf("got %d from a range that is used up", n)
	}
}

func TestReservedNumbersAreNotHandedOut(t *testing.T) {
	t.Parallel()
	a := New("VNI", 1, 3)
	if !a.Reserve(2, "forced") || a.Reserve(2, "again") || !a.Reserve(5000, "outside") {
		t.Fatal("reserve: want free, taken, free")
	}
	for _, want := range []uint32{1, 3} {
		if got, err := a.Allocate("x"); err != nil || got != want {
			t.Fatalf("got %d, %v: want %d", got, err, want)
		}
	}
	a.Free(2)
	if got, err := a.Allocate("x"); err != nil || got != 2 {
		t.Fatalf("got %d, %v: want 2, which is free again", got, err)
	}
}

func TestNoNumberIsHandedOutTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := New("number", 0, 20)
		held := map[uint32]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				n, err := a.Allocate("x")
				if err != nil && len(held) < 21 {
					t.Fatalf("%v with %d in use", err, len(held))
				}
				if err == nil && held[n] {
					t.Fatalf("%d handed out twice", n)
				}
				if err == nil {
					held[n] = true
				}
			},
			"reserve": func(t *rapid.T) {
				n := rapid.Uint32Range(0, 20).Draw(t, "n")
				if a.Reserve(n, "x") == held[n] {
					t.Fatalf("reserve %d disagrees", n)
				}
				held[n] = true
			},
			"free": func(t *rapid.T) {
				n := rapid.Uint32Range(0, 20).Draw(t, "n")
				a.Free(n)
				delete(held, n)
			},
		})
		if len(a.InUse()) != len(held) {
			t.Fatalf("%d in use: want %d", len(a.InUse()), len(held))
		}
	})
}
