// SPDX-License-Identifier: Apache-2.0

package rib

import "github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"

// rtcOrigin makes an RTC route for each route target that an instance imports.
type rtcOrigin struct {
	on     bool
	source SourceID
	as     uint32
	set    *Set
}

// OriginateRTC makes the RIB announce, from now on, an RTC route for each route
// target that a table imports (RFC 4684 §4). Src is a local source of the
// daemon itself; attrs are the attributes of those routes.
func (r *RIB) OriginateRTC(src SourceID, originAS uint32, attrs *wire.Attrs) {
	set := r.NewInterner().InternLocal(attrs)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rtc = rtcOrigin{true, src, originAS, set}
	for rt, t := range r.byRT {
		if len(t.tables) > 0 {
			r.originateRTC(rt)
		}
	}
}

func (r *RIB) originateRTC(rt wire.RT) {
	if r.rtc.on {
		r.announce(r.rtc.source, wire.Route{NLRI: wire.RTCRoute(r.rtc.as, rt)}, r.rtc.set, false)
	}
}

func (r *RIB) withdrawRTC(rt wire.RT) {
	if r.rtc.on {
		r.withdraw(r.rtc.source, wire.RTCRoute(r.rtc.as, rt))
	}
}
