// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// limits is the state of max_prefixes.
type limits struct {
	warned map[wire.Family]bool
}

// checkLimits counts the routes held of each family against the bound of the
// neighbour. The error ends the session (RFC 4486 §4).
func (f *flow) checkLimits() *wire.Error {
	most := f.n.settings().MaxPrefixes
	if most == 0 {
		return nil
	}
	for fam, held := range f.n.Received() {
		if held > most {
			f.n.speaker.Log.Error("neighbour sent more routes than max_prefixes", "peer", f.deal.Peer, "family", fam, "max_prefixes", most)
			n := wire.MaxPrefixes(fam, uint32(most))
			return &wire.Error{
				Class: wire.SessionReset, Code: n.Code, Subcode: n.Subcode, Data: n.Data,
				Text: "more routes of " + fam.String() + " than max_prefixes",
			}
		}
		high := held*100 >= most*f.n.settings().MaxPrefixesWarning
		if high && !f.limits.warned[fam] {
			f.n.speaker.Log.Warn("neighbour comes near max_prefixes", "peer", f.deal.Peer, "family", fam, "routes", held, "max_prefixes", most)
		}
		if f.limits.warned == nil {
			f.limits.warned = map[wire.Family]bool{}
		}
		f.limits.warned[fam] = high
	}
	return nil
}
