// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/vishvananda/netlink"
)

// underlayOption is how operators name the devices of the underlay.
const underlayOption = "underlay_interfaces"

// underlay returns the devices where packets of other nodes come in.
func (d *Driver) underlay() ([]netlinkx.Link, error) {
	if len(d.cfg.Underlay) == 0 {
		l, err := d.deviceOfAddress()
		return []netlinkx.Link{l}, err
	}
	var out []netlinkx.Link
	for _, name := range d.cfg.Underlay {
		l, ok, err := d.conn.LinkByName(name)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("%s: device %s does not exist: want Ethernet devices of this host", underlayOption, name)
		case !l.Ethernet:
			return nil, fmt.Errorf("%s: device %s is not an Ethernet device", underlayOption, name)
		}
		out = append(out, l)
	}
	return out, nil
}

// isUnderlay tells whether a device is one of the underlay. It is asked for every port, and so
// does not list the addresses of all devices.
func (d *Driver) isUnderlay(l *netlinkx.Link) (bool, error) {
	if len(d.cfg.Underlay) > 0 {
		list, err := d.underlay()
		return slices.ContainsFunc(list, func(u netlinkx.Link) bool { return u.Index == l.Index }), err
	}
	list, err := d.conn.Addresses(l.Index)
	return slices.ContainsFunc(list, func(a netlinkx.Address) bool { return a.Prefix.Addr() == d.cfg.LocalAddr }), err
}

// deviceOfAddress returns the device that has the local address.
func (d *Driver) deviceOfAddress() (netlinkx.Link, error) {
	family := netlink.FAMILY_V4
	if d.cfg.LocalAddr.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := d.nl.AddrList(nil, family)
	if err != nil {
		return netlinkx.Link{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		if !a.IP.Equal(d.cfg.LocalAddr.AsSlice()) {
			continue
		}
		l, ok, err := d.conn.LinkByIndex(a.LinkIndex)
		switch {
		case err != nil:
			return l, err
		case !ok:
			continue
		case !l.Ethernet || l.Kind == "dummy":
			return l, fmt.Errorf("local address %s is on device %s, where no packets of other nodes come in: "+
				"want the devices where they do as %s", d.cfg.LocalAddr, l.Name, underlayOption)
		}
		return l, nil
	}
	return netlinkx.Link{}, fmt.Errorf("local address %s is not one of this host: want one that is, or %s",
		d.cfg.LocalAddr, underlayOption)
}

// allowLookups lets the programs ask for routes of the underlay as if packets came from
// the loopback interface, from which none come to be forwarded. Forwarding may be off on
// all others.
func (d *Driver) allowLookups() error {
	path := "/proc/sys/net/ipv4/conf/lo/forwarding"
	if d.cfg.LocalAddr.Is6() {
		path = "/proc/sys/net/ipv6/conf/lo/forwarding"
	}
	return d.hooks.do(func() error {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s does not exist: is the IP version of the local address disabled?", path)
		}
		if err == nil && string(bytes.TrimSpace(b)) == "1" {
			return nil
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			return fmt.Errorf("allow lookups of underlay routes: %w", err)
		}
		return nil
	})
}

// sweepHooks takes the underlay program from devices that are no longer of the underlay.
func (d *Driver) sweepHooks(devices []netlinkx.Link) error {
	keep := map[int]bool{}
	for _, l := range devices {
		keep[l.Index] = true
	}
	all, err := d.conn.Links(0)
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.Ethernet && !keep[l.Index] {
			if err := d.hooks.detach(l.Index, underlayProgram); err != nil {
				return err
			}
		}
	}
	return nil
}

// detachAll takes our programs from all devices, and so lets go of what they hold.
func (d *Driver) detachAll(all []netlinkx.Link) error {
	var errs []error
	for _, l := range all {
		if l.Ethernet {
			errs = append(errs, d.taps.detach(l.Index, portProgram), d.hooks.detach(l.Index, underlayProgram))
		}
	}
	return errors.Join(errs...)
}
