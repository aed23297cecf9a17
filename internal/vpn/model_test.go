// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// model says what a node should be like, in the plainest terms: instances with
// endpoints, and rules of rest-api.md 3 to 5.
type model map[string]*modelInstance

type modelInstance struct {
	typ              dataplane.VPNType
	vni              uint32
	given            bool // the request gave the VNI
	as               vpn.Advertise
	imports, exports []wire.RT
	endpoints        map[modelKey]vpn.Attachment
}

type modelKey struct {
	mac ethernet.MAC
	ip  netip.Addr
}

// type5 tells whether the instance has EVPN type 5 routes, and mpls whether VPN routes.
func (i *modelInstance) type5() bool { return i.as == vpn.AsEVPN || i.as == vpn.AsBoth }
func (i *modelInstance) mpls() bool  { return i.as != vpn.AsEVPN }

// refusal returns the field that an attach is refused for, or ""; labels are those in use.
func (m model) refusal(a vpn.Attachment, labels map[uint32]string) string {
	wide := a.AdvertiseSubnet && a.IP.IsValid() && !a.IP.IsSingleIP()
	switch {
	case a.Type == dataplane.EVPN && a.Direction != dataplane.Both:
		return "direction"
	case a.Type == dataplane.IPVPN && !a.IP.IsValid():
		return "ip_address"
	case a.Type == dataplane.EVPN && wide:
		return "advertise_subnet"
	case a.Type == dataplane.EVPN && a.AdvertiseAs != "":
		return "advertise_as"
	}
	i := m[a.InstanceID]
	if i == nil {
		for _, other := range m {
			if a.VNI != 0 && other.vni == a.VNI && (other.typ == dataplane.EVPN || other.type5() || other.given) {
				return "vni"
			}
		}
		if i := (&modelInstance{typ: a.Type, as: a.AdvertiseAs}); i.inVXLAN() && a.VNI != 0 && labels[a.VNI] != "" {
			return "vni"
		}
		return ""
	}
	if i.typ != a.Type {
		return "vpn_type"
	}
	for _, e := range i.endpoints {
		if e.MAC == a.MAC && e.Port != a.Port {
			return "local_port"
		}
	}
	for _, e := range i.endpoints {
		if a.IP.IsValid() && !wide && e.MAC != a.MAC && e.IP.Addr() == a.IP.Addr() {
			return "ip_address"
		}
	}
	return ""
}

// attach notes an attach that succeeded; vni is the VNI that the instance got.
func (m model) attach(a vpn.Attachment, vni uint32) {
	i := m[a.InstanceID]
	if i == nil {
		i = &modelInstance{typ: a.Type, vni: vni, given: a.VNI != 0, as: a.AdvertiseAs, endpoints: map[modelKey]vpn.Attachment{}}
		m[a.InstanceID] = i
	}
	i.imports, i.exports = sorted(a.Imports), sorted(a.Exports)
	i.endpoints[modelKey{a.MAC, a.IP.Addr()}] = a
	if a.IP.IsValid() {
		delete(i.endpoints, modelKey{mac: a.MAC})
	}
}

// detach notes a detach and returns the field that it is refused for, or "".
func (m model) detach(d vpn.Detachment) string {
	i := m[d.InstanceID]
	switch {
	case i == nil:
		return "vpn_instance_id"
	case i.typ != d.Type:
		return "vpn_type"
	}
	if d.IP.IsValid() {
		k, known := modelKey{d.MAC, d.IP}, false
		for other := range i.endpoints {
			known = known || other.mac == d.MAC || other.ip == d.IP
		}
		if _, ok := i.endpoints[k]; !ok {
			return map[bool]string{true: "ip_address", false: "mac_address"}[known]
		}
		delete(i.endpoints, k)
	} else {
		maps.DeleteFunc(i.endpoints, func(k modelKey, _ vpn.Attachment) bool { return k.mac == d.MAC })
	}
	if len(i.endpoints) == 0 {
		delete(m, d.InstanceID)
	}
	return ""
}

func sorted(list []wire.RT) []wire.RT {
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b wire.RT) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

// inVXLAN tells whether packets come with the VNI of the instance, as they do with labels:
// the model's driver for VRFs has VXLAN.
func (i *modelInstance) inVXLAN() bool { return i.typ == dataplane.EVPN || i.type5() }

// ownRD tells whether an endpoint has a route distinguisher of its own.
func ownRD(a vpn.Attachment) bool {
	return a.Type == dataplane.EVPN && !a.IP.IsValid() || a.Type == dataplane.IPVPN && a.AdvertiseSubnet && !a.IP.IsSingleIP()
}

// identifiers returns how many labels and RDs are in use.
func (m model) identifiers() (labels, rds int) {
	for _, i := range m {
		rds++
		if !i.given || i.inVXLAN() {
			labels++
		}
		macs := map[ethernet.MAC]bool{}
		for _, e := range i.endpoints {
			macs[e.MAC] = true
			if ownRD(e) {
				rds++
			}
		}
		if i.typ == dataplane.IPVPN {
			labels += len(macs)
		}
	}
	return labels, rds
}

// endpointLines describes the endpoints of an instance as snapshotLines does.
func (i *modelInstance) endpointLines() []string {
	var out []string
	for _, e := range i.endpoints {
		out = append(out, fmt.Sprintf("%s %s %s pref %d %s own %t", e.Port, e.MAC, e.IP, e.LocalPref, e.Direction, ownRD(e)))
	}
	slices.Sort(out)
	return out
}

func snapshotLines(i *vpn.Instance) []string {
	var out []string
	for _, e := range i.Snapshot().Endpoints {
		out = append(out, fmt.Sprintf("%s %s %s pref %d %s own %t", e.Port, e.MAC, e.IP, e.LocalPref, e.Direction, e.RD != i.RD))
	}
	slices.Sort(out)
	return out
}

// routeLines describes the routes of an instance as announcedLines does: all
// but labels, numbers of RDs and MAC mobility.
func (i *modelInstance) routeLines() []string {
	var targets []string
	for _, rt := range i.exports {
		targets = append(targets, rt.String())
	}
	slices.Sort(targets)
	var out []string
	line := func(what string, own bool, pref uint32) {
		if pref == 0 {
			pref = 100
		}
		out = append(out, fmt.Sprintf("%s own %t pref %d %v", what, own, pref, targets))
	}
	if i.typ == dataplane.EVPN {
		line("flood", false, 0)
	}
	for _, e := range i.endpoints {
		switch {
		case e.Direction == dataplane.FromPort:
		case i.typ == dataplane.EVPN:
			line(fmt.Sprintf("mac %s %s", e.MAC, e.IP.Addr()), ownRD(e), e.LocalPref)
		default:
			if i.mpls() {
				line("prefix "+announcedPrefix(e).String(), ownRD(e), e.LocalPref)
			}
			if i.type5() {
				line(fmt.Sprintf("type 5 %s vni %d", announcedPrefix(e), i.vni), ownRD(e), e.LocalPref)
			}
		}
	}
	slices.Sort(out)
	return out
}

func announcedLines(i *vpn.Instance) []string {
	var out []string
	for _, p := range i.Announced() {
		var what string
		switch p.NLRI.Kind {
		case wire.KindIMET:
			what = "flood"
		case wire.KindMACIP:
			what = fmt.Sprintf("mac %s %s", p.NLRI.MAC, p.NLRI.IP())
		case wire.KindPrefix:
			what = fmt.Sprintf("type 5 %s vni %d", p.NLRI.Prefix(), p.Label)
		default:
			what = "prefix " + p.NLRI.Prefix().String()
		}
		targets := []string{}
		for _, rt := range p.Attrs.RTs {
			targets = append(targets, rt.String())
		}
		slices.Sort(targets)
		out = append(out, fmt.Sprintf("%s own %t pref %d %v", what, p.NLRI.RD != i.RD, p.Attrs.LocalPref, targets))
	}
	slices.Sort(out)
	return out
}

// portDirection is how a port's entry shows which ways the traffic of its endpoints
// goes: nothing when both.
func (i *modelInstance) portDirection(port string) string {
	to, from := false, false
	for _, e := range i.endpoints {
		if e.Port == port {
			to, from = to || e.Direction != dataplane.FromPort, from || e.Direction != dataplane.ToPort
		}
	}
	switch {
	case to && from:
		return ""
	case to:
		return " to-port"
	}
	return " from-port"
}

// announcedPrefix is what an endpoint of a VRF stands for.
func announcedPrefix(a vpn.Attachment) netip.Prefix {
	if a.AdvertiseSubnet {
		return a.IP.Masked()
	}
	return netip.PrefixFrom(a.IP.Addr(), a.IP.Addr().BitLen())
}

// ownPrefixes are those that the instance has routes for whatever others announce.
func (i *modelInstance) ownPrefixes() (out []netip.Prefix) {
	for _, e := range i.endpoints {
		if i.typ == dataplane.IPVPN && e.Direction != dataplane.FromPort {
			out = append(out, announcedPrefix(e))
		}
	}
	return out
}

// localLines describes the entries of local origin, without labels.
func (i *modelInstance) localLines() []string {
	lines := map[string]bool{}
	for _, e := range i.endpoints {
		lines["port dev "+e.Port+i.portDirection(e.Port)] = true
		if i.typ == dataplane.EVPN {
			lines[fmt.Sprintf("local-mac dev %s %s", e.Port, e.MAC)] = true
			continue
		}
		s := fmt.Sprintf("local-prefix dev %s %s ip %s %s", e.Port, e.MAC, e.IP.Addr(), announcedPrefix(e))
		if e.Direction != dataplane.Both {
			s += " " + string(e.Direction)
		}
		lines[s] = true
	}
	return slices.Sorted(maps.Keys(lines))
}

// installedLines takes the entries of local origin out of a plane's.
func installedLines(entries []string) []string {
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e, "local-") && !strings.HasPrefix(e, "port ") {
			continue
		}
		if before, after, ok := strings.Cut(e, " label "); ok {
			_, rest, _ := strings.Cut(after, " ")
			e = strings.TrimSpace(before + " " + rest)
		}
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}
