// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// peer is the object of a BGP neighbour: the members of the original in their
// order, with ours before the links.
func (s *Server) peer(n *speaker.Neighbour) any {
	cfg, st := n.Config(), n.Status()
	up := st.State == session.Established
	peerAS := any(nil)
	hold := int(cfg.HoldTime)
	families := []string{}
	if up {
		peerAS, hold = st.Negotiated.PeerAS, int(st.Negotiated.HoldTime.Seconds())
		for _, f := range st.Negotiated.Families {
			families = append(families, familyText(f))
		}
	}
	received := n.Received()
	o := object{
		{"peeringAddresses", object{{"peer_address", cfg.Peer.String()}, {"local_address", cfg.Local.String()}}},
		{"as_info", object{{"local", cfg.LocalAS}, {"peer", peerAS}}},
		{"rtc", object{{"active", up && slices.Contains(st.Negotiated.Families, wire.RTC)}, {"enabled", slices.Contains(cfg.Families, wire.RTC)}}},
		{"active_families", families},
		{"protocol", object{
			{"state", st.State.String()}, {"previous_state", "(" + st.Previous.String() + ")"}, {"hold_time", hold},
			{"last_transition_time", st.Since.Format(timeLayout)}, {"last_error", orNil(printable(st.LastError))},
			{"messages_received", messageCounts(st.ReceivedByType)}, {"messages_sent", messageCounts(st.SentByType)},
		}},
		{"name", n.Name},
		{"internals", object{{"event queue length", 0}, {"subscriptions", n.Subscriptions()}}},
		{"route_counts", object{{"received", familyCounts(received)}, {"announced", familyCounts(n.Announced())}}},
	}
	o = append(o, state(n, st, received)...)
	return append(o,
		member{"adv_routes", subtree(func() any { return routeList(s.RIB.Paths(rib.FromSource(n.Name)), true) })},
		member{"logs", subtree(func() any { return s.logs(cfg.Peer.String(), false) })},
	)
}

// state has the members that the original does not know.
func state(n *speaker.Neighbour, st session.Status, received map[wire.Family]int) object {
	set := n.Settings()
	deal := negotiated(st)
	sent, got := any(nil), any(nil)
	if deal != nil {
		sent, got = capabilities(deal.Ours), capabilities(deal.Theirs)
	}
	path := any(nil)
	if b, ok := n.Path(); ok {
		path = pathObject(b)
	}
	return object{
		{"description", orNil(set.Description)},
		{"dynamic", n.Dynamic},
		{"held_down", orNil(st.HeldDown)},
		{"last_loss", lastLoss(st)},
		{"families", object{{"configured", familyNames(set.Families)}, {"negotiated", familyNames(negotiatedFamilies(deal))}, {"disabled", familyNames(n.Disabled())}}},
		{"capabilities", object{{"sent", sent}, {"received", got}}},
		{"graceful_restart", restartObject(n, set.Restart, deal)},
		{"route_refresh", refreshObject(st, deal)},
		{"max_prefixes", maxPrefixes(set, received)},
		{"bfd", path},
		{"transport", transportObject(set, deal)},
	}
}

// negotiated returns what was agreed on for the session that there is, or nil.
func negotiated(st session.Status) *session.Negotiated {
	if st.State != session.Established {
		return nil
	}
	return &st.Negotiated
}

func negotiatedFamilies(deal *session.Negotiated) []wire.Family {
	if deal == nil {
		return nil
	}
	return deal.Families
}

// lastLoss tells how the last session ended, null when none has.
func lastLoss(st session.Status) any {
	if lostSessions(st) == 0 {
		return nil
	}
	l := st.LastLoss
	o := object{{"graceful", l.Graceful}, {"sent", notification(l.Sent)}, {"received", notification(l.Received)}}
	event := any(nil)
	if l.FSMEvent != 0 {
		event = l.FSMEvent
	}
	return append(o, member{"fsm_event", event})
}

// notification describes one, with the text of the peer's operator or ours (RFC
// 9003).
func notification(n *wire.Notification) any {
	if n == nil {
		return nil
	}
	return object{
		{"code", n.Code}, {"subcode", n.Subcode}, {"text", printable(n.String())},
		{"communication", orNil(printable(n.Communication()))},
	}
}

// capabilities lists what an OPEN offers (RFC 5492).
func capabilities(o wire.Open) object {
	restart := any(nil)
	if g := o.GracefulRestart; g != nil {
		families := []object{}
		for _, f := range g.Families {
			families = append(families, object{{"family", f.Family.String()}, {"forwarding_preserved", f.Preserved}})
		}
		restart = object{{"restarting", g.Restarting}, {"notification", g.Notification}, {"restart_time", g.Time}, {"families", families}}
	}
	longLived := []object{}
	for _, l := range o.LongLived {
		longLived = append(longLived, object{{"family", l.Family.String()}, {"forwarding_preserved", l.Preserved}, {"stale_time", l.Time}})
	}
	hops := []object{}
	for _, h := range o.NextHops {
		hops = append(hops, object{{"family", h.Family.String()}, {"next_hop_afi", h.AFI}})
	}
	return object{
		{"router_id", o.RouterID.String()}, {"hold_time", o.HoldTime}, {"families", familyNames(o.Families)},
		{"four_octet_as", o.FourOctetAS}, {"route_refresh", o.RouteRefresh}, {"enhanced_route_refresh", o.EnhancedRefresh},
		{"extended_message", o.ExtendedMessage}, {"graceful_restart", restart},
		{"long_lived_graceful_restart", longLived}, {"extended_next_hops", hops}, {"hostname", orNil(printable(o.Hostname))},
	}
}

// restartObject tells what becomes of routes when a side restarts (RFC 4724):
// "stale" lists the families whose routes are kept for the peer now.
func restartObject(n *speaker.Neighbour, own *speaker.Restart, deal *session.Negotiated) object {
	stale := []object{}
	for _, f := range n.Stale() {
		stale = append(stale, object{{"family", f.Family.String()}, {"stage", f.Stage.String()}, {"until", f.Until.Format(timeLayout)}})
	}
	var kept []wire.Family
	if deal != nil {
		kept = deal.Restartable()
	}
	return object{
		{"enabled", own != nil}, {"negotiated", deal != nil && deal.GracefulRestart()},
		{"we_keep", familyNames(kept)}, {"peer_keeps", deal != nil && deal.KeepsOurs()}, {"stale", stale},
	}
}

func refreshObject(st session.Status, deal *session.Negotiated) object {
	return object{
		{"negotiated", deal != nil && deal.RouteRefresh}, {"enhanced", deal != nil && deal.EnhancedRefresh()},
		{"messages_received", st.ReceivedByType[wire.MsgRouteRefresh]}, {"messages_sent", st.SentByType[wire.MsgRouteRefresh]},
	}
}

// maxPrefixes tells how full the bound of each family is, null without one.
func maxPrefixes(set speaker.Settings, received map[wire.Family]int) any {
	if set.MaxPrefixes == 0 {
		return nil
	}
	used := object{}
	for _, f := range wire.Families {
		if n := received[f]; n > 0 {
			used = append(used, member{f.String(), object{{"routes", n}, {"percent", n * 100 / set.MaxPrefixes}}})
		}
	}
	pause := any(nil)
	if set.MaxPrefixesPause > 0 {
		pause = set.MaxPrefixesPause.Seconds()
	}
	return object{{"limit", set.MaxPrefixes}, {"warning_percent", set.MaxPrefixesWarning}, {"pause", pause}, {"used", used}}
}

// pathObject shows a BFD session (RFC 5880); times are in seconds.
func pathObject(b bfd.Status) object {
	dropped := object{}
	for _, r := range slices.Sorted(maps.Keys(b.Dropped)) {
		if n := b.Dropped[r]; n > 0 {
			dropped = append(dropped, member{r.String(), n})
		}
	}
	return object{
		{"state", b.State.String()}, {"since", b.Since.Format(timeLayout)}, {"diagnostic", b.Diag.String()},
		{"remote_state", b.RemoteState.String()}, {"remote_diagnostic", b.RemoteDiag.String()},
		{"multihop", b.Multihop}, {"device", orNil(b.Device)}, {"times_up", b.Up}, {"flaps", b.Flaps},
		{"detection_time", seconds(b.DetectionTime)}, {"transmit_interval", seconds(b.TxInterval)}, {"multiplier", b.Multiplier},
		{"packets_received", b.In}, {"packets_sent", b.Out}, {"packets_dropped", dropped},
		{"send_errors", b.SendErrors}, {"last_send_error", orNil(b.LastSendError)},
	}
}

func seconds(d time.Duration) float64 { return d.Seconds() }

// transportObject tells the TCP options in use, of the password only whether
// there is one.
func transportObject(set speaker.Settings, deal *session.Negotiated) object {
	hops, local, remote := any(nil), any(nil), any(nil)
	if t := set.Transport.TTLSecurity; t > 0 {
		hops = t
	}
	if deal != nil {
		local, remote = deal.LocalPort, deal.PeerPort
	}
	return object{
		{"md5", set.Transport.Password != ""}, {"ttl_security_hops", hops}, {"device", orNil(set.Transport.Device)},
		{"local_port", local}, {"peer_port", remote},
	}
}

// familyText is the form of the peer object, "(ipv4, mpls-vpn)".
func familyText(f wire.Family) string {
	return "(" + strings.Replace(f.String(), "/", ", ", 1) + ")"
}

func familyNames(families []wire.Family) []string {
	names := []string{}
	for _, f := range families {
		names = append(names, f.String())
	}
	return names
}

func messageCounts(m map[wire.MsgType]uint64) object {
	var o object
	for t := wire.MsgOpen; t <= wire.MsgRouteRefresh; t++ {
		o = append(o, member{t.String(), m[t]})
	}
	return o
}

func familyCounts(m map[wire.Family]int) object {
	o := object{}
	for _, f := range wire.Families {
		if m[f] > 0 {
			o = append(o, member{f.String(), m[f]})
		}
	}
	return o
}
