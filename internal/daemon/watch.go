// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/sdnotify"
)

const (
	// statusEvery is the least time between two STATUS messages.
	statusEvery = time.Second
	// askEvery is the time between two looks at whether the parts answer, if the
	// service manager does not want to know more often.
	askEvery = 10 * time.Second
)

// part is something of the daemon that must answer to be alive.
type part struct {
	name string
	ask  func(context.Context) error
}

// parts lists what must answer.
func (d *Daemon) parts() []part {
	return []part{
		{"reconciler", d.reconciler.Answer},
		{"BGP speaker", d.askSpeaker},
		{"RIB", func(context.Context) error { d.routes.Counts(); return nil }},
		{"VPN manager", func(context.Context) error { d.manager.Instances(); return nil }},
		{"API", func(ctx context.Context) error { return probe(ctx, d.server) }},
	}
}

// askSpeaker asks the speaker, which begins when what was kept is there again.
func (d *Daemon) askSpeaker(ctx context.Context) error {
	if !d.restored.Load() {
		return nil
	}
	return d.speaker.Answer(ctx)
}

// probe asks a handler for its health, without a connection. The error tells that it
// has a fault of its own; that it does not know us is none.
func probe(ctx context.Context, h http.Handler) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/healthz", http.NoBody)
	if err != nil {
		return err
	}
	w := reply{header: http.Header{}, code: http.StatusOK}
	h.ServeHTTP(&w, r)
	if w.code >= http.StatusInternalServerError {
		return fmt.Errorf("%s answers %d", r.URL.Path, w.code)
	}
	return nil
}

// reply keeps the status of an answer.
type reply struct {
	header http.Header
	code   int
}

// Header implements http.ResponseWriter.
func (r *reply) Header() http.Header { return r.header }

// Write implements http.ResponseWriter.
func (r *reply) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader implements http.ResponseWriter.
func (r *reply) WriteHeader(code int) { r.code = code }

// watch asks the parts again and again. It tells the service manager that we are
// ready when all have answered for the first time, and each time that we are alive.
// A part that does not answer keeps it from that, so that the manager ends us.
type watch struct {
	parts    []part
	notifier *sdnotify.Notifier
	log      *slog.Logger
	every    time.Duration
}

func newWatch(parts []part, n *sdnotify.Notifier, log *slog.Logger) *watch {
	w := &watch{parts: parts, notifier: n, log: log, every: askEvery}
	if n.Watchdog > 0 {
		w.every = max(min(w.every, n.Watchdog/3), time.Millisecond)
	}
	return w
}

func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	ready := false
	for {
		if w.round(ctx) {
			w.alive(!ready)
			ready = true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// alive tells the service manager what it wants to know.
func (w *watch) alive(first bool) {
	var lines []string
	if first {
		lines = append(lines, "READY=1")
	}
	if w.notifier.Watchdog > 0 {
		lines = append(lines, "WATCHDOG=1")
	}
	if len(lines) > 0 {
		tell(w.log, w.notifier.Send(lines...))
	}
}

// tell logs that the service manager could not be told something.
func tell(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("service manager", "err", err)
	}
}

// answer is that of a part.
type answer struct {
	name string
	err  error
}

// round asks all parts, waits until they have answered, and logs which ones are
// late. It tells whether all have answered, and ctx has not ended.
func (w *watch) round(ctx context.Context) bool {
	answers, good := make(chan answer), true
	var waiting []string
	for _, p := range w.parts {
		waiting = append(waiting, p.name)
		go func() { answers <- answer{p.name, p.ask(ctx)} }()
	}
	late := time.NewTimer(w.every)
	defer late.Stop()
	for len(waiting) > 0 {
		select {
		case a := <-answers:
			waiting = slices.DeleteFunc(waiting, func(name string) bool { return name == a.name })
			if a.err != nil && ctx.Err() == nil {
				w.log.Error("part of the daemon is not alive", "part", a.name, "err", a.err)
				good = false
			}
		case <-late.C:
			w.log.Warn("part of the daemon does not answer", "parts", strings.Join(waiting, ", "), "for", w.every)
		}
	}
	return good && ctx.Err() == nil
}

// showStatus tells the service manager in words how the daemon does, when that has
// changed, until ctx ends.
func (d *Daemon) showStatus(ctx context.Context) {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for last := ""; ; {
		if now := d.status(); now != last {
			tell(d.log, d.Service.Notifier.Send("STATUS="+now))
			last = now
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// status says in a line how the daemon does.
func (d *Daemon) status() string {
	instances, endpoints := d.manager.Instances(), 0
	for _, i := range instances {
		endpoints += i.Endpoints()
	}
	return fmt.Sprintf("%d of %d BGP sessions established, %d VPN instances, %d endpoints",
		d.speaker.Established(), len(d.speaker.Neighbours()), len(instances), endpoints)
}
