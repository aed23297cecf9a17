// SPDX-License-Identifier: Apache-2.0

// Package logbook keeps the last warnings and errors of the log in memory, so
// that the looking glass can show them to somebody who has no access to the
// log files.
package logbook

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Size is the number of records kept, and the most that Records returns.
const Size = 100

// Record is one warning or error.
type Record struct {
	Level   slog.Level
	Time    time.Time
	Message string // with its attributes as key=value
	// Subjects are the values of the attributes "peer" and "instance".
	Subjects []string
}

// Book is a ring of records. Its methods may be called concurrently.
type Book struct {
	mu      sync.Mutex
	records []Record // oldest first
	total   uint64
}

// Records returns the records, newest first; those about a subject only, if it
// is not empty.
func (b *Book) Records(subject string) []Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Record
	for _, r := range slices.Backward(b.records) {
		if subject == "" || slices.Contains(r.Subjects, subject) {
			out = append(out, r)
		}
	}
	return out
}

// Len returns the number of records kept.
func (b *Book) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.records)
}

// Total returns the number of warnings and errors so far, kept or not.
func (b *Book) Total() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

func (b *Book) add(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total++
	if len(b.records) == Size {
		b.records = slices.Delete(b.records, 0, 1)
	}
	b.records = append(b.records, r)
}

// Handler returns a slog handler that enters warnings and errors in the book
// and hands everything on to next.
func (b *Book) Handler(next slog.Handler) slog.Handler { return handler{b, next, nil} }

type handler struct {
	book  *Book
	next  slog.Handler
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.book.add(h.record(r))
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h handler) record(r slog.Record) Record {
	rec := Record{Level: r.Level, Time: r.Time}
	text := []string{r.Message}
	note := func(a slog.Attr) bool {
		v := a.Value.Resolve().String()
		if a.Key == "peer" || a.Key == "instance" {
			rec.Subjects = append(rec.Subjects, v)
		}
		text = append(text, a.Key+"="+v)
		return true
	}
	for _, a := range h.attrs {
		note(a)
	}
	r.Attrs(note)
	rec.Message = strings.Join(text, " ")
	return rec
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.book, h.next.WithAttrs(attrs), append(slices.Clip(h.attrs), attrs...)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.book, h.next.WithGroup(name), h.attrs}
}
