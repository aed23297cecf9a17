// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// scriptVariable names the directory that a process of TestCrashAtEveryCall and
// TestErrorAtEveryCall works in.
const scriptVariable = "STORE_TEST_SCRIPT"

func init() {
	faultcall.Exec()
	if dir := os.Getenv(scriptVariable); dir != "" {
		if err := script(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

const steps = 6

// step returns the changes of a step of the script; some are long, so that the file
// grows, and some delete.
func step(n int) []Change {
	list := []Change{put("step", fmt.Sprint(n)), put(fmt.Sprint("long ", n%3), strings.Repeat(fmt.Sprint(n), 20_000)), put(fmt.Sprint("short ", n), "")}
	if n >= 2 {
		list = append(list, Change{Name: fmt.Sprint("short ", n-2)})
	}
	return list
}

// after returns the records after the first n steps.
func after(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		for _, c := range step(i) {
			if all[c.Name] = string(c.Value); c.Value == nil {
				delete(all, c.Name)
			}
		}
	}
	return all
}

// script takes the steps one by one, and says which are on disk.
func script(dir string) error {
	retryAfter = 10 * time.Millisecond
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for n := range steps {
		s.Stage(step(n)...)(context.Background())
		if _, err := s.Trouble(); err == nil {
			fmt.Println("on disk:", n)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := s.Trouble(); err == nil {
			break
		}
	}
	return s.Close()
}

// runScript runs the script with a verdict at the n-th call that writes to the directory, and
// returns what it said, how many such calls were seen, and which was the last.
func runScript(t *testing.T, dir string, n int, verdict faultcall.Verdict) (out string, seen int, last faultcall.Call, err error) {
	t.Helper()
	calls := make(chan faultcall.Call, 1000)
	s := faultcall.New(t, func(c faultcall.Call) faultcall.Verdict {
		if c.Class != faultcall.File || !strings.HasPrefix(c.Path, dir) || seen == n {
			return faultcall.Pass
		}
		if seen++; seen < n {
			return faultcall.Pass
		}
		calls <- c
		return verdict
	})
	args := s.Command(os.Args[0])
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), scriptVariable+"="+dir, "GORACE=atexit_sleep_ms=0")
	b, err := cmd.CombinedOutput()
	s.Wait()
	select {
	case last = <-calls:
	default:
	}
	return string(b), seen, last, err
}

// memory returns a directory in memory, where no disk holds up hundreds of runs.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bpt-store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// atEveryCall calls f with an own directory and number for each call of the script that
// writes to its directory.
func atEveryCall(t *testing.T, verdict faultcall.Verdict, f func(t *testing.T, dir string, call faultcall.Call, out string, err error)) {
	t.Helper()
	nstest.RequireRoot(t)
	for n := 1; ; n++ {
		dir := filepath.Join(memory(t), "state")
		out, seen, call, err := runScript(t, dir, n, verdict)
		if seen < n {
			if want := fmt.Sprint("on disk: ", steps-1); err != nil || !strings.Contains(out, want) || n < 5*steps {
				t.Errorf("after %d calls without a fault: %v: %s", seen, err, out)
			}
			t.Logf("%d calls", seen)
			return
		}
		f(t, dir, call, out, err)
		if t.Failed() {
			t.Fatalf("at call %d: %v", n, call)
		}
	}
}

// reopen opens the store without faults and checks that it has the records after some step
// from the first to the last given, is not damaged, and takes new ones.
func reopen(t *testing.T, dir string, first, last int) {
	t.Helper()
	s, log := open(t, dir)
	got := records(s)
	found := false
	for n := first; n <= last; n++ {
		found = found || maps.Equal(got, after(n))
	}
	if !found || !s.Kept() && first > 0 {
		t.Errorf("kept %v; step %q and %d records, want those after step %d or %d", s.Kept(), got["step"], len(got), first, last)
	}
	s.Stage(put("new", "1"))(t.Context())
	closeStore(t, s)
	s, _ = open(t, dir)
	if now := records(s); !s.Kept() || now["new"] != "1" || len(now) != len(got)+1 {
		t.Errorf("a new record: kept %v, %d records, had %d", s.Kept(), len(now), len(got))
	}
	closeStore(t, s)
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 || log.Len() > 0 {
		t.Errorf("files %v, log %s", files, log)
	}
}

// A process that is killed before any of its writing calls leaves each step whole, and
// all that it was told are on disk.
func TestCrashAtEveryCall(t *testing.T) {
	t.Parallel()
	atEveryCall(t, faultcall.Kill, func(t *testing.T, dir string, _ faultcall.Call, out string, err error) {
		said := strings.Count(out, "on disk")
		if err == nil {
			t.Errorf("not killed: %s", out)
		}
		reopen(t, dir, said, said+1)
	})
}

// When any one call fails, the store either says so at its start, or gets all on disk in the end.
func TestErrorAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			atEveryCall(t, faultcall.Fail(errno), func(t *testing.T, dir string, _ faultcall.Call, out string, err error) {
				switch {
				case err == nil:
					reopen(t, dir, steps, steps)
				case strings.Contains(out, "on disk") || !strings.Contains(out, errno.Error()):
					t.Errorf("ended with %v: %s", err, out)
				default:
					reopen(t, dir, 0, 0)
				}
			})
		})
	}
}

// A start that cannot write leaves the state of the run before where it is.
func TestErrorAtStart(t *testing.T) {
	t.Parallel()
	nstest.RequireRoot(t)
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC} {
		dir := filepath.Join(memory(t), "state")
		if out, _, _, err := runScript(t, dir, 0, faultcall.Pass); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for n := 1; n <= 10; n++ {
			out, _, call, err := runScript(t, dir, n, faultcall.Fail(errno))
			if err != nil && (call.Name != "openat" || !strings.Contains(out, errno.Error())) {
				t.Errorf("%v at call %d, %v: ended with %v: %s", errno, n, call, err, out)
			}
		}
		reopen(t, dir, steps, steps)
	}
}
