// SPDX-License-Identifier: Apache-2.0

// Package devname names the devices that drivers make in the kernel: by hashes, with
// an alias that tells whose they are.
package devname

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"
)

const (
	// maxAlias is the kernel's limit (IFALIASZ, less the final NUL).
	maxAlias = 255
	// hashedID begins what stands in the alias for an id that cannot be there.
	hashedID = "sha256:"

	// HalfMade is the device group of a device between its creation and the
	// moment that it gets its alias, which the kernel does not take at creation.
	// So a crash in between leaves nothing that we do not know as ours.
	HalfMade = 0x62677000
)

// Listed returns the form of an instance id that is in aliases that begin with prefix:
// the id, or for one that is too long for an alias or not printable its hash.
func Listed(prefix, id string) string {
	fits := len(prefix)+len(id) <= maxAlias && !strings.HasPrefix(id, hashedID)
	if fits && strings.IndexFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hashedID + hex.EncodeToString(sum[:])
}

// Candidate returns the n-th choice of a device name for an id: prefix and digits of a
// hash. The next one is for when a name is taken by a device of others, or by a hash
// collision.
func Candidate(prefix string, digits int, id string, n int) string {
	salted := id
	if n > 0 {
		salted += "\x00" + strconv.Itoa(n)
	}
	sum := sha256.Sum256([]byte(salted))
	return prefix + hex.EncodeToString(sum[:])[:digits]
}
