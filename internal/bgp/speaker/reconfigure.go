// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
)

// errNotRunning is the error of Reconfigure before and after Run.
var errNotRunning = errors.New("the BGP speaker does not run")

// Reconfigure makes peers and groups those that are configured: neighbours that are
// no more among them are closed, new ones run, and a session is restarted where one
// of its settings changed; other sessions go on. It returns when what had to close
// has closed. Each change is logged. The error tells that Run did not begin before the
// end of ctx, or has ended, or what could not be done; all else is done then.
func (s *Speaker) Reconfigure(ctx context.Context, peers []PeerConfig, groups []Group) error {
	select {
	case <-s.begun:
	case <-ctx.Done():
		return errNotRunning
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	if s.running == nil {
		s.mu.Unlock()
		return errNotRunning
	}
	oldPeers, oldGroups := s.Peers, s.Dynamic
	s.Peers, s.Dynamic = slices.Clone(peers), slices.Clone(groups)
	var leaving []*Neighbour
	var after []func()
	for _, n := range s.neighbours {
		do, cause := s.reconfigure(n)
		after = append(after, do)
		if cause != nil {
			s.Log.Info("BGP neighbour stopped", "peer", n.addr, "reason", cause)
			n.stop(cause)
			leaving = append(leaving, n)
		}
	}
	s.mu.Unlock()
	err := s.changeKeys(oldPeers, oldGroups)
	for _, do := range after {
		do()
	}
	for _, n := range leaving {
		<-n.forgotten
	}
	return errors.Join(err, s.addMissing())
}

// reconfigure brings a neighbour up to date; when that takes another one, or none,
// it returns why. It runs with s.mu held; after is to be called without.
func (s *Speaker) reconfigure(n *Neighbour) (after func(), cause error) {
	want, dynamic := s.wanted(n.addr)
	switch {
	case want == nil:
		return func() {}, session.ErrDeconfigured
	case n.Dynamic != dynamic || !n.config.sameSession(s, want):
		return func() {}, session.ErrReconfigured
	}
	return n.adjust(s.settings(want.Settings)), nil
}

// wanted returns what an address is to have as neighbour, or nil.
func (s *Speaker) wanted(addr netip.Addr) (pc *PeerConfig, dynamic bool) {
	if i := slices.IndexFunc(s.Peers, func(p PeerConfig) bool { return p.Addr == addr }); i >= 0 {
		return &s.Peers[i], false
	}
	if g := groupFor(s.Dynamic, addr); g != nil {
		return &PeerConfig{Addr: addr, Passive: true, Settings: g.Settings}, true
	}
	return nil, false
}

// addMissing makes and runs the configured neighbours that are not there.
func (s *Speaker) addMissing() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return errNotRunning
	}
	for _, pc := range s.Peers {
		if s.neighbours[pc.Addr] != nil {
			continue
		}
		n, nerr := s.newNeighbour(pc, false)
		if nerr != nil {
			err = errors.Join(err, nerr)
			continue
		}
		s.Log.Info("BGP neighbour added", "peer", pc.Addr)
		s.neighbours[pc.Addr] = n
		s.launch(s.running, n)
	}
	return err
}

// changeKeys gives the listener the passwords of now instead of those of before.
func (s *Speaker) changeKeys(peers []PeerConfig, groups []Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	before, now := s.keys(peers, groups), s.keys(s.Peers, s.Dynamic)
	keys := slices.Clone(now)
	for _, k := range before {
		if !slices.ContainsFunc(now, func(n transport.Key) bool { return n.Prefix == k.Prefix }) {
			keys = append(keys, transport.Key{Prefix: k.Prefix}) // takes it away
		}
	}
	keys = slices.DeleteFunc(keys, func(k transport.Key) bool { return slices.Contains(before, k) })
	if err := s.listener.SetKeys(keys); err != nil {
		return fmt.Errorf("listen for BGP on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// sameSession tells whether a session need not be restarted to get from one
// configuration to the other.
func (pc *PeerConfig) sameSession(s *Speaker, o *PeerConfig) bool {
	return pc.Port == o.Port && pc.Passive == o.Passive && reflect.DeepEqual(s.settings(pc.Settings).ofSession(), s.settings(o.Settings).ofSession())
}

// ofSession returns the settings without those that adjust can change.
func (set Settings) ofSession() Settings {
	set.Description, set.Disabled, set.DisabledText, set.RetryMax = "", false, "", 0
	set.MaxPrefixes, set.MaxPrefixesWarning, set.MaxPrefixesPause = 0, 0, 0
	if set.Restart != nil {
		r := *set.Restart
		r.StaleTime = 0
		set.Restart = &r
	}
	return set
}

// adjust gives a neighbour settings that differ in what concerns no session. What
// it returns tells the session, and may wait for it.
func (n *Neighbour) adjust(set *Settings) (after func()) {
	old := n.options.Swap(set)
	if reflect.DeepEqual(old, set) {
		return func() {}
	}
	n.speaker.Log.Info("BGP neighbour changed without a restart of its session", "peer", n.addr)
	n.peer.SetPauses(set.RetryMax, set.MaxPrefixesPause)
	switch {
	case set.Disabled && !old.Disabled:
		return func() { n.peer.DisableFor(set.DisabledText, set.DisabledText) }
	case old.Disabled && !set.Disabled:
		return n.peer.Enable
	}
	return func() {}
}
