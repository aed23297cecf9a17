// SPDX-License-Identifier: Apache-2.0

package losstable

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(file, []byte("text\n<!-- begin one -->\n<!-- end one -->\nmore\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var both, first Table
	for _, r := range []Row{
		{Fault: "SIGKILL", Dataplane: "ebpf", Reflector: "FRR", Within: Cell{Sent: 10}, To: Cell{Sent: 8, Lost: 2, Longest: 12345678}},
		{Fault: "SIGTERM", Dataplane: "ebpf", Reflector: "FRR", Within: Cell{Sent: 9}.Add(Cell{Sent: 2, Lost: 1, Longest: time.Second})},
	} {
		if err := both.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.AddLine(both.Lines()[0]); err != nil {
		t.Fatal(err)
	}
	if first.AddLine(both.Lines()[0]) == nil {
		t.Error("a row twice is taken")
	}
	fails := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	fails(both.Check(file, "other", false), "no table")
	fails(both.Check(file, "one", false), `no row "| SIGKILL | ebpf | FRR"`)
	if err := both.Update(file, "one", true); err != nil {
		t.Fatal(err)
	}
	want := "text\n<!-- begin one -->\n" + header + "| SIGKILL | ebpf | FRR | 0 of 10 | - | 2 of 8, at most 12ms on end |\n" +
		"| SIGTERM | ebpf | FRR | 1 of 11, at most 1s on end | - | - |\n<!-- end one -->\nmore\n"
	if got, _ := os.ReadFile(file); string(got) != want {
		t.Errorf("document:\n%s\nwant:\n%s", got, want)
	}
	if err := both.Check(file, "one", true); err != nil {
		t.Error(err)
	}
	if err := first.Check(file, "one", false); err != nil {
		t.Error(err)
	}
	fails(first.Check(file, "one", true), `"| SIGTERM | ebpf | FRR" that no test made`)
	if err := first.Update(file, "one", false); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != want {
		t.Errorf("document after a part was updated:\n%s\nwant:\n%s", got, want)
	}
	if err := first.Update(file, "one", true); err != nil {
		t.Fatal(err)
	}
	fails(both.Check(file, "one", false), `no row "| SIGTERM`)
}
