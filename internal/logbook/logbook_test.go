// SPDX-License-Identifier: Apache-2.0

package logbook_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
)

func newLog(level slog.Level) (*slog.Logger, *logbook.Book, *bytes.Buffer) {
	book, out := &logbook.Book{}, &bytes.Buffer{}
	next := slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return slog.New(book.Handler(next)), book, out
}

// messages lists level and message of the records about a subject.
func messages(b *logbook.Book, subject string) []string {
	out := []string{}
	for _, r := range b.Records(subject) {
		out = append(out, r.Level.String()+" "+r.Message)
	}
	return out
}

func want(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestWarningsAreKeptNewestFirst(t *testing.T) {
	t.Parallel()
	log, book, out := newLog(slog.LevelInfo)
	log.Debug("a")
	log.Info("b")
	log.Warn("c", "err", errors.New("broken"), "n", 5)
	log.Error("d")
	want(t, "records", []string{"ERROR d", "WARN c err=broken n=5"}, messages(book, ""))
	if got := book.Len(); got != 2 {
		t.Errorf("Len() = %d, want 2", got)
	}
	if diff := cmp.Diff("level=INFO msg=b\nlevel=WARN msg=c err=broken n=5\nlevel=ERROR msg=d\n", out.String()); diff != "" {
		t.Errorf("handed on (-want +got):\n%s", diff)
	}
	if book.Records("")[0].Time.IsZero() {
		t.Error("record without time")
	}
}

// A log that shows errors only still keeps warnings for the looking glass.
func TestWarningsAreKeptWhateverTheLevel(t *testing.T) {
	t.Parallel()
	log, book, out := newLog(slog.LevelError)
	log.Warn("c")
	want(t, "records", []string{"WARN c"}, messages(book, ""))
	if out.Len() != 0 {
		t.Errorf("handed on: %s", out)
	}
}

func TestRecordsAboutASubject(t *testing.T) {
	t.Parallel()
	log, book, _ := newLog(slog.LevelInfo)
	log.Warn("session", "peer", "192.0.2.1")
	log.With("instance", "red").Warn("forwarding", "peer", fmt.Stringer(stringer("192.0.2.2")))
	log.Warn("text", "name", "red")
	want(t, "peer", []string{"WARN session peer=192.0.2.1"}, messages(book, "192.0.2.1"))
	want(t, "value that is a Stringer", []string{"WARN forwarding instance=red peer=192.0.2.2"}, messages(book, "192.0.2.2"))
	want(t, "instance", []string{"WARN forwarding instance=red peer=192.0.2.2"}, messages(book, "red"))
	want(t, "nobody", []string{}, messages(book, "blue"))
}

type stringer string

func (s stringer) String() string { return string(s) }

// Loggers made of one another do not share their attributes.
func TestAttributesOfDerivedLoggers(t *testing.T) {
	t.Parallel()
	log, book, _ := newLog(slog.LevelInfo)
	base := log.With("a", 1)
	left, right := base.With("b", 2), base.With("c", 3)
	left.Warn("left")
	right.WithGroup("g").Warn("right", "d", 4)
	want(t, "records", []string{"WARN right a=1 c=3 d=4", "WARN left a=1 b=2"}, messages(book, ""))
}

func TestOldRecordsGo(t *testing.T) {
	t.Parallel()
	log, book, _ := newLog(slog.LevelInfo)
	for i := range logbook.Size + 5 {
		log.Warn(fmt.Sprint(i))
	}
	got := messages(book, "")
	if len(got) != logbook.Size || got[0] != "WARN 104" || got[logbook.Size-1] != "WARN 5" {
		t.Errorf("%d records from %q to %q, want 100 from 104 to 5", len(got), got[0], got[len(got)-1])
	}
}

func TestManyWritersAtOnce(t *testing.T) {
	t.Parallel()
	log, book, _ := newLog(slog.LevelInfo)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				log.Warn("x", "peer", "192.0.2.1")
				book.Records("192.0.2.1")
			}
		})
	}
	wg.Wait()
	if got := strings.Count(strings.Join(messages(book, ""), "\n"), "x peer"); got != logbook.Size {
		t.Errorf("%d whole records, want %d", got, logbook.Size)
	}
}
