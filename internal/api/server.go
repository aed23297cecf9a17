// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
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

// maxBody bounds the body of a request, in octets.
const maxBody = 1 << 20

// A reader that takes less than writeChunk octets of a reply in stallLimit is cut
// off: what it keeps waiting is in memory.
const (
	writeChunk = 1 << 20
	stallLimit = 30 * time.Second
)

// Node is the daemon as the API sees it.
type Node struct {
	Manager    *vpn.Manager
	RIB        *rib.RIB
	Speaker    *speaker.Speaker
	Reconciler *dataplane.Reconciler
	// Monitoring returns the state of the BMP stations; nil: there are none.
	Monitoring func() []bmp.Status
	Settings   []config.Section // effective configuration, for the looking glass
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
	mux      *http.ServeMux
	stall    time.Duration // stallLimit
}

// New returns a Server.
func New(n Node) (*Server, error) {
	s := &Server{Node: n, mux: http.NewServeMux(), stall: stallLimit}
	registry := s.metrics()
	s.mux.HandleFunc("/{$}", s.index)
	s.mux.HandleFunc("/ping", s.answerPing)
	s.mux.HandleFunc("/attach_localport", s.change(s.attach))
	s.mux.HandleFunc("/detach_localport", s.change(s.detach))
	s.mux.HandleFunc("/bgp/peers/{address}/{operation}", s.operate)
	s.mux.HandleFunc("/looking-glass", s.lookingGlass)
	s.mux.HandleFunc("/looking-glass/", s.lookingGlass)
	s.mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, "ok") })
	s.mux.HandleFunc("/readyz", s.ready)
	s.mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no such resource: "+r.URL.Path)
	})
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &statusRecorder{ResponseWriter: w, code: http.StatusOK, stall: s.stall}
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("panic while serving a request", "path", r.URL.Path, "panic", p)
			writeError(rec, http.StatusInternalServerError, "internal error")
		}
		s.requests.WithLabelValues(resource(r.URL.Path), strconv.Itoa(rec.code)).Observe(time.Since(start).Seconds())
	}()
	r.Body = http.MaxBytesReader(rec, r.Body, maxBody)
	if !strings.HasPrefix(r.URL.Path, "/looking-glass") {
		if p := strings.TrimSuffix(strings.TrimSuffix(r.URL.Path, "/"), ".json"); p != "" {
			r.URL.Path, r.URL.RawPath = p, ""
		}
	}
	s.mux.ServeHTTP(rec, r)
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

type statusRecorder struct {
	http.ResponseWriter
	code  int
	stall time.Duration
}

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *statusRecorder) Write(b []byte) (written int, err error) {
	control := http.NewResponseController(r.ResponseWriter)
	for chunk := range slices.Chunk(b, writeChunk) {
		_ = control.SetWriteDeadline(time.Now().Add(r.stall)) // a recorder of a test has none
		n, err := r.ResponseWriter.Write(chunk)
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// Serve answers requests on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(grace)
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
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

func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	if allowed(w, r, http.MethodGet) {
		writeJSON(w, http.StatusOK, object{})
	}
}

func (s *Server) answerPing(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Ping)
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

// change wraps a handler of attach or detach.
func (s *Server) change(f func(context.Context, *body) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r, http.MethodGet, http.MethodPost) {
			return
		}
		if r.Method != http.MethodPost {
			writeJSON(w, http.StatusOK, object{})
			return
		}
		b, err := readBody(r.Body, "local port details")
		if err != nil {
			writeError(w, http.StatusBadRequest, "API error: "+err.Error())
			return
		}
		// The change is carried out even if the client goes away.
		s.answer(w, f(context.WithoutCancel(r.Context()), b))
	}
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
