// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

const (
	vrfAlias    = "bagpipe ipvpn "
	tunnelAlias = "bagpipe tunnel "

	vrfPrefix = "bvrf-"
	digits    = 10
	// nameTries is how many device names are tried before giving up.
	nameTries = 8

	// ours is the protocol number of all that we make: that of the original bagpipe.
	ours = 19
)

// tunnelPrefix begins the names of tunnel devices.
var tunnelPrefix = map[encap.Type]string{encap.GRE: "bgre-", encap.MPLSInUDP: "budp-"}

func aliasOf(id string) string { return vrfAlias + devname.Listed(vrfAlias, id) }

// instanceOf returns the listed id of the instance that a device belongs to.
func instanceOf(l netlinkx.Link) (string, bool) {
	if l.Kind != "vrf" {
		return "", false
	}
	return strings.CutPrefix(l.Alias, vrfAlias)
}

// farAlias is the alias of the tunnel from local to remote, or to none in particular.
func farAlias(e encap.Type, local, remote netip.Addr) string {
	to := "any"
	if remote.IsValid() {
		to = remote.String()
	}
	return fmt.Sprintf("%s%s %s %s", tunnelAlias, strings.ToLower(e.String()), local, to)
}

// isHalfMade tells whether a device was being made when a process ended.
func isHalfMade(l netlinkx.Link) bool {
	return (l.Kind == "vrf" || isTunnel(l)) && l.Group == devname.HalfMade && l.Alias == ""
}

// isTunnel tells whether a device is of a kind that we make for tunnels.
func isTunnel(l netlinkx.Link) bool { return l.Kind == "gre" || l.Kind == "ip6gre" || l.Kind == "ipip" }

// newDevice makes a device under the first free name, by make, and gives it its alias.
func newDevice(k kernel, prefix, id, alias string, make func(name string) error) (netlinkx.Link, error) {
	for n := range nameTries {
		name := devname.Candidate(prefix, digits, id, n)
		_, taken, err := k.LinkByName(name)
		if err != nil {
			return netlinkx.Link{}, err
		}
		if taken {
			continue
		}
		if err := make(name); err != nil {
			return netlinkx.Link{}, err
		}
		l, ok, err := k.LinkByName(name)
		if err == nil && !ok {
			err = fmt.Errorf("device %s vanished", name)
		}
		if err == nil {
			err = k.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Alias: &alias, Group: new(uint32)})
		}
		if err == nil {
			err = k.Link(&netlinkx.LinkRequest{Index: l.Index, Name: name, Up: true})
		}
		if err != nil && ok {
			err = errors.Join(err, goneIsFine(k.DeleteLink(l.Index)))
		}
		l.Alias, l.Group, l.Up = alias, 0, true
		return l, err
	}
	return netlinkx.Link{}, fmt.Errorf("all %d device names like %s are taken by other devices", nameTries,
		devname.Candidate(prefix, digits, id, 0))
}

// goneIsFine drops the errors for what is to be deleted and is not there.
func goneIsFine(err error) error {
	for _, e := range []error{unix.ENOENT, unix.ENODEV, unix.ESRCH, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
