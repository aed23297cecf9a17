// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

func (s *Server) instances() any {
	var c collection
	for _, i := range s.Manager.Instances() {
		shown := object{{"name", i.Name}}
		if d := i.Snapshot().Description; d != nil {
			shown = append(shown, member{"description", d})
		}
		c = append(c, entry{id: i.ID, shown: shown, get: func() any { return s.instance(i) }})
	}
	return c
}

// instance is the object of a VPN instance; members and their order are those
// of the original.
func (s *Server) instance(i *vpn.Instance) any {
	snap := i.Snapshot()
	kind := "EVI"
	var o object
	if i.Type == dataplane.EVPN {
		o = append(o, member{"gateway_port", s.gatewayPort(snap)})
	} else {
		kind = "VRF"
	}
	o = append(o, member{"name", i.Name}, member{"internals", object{{"event queue length", 0}, {"subscriptions", subscriptions(i, snap)}}})
	if kind == "VRF" {
		o = append(o, member{"readvertised", subtree(func() any { return routeList(i.Readvertised(), false) })})
	}
	gateway := any(nil)
	if i.Gateway.IsValid() {
		gateway = i.Gateway.String()
	}
	o = append(o,
		member{"instance_type", kind},
		member{"external_instance_id", i.ID},
		member{"description", rawOrNil(snap.Description)},
		member{"dataplane", subtree(func() any { return s.instanceDataplane(i) })},
		member{"route_targets", object{{"import", targetTexts(snap.Imports)}, {"export", targetTexts(snap.Exports)}}},
		member{"gateway_ip", gateway},
		member{"subnet_prefix_length", i.PrefixLen},
		member{"instance_dataplane_id", i.VNI},
		member{"ports", subtree(func() any { return portsOf(i.Snapshot()) })},
		member{"readvertise", readvertiseOf(snap)},
		member{"attract_traffic", attractOf(snap)},
		member{"fallback", fallbackOrNil(snap.Fallback)},
		member{"received_routes", subtree(func() any { return tableRoutes(i, func(t rib.TablePaths) []rib.Path { return t.Received }) })},
		member{"best_routes", subtree(func() any { return tableRoutes(i, func(t rib.TablePaths) []rib.Path { return t.Best }) })},
		member{"adv_routes", subtree(func() any { return routeList(i.Announced(), true) })},
		member{"logs", subtree(func() any { return s.logs(i.ID, false) })},
	)
	if i.AdvertiseAs != vpn.AsVPN {
		o = append(o, member{"advertise_as", string(i.AdvertiseAs)})
	}
	return o
}

// gatewayPort shows where an EVI is plugged into a VRF. The name of the device
// stands in quotes, as clients of the original know it.
func (s *Server) gatewayPort(snap vpn.Snapshot) any {
	if snap.VRF == "" {
		return nil
	}
	name := ""
	if i := s.Manager.Instance(snap.VRF); i != nil {
		name = i.Name
	}
	vrf := reference{[]string{"vpns", "instances", snap.VRF}, object{{"id", name}, {"external_instance_id", snap.VRF}}}
	return object{{"interface", "'" + snap.GatewayPort + "'"}, {"ipvpn", vrf}}
}

// readvertiseOf is what the instance re-advertises; empty when it does not.
func readvertiseOf(snap vpn.Snapshot) object {
	r := snap.Readvertise
	if len(r.To) == 0 {
		return object{}
	}
	return object{{"from", targetTexts(r.From)}, {"to", targetTexts(r.To)}}
}

// attractOf is what traffic the instance attracts; empty when it does not.
func attractOf(snap vpn.Snapshot) object {
	a := snap.Attract
	if len(a.Redirect) == 0 {
		return object{}
	}
	to := a.To
	if len(to) == 0 {
		to = snap.Readvertise.To
	}
	static := []string{}
	for _, p := range a.Static {
		static = append(static, p.String())
	}
	return object{
		{"redirect_rts", targetTexts(a.Redirect)}, {"classifier", rawOrNil(a.Text)},
		{"to", targetTexts(to)}, {"static_destination_prefixes", static},
	}
}

func fallbackOrNil(f *vpn.Fallback) any {
	if f == nil {
		return nil
	}
	return f.Text
}

func rawOrNil(b json.RawMessage) any {
	if b == nil {
		return nil
	}
	return b
}

func targetTexts(rts []wire.RT) []string {
	out := []string{}
	for _, rt := range rts {
		out = append(out, wire.ExtCommunity(rt).String())
	}
	return out
}

func subscriptions(i *vpn.Instance, snap vpn.Snapshot) []string {
	family := wire.VPNv4
	if i.Type == dataplane.EVPN {
		family = wire.EVPN
	}
	out := []string{}
	for _, rt := range snap.Imports {
		out = append(out, "match:"+family.String()+","+wire.ExtCommunity(rt).String())
		if i.Type == dataplane.IPVPN {
			out = append(out, "match:"+wire.FlowVPNv4.String()+","+wire.ExtCommunity(rt).String())
		}
	}
	for _, rt := range snap.Readvertise.From {
		out = append(out, "match:"+family.String()+","+wire.ExtCommunity(rt).String())
	}
	return out
}

func portsOf(snap vpn.Snapshot) any {
	o := object{}
	for _, e := range snap.Endpoints {
		ip, pref := any(nil), any(nil)
		if e.IP.IsValid() {
			ip = e.IP.String()
		}
		if e.LocalPref != 0 {
			pref = e.LocalPref
		}
		end := object{
			{"label", e.Label}, {"mac_address", e.MAC.String()}, {"ip_address", ip}, {"local_pref", pref},
			{"rd", " rd " + e.RD.String()}, {"description", rawOrNil(e.Description)}, {"direction", string(e.Direction)},
		}
		if e.MobilitySeq > 0 {
			end = append(end, member{"mac_mobility_sequence", e.MobilitySeq})
		}
		if n := len(o); n > 0 && o[n-1].name == e.Port {
			port := o[n-1].value.(object)
			port[0].value = append(port[0].value.([]object), end)
			continue
		}
		o = append(o, member{e.Port, object{{"endpoints", []object{end}}}})
	}
	return o
}

func (s *Server) instanceDataplane(i *vpn.Instance) any {
	o := object{}
	if f := i.Forwarding(); f != nil {
		for _, m := range f.Describe() {
			o = append(o, member{m.Name, m.Value})
		}
		o = append(o, member{"entries", subtree(func() any {
			lines := []string{}
			for _, e := range f.Entries() {
				lines = append(lines, e.String())
			}
			slices.Sort(lines)
			return lines
		})})
	}
	if _, ok := s.Reconciler.Driver(i.Type).(dataplane.Counting); ok {
		o = append(o, member{"counters", subtree(func() any { return s.instanceCounters(i) })})
	}
	return append(o,
		member{"driver", reference{[]string{"vpns", "dataplane", "drivers", string(i.Type)}, object{{"id", string(i.Type)}}}},
		member{"logs", subtree(func() any { return s.logs(i.ID, false) })},
	)
}

// tableRoutes lists routes by tracked entry, under the names of the original.
func tableRoutes(i *vpn.Instance, pick func(rib.TablePaths) []rib.Path) any {
	byName := map[string][]rib.Path{}
	for _, t := range i.Routes() {
		for _, p := range pick(t) {
			if name := entryText(t.Key, p); name != "" {
				byName[name] = append(byName[name], p)
			}
		}
	}
	o := object{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		o = append(o, member{name, routeList(byName[name], true)})
	}
	return o
}

// entryText names an entry. Those of addresses have no counterpart in the
// original, which tracks MACs only; their routes are shown with the MAC.
func entryText(k rib.EntryKey, p rib.Path) string {
	switch k.Kind {
	case rib.EntryMAC:
		return "('MAC', " + strings.ToUpper(k.MAC().String()) + ")"
	case rib.EntryFlood:
		return "('Multicast', (" + p.NLRI.IP().String() + ",  rd " + p.NLRI.RD.String() + "))"
	case rib.EntryPrefix:
		return "'" + k.Prefix().String() + "'"
	case rib.EntryFlow:
		return "('Flow', ' " + wire.FlowText(p.Raw, p.NLRI.Kind == wire.KindFlowVPNv6) + "')"
	}
	return ""
}

// routeList renders routes, sorted by their text.
func routeList(paths []rib.Path, source bool) []object {
	out := make([]object, 0, len(paths))
	for _, p := range paths {
		out = append(out, routeObject(p, source))
	}
	slices.SortFunc(out, func(a, b object) int { return strings.Compare(a[0].name, b[0].name) })
	return out
}

// routeObject renders a route: one member, named by the text of the NLRI.
func routeObject(p rib.Path, source bool) object {
	family := p.NLRI.Kind.Family()
	next := any(nil)
	if p.Attrs.NextHop.IsValid() {
		next = p.Attrs.NextHop.String()
	}
	o := object{{"afi-safi", family.String()}, {"attributes", attributes(p.Attrs)}, {"next_hop", next}}
	if source {
		o = append(o, member{"source", reference{[]string{"bgp", "workers", p.Source}, object{{"id", p.Source}}}})
	}
	if family != wire.RTC && !p.NLRI.Kind.IsFlow() {
		o = append(o, member{"route_targets", targetTexts(p.Attrs.RTs)})
	}
	if p.Stale != rib.Fresh {
		o = append(o, member{"stale", p.Stale.String()})
	}
	return object{{p.Text(p.Attrs.NextHop), o}}
}

// attributes renders path attributes, without AS_PATH and ORIGIN.
func attributes(a *wire.Attrs) object {
	var o object
	if len(a.Communities) > 0 {
		o = append(o, member{"extended-community", communities(a.Communities)})
	}
	o = append(o, member{"local-preference", strconv.FormatUint(uint64(a.LocalPref), 10)})
	if p := a.PMSI; p != nil {
		o = append(o, member{"pmsi-tunnel", pmsiText(p)})
	}
	if a.OriginatorID.IsValid() {
		o = append(o, member{"originator-id", a.OriginatorID.String()})
	}
	for _, other := range a.Others() {
		o = append(o, member{other[0], other[1]})
	}
	return o
}

// pmsiText renders a PMSI tunnel: type, flags, the label field as MPLS label and
// raw (the VNI), tunnel end.
func pmsiText(p *wire.PMSI) string {
	if p.TunnelType != wire.PMSIIngressReplication {
		return "pmsi:type" + strconv.Itoa(int(p.TunnelType))
	}
	return fmt.Sprintf("pmsi:ingressreplication:%d:%d(%d):%s", p.Flags, p.Label>>4, p.Label, p.Endpoint)
}

// communities renders extended communities: targets first, then RT-records,
// then the rest; one stands alone, several in brackets.
func communities(cs []wire.ExtCommunity) string {
	var texts [3][]string
	for _, c := range cs {
		rank := 2
		switch kind, _ := c.Known(); kind {
		case "target":
			rank = 0
		case "rtrecord":
			rank = 1
		}
		texts[rank] = append(texts[rank], c.String())
	}
	all := slices.Concat(texts[0], texts[1], texts[2])
	if len(all) == 1 {
		return all[0]
	}
	return "[ " + strings.Join(all, " ") + " ]"
}

// kernelRelease returns the release of the running kernel, as uname -r.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
