// SPDX-License-Identifier: Apache-2.0

package interop

import "strconv"

// What FRR as E-VPN speaker announces. FRR sends with its own VNI whatever the
// VNI in the route of the other end is, so a node has to use the same one.
const (
	speakerVNI = 5000
	speakerRT  = "64512:300"
)

// A frrSpeaker is FRR with one VNI on a bridge and VXLAN device of the kernel,
// set up as its documentation asks.
type frrSpeaker struct{ *frr }

// newFRRSpeaker makes the devices and starts zebra and bgpd, which waits for
// nodes to connect.
func newFRRSpeaker(h *host) frrSpeaker {
	h.t.Helper()
	s := frrSpeaker{newFRR(h)}
	h.Run("ip", "link", "add", "tenant", "type", "bridge", "stp_state", "0")
	h.Run("ip", "link", "set", "tenant", "addrgenmode", "none", "up")
	h.Run("ip", "link", "add", "vx0", "type", "vxlan", "id", strconv.Itoa(speakerVNI), "local", h.v4.String(), "dstport", "4789", "nolearning")
	h.Run("ip", "link", "set", "vx0", "master", "tenant", "addrgenmode", "none")
	h.Run("ip", "link", "set", "vx0", "type", "bridge_slave", "learning", "off", "neigh_suppress", "on")
	h.Run("ip", "link", "set", "vx0", "up")
	s.startSpeaker(speakerVNI, s.evi().rd, speakerRT)
	return s
}

// evi describes FRR's routes.
func (s frrSpeaker) evi() evi {
	addr := s.v4.String()
	return evi{
		rd: addr + ":7", vni: speakerVNI, rts: []string{speakerRT}, originator: addr, nextHop: addr, tunnel: addr,
	}
}

// plug puts a vm's port into the bridge.
func (s frrSpeaker) plug(v *vm) {
	s.t.Helper()
	s.Run("ip", "link", "set", v.port, "master", "tenant")
}
