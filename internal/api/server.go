// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bmp"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// Node is the daemon as the API sees it.
type Node struct {
	Manager    *vpn.Manager
	RIB        *rib.RIB
	Speaker    *speaker.Speaker
	Reconciler *dataplane.Reconciler
	// Monitoring returns the state of the BMP stations; nil: there are none.
	Monitoring func() []bmp.Status
	Settings   func() []config.Section // configuration in effect, for the looking glass; nil: none is shown
	Logs       *logbook.Book
	Log        *slog.Logger
	Version    string
	Started    time.Time
	// Ping is what /ping answers: agents attach all ports again when it changes.
	Ping uint64
	// Store keeps attachments over a restart; nil if nobody does.
	Store *store.Store
}

// Server is the HTTP side of a Node. Make it with New.
type Server struct {
	Node
	requests *prometheus.HistogramVec
	counting sync.Mutex // held while packet counters are read
	mux      *http.ServeMux
	limits   limits
	changes  places // of attach and detach
	operated places // of operations on peers
	pages    places // of the looking glass

	listeners []net.Listener
	tokens    *watched[[]digest] // nil: clients need none
}

// New returns a Server.
func New(n Node) (*Server, error) {
	s := &Server{Node: n, mux: http.NewServeMux()}
	s.setLimits(defaultLimits)
	registry := s.metrics()
	s.mux.HandleFunc("/{$}", only(s.index, http.MethodGet))
	s.mux.HandleFunc("/ping", only(s.answerPing, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete))
	s.mux.HandleFunc("/attach_localport", s.change(s.attach))
	s.mux.HandleFunc("/detach_localport", s.change(s.detach))
	s.mux.HandleFunc("/bgp/peers/{address}/{operation}", s.operate)
	s.mux.HandleFunc("/looking-glass", only(s.page, http.MethodGet))
	s.mux.HandleFunc("/looking-glass/", only(s.page, http.MethodGet))
	s.mux.HandleFunc("/healthz", only(s.healthy, http.MethodGet))
	s.mux.HandleFunc("/readyz", only(s.ready, http.MethodGet))
	s.mux.HandleFunc("/metrics", only(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP, http.MethodGet))
	s.mux.HandleFunc("/", noResource)
	return s, nil
}

func (s *Server) setLimits(l limits) {
	s.limits, s.changes, s.operated, s.pages = l, make(places, l.changes), make(places, l.operated), make(places, l.pages)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &statusRecorder{ResponseWriter: w, code: http.StatusOK, stall: s.limits.stall, reply: s.limits.reply}
	defer func() {
		p := recover()
		half := p != nil && rec.begun
		if p != nil {
			s.Log.Error("panic while serving a request", "path", r.URL.Path, "panic", p)
		}
		if p != nil && !half {
			writeError(rec, http.StatusInternalServerError, "internal error")
		}
		s.requests.WithLabelValues(resource(r.URL.Path), strconv.Itoa(rec.code)).Observe(time.Since(start).Seconds())
		if half {
			panic(http.ErrAbortHandler) // or the client takes half a reply for a whole one
		}
	}()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if !strings.HasPrefix(r.URL.Path, "/looking-glass") {
		if p := strings.TrimSuffix(strings.TrimSuffix(r.URL.Path, "/"), ".json"); p != "" {
			r.URL.Path, r.URL.RawPath = p, ""
		}
	}
	switch {
	case !s.admits(rec, r) || !s.permits(rec, r):
	case !strings.HasPrefix(r.URL.Path, "/"): // of CONNECT, or "*": nothing for a ServeMux
		noResource(rec, r)
	default:
		s.mux.ServeHTTP(rec, r)
	}
}

// admits turns a request away that came by one connection too many.
func (s *Server) admits(w http.ResponseWriter, r *http.Request) bool {
	if !crowded(r.Context()) {
		return true
	}
	w.Header().Set("Connection", "close")
	if probes[r.URL.Path] {
		return true
	}
	turnAway(w, "more than %d connections are open", s.limits.connections)
	return false
}

// resource is the path as a metric label with few values.
func resource(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "ping", "attach_localport", "detach_localport", "bgp", "looking-glass", "healthz", "readyz", "metrics":
		return "/" + first
	}
	return "other"
}

// statusRecorder notes the status of a reply, and gives its reader a bound of time.
type statusRecorder struct {
	http.ResponseWriter
	code  int
	begun bool
	stall time.Duration // for a part of the reply
	reply time.Duration // for all of it
	until time.Time     // when reply ends
}

// Unwrap is for http.ResponseController.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(code int) {
	r.code, r.begun = code, true
	r.extend()
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *statusRecorder) Write(b []byte) (written int, err error) {
	r.begun = true
	for chunk := range slices.Chunk(b, writeChunk) {
		r.extend()
		n, err := r.ResponseWriter.Write(chunk)
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// extend gives the reader time for one more part.
func (r *statusRecorder) extend() {
	now := time.Now()
	if r.until.IsZero() {
		r.until = now.Add(r.reply)
	}
	deadline := now.Add(r.stall)
	if deadline.After(r.until) {
		deadline = r.until
	}
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(deadline) // a recorder of a test has none
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	if err := encode(&b, v); err != nil {
		code = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"code":500,"title":"Internal Server Error","description":"cannot encode the reply"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

func writeError(w http.ResponseWriter, code int, description string) {
	writeJSON(w, code, object{{"code", code}, {"title", http.StatusText(code)}, {"description", description}})
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, object{}) }

func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, "ok") }

func (s *Server) answerPing(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Ping)
}

func noResource(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "no such resource: "+r.URL.Path)
}

// only answers 405 to other methods; HEAD goes with GET.
func only(f http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if allowed(w, r, methods...) {
			f(w, r)
		}
	}
}

// allowed answers 405 unless the request has one of the methods.
func allowed(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m || r.Method == http.MethodHead && m == http.MethodGet {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	writeError(w, http.StatusMethodNotAllowed, "")
	return false
}

// page serves the looking glass. Its place is kept until the reader has the page:
// that is in memory as long.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	if s.enter(w, r, s.pages) {
		defer s.pages.leave()
		s.lookingGlass(w, r)
	}
}

// change wraps a handler of attach or detach.
func (s *Server) change(f func(context.Context, *body) error) http.HandlerFunc {
	return only(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			writeJSON(w, http.StatusOK, object{})
			return
		}
		if b, ok := s.receive(w, r, "local port details", false); ok {
			s.carryOut(w, r, s.changes, func(ctx context.Context) error { return f(ctx, b) })
		}
	}, http.MethodGet, http.MethodPost)
}

// receive reads the body of a request, or answers that it cannot. No body at all
// is an empty object where it is optional.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, what string, optional bool) (*body, bool) {
	b, err := readBody(r.Body, what)
	if optional && errors.Is(err, io.EOF) {
		b, err = &body{}, nil
	}
	switch {
	case err == nil:
		// No reading any more: time to wait for a place does not end with it.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a recorder of a test has none
		return b, true
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		writeError(w, http.StatusRequestTimeout, fmt.Sprintf("API error: the request has not come whole in %s", s.limits.read))
	default:
		writeError(w, http.StatusBadRequest, "API error: "+err.Error())
	}
	return nil, false
}

// carryOut makes a change once there is a place, and answers. A client that goes
// away before leaves no trace; after, the change is carried out all the same.
func (s *Server) carryOut(w http.ResponseWriter, r *http.Request, p places, f func(context.Context) error) {
	if !s.enter(w, r, p) {
		return
	}
	err := func() error {
		defer p.leave()
		return f(context.WithoutCancel(r.Context()))
	}()
	s.answer(w, err)
}

// badRequest marks an error that the client can mend.
type badRequest struct{ error }

func (s *Server) answer(w http.ResponseWriter, err error) {
	var bad badRequest
	var refused *vpn.RequestError
	var state conflict
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, nil)
	case errors.As(err, &bad), errors.As(err, &refused):
		writeError(w, http.StatusBadRequest, "API error: "+err.Error())
	case errors.As(err, &state):
		writeError(w, http.StatusConflict, "API error: "+err.Error())
	default:
		s.Log.Warn("request failed", "err", err)
		writeError(w, http.StatusInternalServerError, err.Error())
	}
}

func (s *Server) attach(ctx context.Context, b *body) error {
	a, err := b.attachment()
	if err != nil {
		return badRequest{err}
	}
	return s.Manager.Attach(ctx, a)
}

func (s *Server) detach(ctx context.Context, b *body) error {
	d, err := b.detachment()
	if err != nil {
		return badRequest{err}
	}
	return s.Manager.Detach(ctx, d)
}
