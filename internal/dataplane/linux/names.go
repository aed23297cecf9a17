// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

const (
	// aliasPrefix begins the alias of every device that we make.
	aliasPrefix = "bagpipe evpn "
	// maxAlias is the kernel's limit (IFALIASZ, less the final NUL).
	maxAlias = 255
	// hashedID begins what stands in the alias for an id that cannot be there.
	hashedID = "sha256:"

	bridgePrefix = "evpn-"
	bridgeDigits = 10
	vxlanPrefix  = "vxlan-"
	vxlanDigits  = 9

	// halfMade is the device group of a device between its creation and the
	// moment that it gets its alias, which the kernel does not take at creation.
	// So a crash in between leaves nothing that we do not know as ours.
	halfMade = 0x62677000
)

// listedID returns the form of an instance id that is in aliases, and that
// Orphans lists: the id, or for one that is too long for an alias or not
// printable its hash.
func listedID(id string) string {
	fits := len(aliasPrefix)+len(id) <= maxAlias && !strings.HasPrefix(id, hashedID)
	if fits && strings.IndexFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hashedID + hex.EncodeToString(sum[:])
}

func aliasOf(id string) string { return aliasPrefix + listedID(id) }

// instanceOf returns the listed id of the instance that a device belongs to.
func instanceOf(l netlinkx.Link) (string, bool) {
	if l.Kind != "bridge" && l.Kind != "vxlan" {
		return "", false
	}
	return strings.CutPrefix(l.Alias, aliasPrefix)
}

func isHalfMade(l netlinkx.Link) bool {
	return l.Group == halfMade && l.Alias == "" && (l.Kind == "bridge" || l.Kind == "vxlan")
}

// candidate returns the n-th choice of a device name for an id. The next one is
// for when a name is taken by a device of others, or by a hash collision.
func candidate(prefix string, digits int, id string, n int) string {
	salted := id
	if n > 0 {
		salted += "\x00" + strconv.Itoa(n)
	}
	sum := sha256.Sum256([]byte(salted))
	return prefix + hex.EncodeToString(sum[:])[:digits]
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
