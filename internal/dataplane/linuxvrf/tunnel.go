// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"golang.org/x/sys/unix"
)

// tunnelKey is what a tunnel device is for. Without remote it takes packets of all
// who have none of their own.
type tunnelKey struct {
	encap  encap.Type
	remote netip.Addr
}

// findTunnels finds the tunnel devices of an earlier run, and removes those that are
// not from our address.
func (d *Driver) findTunnels() error {
	links, err := d.k.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		text, ok := strings.CutPrefix(l.Alias, tunnelAlias)
		if !ok || !isTunnel(l) {
			continue
		}
		key, ok := d.parseTunnel(text)
		if !ok || !l.Up {
			if err := goneIsFine(d.k.DeleteLink(l.Index)); err != nil {
				return err
			}
			continue
		}
		d.tunnels[key] = l.Index
	}
	return nil
}

// parseTunnel reads "encapsulation local remote"; ok is false when it is none that
// this driver would make.
func (d *Driver) parseTunnel(text string) (key tunnelKey, ok bool) {
	f := strings.Fields(text)
	if len(f) != 3 || f[1] != d.cfg.LocalAddr.String() {
		return key, false
	}
	for _, e := range d.cfg.Encaps {
		if strings.EqualFold(e.String(), f[0]) {
			key.encap, ok = e, true
		}
	}
	if f[2] == "any" {
		return key, ok
	}
	var err error
	key.remote, err = netip.ParseAddr(f[2])
	return key, ok && err == nil
}

// tunnel returns the index of a tunnel device, which it makes when there is none.
func (d *Driver) tunnel(key tunnelKey) (int, error) {
	if index, ok := d.tunnels[key]; ok {
		return index, nil
	}
	local := d.cfg.LocalAddr
	alias := farAlias(key.encap, local, key.remote)
	l, err := newDevice(d.k, tunnelPrefix[key.encap], alias, alias, func(name string) error {
		return d.k.AddTunnel(name, key.encap, local, key.remote)
	})
	switch {
	case errors.Is(err, unix.EEXIST):
		return 0, fmt.Errorf("a device of others is the tunnel %q already: want it removed, or another encapsulation: %w", alias, err)
	case errors.Is(err, unix.EINVAL) && key.encap == encap.MPLSInUDP:
		return 0, fmt.Errorf("the kernel makes no tunnel for %s: want the module fou with CONFIG_NET_FOU_IP_TUNNELS: %w", key.encap, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("the kernel makes no tunnel for %s: want the module ip_gre, ip6_gre or ipip: %w", key.encap, err)
	case err != nil:
		return 0, err
	}
	if err := d.takeLabels(l.Name); err != nil {
		return 0, errors.Join(err, goneIsFine(d.k.DeleteLink(l.Index)))
	}
	d.tunnels[key] = l.Index
	return l.Index, nil
}

// dropTunnels removes the devices that no nexthop object uses.
func (d *Driver) dropTunnels() error {
	for key, index := range d.tunnels {
		if !key.remote.IsValid() || d.nexthops.onDevice[index] > 0 {
			continue
		}
		if err := goneIsFine(d.k.DeleteLink(index)); err != nil {
			return err
		}
		delete(d.tunnels, key)
	}
	return nil
}

// way returns the device to a PE by an encapsulation.
func (d *Driver) way(e encap.Type, remote netip.Addr) (int, error) {
	for _, have := range d.cfg.Encaps {
		switch {
		case have != e:
		case e == encap.MPLS:
			return d.mplsPort, nil
		default:
			return d.tunnel(tunnelKey{e, remote})
		}
	}
	return 0, fmt.Errorf("encapsulation %s is not one of %v", e, d.cfg.Encaps)
}

// wayOf is the inverse of way, without the PE where the device does not tell it.
func (d *Driver) wayOf(index int) (tunnelKey, bool) {
	if index == d.mplsPort {
		return tunnelKey{encap: encap.MPLS}, true
	}
	for key, i := range d.tunnels {
		if i == index {
			return key, true
		}
	}
	return tunnelKey{}, false
}
