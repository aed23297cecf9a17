// SPDX-License-Identifier: Apache-2.0

// Package vethpair joins an E-VPN instance and a VRF of this host by a pair of
// virtual Ethernet devices: one becomes a port of the instance's bridge, the other a
// port of the VRF.
//
// A pair is known by the alias of its devices, which says what they join. Their
// names are hashes of that, the same after a restart; a device without our alias
// is never changed, whatever its name.
package vethpair

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	eviPrefix, vrfPrefix = "evi-", "vrf-"
	digits               = 10
	aliasPrefix          = "bagpipe join "
)

// Pair names what two devices join, by the external ids of the instances.
type Pair struct{ EVI, VRF string }

func (p Pair) hash() string {
	sum := sha256.Sum256([]byte(p.EVI + "\x00" + p.VRF))
	return hex.EncodeToString(sum[:])
}

// EVIPort is the name of the device in the E-VPN instance's bridge.
func (p Pair) EVIPort() string { return eviPrefix + p.hash()[:digits] }

// VRFPort is the name of the device in the VRF.
func (p Pair) VRFPort() string { return vrfPrefix + p.hash()[:digits] }

// alias tells the pair, and which end a device is. Ids are free text, so that the
// alias has a hash of them.
func (p Pair) alias() string { return aliasPrefix + p.hash() }

// Ensure makes the pair in the network namespace of the calling thread, or finds it,
// and gives both ends the MTU; they are up then. On error nothing new is left behind.
func Ensure(p Pair, mtu int) error {
	found, err := p.find()
	if err != nil {
		return fmt.Errorf("join %q and %q: %w", p.EVI, p.VRF, err)
	}
	if !found {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = p.VRFPort(), mtu
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: p.EVIPort(), PeerMTU: uint32(mtu)}); err != nil {
			return fmt.Errorf("join %q and %q: make devices %s and %s: %w", p.EVI, p.VRF, p.VRFPort(), p.EVIPort(), err)
		}
	}
	for _, name := range []string{p.EVIPort(), p.VRFPort()} {
		if err := p.set(name, mtu); err != nil {
			if !found {
				err = errors.Join(err, remove(p.VRFPort()))
			}
			return fmt.Errorf("join %q and %q: %w", p.EVI, p.VRF, err)
		}
	}
	return nil
}

// find tells whether both ends are there. One without the other, or without alias
// because we were killed, is removed; one of others is an error.
func (p Pair) find() (bool, error) {
	ends := 0
	for _, name := range []string{p.EVIPort(), p.VRFPort()} {
		l, err := netlink.LinkByName(name)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		alias := l.Attrs().Alias
		if l.Type() != "veth" || alias != "" && alias != p.alias() {
			return false, fmt.Errorf("device %s is there and not ours: want the name free", name)
		}
		if alias != "" {
			ends++
		}
	}
	if ends == 2 {
		return true, nil
	}
	for _, name := range []string{p.EVIPort(), p.VRFPort()} {
		if err := remove(name); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (p Pair) set(name string, mtu int) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find device %s: %w", name, err)
	}
	if l.Attrs().MTU != mtu {
		err = netlink.LinkSetMTU(l, mtu)
	}
	if err == nil && l.Attrs().Alias != p.alias() {
		err = netlink.LinkSetAlias(l, p.alias())
	}
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set device %s: %w", name, err)
	}
	return nil
}

// Remove takes the pair away; one that is not there is no error.
func Remove(p Pair) error {
	l, err := netlink.LinkByName(p.VRFPort())
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return err
	case l.Attrs().Alias != p.alias():
		return nil // another's
	}
	return remove(p.VRFPort())
}

// Sweep removes the pairs that are not among keep and returns the names of the
// devices that were in VRFs.
func Sweep(keep []Pair) (removed []string, err error) {
	wanted := map[string]bool{}
	for _, p := range keep {
		wanted[p.alias()] = true
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != "veth" || !strings.HasPrefix(a.Alias, aliasPrefix) || wanted[a.Alias] || !strings.HasPrefix(a.Name, vrfPrefix) {
			continue
		}
		if err := remove(a.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, a.Name)
	}
	return removed, errors.Join(errs...)
}

// remove deletes a device, and with it its peer.
func remove(name string) error {
	l, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}
