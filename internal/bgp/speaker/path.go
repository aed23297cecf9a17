// SPDX-License-Identifier: Apache-2.0

package speaker

import "github.com/bagpipe-vpn/bagpipe/internal/bfd"

// watchPath runs the BFD session with the neighbour, if there is to be one. Its
// failure ends the BGP session (RFC 5882 §4). The returned function ends it.
func (n *Neighbour) watchPath() (stop func()) {
	if n.settings().BFD == nil || n.speaker.BFD == nil {
		return func() {}
	}
	c := *n.settings().BFD
	c.Local, c.Remote = n.speaker.Local, n.addr
	s, err := n.speaker.BFD.Add(c, n.pathChanged)
	if err != nil {
		n.speaker.Log.Error("BFD session cannot run", "peer", n.addr, "err", err)
		return func() {}
	}
	n.mu.Lock()
	n.path = s
	n.mu.Unlock()
	return s.Close
}

// pathChanged ends the BGP session when the path is gone. A BFD session that
// the other side's operator closed says nothing about the path (RFC 5882 §4.2).
// Where BFD shares the fate of the peer's control plane, the peer may be
// restarting, and its routes are kept (RFC 5882 §4.3.2).
func (n *Neighbour) pathChanged(c bfd.Change) {
	n.speaker.Log.Info("BFD session changed", "peer", n.addr, "from", c.Previous, "to", c.State, "diagnostic", c.Diag)
	if c.Previous == bfd.Up && c.RemoteState != bfd.AdminDown {
		n.speaker.wg.Go(func() { n.peer.Unreachable(!c.ControlPlaneIndependent) })
	}
}

// Path returns the state of the BFD session; false when there is none.
func (n *Neighbour) Path() (bfd.Status, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.path == nil {
		return bfd.Status{}, false
	}
	return n.path.Status(), true
}
