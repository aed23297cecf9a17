// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

const (
	defaultHost = "127.0.0.1"
	defaultPort = 8082
)

// serverOptions tell which daemon to talk to.
type serverOptions struct {
	host   string
	port   uint16
	config string
}

func (s *serverOptions) addFlags(fs *pflag.FlagSet, env Env) {
	fs.StringVar(&s.host, "server", defaultHost, "host that the daemon runs on")
	s.addPortFlags(fs, env)
}

// addPortFlags is addFlags without the host.
func (s *serverOptions) addPortFlags(fs *pflag.FlagSet, env Env) {
	fs.Uint16Var(&s.port, "port", 0, "port of the daemon's API (default: the configuration file's, else 8082)")
	s.addConfigFlag(fs, env)
}

func (s *serverOptions) addConfigFlag(fs *pflag.FlagSet, env Env) {
	fs.StringVar(&s.config, "config-file", env.ConfigFile, "daemon's configuration `file`, read for the API port")
}

// baseURL returns where the API is. A configuration file that does not exist
// is as good as one without port.
func (s *serverOptions) baseURL() (string, error) {
	port := s.port
	if port == 0 {
		api, err := config.LoadAPI(config.Source{Files: []string{s.config}})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the API port: %w", err)
		}
		port = api.Port
	}
	if port == 0 {
		port = defaultPort
	}
	host := s.host
	if host == "" {
		host = defaultHost
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

func (s *serverOptions) client() (*client.Client, error) {
	base, err := s.baseURL()
	if err != nil {
		return nil, err
	}
	return client.New(client.WithBaseURL(base))
}
