// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// neighbours gathers the peers and groups of BGP, each once.
type neighbours struct {
	*loader
	bgp *BGP
	// Positions in Peers by address and host, and in Groups by prefix.
	byAddr   map[netip.Addr]int
	byHost   map[string]int
	byPrefix map[netip.Prefix]int
	// Sections of peers and groups, by position.
	ofPeer, ofGroup map[int]*peerSection
}

// derivePeers makes the peers and groups of lists and sections, each with the
// settings of BGP and over them those of its section.
func (l *loader) derivePeers() {
	b := &l.cfg.BGP
	b.PeerAS = b.MyAS
	l.dropRTC(bgp("families"), &b.Settings)
	n := &neighbours{
		loader: l, bgp: b,
		byAddr: map[netip.Addr]int{}, byHost: map[string]int{}, byPrefix: map[netip.Prefix]int{},
		ofPeer: map[int]*peerSection{}, ofGroup: map[int]*peerSection{},
	}
	n.listPeers()
	n.listGroups()
	for _, s := range l.peers {
		if err := n.addSection(s); err != nil {
			l.failSection(s, err.Error())
		}
	}
	l.markPassive()
	n.parseSections()
	n.checkPasswords()
}

// parseSections reads the options of all sections. Those that are refused have
// theirs checked, too.
func (n *neighbours) parseSections() {
	for i, s := range n.ofPeer {
		s.peer = n.bgp.Peers[i]
	}
	for i, s := range n.ofGroup {
		s.peer.Settings = n.bgp.Groups[i].Settings
	}
	for _, s := range n.loader.peers {
		n.parseSection(s)
	}
	for i, s := range n.ofPeer {
		n.bgp.Peers[i] = s.peer
	}
	for i, s := range n.ofGroup {
		n.bgp.Groups[i].Settings = s.peer.Settings
	}
}

// dropRTC takes RT constraint, unless it is on, out of the families that o gave.
func (l *loader) dropRTC(o *option, s *Settings) {
	if l.cfg.BGP.EnableRTC || l.failed[bgp("enable_rtc")] || l.failed[o] {
		return
	}
	s.Families = slices.DeleteFunc(s.Families, func(f Family) bool { return f == FamilyRTC })
	if len(s.Families) == 0 {
		l.fail(o, l.expanded[o], fmt.Sprintf("%s is left out because %s is false, and nothing else is there; want %s",
			FamilyRTC, bgp("enable_rtc"), o.allowed()))
	}
}

func (n *neighbours) listPeers() {
	o := bgp("peers")
	for _, item := range splitList(n.expanded[o]) {
		host, err := parseHost(item, o)
		var addr netip.Addr
		if err == nil {
			addr, err = n.hostAddr(host, "want "+o.allowed())
		}
		if i, dup := n.byAddr[addr]; dup && err == nil {
			err = fmt.Errorf("the same peer as %s (%s); want each peer once", quote(n.bgp.Peers[i].Host), addr)
		}
		if err != nil {
			n.fail(o, item, err.Error())
			continue
		}
		n.addPeer(host, addr)
	}
}

func (n *neighbours) listGroups() {
	o := bgp("dynamic_neighbors")
	if n.failed[o] {
		return
	}
	text := n.expanded[o]
	prefixes, err := parsePrefixes(text, o)
	if err != nil {
		n.fail(o, text, err.Error()+commentHint(text))
		return
	}
	for _, prefix := range prefixes {
		if err := n.sameFamily(prefix.Addr()); err != nil {
			n.fail(o, prefix.String(), err.Error())
			continue
		}
		n.addGroup(prefix)
	}
}

// addPeer returns the position of a new peer.
func (n *neighbours) addPeer(host string, addr netip.Addr) int {
	i := len(n.bgp.Peers)
	n.bgp.Peers = append(n.bgp.Peers, Peer{Host: host, Addr: addr, Port: n.bgp.Port, Settings: n.bgp.Settings})
	n.byAddr[addr], n.byHost[foldHost(host)] = i, i
	return i
}

// addGroup returns the position of a group, which may be new.
func (n *neighbours) addGroup(prefix netip.Prefix) int {
	i, known := n.byPrefix[prefix]
	if !known {
		i = len(n.bgp.Groups)
		n.bgp.Groups = append(n.bgp.Groups, Group{Prefix: prefix, Settings: n.bgp.Settings})
		n.byPrefix[prefix] = i
	}
	return i
}

// addSection finds the peer or group of a section, or makes a new one.
func (n *neighbours) addSection(s *peerSection) error {
	if s.err != nil {
		return s.err
	}
	if s.prefix.IsValid() {
		if !n.bgp.Listen && !n.failed[bgp("listen")] {
			return errNeedsListen()
		}
		if err := n.sameFamily(s.prefix.Addr()); err != nil {
			return err
		}
		n.ofGroup[n.addGroup(s.prefix)] = s
		return nil
	}
	i, known := n.byHost[foldHost(s.host)]
	if !known {
		addr, err := n.hostAddr(s.host, wantNeighbour)
		if err != nil {
			return err
		}
		if i, known = n.byAddr[addr]; !known {
			i = n.addPeer(s.host, addr)
		}
	}
	if other := n.ofPeer[i]; other != nil {
		return fmt.Errorf("the same peer as %s (%s); want one way to write it", sectionText(other.name), n.bgp.Peers[i].Addr)
	}
	n.ofPeer[i] = s
	return nil
}

// parseSection reads the options of a section over what its peer has so far.
func (l *loader) parseSection(s *peerSection) {
	for row := range rows() {
		if o := s.options[row.name]; o != nil && row.section == sectionPeer {
			l.parse(o)
		}
	}
	if o := s.options["families"]; o != nil && l.given(o) {
		l.dropRTC(o, &s.peer.Settings)
	}
	for _, name := range []string{"port", "passive"} {
		o := s.options[name]
		switch {
		case o == nil || !l.given(o) || l.failed[o]:
		case s.prefix.IsValid():
			l.fail(o, l.expanded[o], "has no sense for a prefix, whose neighbours connect to us")
		case s.peer.Passive && name == "passive" && !l.cfg.BGP.Listen && !l.failed[bgp("listen")]:
			l.fail(o, l.expanded[o], errNeedsListen().Error())
		}
	}
}

// hostAddr returns the address of a host, which must be that of one; want says
// what is allowed.
func (l *loader) hostAddr(host, want string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr, err = l.resolve(host)
	}
	if err != nil {
		return addr, err
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return addr, fmt.Errorf("%s is not the address of one host; %s", addr, want)
	}
	return addr, l.sameFamily(addr)
}

// sameFamily refuses neighbours that cannot be reached from our own address.
func (l *loader) sameFamily(addr netip.Addr) error {
	local := l.cfg.BGP.LocalAddress
	if !local.IsValid() || l.failed[bgp("local_address")] || local.Is4() == addr.Is4() {
		return nil
	}
	return fmt.Errorf("%s is not of the address family of %s, %s; want that family", addr, bgp("local_address"), local)
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

// markPassive marks the peers that passive_peers lists, by address or name.
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
			l.fail(o, item, fmt.Sprintf("want only hosts that %s or a section has, too", bgp("peers")))
			continue
		}
		l.cfg.BGP.Peers[i].Passive = true
	}
}

// checkPasswords refuses neighbours without a password in a prefix that has
// one: the kernel would demand signatures from them all the same.
func (n *neighbours) checkPasswords() {
	signed := map[netip.Prefix]bool{}
	for _, g := range n.bgp.Groups {
		if g.Password != "" {
			signed[g.Prefix] = true
		}
	}
	if len(signed) == 0 {
		return
	}
	for i, p := range n.bgp.Peers {
		if p.Password == "" {
			n.refuse(n.ofPeer[i], bgp("peers"), p.Host, p.Addr, p.Addr.BitLen(), signed)
		}
	}
	for i, g := range n.bgp.Groups {
		if g.Password == "" {
			n.refuse(n.ofGroup[i], bgp("dynamic_neighbors"), g.Prefix.String(), g.Prefix.Addr(), g.Prefix.Bits(), signed)
		}
	}
}

// refuse refuses a neighbour, of a section or an option, if one of the prefixes
// of its address up to a length is signed.
func (n *neighbours) refuse(s *peerSection, o *option, name string, addr netip.Addr, bits int, signed map[netip.Prefix]bool) {
	if s.failed(n.loader, "password") {
		return
	}
	for ; bits >= 0; bits-- {
		prefix, err := addr.Prefix(bits) // without zone
		if err != nil || !signed[prefix] {
			continue
		}
		text := fmt.Sprintf("has no password, but the prefix %s around it has one, so the system would demand signatures of it; "+
			"want a password here, too", prefix)
		if s != nil {
			n.failSection(s, text)
		} else {
			n.fail(o, name, text)
		}
		return
	}
}
