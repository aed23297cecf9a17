// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"

	"github.com/bagpipe-vpn/bagpipe/internal/vethpair"
)

// joiner joins E-VPN instances and VRFs by pairs of virtual Ethernet devices.
type joiner struct {
	// finish is set when VRFs need packets with finished checksums.
	finish bool
}

// Ensure implements vpn.Joiner.
func (j joiner) Ensure(evi, vrf string, mtu int) (eviPort, vrfPort string, err error) {
	p := vethpair.Pair{EVI: evi, VRF: vrf}
	if err = vethpair.Ensure(p, mtu); err == nil && j.finish {
		if err = vethpair.FinishChecksums(p); err != nil {
			err = errors.Join(err, vethpair.Remove(p))
		}
	}
	return p.EVIPort(), p.VRFPort(), err
}

// Remove implements vpn.Joiner.
func (joiner) Remove(evi, vrf string) error {
	return vethpair.Remove(vethpair.Pair{EVI: evi, VRF: vrf})
}

// sweepPairs removes the pairs of an earlier run that nobody has asked for since.
func (d *Daemon) sweepPairs() {
	var keep []vethpair.Pair
	for evi, vrf := range d.manager.Joined() {
		keep = append(keep, vethpair.Pair{EVI: evi, VRF: vrf})
	}
	removed, err := vethpair.Sweep(keep)
	if err != nil {
		d.log.Warn("cannot remove devices between E-VPN instances and VRFs", "err", err)
	}
	if len(removed) > 0 {
		d.log.Info("removed devices between E-VPN instances and VRFs of an earlier run", "devices", removed)
	}
}
