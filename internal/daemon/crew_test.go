// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
)

// obedient is a part that ends with its context.
func obedient(ctx context.Context) error { <-ctx.Done(); return nil }

func TestCrewEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrew(ctx, time.Minute, slog.New(slog.DiscardHandler))
		working := true
		c.start("one", func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); working = false; return nil })
		c.start("two", obedient)
		time.AfterFunc(time.Hour, cancel)
		if err := c.wait("last", func() error {
			if working {
				t.Error("the last part runs before the others have ended")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestCrewEndsWhenAPartFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t.Context(), time.Minute, slog.New(slog.DiscardHandler))
		bad := errors.New("no socket")
		c.start("one", obedient)
		c.start("two", func(context.Context) error { time.Sleep(time.Second); return bad })
		c.start("three", func(ctx context.Context) error { <-ctx.Done(); return errors.New("later") })
		if err := c.wait("last", func() error { return nil }); !errors.Is(err, bad) || strings.Contains(err.Error(), "later") {
			t.Errorf("got %v, want the first error", err)
		}
	})
}

// A part that hangs is given up after the limit, counted from the stop, and named.
func TestCrewGivesUpWhatHangs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hangs, want string }{{"API", "API"}, {"", "dataplane drivers"}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			book, release := &logbook.Book{}, make(chan struct{})
			c := newCrew(ctx, StopLimit, slog.New(book.Handler(slog.DiscardHandler)))
			hang := func() error { <-release; return nil }
			c.start("BGP speaker", obedient)
			last := hang
			if tt.hangs != "" {
				c.start(tt.hangs, func(context.Context) error { return hang() })
				last = func() error { return nil }
			}
			time.AfterFunc(time.Hour, cancel)
			begin := time.Now()
			err := c.wait("dataplane drivers", last)
			if took := time.Since(begin); took != time.Hour+StopLimit {
				t.Errorf("took %v", took)
			}
			if err == nil || !strings.HasSuffix(err.Error(), ": "+tt.want) {
				t.Errorf("got %v, want an error that names %q only", err, tt.want)
			}
			records := book.Records("")
			if len(records) != 1 || !strings.Contains(records[0].Message, "crew_test.go") {
				t.Errorf("log %v, want one record with what the goroutines do", records)
			}
			close(release)
			synctest.Wait()
		})
	}
}
