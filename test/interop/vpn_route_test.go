// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// families are the address families of the matrix, by the names of its table.
var families = map[string]wire.Family{
	"VPNv4": wire.VPNv4, "VPNv6": wire.VPNv6, "EVPN": wire.EVPN,
	"FlowSpec VPNv4": wire.FlowVPNv4, "FlowSpec VPNv6": wire.FlowVPNv6, "RTC": wire.RTC,
}

// familyNames has them in the order of the table's columns.
var familyNames = []string{"VPNv4", "VPNv6", "EVPN", "FlowSpec VPNv4", "FlowSpec VPNv6", "RTC"}

func familyName(f wire.Family) string {
	for _, name := range familyNames {
		if families[name] == f {
			return name
		}
	}
	return f.String()
}

// A vpnRoute is a route of any family with everything that some speaker shows,
// in one form for all of them. What a route has not is empty.
type vpnRoute struct {
	Family string
	// Kind is the EVPN route type: "mac-ip", "imet", "prefix".
	Kind      string `json:",omitempty"`
	RD        string `json:",omitempty"`
	Prefix    string `json:",omitempty"` // VPN, EVPN type 5
	MAC       string `json:",omitempty"`
	IP        string `json:",omitempty"` // EVPN types 2 and 3
	Flow      string `json:",omitempty"` // FlowSpec components, as flowText writes them
	Target    string `json:",omitempty"` // RTC: "origin AS:route target"
	Label     uint32 `json:",omitempty"` // MPLS label; EVPN: VNI
	NextHop   string `json:",omitempty"`
	Origin    string `json:",omitempty"`
	ASPath    string `json:",omitempty"` // "64496 64497"
	LocalPref string `json:",omitempty"`
	MED       string `json:",omitempty"`
	RTs       []string
	// Communities are the other extended communities: "encap:vxlan",
	// "mac-mobility:3", "redirect:64512:5".
	Communities []string
	Originator  string `json:",omitempty"`
	Clusters    string `json:",omitempty"`
	PMSI        string `json:",omitempty"` // "ingress-replication <VNI> <tunnel end>"
	// Stale is how the engine holds the route.
	Stale string `json:",omitempty"`
}

// key orders routes and identifies them.
func (r vpnRoute) key() string {
	return strings.Join([]string{r.Family, r.Kind, r.RD, r.Prefix, r.MAC, r.IP, r.Flow, r.Target}, " ")
}

// tidy returns routes sorted, with sorted lists.
func tidy(routes []vpnRoute) []vpnRoute {
	out := slices.Clone(routes)
	for i := range out {
		out[i].RTs = slices.Sorted(slices.Values(out[i].RTs))
		out[i].Communities = slices.Sorted(slices.Values(out[i].Communities))
	}
	slices.SortStableFunc(out, func(a, b vpnRoute) int { return strings.Compare(a.key(), b.key()) })
	return out
}

// parseRD reads a route distinguisher, which has the forms of route targets.
func parseRD(s string) (rd wire.RD, err error) {
	rt, err := wire.ParseRT(s)
	rd = wire.RD(rt)
	rd[0], rd[1] = 0, rt[0]
	return rd, err
}

// wire returns the route as the engine announces it.
func (r vpnRoute) wire() (wire.Route, *wire.Attrs, error) {
	if r.Target != "" {
		return r.rtcWire()
	}
	rd, err := parseRD(r.RD)
	if err != nil {
		return wire.Route{}, nil, err
	}
	attrs, err := r.attrs()
	if err != nil {
		return wire.Route{}, nil, err
	}
	route := wire.Route{Label: r.Label}
	switch {
	case strings.HasPrefix(r.Family, "VPN"):
		p, err := netip.ParsePrefix(r.Prefix)
		if err != nil {
			return route, nil, err
		}
		route.NLRI, route.Label = wire.VPNRoute(rd, p), wire.LabelField(r.Label)
	case strings.HasPrefix(r.Family, "FlowSpec"):
		if route, err = flowRoute(families[r.Family], rd, r.Flow); err != nil {
			return route, nil, err
		}
	case r.Kind == "imet":
		route.NLRI, route.Label = wire.IMETRoute(rd, netip.MustParseAddr(r.IP)), 0
	case r.Kind == "mac-ip":
		ip, _ := netip.ParseAddr(r.IP) // "" is none
		mac, err := ethernet.ParseMAC(r.MAC)
		if err != nil {
			return route, nil, err
		}
		route.NLRI = wire.MACIPRoute(rd, mac, ip)
	default:
		return route, nil, fmt.Errorf("no way to announce %+v", r)
	}
	return route, attrs, nil
}

// rtcWire is wire for an RT constraint route.
func (r vpnRoute) rtcWire() (wire.Route, *wire.Attrs, error) {
	as, text, _ := strings.Cut(r.Target, ":")
	rt, err := wire.ParseRT(text)
	if err != nil {
		return wire.Route{}, nil, err
	}
	attrs, err := r.attrs()
	return wire.Route{NLRI: wire.RTCRoute(number(as), rt)}, attrs, err
}

// attrs returns the path attributes.
func (r vpnRoute) attrs() (*wire.Attrs, error) {
	var l wire.LocalAttrs
	if r.LocalPref != "" {
		l.LocalPref = number(r.LocalPref)
	}
	l.NextHop, _ = netip.ParseAddr(r.NextHop) // FlowSpec has none
	for _, s := range r.RTs {
		rt, err := wire.ParseRT(s)
		if err != nil {
			return nil, err
		}
		l.RTs = append(l.RTs, rt)
	}
	for _, s := range r.Communities {
		c, err := parseCommunity(s)
		if err != nil {
			return nil, err
		}
		l.Communities = append(l.Communities, c)
	}
	if f := strings.Fields(r.PMSI); len(f) == 3 {
		l.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: number(f[1]), Endpoint: netip.MustParseAddr(f[2])}
	}
	return l.Build(), nil
}

func parseCommunity(s string) (wire.ExtCommunity, error) {
	kind, value, _ := strings.Cut(s, ":")
	switch {
	case s == "encap:vxlan":
		return wire.EncapCommunity(encap.VXLAN), nil
	case s == "encap:mpls":
		return wire.EncapCommunity(encap.MPLS), nil
	case kind == "mac-mobility":
		return wire.MobilityCommunity(number(value)), nil
	case kind == "redirect":
		rt, err := wire.ParseRT(value)
		c := wire.ExtCommunity(rt)
		c[0], c[1] = c[0]|0x80, 0x08
		return c, err
	}
	return wire.ExtCommunity{}, fmt.Errorf("extended community %q: want encap, mac-mobility or redirect", s)
}

// routeOf brings a path of the engine into the common form.
func routeOf(p rib.Path) vpnRoute {
	n := p.NLRI
	r := vpnRoute{Family: familyName(n.Kind.Family()), RD: n.RD.String(), Label: p.Label}
	switch n.Kind {
	case wire.KindVPNv4, wire.KindVPNv6:
		r.Prefix, r.Label = n.Prefix().String(), p.MPLSLabel()
	case wire.KindMACIP:
		r.Kind, r.MAC = "mac-ip", n.MAC.String()
		if ip := n.IP(); ip.IsValid() {
			r.IP = ip.String()
		}
	case wire.KindIMET:
		r.Kind, r.IP = "imet", n.IP().String()
	case wire.KindPrefix:
		r.Kind, r.Prefix = "prefix", n.Prefix().String()
	case wire.KindFlowVPNv4, wire.KindFlowVPNv6:
		r.Flow = flowText(p.Raw, n.Kind == wire.KindFlowVPNv6)
	case wire.KindRTC:
		r.RD, r.Target = "", fmt.Sprintf("%d:%s", n.Tag, wire.RT(n.RD))
	}
	if p.Stale != rib.Fresh {
		r.Stale = p.Stale.String()
	}
	r.addAttrs(p.Attrs)
	return r
}

// addAttrs enters path attributes.
func (r *vpnRoute) addAttrs(a *wire.Attrs) {
	if a.NextHop.IsValid() {
		r.NextHop = a.NextHop.String()
	}
	for _, c := range a.Communities {
		if c.IsRT() {
			r.RTs = append(r.RTs, wire.RT(c).String())
		} else {
			r.Communities = append(r.Communities, strings.ToLower(c.String()))
		}
	}
	if a.OriginatorID.IsValid() {
		r.Originator = a.OriginatorID.String()
	}
	if p := a.PMSI; p != nil {
		r.PMSI = fmt.Sprintf("type %d", p.TunnelType)
		if p.TunnelType == wire.PMSIIngressReplication {
			r.PMSI = fmt.Sprintf("ingress-replication %d %s", p.Label, p.Endpoint)
		}
	}
	var path []string
	for _, as := range a.ASPath {
		path = append(path, strconv.Itoa(int(as)))
	}
	r.ASPath = strings.Join(path, " ")
	r.addOthers(a)
}

// addOthers enters what wire.Attrs keeps only in its raw octets.
func (r *vpnRoute) addOthers(a *wire.Attrs) {
	for _, other := range a.Others() {
		switch name, text := other[0], other[1]; name {
		case "med":
			r.MED = text
		case "cluster-list":
			r.Clusters = text
		}
	}
	for rest := a.Raw; len(rest) > 2; {
		head, size := 3, int(rest[2])
		if rest[0]&0x10 != 0 {
			head, size = 4, int(binary.BigEndian.Uint16(rest[2:]))
		}
		switch value := rest[head : head+size]; rest[1] {
		case 1:
			r.Origin = [...]string{"igp", "egp", "incomplete"}[value[0]]
		case 5:
			r.LocalPref = strconv.Itoa(int(binary.BigEndian.Uint32(value)))
		}
		rest = rest[head+size:]
	}
}
