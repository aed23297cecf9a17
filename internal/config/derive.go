// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// derive fills in what depends on several options and checks that they go
// together. An option that already failed raises no further problem.
func (l *loader) derive() {
	l.deriveLog()
	l.deriveAddresses()
	l.deriveListen()
	l.derivePeers()
	l.markPassive()
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
			l.fail(o, l.expanded[o], fmt.Sprintf("has no sense unless %s is true", bgp("listen")))
		}
	}
}

func (l *loader) derivePeers() {
	o := bgp("peers")
	byAddr := map[netip.Addr]string{}
	for _, item := range splitList(l.expanded[o]) {
		host, addr, err := l.resolvePeer(item, o)
		if err != nil {
			l.fail(o, item, err.Error())
			continue
		}
		if other, ok := byAddr[addr]; ok {
			l.fail(o, item, fmt.Sprintf("the same peer as %s (%s); want each peer once", quote(other), addr))
			continue
		}
		byAddr[addr] = item
		l.cfg.BGP.Peers = append(l.cfg.BGP.Peers, Peer{Host: host, Addr: addr, Port: l.cfg.BGP.Port})
	}
}

// resolvePeer returns the host and the address of one item of a list of peers.
func (l *loader) resolvePeer(item string, o *option) (string, netip.Addr, error) {
	host, err := parseHost(item, o)
	if err != nil {
		return "", netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr, err = l.resolve(host)
	}
	if err != nil {
		return "", addr, err
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return "", addr, fmt.Errorf("%s is not the address of one host; %w", addr, errWant(o))
	}
	return host, addr, nil
}

// resolve returns the first address of a host of the family of our own
// address, or the first of any.
func (l *loader) resolve(host string) (netip.Addr, error) {
	addrs, err := l.resolver.LookupHost(host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up host: %w", err)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("look up host: %s has no address", host)
	}
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool {
		return a.Unmap().Is4() == l.cfg.BGP.LocalAddress.Is4()
	})
	return addrs[max(i, 0)], nil
}

// markPassive marks the peers that passive_peers lists, by address or by the
// name that peers has.
func (l *loader) markPassive() {
	o := bgp("passive_peers")
	if l.failed[o] || l.failed[bgp("peers")] {
		return
	}
	for _, item := range splitList(l.expanded[o]) {
		host := unbracket(item)
		addr, _ := netip.ParseAddr(host)
		i := slices.IndexFunc(l.cfg.BGP.Peers, func(p Peer) bool {
			return p.Host == host || p.Addr == addr.Unmap()
		})
		if i < 0 {
			l.fail(o, item, fmt.Sprintf("want only hosts that %s has too", bgp("peers")))
			continue
		}
		l.cfg.BGP.Peers[i].Passive = true
	}
}
