// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// debianVersion returns a function that tells the upstream version of a package.
func debianVersion(pkg string) func(testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		out, err := exec.Command("dpkg-query", "-W", "-f", "${source:Upstream-Version}", pkg).Output()
		if err != nil {
			t.Fatalf("version of %s: %v", pkg, err)
		}
		return strings.TrimSpace(string(out))
	}
}

// communityNumber returns the eight octets of the text of an extended community
// that is not a route target.
func communityNumber(t testing.TB, text string) uint64 {
	t.Helper()
	c, err := parseCommunity(text)
	if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(c[:])
}

// targetNumber does the same for a route target.
func targetNumber(t testing.TB, text string) uint64 {
	t.Helper()
	rt, err := wire.ParseRT(text)
	if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(rt[:])
}

// addCommunity enters eight octets into the RTs or the other communities.
func (r *vpnRoute) addCommunity(n uint64) {
	var c wire.ExtCommunity
	binary.BigEndian.PutUint64(c[:], n)
	if c.IsRT() {
		r.RTs = append(r.RTs, wire.RT(c).String())
		return
	}
	r.Communities = append(r.Communities, strings.ToLower(c.String()))
}

// onOff is how BIRD and others write a flag.
func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// unmapped returns an address in its usual form, IPv4 for IPv4-mapped ones; what
// is no address comes back as it is.
func unmapped(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().String()
	}
	return text
}
