// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// place is a server that tells what it was asked with.
type place struct {
	*httptest.Server
	name string
	seen []string
}

func (p *place) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	certificate := ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		certificate = " certificate"
	}
	p.seen = append(p.seen, strings.TrimSpace(p.name+certificate+" "+r.Header.Get("Authorization")))
	_, _ = io.WriteString(w, "null")
}

// places are the same daemon three times: by port, by port with TLS, by socket.
type places struct {
	dir                string
	plain, tls, socket *place
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	p := &places{dir: t.TempDir(), plain: &place{name: "plain"}, tls: &place{name: "tls"}, socket: &place{name: "socket"}}
	p.plain.Server = httptest.NewServer(p.plain)
	p.tls.Server = httptest.NewUnstartedServer(p.tls)
	p.tls.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	p.tls.StartTLS()
	p.socket.Server = httptest.NewUnstartedServer(p.socket)
	l, err := net.Listen("unix", p.path("sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = p.socket.Listener.Close()
	p.socket.Listener = l
	p.socket.Start()
	for _, one := range []*place{p.plain, p.tls, p.socket} {
		t.Cleanup(one.Close)
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.tls.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cert":  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.tls.Certificate().Raw})),
		"key":   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"token": "of-the-file\n", "token2": "other\n", "junk": "junk",
	} {
		if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *places) path(name string) string { return filepath.Join(p.dir, name) }

// fill replaces DIR, PLAIN and SECURE by the directory and the ports.
func (p *places) fill(text string) string {
	return strings.NewReplacer("DIR", p.dir, "PLAIN", port(p.plain), "SECURE", port(p.tls)).Replace(text)
}

func port(p *place) string {
	_, port, _ := net.SplitHostPort(p.Listener.Addr().String())
	return port
}

func TestHowTheDaemonIsReached(t *testing.T) {
	t.Parallel()
	const (
		plainConf  = "port = PLAIN\n"
		tlsConf    = "port = SECURE\ntls_certificate = DIR/cert\ntls_key = DIR/unreadable\n"
		socketConf = "port = PLAIN\nunix_socket = DIR/sock\ntoken_file = DIR/token\n"
	)
	for _, tt := range []struct {
		name, conf, args, env string
		want                  string // what the daemon sees
		fails                 string // or what the error has
	}{
		{"file", plainConf, "", "", "plain", ""},
		{"socket of the file", socketConf, "", "", "socket", ""},
		{"server beats the socket of the file", socketConf, "--server 127.0.0.1", "", "plain Bearer of-the-file", ""},
		{"port beats the socket of the file", socketConf, "--port PLAIN", "", "plain Bearer of-the-file", ""},
		{"port beats the socket of the environment", plainConf, "--port PLAIN", "UNIX_SOCKET=DIR/sock", "plain", ""},
		{"socket by flag", plainConf, "--unix-socket DIR/sock", "", "socket", ""},
		{"socket by flag beats port", plainConf, "--unix-socket DIR/sock --port PLAIN", "", "socket", ""},
		{"socket by environment", plainConf, "", "UNIX_SOCKET=DIR/sock", "socket", ""},
		{"socket by flag that is not there", plainConf, "--unix-socket DIR/none", "", "", "no such file"},
		{"socket of the file that is not there", "port = PLAIN\nunix_socket = DIR/none\n", "", "", "plain", ""},
		{"TLS of the file", tlsConf, "", "", "tls", ""},
		{"TLS of the file with token", tlsConf + "token_file = DIR/token\n", "", "", "tls Bearer of-the-file", ""},
		{"authority by flag", "", "--port SECURE --tls-ca DIR/cert", "", "tls", ""},
		{"authority by environment", "", "--port SECURE", "TLS_CA=DIR/cert", "tls", ""},
		{"unknown authority", "", "--port SECURE --tls", "", "", "certificate"},
		{"authority that is none", tlsConf, "--tls-ca DIR/junk", "", "", "has no certificate"},
		{"authority that is not there", tlsConf, "--tls-ca DIR/none", "", "", "no such file"},
		{"certificate by flag", tlsConf, "--tls-certificate DIR/cert --tls-key DIR/key", "", "tls certificate", ""},
		{"certificate by environment", tlsConf, "", "TLS_CERTIFICATE=DIR/cert TLS_KEY=DIR/key", "tls certificate", ""},
		{"certificate without key", tlsConf, "--tls-certificate DIR/cert", "", "", "want both"},
		{"token by flag", socketConf, "--port PLAIN --token-file DIR/token2", "TOKEN_FILE=DIR/token", "plain Bearer other", ""},
		{"token by environment", socketConf, "--port PLAIN", "TOKEN_FILE=DIR/token2", "plain Bearer other", ""},
		{"token that is not there", plainConf, "--token-file DIR/none", "", "", "read token"},
		{"port beats a bad file", "port = many\n", "--port PLAIN", "", "plain", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, command := range []string{"bagpipe peer enable 192.0.2.1", "bagpipe-rest-attach --attach --network-type ipvpn --port p --ip 198.51.100.5"} {
				old := strings.HasPrefix(command, "bagpipe-rest-attach")
				if old && (strings.Contains(tt.args, "--port") || strings.Contains(tt.args, "--server")) {
					continue // which it does not have
				}
				p := newPlaces(t)
				vars := map[string]string{}
				for _, v := range strings.Fields(p.fill(tt.env)) {
					name, value, _ := strings.Cut(v, "=")
					vars["BAGPIPE_"+name] = value
				}
				env := Env{ConfigFile: configFile(t, p.fill("[API]\n"+tt.conf)), Getenv: func(name string) string { return vars[name] }}
				got := call(t, env, strings.Fields(command+" "+p.fill(tt.args))...)
				seen := fmt.Sprint(append(append(p.plain.seen, p.tls.seen...), p.socket.seen...))
				if tt.fails == "" && (got.status != 0 || seen != "["+tt.want+"]") {
					t.Errorf("%s: seen %s, want %s; %+v", command, seen, tt.want, got)
				}
				if tt.fails != "" && (got.status != 1 || !strings.Contains(got.stderr, tt.fails) || seen != "[]") {
					t.Errorf("%s: seen %s, want an error with %q; %+v", command, seen, tt.fails, got)
				}
			}
		})
	}
}
