// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

func TestAPIAccess(t *testing.T) {
	t.Parallel()
	const (
		open     = `insecure 0.conf:5: API.host: whoever reaches "HOST" can change the node: set API.token_file, or API.tls_client_ca with a certificate, or listen on 127.0.0.1`
		clear    = `insecure 0.conf:5: API.host: tokens are sent to "HOST" in the clear: set API.tls_certificate, or listen on 127.0.0.1`
		token    = "token_file = /t\n"
		pair     = "tls_certificate = /c\ntls_key = /k\n"
		clientCA = pair + "tls_client_ca = /ca\n"
	)
	for _, tt := range []struct {
		name, host, more string
		want             API
		warning          string // HOST stands for the host
	}{
		{"loopback", "127.0.0.1", "", API{}, ""},
		{"other loopback", "127.5.0.1", "", API{}, ""},
		{"loopback IPv6", "::1", "", API{}, ""},
		{"loopback by name", "localhost", "", API{}, ""},
		{"everywhere", "0.0.0.0", "", API{}, open},
		{"everywhere IPv6", "::", "", API{}, open},
		{"address", "192.0.2.1", "", API{}, open},
		{"name", "node.example", "", API{}, open},
		{"TLS alone", "192.0.2.1", pair, API{TLSCertificate: "/c", TLSKey: "/k"}, open},
		{"token in the clear", "192.0.2.1", token, API{TokenFile: "/t"}, clear},
		{"token in TLS", "192.0.2.1", token + pair, API{TokenFile: "/t", TLSCertificate: "/c", TLSKey: "/k"}, ""},
		{"certificate", "192.0.2.1", clientCA, API{TLSCertificate: "/c", TLSKey: "/k", TLSClientCA: "/ca"}, ""},
		{"token on loopback", "::1", token + "unix_socket = /run//x/../api.sock\n", API{TokenFile: "/t", UnixSocket: "/run/api.sock"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := defaults()
			want.API = tt.want
			want.API.Host, want.API.Port = tt.host, 8082
			var warnings []string
			if tt.warning != "" {
				warnings = []string{strings.ReplaceAll(tt.warning, "HOST", tt.host)}
			}
			loadText(t, minimal+"[API]\nhost = "+tt.host+"\n"+tt.more).check(t, want, warnings, nil)
		})
	}
}

func TestAPIAccessBad(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("x", maxSocketPath)
	loadText(t, minimal+"[API]\nunix_socket = api.sock\ntls_certificate = /c\ntls_client_ca = /ca\ntoken_file = ./t\n").check(t, nil, nil, []string{
		`0.conf:5: API.unix_socket: value "api.sock": want an absolute path of at most 93 octets`,
		`0.conf:6: API.tls_certificate: value "/c": has no sense unless API.tls_key is set`,
		`0.conf:8: API.token_file: value "./t": want an absolute path`,
	})
	loadText(t, minimal+"[API]\nunix_socket = "+long+"\ntls_key = /k\ntls_client_ca = /ca\n").check(t, nil, nil, []string{
		`0.conf:5: API.unix_socket: value ` + quote(long) + `: want an absolute path of at most 93 octets`,
		`0.conf:6: API.tls_key: value "/k": has no sense unless API.tls_certificate is set`,
		`0.conf:7: API.tls_client_ca: value "/ca": has no sense unless API.tls_certificate is set`,
	})
	loadText(t, minimal+"[API]\nunix_socket = "+long[:maxSocketPath]+"\n").check(t, func() *Config {
		c := defaults()
		c.API.UnixSocket = long[:maxSocketPath]
		return c
	}(), nil, nil)
}
