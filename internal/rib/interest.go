// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"strconv"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// interest is the set of route targets that a peer asks for with RTC routes
// (RFC 4684). Several routes may ask for the same route target, with other
// origin ASes; each counts. Prefixes shorter than a whole route target match
// all that begin so. The origin AS does not take part in matching.
type interest struct {
	wants   map[rtPrefix]int
	lengths [65]int // number of wants by length
}

type rtPrefix struct {
	bits uint8
	rt   wire.RT
}

// String returns the route target, with the number of significant bits when
// that is not all.
func (p rtPrefix) String() string {
	s := wire.ExtCommunity(p.rt).String()
	if p.bits < 64 {
		s += "/" + strconv.Itoa(int(p.bits))
	}
	return s
}

func newInterest() interest { return interest{wants: map[rtPrefix]int{}} }

// add counts an RTC route in (+1) or out (-1).
func (i *interest) add(n wire.NLRI, by int) {
	bits := uint8(0)
	if n.Bits > 32 {
		bits = n.Bits - 32
	}
	p := rtPrefix{bits, maskRT(wire.RT(n.RD), bits)}
	i.lengths[bits] += by
	if i.wants[p] += by; i.wants[p] <= 0 {
		delete(i.wants, p)
	}
}

// all tells whether the peer asks for everything.
func (i *interest) all() bool { return i.lengths[0] > 0 }

// matches tells whether the peer asks for rt.
func (i *interest) matches(rt wire.RT) bool {
	for bits := uint8(0); bits <= 64; bits++ {
		if i.lengths[bits] > 0 && i.wants[rtPrefix{bits, maskRT(rt, bits)}] > 0 {
			return true
		}
	}
	return false
}

func maskRT(rt wire.RT, bits uint8) wire.RT {
	for b := range rt {
		switch keep := int(bits) - 8*b; {
		case keep <= 0:
			rt[b] = 0
		case keep < 8:
			rt[b] &= 0xff << (8 - keep)
		}
	}
	return rt
}
