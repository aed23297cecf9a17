// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

const (
	maxTokenFile = 64 << 10 // octets
	minToken     = 16       // octets; 128 bits of hexadecimal digits are 32
)

// tokenForm is that of bearer tokens (RFC 6750 §2.1).
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// digest is what is kept of a token: digests of equal length are compared in a
// time that tells nothing about the token.
type digest [sha256.Size]byte

// readTokens reads a file with one bearer token a line. Errors do not show tokens.
func readTokens(path string) ([]digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("API.token_file: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return nil, fmt.Errorf("API.token_file: %w", err)
	}
	if len(text) > maxTokenFile {
		return nil, fmt.Errorf("API.token_file: %s is larger than %d octets", path, maxTokenFile)
	}
	var tokens []digest
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case len(line) < minToken || !tokenForm.MatchString(line):
			return nil, fmt.Errorf("API.token_file: %s:%d: not a token: want at least %d letters, digits and ._~+/-, then perhaps =",
				path, n+1, minToken)
		default:
			tokens = append(tokens, sha256.Sum256([]byte(line)))
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("API.token_file: %s has no token: want one a line", path)
	}
	return tokens, nil
}

// open are the paths that need no token: they tell no more than that the
// daemon runs, and that it has been started again.
var open = map[string]bool{"/ping": true, "/healthz": true}

// permits answers 401 unless the request has one of the tokens, where one is
// needed (RFC 6750 §2.1, §3).
func (s *Server) permits(w http.ResponseWriter, r *http.Request) bool {
	if s.tokens == nil || open[r.URL.Path] || throughSocket(r) || hasToken(r, s.tokens.get()) {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="bagpipe-bgp"`)
	writeError(w, http.StatusUnauthorized, "want the header Authorization: Bearer, with a token of the node's API.token_file")
	return false
}

// throughSocket tells whether a request came by the unix socket, whose mode says
// who may.
func throughSocket(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix"
}

func hasToken(r *http.Request, tokens []digest) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sent, found := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for _, t := range tokens {
		found |= subtle.ConstantTimeCompare(sent[:], t[:])
	}
	return found == 1
}

// readTLS reads the files of TLS. Connections are made anew each time: session
// tickets would outlive a certificate that was taken away.
func readTLS(a config.API) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(a.TLSCertificate, a.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("API.tls_certificate %s and API.tls_key %s: %w", a.TLSCertificate, a.TLSKey, err)
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
	}
	if a.TLSClientCA == "" {
		return c, nil
	}
	text, err := os.ReadFile(a.TLSClientCA)
	if err != nil {
		return nil, fmt.Errorf("API.tls_client_ca: %w", err)
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("API.tls_client_ca: %s has no certificate: want PEM", a.TLSClientCA)
	}
	return c, nil
}

// tlsConfig returns a configuration that follows its files.
func tlsConfig(a config.API, log *slog.Logger) (*tls.Config, error) {
	files := []string{a.TLSCertificate, a.TLSKey}
	if a.TLSClientCA != "" {
		files = append(files, a.TLSClientCA)
	}
	current, err := watch(log, func() (*tls.Config, error) { return readTLS(a) }, files...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.get(), nil },
	}, nil
}
