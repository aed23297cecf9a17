// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

const (
	rightToken = "0123456789abcdef-right"
	otherToken = "0123456789abcdef-other"
)

// put writes a file anew, with a time of modification that is not now.
func put(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request with a header Authorization, "" for none.
func (s *server) ask(t *testing.T, c *http.Client, url, authorization string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

func TestToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	old := time.Now().Add(-time.Hour)
	put(t, file, rightToken+"\n\n"+otherToken+"==\n", old)
	s := newServer(t)
	s.serve(t, config.API{TokenFile: file})
	base := "http://" + s.Addr().String()
	for _, tt := range []struct {
		name, path, authorization string
		want                      int
	}{
		{"right", "/looking-glass", "Bearer " + rightToken, 200},
		{"scheme in any case", "/looking-glass", "bearer  " + rightToken, 200},
		{"second", "/looking-glass", "Bearer " + otherToken + "==", 200},
		{"absent", "/looking-glass", "", 401},
		{"wrong", "/looking-glass", "Bearer " + otherToken, 401},
		{"longer", "/looking-glass", "Bearer " + rightToken + "x", 401},
		{"start of it", "/looking-glass", "Bearer " + rightToken[:21], 401},
		{"empty", "/looking-glass", "Bearer ", 401},
		{"no scheme", "/looking-glass", rightToken, 401},
		{"other scheme", "/looking-glass", "Basic " + rightToken, 401},
		{"attach", "/attach_localport", "", 401},
		{"detach", "/detach_localport.json", "", 401},
		{"peer", "/bgp/peers/192.0.2.1/reset", "", 401},
		{"nothing", "/none", "", 401},
		{"index", "/", "", 401},
		{"metrics", "/metrics", "", 401},
		{"metrics with it", "/metrics", "Bearer " + rightToken, 200},
		{"ready", "/readyz", "", 401},
		{"ping", "/ping", "", 200},
		{"ping with slash", "/ping/", "", 200},
		{"health", "/healthz", "", 200},
		{"beside an open path", "/ping/../looking-glass", "", 401},
		{"an open path in other letters", "/PING", "", 401},
	} {
		resp := s.ask(t, http.DefaultClient, base+tt.path, tt.authorization)
		if challenge := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != tt.want || (challenge == `Bearer realm="bagpipe-bgp"`) != (tt.want == 401) {
			t.Errorf("%s: %s, challenge %q, want %d", tt.name, resp.Status, challenge, tt.want)
		}
	}

	// Rotated: the new one holds at once, the old one no more.
	code := func(token string) int { return s.ask(t, http.DefaultClient, base+"/", "Bearer "+token).StatusCode }
	put(t, file, otherToken, old)
	if got := code(otherToken); got != 200 {
		t.Errorf("new token: %d, want 200", got)
	}
	if got := code(rightToken); got != 401 {
		t.Errorf("old token: %d, want 401", got)
	}
	// Two writes with one time and size.
	now := time.Now()
	put(t, file, rightToken, now)
	code(rightToken)
	put(t, file, otherToken, now)
	if got := code(rightToken); got != 401 {
		t.Errorf("token of a moment ago: %d, want 401", got)
	}
	// Spoiled or gone: what was there holds, with one warning.
	logged := len(s.Logs.Records(""))
	put(t, file, "short", now)
	for range 3 {
		if got := code(otherToken); got != 200 {
			t.Errorf("token while the file is spoiled: %d, want 200", got)
		}
	}
	if got := s.Logs.Records(""); len(got) != logged+1 || strings.Contains(fmt.Sprint(got), "short") {
		t.Errorf("log %v, want one warning more, without the token", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := code("short"); got != 401 {
		t.Errorf("any token without file: %d, want 401", got)
	}
}

func TestTokenFileThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"absent":     {"", "no such file"},
		"empty":      {"\n \n", "has no token"},
		"short":      {rightToken + "\n012345678901234\n", ":2: not a token: want at least 16"},
		"characters": {"0123456789abcdef zzz", ":1: not a token"},
		"large":      {strings.Repeat("x", 65<<10), "larger than 65536 octets"},
	} {
		file := filepath.Join(t.TempDir(), "token")
		if name != "absent" {
			put(t, file, tt.text, time.Now())
		}
		err := newServer(t).Listen(config.API{Host: "127.0.0.1", TokenFile: file})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "API.token_file") || strings.Contains(err.Error(), "zzz") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

// pem returns the authority's own certificate.
func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// issue returns a certificate with a serial number, and its key, in PEM.
func (a *authority) issue(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// hello makes one connection with TLS and returns the serial number of the
// server's certificate, with the outcome of one request.
func hello(addr string, c *tls.Config) (serial int64, err error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("https://" + addr + "/ping")
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	a := config.API{TLSCertificate: filepath.Join(dir, "c"), TLSKey: filepath.Join(dir, "k")}
	old := time.Now().Add(-time.Hour)
	cert, key := ca.issue(t, 2)
	put(t, a.TLSCertificate, cert, old)
	put(t, a.TLSKey, key, old)
	s := newServer(t)
	s.serve(t, a)
	serial := func() int64 {
		n, err := hello(s.Addr().String(), &tls.Config{RootCAs: ca.pool})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d, want 2", got)
	}
	if _, err := hello(s.Addr().String(), &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	if resp := s.ask(t, http.DefaultClient, "http://"+s.Addr().String()+"/looking-glass", ""); resp.StatusCode != 400 {
		t.Errorf("request in the clear: %s, want 400", resp.Status)
	}
	// Half of a new pair: the old one holds.
	cert, key = ca.issue(t, 3)
	put(t, a.TLSCertificate, cert, old.Add(time.Minute))
	if got := serial(); got != 2 {
		t.Errorf("certificate with a new file and the old key: %d, want 2", got)
	}
	put(t, a.TLSKey, key, old.Add(time.Minute))
	if got := serial(); got != 3 {
		t.Errorf("certificate after rotation: %d, want 3", got)
	}
	resp := s.ask(t, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}}}, "https://"+s.Addr().String()+"/looking-glass", "")
	if resp.StatusCode != 200 || resp.ProtoMajor != 1 {
		t.Errorf("%s %s, want HTTP/1.1 200", resp.Proto, resp.Status)
	}
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	dir, ca, stranger := t.TempDir(), newAuthority(t), newAuthority(t)
	a := config.API{TLSCertificate: filepath.Join(dir, "c"), TLSKey: filepath.Join(dir, "k"), TLSClientCA: filepath.Join(dir, "ca")}
	old := time.Now().Add(-time.Hour)
	cert, key := ca.issue(t, 2)
	put(t, a.TLSCertificate, cert, old)
	put(t, a.TLSKey, key, old)
	put(t, a.TLSClientCA, ca.pem(), old)
	s := newServer(t)
	s.serve(t, a)
	try := func(of *authority) error {
		c := &tls.Config{RootCAs: ca.pool}
		if of != nil {
			pair, err := tls.X509KeyPair(func() ([]byte, []byte) { c, k := of.issue(t, 7); return []byte(c), []byte(k) }())
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		_, err := hello(s.Addr().String(), c)
		return err
	}
	if err := try(ca); err != nil {
		t.Errorf("certificate of the authority: %v", err)
	}
	if try(nil) == nil || try(stranger) == nil {
		t.Error("a client is accepted without certificate, or with that of another authority")
	}
	put(t, a.TLSClientCA, stranger.pem(), old.Add(time.Minute))
	if err := try(stranger); err != nil {
		t.Errorf("certificate of the new authority: %v", err)
	}
	if try(ca) == nil {
		t.Error("a certificate of the old authority is accepted")
	}
}

func TestTLSFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	at := func(name, text string) string {
		put(t, filepath.Join(dir, name), text, time.Now())
		return filepath.Join(dir, name)
	}
	cert, key := ca.issue(t, 2)
	_, otherKey := ca.issue(t, 3)
	good := config.API{Host: "127.0.0.1", TLSCertificate: at("c", cert), TLSKey: at("k", key)}
	for name, tt := range map[string]struct {
		change func(*config.API)
		want   string
	}{
		"no certificate":     {func(a *config.API) { a.TLSCertificate = filepath.Join(dir, "none") }, "API.tls_certificate"},
		"key of another":     {func(a *config.API) { a.TLSKey = at("k2", otherKey) }, "API.tls_key"},
		"no client CA":       {func(a *config.API) { a.TLSClientCA = filepath.Join(dir, "none") }, "API.tls_client_ca"},
		"client CA is a key": {func(a *config.API) { a.TLSClientCA = at("k3", key) }, "API.tls_client_ca"},
	} {
		a := good
		tt.change(&a)
		if err := newServer(t).Listen(a); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that names %s", name, err, tt.want)
		}
	}
}
