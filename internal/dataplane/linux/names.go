// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/rand"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

const (
	// aliasPrefix begins the alias of every device that we make.
	aliasPrefix = "bagpipe evpn "

	bridgePrefix = "evpn-"
	bridgeDigits = 10
	vxlanPrefix  = "vxlan-"
	vxlanDigits  = 9
)

// listedID returns the form of an instance id that is in aliases, and that Orphans lists.
func listedID(id string) string { return devname.Listed(aliasPrefix, id) }

func aliasOf(id string) string { return aliasPrefix + listedID(id) }

// instanceOf returns the listed id of the instance that a device belongs to.
func instanceOf(l netlinkx.Link) (string, bool) {
	if l.Kind != "bridge" && l.Kind != "vxlan" {
		return "", false
	}
	return strings.CutPrefix(l.Alias, aliasPrefix)
}

func isHalfMade(l netlinkx.Link) bool {
	return l.Group == devname.HalfMade && l.Alias == "" && (l.Kind == "bridge" || l.Kind == "vxlan")
}

// randomMAC returns a locally administered address that begins with first.
//
// A bridge without an address of its own takes the lowest of its ports', and
// the kernel forgets all neighbours of a device whose address changes
// (NETDEV_CHANGEADDR). So our bridges have an address from the beginning, and
// our VXLAN devices a high one, that bridges of others do not take.
func randomMAC(first byte) ethernet.MAC {
	m := ethernet.MAC{first}
	_, _ = rand.Read(m[1:]) // never fails, crypto/rand says
	return m
}
