// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

const (
	defaultHost = "127.0.0.1"
	defaultPort = 8082
)

// serverOptions tell which daemon to talk to, and how.
type serverOptions struct {
	host   string
	port   uint16
	config string
	tls    bool
	files  map[string]*string // of the flags in accessFlags
	env    Env
	flags  *pflag.FlagSet
}

// accessFlags are files that tell how to talk to the daemon. What a flag does not
// say, an environment variable may: BAGPIPE_ and its name.
var accessFlags = []struct{ name, help string }{
	{"unix-socket", "`path` of the daemon's unix socket, in place of host and port"},
	{"tls-ca", "`file` of certificates to trust; implies --tls"},
	{"tls-certificate", "`file` of the certificate to show to the daemon; implies --tls"},
	{"tls-key", "`file` of the certificate's private key"},
	{"token-file", "`file` of the token to send to the daemon"},
}

func (s *serverOptions) addFlags(fs *pflag.FlagSet, env Env) {
	fs.StringVar(&s.host, "server", defaultHost, "host that the daemon runs on")
	s.addPortFlags(fs, env)
}

// addPortFlags is addFlags without the host.
func (s *serverOptions) addPortFlags(fs *pflag.FlagSet, env Env) {
	fs.Uint16Var(&s.port, "port", 0, "port of the daemon's API (default: the configuration file's, else 8082)")
	s.addAccessFlags(fs, env)
}

// addAccessFlags is addPortFlags without the port.
func (s *serverOptions) addAccessFlags(fs *pflag.FlagSet, env Env) {
	fs.StringVar(&s.config, "config-file", env.ConfigFile, "daemon's configuration `file`, read for the section API")
	fs.BoolVar(&s.tls, "tls", false, "talk TLS (default: if the configuration file has tls_certificate)")
	s.files, s.env, s.flags = map[string]*string{}, env, fs
	for _, f := range accessFlags {
		s.files[f.name] = fs.String(f.name, "", f.help)
	}
}

// file returns what a flag or its environment variable says, or "".
func (s *serverOptions) file(name string) string {
	if v := s.files[name]; v != nil && *v != "" {
		return *v
	}
	if s.env.Getenv == nil {
		return ""
	}
	return s.env.Getenv("BAGPIPE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
}

// given tells whether the command line has a flag.
func (s *serverOptions) given(name string) bool { return s.flags != nil && s.flags.Changed(name) }

// api returns the section API of the configuration file. One that does not exist is
// as good as an empty one.
func (s *serverOptions) api() (config.API, error) {
	api, err := config.LoadAPI(config.Source{Files: []string{s.config}})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return config.API{}, nil
	case err != nil && s.port != 0: // nothing else of it is needed
		return config.API{}, nil
	case err != nil:
		return config.API{}, fmt.Errorf("find the API: %w", err)
	}
	return api, nil
}

// socket returns the unix socket to use, or "". That of the configuration file is for
// those who may write to it and name no other place.
func (s *serverOptions) socket(api config.API) string {
	elsewhere := (s.port != 0 || s.given("server")) && !s.given("unix-socket")
	switch path := s.file("unix-socket"); {
	case elsewhere:
		return ""
	case path != "":
		return path
	case api.UnixSocket != "" && unix.Access(api.UnixSocket, unix.W_OK) == nil:
		return api.UnixSocket
	}
	return ""
}

// address returns host and port of the API.
func (s *serverOptions) address(api config.API) string {
	host, port := s.host, s.port
	if host == "" {
		host = defaultHost
	}
	if port == 0 {
		port = api.Port
	}
	if port == 0 {
		port = defaultPort
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (s *serverOptions) client() (*client.Client, error) {
	api, err := s.api()
	if err != nil {
		return nil, err
	}
	base := "http://" + s.address(api)
	if path := s.socket(api); path != "" {
		return client.New(client.WithBaseURL(base), client.WithUnixSocket(path))
	}
	var opts []client.Option
	if s.tls || s.file("tls-ca") != "" || s.file("tls-certificate") != "" || api.TLSCertificate != "" {
		c, err := s.tlsConfig(api)
		if err != nil {
			return nil, err
		}
		base = "https://" + s.address(api)
		opts = append(opts, client.WithTLS(c))
	}
	token := s.file("token-file")
	if token == "" {
		token = api.TokenFile
	}
	if token != "" {
		opts = append(opts, client.WithToken(client.TokenFile(token)))
	}
	return client.New(append(opts, client.WithBaseURL(base))...)
}

// tlsConfig returns whom to trust and what to show. Beside the authorities of the host,
// the daemon's own certificate is trusted, where it can be read.
func (s *serverOptions) tlsConfig(api config.API) (*tls.Config, error) {
	c := &tls.Config{}
	if path := s.file("tls-ca"); path != "" {
		c.RootCAs = x509.NewCertPool()
		if err := trust(c.RootCAs, path); err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
	} else if pool, err := x509.SystemCertPool(); err == nil && api.TLSCertificate != "" && trust(pool, api.TLSCertificate) == nil {
		c.RootCAs = pool
	}
	cert, key := s.file("tls-certificate"), s.file("tls-key")
	if cert == "" && key == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--tls-certificate %q, --tls-key %q: want both, of one pair: %w", cert, key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// trust adds the certificates of a file.
func trust(pool *x509.CertPool, path string) error {
	text, err := os.ReadFile(path)
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s has no certificate: want PEM", path)
	}
	return err
}
