// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sees returns a handler that answers with the header Authorization in quotes.
func sees() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `"`+r.Header.Get("Authorization")+`"`)
	})
}

func TestToken(t *testing.T) {
	t.Parallel()
	srv, other := httptest.NewServer(sees()), httptest.NewServer(sees())
	defer srv.Close()
	defer other.Close()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := New(WithBaseURL(srv.URL), WithToken(TokenFile(file)))
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) string {
		t.Helper()
		b, err := c.Get(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if _, err := c.Get(t.Context(), c.URL("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without file: %v, want that it does not exist", err)
	}
	write(" \n")
	if _, err := c.Get(t.Context(), c.URL("x")); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: %v", err)
	}
	write("\nfirst\r\nsecond\n")
	if got := get(c.URL("x")); got != `"Bearer first"` {
		t.Errorf("sent %s", got)
	}
	write("second")
	if got := get(c.URL("x")); got != `"Bearer second"` {
		t.Errorf("sent %s after the file changed", got)
	}
	if got := get(other.URL); got != `""` {
		t.Errorf("sent %s to another server", got)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(sees())
	defer srv.Close()
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	trust.RootCAs.AddCert(srv.Certificate())
	c, err := New(WithBaseURL(srv.URL), WithTLS(trust))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), c.URL("x")); err != nil {
		t.Errorf("authority that is trusted: %v", err)
	}
	if c, err = New(WithBaseURL(srv.URL)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), c.URL("x")); err == nil {
		t.Error("an unknown authority is trusted")
	}
	if _, err := New(WithTLS(trust)); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("TLS with http: %v, want an error", err)
	}
}
