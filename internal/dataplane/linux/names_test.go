// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"pgregory.net/rapid"
)

func TestListedID(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255-len(aliasPrefix))
	for _, tt := range []struct {
		name, in string
		kept     bool
	}{
		{"plain", "evpn_1b2c-77", true},
		{"with spaces", "blue net", true},
		{"longest", long, true},
		{"too long", long + "x", false},
		{"control character", "a\x00b", false},
		{"looks like a hash", "sha256:" + "00", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := listedID(tt.in)
			if (got == tt.in) != tt.kept {
				t.Errorf("listedID(%q) = %q, kept should be %v", tt.in, got, tt.kept)
			}
			if !tt.kept && !strings.HasPrefix(got, "sha256:") {
				t.Errorf("listedID(%q) = %q, want a hash", tt.in, got)
			}
		})
	}
}

func TestNamesFitAndDiffer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		if n := len(aliasOf(id)); n > 255 {
			t.Fatalf("alias has %d octets", n)
		}
		other := rapid.String().Draw(t, "other")
		if id != other && aliasOf(id) == aliasOf(other) {
			t.Fatalf("%q and %q have one alias", id, other)
		}
		seen := map[string]bool{}
		for n := range nameTries {
			for _, name := range []string{devname.Candidate(bridgePrefix, bridgeDigits, id, n), devname.Candidate(vxlanPrefix, vxlanDigits, id, n)} {
				if len(name) != 15 || seen[name] || isOriginal(netlinkx.Link{Name: name, Kind: "bridge"}) {
					t.Fatalf("name %q (candidate %d)", name, n)
				}
				seen[name] = true
			}
		}
	})
}
