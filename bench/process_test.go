// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// process is a program under measurement. (`ip netns exec` becomes the program,
// so that its process id is ours to read.)
type process struct {
	b    *testing.B
	pid  int
	stop func()
}

// launch starts a program in a namespace, its output in a file of dir, and ends
// it by its id when the benchmark does.
func launch(b *testing.B, ns *nstest.NS, dir string, env []string, args ...string) *process {
	b.Helper()
	log, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := ns.Command(context.Background(), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p := &process{b: b, pid: cmd.Process.Pid}
	p.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b.Failed() {
			out, _ := os.ReadFile(log.Name())
			b.Logf("%s: %s", args[0], out[max(0, len(out)-2000):])
		}
	})
	b.Cleanup(p.stop)
	return p
}

// used returns the CPU time of all threads so far, user and system, and how long
// they waited for a core meanwhile. Threads that ended do not count; the programs
// here keep theirs.
func (p *process) used() (cpu, waited time.Duration) {
	p.b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	if err != nil || len(tasks) == 0 {
		p.b.Fatalf("process %d is gone", p.pid)
	}
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // ended just now
		}
		var c, w int64
		if _, err := fmt.Sscan(string(text), &c, &w); err != nil {
			p.b.Fatal(err)
		}
		cpu, waited = cpu+time.Duration(c), waited+time.Duration(w)
	}
	return cpu, waited
}

const (
	lookEvery  = 20 * time.Millisecond
	quietAfter = 600 * time.Millisecond
	// busyFor is the CPU or waiting time between two looks from which on a process
	// counts as busy.
	busyFor = 2 * time.Millisecond
)

// quiet waits until the process has had nothing to do for a while, and returns
// the CPU time it has used so far and when it was last busy.
func (p *process) quiet() (cpu time.Duration, busy time.Time) {
	p.b.Helper()
	busy = time.Now()
	last, lastWaited := p.used()
	for deadline := busy.Add(2 * time.Minute); time.Since(busy) < quietAfter; {
		time.Sleep(lookEvery)
		c, w := p.used()
		if c-last+w-lastWaited >= busyFor {
			busy = time.Now()
		}
		if last, lastWaited = c, w; busy.After(deadline) {
			p.b.Fatalf("process %d is busy after two minutes", p.pid)
		}
	}
	return last, busy
}

// memory reads a line of /proc/<pid>/status such as VmHWM, in MiB.
func memory(b *testing.B, pid int, line string) float64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), line+":"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("no " + line)
	return 0
}
