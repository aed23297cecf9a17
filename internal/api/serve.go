// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

// Listen opens the port, and the unix socket if there is to be one, and reads
// the files that say who may use the port. It is called once.
func (s *Server) Listen(a config.API) (err error) {
	if a.TokenFile != "" {
		if s.tokens, err = watch(s.Log, func() ([]digest, error) { return readTokens(a.TokenFile) }, a.TokenFile); err != nil {
			return err
		}
	}
	var secure *tls.Config
	if a.TLSCertificate != "" {
		if secure, err = tlsConfig(a, s.Log); err != nil {
			return err
		}
	}
	port, err := net.Listen("tcp", a.Addr())
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	s.listen(port, secure)
	if a.UnixSocket == "" {
		return nil
	}
	l, err := listenUnix(a.UnixSocket)
	if err != nil {
		s.Close()
		return err
	}
	s.listen(l, nil)
	return nil
}

// listen adds a listener; with secure, it takes TLS.
func (s *Server) listen(l net.Listener, secure *tls.Config) {
	l = newBounded(l, s.limits.connections, s.limits.spare)
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	s.listeners = append(s.listeners, l)
}

// Addr returns the address of the port, after Listen.
func (s *Server) Addr() net.Addr { return s.listeners[0].Addr() }

// Close closes what Listen opened, for a server that does not come to Serve.
func (s *Server) Close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// Serve answers requests, after Listen, until ctx ends or a listener fails. What
// has been begun of attach and detach is finished when it returns.
func (s *Server) Serve(ctx context.Context) error {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: s.limits.header, ReadTimeout: s.limits.read, IdleTimeout: s.limits.idle,
		MaxHeaderBytes: s.limits.headerOctets, ConnContext: noteCrowded, Protocols: &http1,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the API at %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		s.shutdown(srv)
		return nil
	})
	return g.Wait()
}

// shutdown lets requests end for a while, closes what is left, and waits for the
// changes in progress.
func (s *Server) shutdown(srv *http.Server) {
	grace, cancel := context.WithTimeout(context.Background(), s.limits.stop)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	s.changes.close()
}
