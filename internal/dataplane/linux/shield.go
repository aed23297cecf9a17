// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// shieldIPv4 keeps the host's IPv4 stack out of the tenant's reach through the
// bridge device, numbered as IPV4_DEVCONF_ of linux/ip.h. A Linux host answers
// for all its addresses on all devices; reverse path filtering on a device
// without addresses and routes drops everything, ARP requests included.
var shieldIPv4 = map[uint16]uint32{
	devconfForwarding:        0,
	devconfRPFilter:          1,
	devconfDropUnicastInL2MC: 1,
}

const (
	devconfForwarding        = 1
	devconfRPFilter          = 8
	devconfDropUnicastInL2MC = 30
)

// shieldIPv6 does the same for IPv6 as far as the kernel can: no address from
// a tenant's router advertisements. IPv6 must not be off, or the kernel takes no
// IPv6 neighbours for ND suppression (ndisc_allow_add). These settings have no
// netlink form. Not being able to write them is a warning.
func (d *Driver) shieldIPv6(bridge string) error {
	var failed error
	err := d.inNamespace(func() {
		for _, s := range []struct{ key, value string }{
			{"disable_ipv6", "0"},
			{"accept_ra", "0"},
			{"autoconf", "0"},
			{"drop_unicast_in_l2_multicast", "1"},
		} {
			failed = errors.Join(failed, setSysctl(filepath.Join("/proc/sys/net/ipv6/conf", bridge, s.key), s.value))
		}
	})
	if failed != nil {
		d.log.Warn("bridge takes IPv6 router advertisements from the tenant network", "bridge", bridge, "err", failed)
	}
	return err
}

// setSysctl writes a value that is not there yet. A kernel without IPv6 has no such file, which is fine.
func setSysctl(path, value string) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(bytes.TrimSpace(old)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}

// inNamespace calls f on a thread inside the driver's network namespace.
// /proc/sys/net is that of the thread that opens it.
func (d *Driver) inNamespace(f func()) error {
	return netspace.In(d.ns, func() error { f(); return nil })
}
