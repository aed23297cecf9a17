// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// derive fills in what depends on several options and checks that they go
// together. An option that already failed raises no further problem.
func (l *loader) derive() {
	l.deriveLog()
	l.deriveAPI()
	l.deriveAddresses()
	l.deriveListen()
	l.derivePeers()
	l.deriveIPVPN()
}

// bgp returns an option of section BGP.
func bgp(name string) *option {
	return options[sectionBGP][name]
}

// given tells whether o is set to something.
func (l *loader) given(o *option) bool {
	return l.expanded[o] != ""
}

// deriveLog drops a log file that is no log file: the original took
// "--log-file x.conf" for a description of logging.
func (l *loader) deriveLog() {
	if !strings.HasSuffix(l.cfg.Log.File, ".conf") {
		return
	}
	o := options[sectionDefault]["log_file"]
	l.warn(Deprecated, l.chosen[o].origin, o.String(), "ignored: "+quote(l.cfg.Log.File)+" names a configuration, not a log")
	l.cfg.Log.File = ""
}

func (l *loader) deriveAddresses() {
	local := l.cfg.BGP.LocalAddress
	for _, d := range []*Dataplane{&l.cfg.IPVPN.Dataplane, &l.cfg.EVPN.Dataplane} {
		if !d.LocalAddress.IsValid() {
			d.LocalAddress = local
		}
	}
	id := bgp("router_id")
	switch {
	case l.given(id) || l.failed[id]:
	case local.Is4():
		l.cfg.BGP.RouterID = local
	case local.Is6():
		l.fail(id, "", fmt.Sprintf("required but not set, because %s is the IPv6 address %s; want %s",
			bgp("local_address"), local, id.allowed()))
	}
}

func (l *loader) deriveListen() {
	if port := bgp("listen_port"); !l.given(port) {
		l.cfg.BGP.ListenPort = l.cfg.BGP.Port
	}
	if l.cfg.BGP.Listen || l.failed[bgp("listen")] {
		return
	}
	for _, o := range []*option{bgp("dynamic_neighbors"), bgp("passive_peers")} {
		if l.given(o) && !l.failed[o] {
			l.fail(o, l.expanded[o], errNeedsListen().Error())
		}
	}
}

// errNeedsListen is about what concerns only connections to us.
func errNeedsListen() error {
	return fmt.Errorf("has no sense unless %s is true", bgp("listen"))
}
