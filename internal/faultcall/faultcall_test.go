// SPDX-License-Identifier: Apache-2.0

package faultcall_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const (
	writeArg = "faultcall-write"
	each     = 50
)

func TestMain(m *testing.M) {
	faultcall.Exec()
	if len(os.Args) == 4 && os.Args[1] == writeArg {
		threads, _ := strconv.Atoi(os.Args[3])
		if err := write(os.Args[2], threads); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// write appends one octet at a time from several threads.
func write(path string, threads int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	errs := make(chan error, threads)
	var at atomic.Int64
	for range threads {
		go func() {
			for range each {
				if _, err := f.WriteAt([]byte("x"), at.Add(1)-1); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range threads {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// supervised runs a command and returns its output and what it was seen to do.
func supervised(t *testing.T, decide func(n int, c faultcall.Call) faultcall.Verdict, prefix []string, args ...string) (out string, seen []faultcall.Call, err error) {
	t.Helper()
	nstest.RequireRoot(t)
	var mu sync.Mutex
	s := faultcall.New(t, func(c faultcall.Call) faultcall.Verdict {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c)
		return decide(len(seen), c)
	})
	args = append(prefix, s.Command(args...)...)
	b, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	mu.Lock()
	defer mu.Unlock()
	return string(b), seen, err
}

// count returns how many calls have a name.
func count(seen []faultcall.Call, name string) (n int) {
	for _, c := range seen {
		if c.Name == name {
			n++
		}
	}
	return n
}

// Each call is seen once, and before it is made.
func TestFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		at      int // number of the pwrite64 call, from 1; 0 for none
		verdict faultcall.Verdict
		out     string
		killed  bool
		threads int
		size    int64 // of the file
	}{
		{name: "pass", threads: 8, size: 8 * each},
		{name: "fail", at: 7, threads: 1, verdict: faultcall.Fail(unix.ENOSPC), out: "no space left on device", size: 6},
		{name: "kill", at: 7, threads: 1, verdict: faultcall.Kill, killed: true, size: 6},
		{name: "kill at the first", at: 1, threads: 8, verdict: faultcall.Kill, killed: true, size: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			writes := 0
			out, seen, err := supervised(t, func(_ int, c faultcall.Call) faultcall.Verdict {
				if c.Name == "pwrite64" {
					if c.Class != faultcall.File || c.Path != path {
						t.Errorf("call %+v, want class File and path %s", c, path)
					}
					if writes++; writes == tt.at {
						return tt.verdict
					}
				}
				return faultcall.Pass
			}, nil, os.Args[0], writeArg, path, strconv.Itoa(tt.threads))
			if !strings.Contains(out, tt.out) || (err != nil) != (tt.out != "" || tt.killed) {
				t.Errorf("ended with %v: %s", err, out)
			}
			if status := new(exec.ExitError); tt.killed && (!asExit(err, &status) || status.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
				t.Errorf("ended with %v, want killed", err)
			}
			if want := int(tt.size); !tt.killed && tt.at == 0 && writes != want {
				t.Errorf("%d calls were decided, want %d", writes, want)
			}
			if tt.killed && writes != tt.at {
				t.Errorf("%d calls were decided, want none after number %d", writes, tt.at)
			}
			if made := (faultcall.Call{Name: "openat", Class: faultcall.File, Path: path}); count(seen, "openat") == 0 || !contains(seen, made) {
				t.Errorf("%v not seen", made)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() != tt.size {
				t.Errorf("file has %d octets, want %d", info.Size(), tt.size)
			}
		})
	}
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

func contains(seen []faultcall.Call, c faultcall.Call) bool {
	for _, s := range seen {
		if s == c {
			return true
		}
	}
	return false
}

// What is sent to the kernel is told apart from questions.
func TestNetlink(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "faultcall")
	in := []string{"ip", "netns", "exec", ns.Name}
	for _, tt := range []struct {
		name    string
		args    string
		changes int // one is empty, by which ip(8) asks what the kernel can do
		verdict faultcall.Verdict
		out     string
	}{
		{name: "fail", args: "link add d0 type veth peer name d1", changes: 1, verdict: faultcall.Fail(unix.ENOBUFS), out: "No buffer space available"},
		{name: "pass", args: "link add d0 type veth peer name d1", changes: 2},
		{name: "question", args: "link show d0", changes: 1, out: "d0"}, // and it is there
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes, questions := 0, 0
			out, seen, err := supervised(t, func(_ int, c faultcall.Call) faultcall.Verdict {
				switch {
				case c.Class != faultcall.Netlink:
					return faultcall.Pass
				case !c.Change:
					questions++
					return faultcall.Pass
				}
				changes++
				return tt.verdict
			}, in, append([]string{"/sbin/ip"}, strings.Fields(tt.args)...)...)
			if !strings.Contains(out, tt.out) || (err != nil) != (tt.verdict != faultcall.Pass) {
				t.Errorf("ended with %v: %s", err, out)
			}
			if changes != tt.changes || (questions > 0) != (tt.name == "question") {
				t.Errorf("%d changes and %d questions seen: %v", changes, questions, seen)
			}
		})
	}
}

// A program that cannot be run says so.
func TestNoProgram(t *testing.T) {
	t.Parallel()
	out, _, err := supervised(t, func(int, faultcall.Call) faultcall.Verdict { return faultcall.Pass }, nil, "/nonexistent")
	if err == nil || !strings.Contains(out, "no such file") {
		t.Errorf("ended with %v: %s", err, out)
	}
}
