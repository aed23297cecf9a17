// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// What comes and goes while the disk is full leaves nothing behind in memory, and trouble ends
// when no record is left that is not on disk.
func TestComingAndGoingOnFullDisk(t *testing.T) {
	nstest.RequireRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, _ := open(t, dir)
	s.Stage(put("kept", "1"), put("gone", "1"))(t.Context())
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 1<<20), 0o600)
	big := string(make([]byte, 100_000)) // no room for it
	s.Stage(put("big", big))(t.Context())
	unwritten := func(want int) {
		t.Helper()
		got := -1
		nstest.Eventually(t, 20*time.Second, func() bool {
			got, _ = s.Stats()
			return got == want
		}, func() string { return fmt.Sprintf("%d records are not written, want %d", got, want) })
	}
	unwritten(1)
	s.Stage(Change{Name: "big"})
	nstest.Eventually(t, 20*time.Second, func() bool {
		_, err := s.Trouble()
		return err == nil
	}, func() string { return "trouble with nothing left to write" })
	unwritten(0)
	s.Stage(put("big", big))(t.Context())
	unwritten(1)
	for i := range 500 {
		name := fmt.Sprint(i)
		s.Stage(put(name, "x"))
		s.Stage(Change{Name: name})
	}
	s.Stage(Change{Name: "gone"})
	unwritten(2) // "big", and the deletion of what is on disk
	if _, err := s.Trouble(); err == nil {
		t.Error("no trouble")
	}
	s.Stage(Change{Name: "big"})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	unwritten(0)
	if _, err := s.Trouble(); err != nil {
		t.Errorf("trouble stays: %v", err)
	}
	closeStore(t, s)
	s, _ = open(t, dir)
	if diff := cmp.Diff(map[string]string{"kept": "1"}, records(s)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	closeStore(t, s)
}
