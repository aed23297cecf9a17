// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// writerVariable names the directory that a process of TestKilled writes to.
const writerVariable = "STORE_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVariable); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string) (s *Store, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	s, err := Open(dir, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func records(s *Store) map[string]string {
	out := map[string]string{}
	for name, value := range s.All() {
		out[name] = string(value)
	}
	return out
}

func put(name, value string) Change { return Change{name, []byte(value)} }

func TestRecordsOutliveTheStore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "state")
	s, _ := open(t, dir)
	if s.Kept() || len(records(s)) > 0 {
		t.Errorf("a new store has kept %v, %v", s.Kept(), records(s))
	}
	s.Stage(put("a", "1"), put("b", "2"))(t.Context())
	if got := records(s); !maps.Equal(got, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("on disk after the wait: %v", got)
	}
	s.Stage(put("a", "3"))
	s.Stage(Change{Name: "b"}, put("c", ""))
	closeStore(t, s) // writes it
	want := map[string]string{"a": "3", "c": ""}
	for range 2 {
		s, _ = open(t, dir)
		if got := records(s); !s.Kept() || !maps.Equal(got, want) {
			t.Errorf("opened again: kept %v, %v; want %v", s.Kept(), got, want)
		}
		if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("opened twice: %v", err)
		}
		closeStore(t, s)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "file"), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("in a directory that is a file: %v", err)
	}
}

func TestManyWriteTogether(t *testing.T) {
	t.Parallel()
	s, _ := open(t, t.TempDir())
	const writers, each = 16, 200
	done := make(chan struct{})
	for w := range writers {
		go func() {
			for n := range each {
				s.Stage(put(fmt.Sprint(w), fmt.Sprint(n)))(context.Background())
			}
			done <- struct{}{}
		}()
	}
	for range writers {
		<-done
	}
	for name, value := range records(s) {
		if value != fmt.Sprint(each-1) {
			t.Errorf("record %s is %s", name, value)
		}
	}
	closeStore(t, s)
	if s.staged > writers*each {
		t.Errorf("%d transactions for %d changes", s.staged, writers*each)
	}
}

// sample is a store with records, closed.
func sample(t testing.TB) (file []byte, want map[string]string) {
	t.Helper()
	dir := t.TempDir()
	s, _ := open(t, dir)
	want = map[string]string{}
	for i := range 200 {
		name, value := fmt.Sprintf("record %03d", i), strings.Repeat(fmt.Sprint(i), 30)
		want[name] = value
		s.Stage(put(name, value))
	}
	closeStore(t, s)
	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return file, want
}

// Whatever has become of the file, the store opens, has no record that is wrong, and takes
// new ones. It says that not all was kept unless all are there.
func TestDamage(t *testing.T) {
	t.Parallel()
	file, want := sample(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	damaged := map[string][]byte{"empty": {}, "text": []byte("state"), "zeros": make([]byte, len(file)), "one page": file[:4096]}
	for i := range 60 {
		b := bytes.Clone(file)
		at := rnd.IntN(len(b))
		switch i % 3 {
		case 0:
			b[at] ^= 1 << rnd.IntN(8)
		case 1:
			clear(b[at:min(len(b), at+rnd.IntN(8192))])
		case 2:
			b = b[:at]
		}
		damaged[fmt.Sprintf("%d at %d", i%3, at)] = b
	}
	for name, b := range damaged {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, log := open(t, dir)
			got := records(s)
			for name, value := range got {
				if want[name] != value {
					t.Errorf("record %q is %q", name, value)
				}
			}
			if all := len(got) == len(want); s.Kept() && !all {
				t.Errorf("kept, with %d of %d records", len(got), len(want))
			}
			if !s.Kept() && !strings.Contains(log.String(), "moved aside") && len(b) > 0 {
				t.Errorf("nothing is said in the log: %s", log)
			}
			s.Stage(put("new", "one"))(t.Context())
			closeStore(t, s)
			s, _ = open(t, dir)
			if after := records(s); !s.Kept() || after["new"] != "one" || len(after) != len(got)+1 {
				t.Errorf("afterwards: kept %v, %d records", s.Kept(), len(after))
			}
			closeStore(t, s)
		})
	}
}

func TestAnotherFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Stage(put("a", "1"))(t.Context())
	if err := s.setFormat("2"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s, log := open(t, dir)
	if got := records(s); s.Kept() || len(got) > 0 || !strings.Contains(log.String(), `\"2\", want \"1\"`) {
		t.Errorf("kept %v, %v; log %s", s.Kept(), got, log)
	}
	closeStore(t, s)
	list, err := filepath.Glob(filepath.Join(dir, fileName+".damaged*"))
	if err != nil || len(list) != 1 {
		t.Errorf("moved aside: %v, %v", list, err)
	}
}

// write stages records 0, 1, 2, ... with the same value each, two at a time, and says which are on disk.
func write(dir string) error {
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		value := fmt.Sprint(n)
		s.Stage(put("first", value), put("second", value), put(value, strings.Repeat("x", 1000)))(context.Background())
		fmt.Println(n)
	}
}

// A process that is killed leaves what it was told is on disk, and each call whole.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 10 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		last := ""
		for n := 0; n < 20+30*round && lines.Scan(); n++ {
			last = lines.Text()
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		for lines.Scan() {
			last = lines.Text()
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		s, log := open(t, dir)
		got := records(s)
		var said, first int
		_, _ = fmt.Sscan(last, &said)
		_, _ = fmt.Sscan(got["first"], &first)
		if !s.Kept() || first < said || got["first"] != got["second"] || got[got["first"]] == "" {
			t.Errorf("said %s; has %q, %q, kept %v; log %s", last, got["first"], got["second"], s.Kept(), log)
		}
		closeStore(t, s)
	}
}

// On a full disk nothing is lost that fits later.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("must be root to mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, _ := open(t, dir)
	s.Stage(put("before", "1"))(t.Context())
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	_ = f.Close()
	want := map[string]string{"before": "2"}
	s.Stage(put("before", "2"))(t.Context())
	for i := range 100 {
		name, value := fmt.Sprint(i), strings.Repeat("x", 4000)
		want[name] = value
		s.Stage(put(name, value))(t.Context())
	}
	if since, err := s.Trouble(); err == nil || since.IsZero() {
		t.Fatal("no trouble on a full disk")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := s.Trouble(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("trouble stays: %v", err)
		}
	}
	closeStore(t, s)
	s, _ = open(t, dir)
	if diff := cmp.Diff(want, records(s)); !s.Kept() || diff != "" {
		t.Errorf("kept %v; (-want +got):\n%.2000s", s.Kept(), diff)
	}
	closeStore(t, s)
}

// BenchmarkStage measures changes of 600 octets, each waited for, by one and by 100 at a time.
func BenchmarkStage(b *testing.B) {
	value := bytes.Repeat([]byte("x"), 600)
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d-at-a-time", n), func(b *testing.B) {
			s, _ := open(b, b.TempDir())
			b.SetParallelism(max(1, n/2))
			if n == 1 {
				for i := 0; b.Loop(); i++ {
					s.Stage(Change{fmt.Sprint(i % 10000), value})(context.Background())
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for i := rand.IntN(10000); pb.Next(); i++ {
						s.Stage(Change{fmt.Sprint(i % 10000), value})(context.Background())
					}
				})
			}
			closeStore(b, s)
		})
	}
}
