// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// runID is in the name of everything that this run makes. No other run has it,
// nor is it the beginning of another one's.
var runID = fmt.Sprintf("e2e%d-", os.Getpid())

// programs is the directory of the programs under test, which are built there unless
// BAGPIPE_TEST_PROGRAMS names one that has them.
var programs string

// program returns the path of a program under test.
func program(name string) string { return filepath.Join(programs, name) }

// The main thread is kept for the main goroutine, so that no code that enters
// a namespace runs on it: it would count this process as one inside for ever.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if programs = os.Getenv("BAGPIPE_TEST_PROGRAMS"); programs == "" {
		var err error
		if programs, err = os.MkdirTemp("", runID); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(programs) }()
		build := exec.Command("go", "build", "-o", programs+"/", "./cmd/bagpipe", "./cmd/bagpipe-bgp")
		build.Dir = filepath.Join("..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", strings.Join(build.Args, " "), err, out)
			return 1
		}
	}
	code := m.Run()
	if code == 0 {
		if err := finishLosses(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	files, processes := leftovers()
	for _, f := range files {
		fmt.Fprintln(os.Stderr, "left behind:", f)
		removeFile(f)
		code = max(code, 1)
	}
	for pid, cmdline := range processes {
		fmt.Fprintf(os.Stderr, "left behind: process %d: %s\n", pid, cmdline)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		code = max(code, 1)
	}
	return code
}

// leftovers lists what the tests have not taken away, after the moment that
// the kernel may take to forget a process.
func leftovers() (files []string, processes map[int]string) {
	deadline := time.Now().Add(5 * time.Second)
	for {
		files, processes = filesLeft("/run", 3), processesLeft()
		if len(files)+len(processes) == 0 || time.Now().After(deadline) {
			return files, processes
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// removeFile removes a file of this run, or a namespace.
func removeFile(path string) {
	if filepath.Dir(path) == "/run/netns" {
		_ = netspace.Delete(filepath.Base(path))
		return
	}
	_ = os.RemoveAll(path)
}

// filesLeft lists files of this run, namespaces among them, down to a depth.
func filesLeft(root string, depth int) (left []string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or not ours to read
		}
		if strings.Contains(d.Name(), runID) {
			left = append(left, path)
		}
		if d.IsDir() && strings.Count(path, "/") >= depth {
			return fs.SkipDir
		}
		return nil
	})
	return left
}

// processesLeft lists processes that run a program of ours, and our children.
func processesLeft() map[int]string {
	left := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		text := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if strings.Contains(text, runID) || parentOf(pid) == os.Getpid() {
			left[pid] = text
		}
	}
	return left
}

// parentOf returns the parent of a process, 0 when it is gone.
func parentOf(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name before may hold blanks and parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
