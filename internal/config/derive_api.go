// SPDX-License-Identifier: Apache-2.0

package config

import "fmt"

// deriveAPI checks that the options of the API go together, and warns about an
// API that others can reach.
func (l *loader) deriveAPI() {
	option := func(name string) *option { return options[sectionAPI][name] }
	for _, pair := range [][2]string{{"tls_certificate", "tls_key"}, {"tls_key", "tls_certificate"}, {"tls_client_ca", "tls_certificate"}} {
		o, needs := option(pair[0]), option(pair[1])
		if l.given(o) && !l.failed[o] && !l.given(needs) {
			l.fail(o, l.expanded[o], fmt.Sprintf("has no sense unless %s is set", needs))
		}
	}
	host, a := option("host"), &l.cfg.API
	switch {
	case l.failed[host] || a.Loopback() || a.TLSClientCA != "":
	case a.TokenFile == "":
		l.warn(Insecure, l.chosen[host].origin, host.String(), fmt.Sprintf(
			"whoever reaches %s can change the node: set %s, or %s with a certificate, or listen on 127.0.0.1",
			quote(a.Host), option("token_file"), option("tls_client_ca")))
	case a.TLSCertificate == "":
		l.warn(Insecure, l.chosen[host].origin, host.String(), fmt.Sprintf(
			"tokens are sent to %s in the clear: set %s, or listen on 127.0.0.1", quote(a.Host), option("tls_certificate")))
	}
}
