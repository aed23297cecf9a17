// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
)

// Kinds of E-VPN routes (RFC 7432 types 2 and 3).
const (
	kindMACIP     = "MAC/IP"
	kindMulticast = "multicast"
)

// An evpnRoute is an E-VPN route with everything that the speakers in these
// tests can show, in one form for all of them. Text is lower case.
type evpnRoute struct {
	Kind string
	RD   string
	// ESI is "0" for none.
	ESI string
	Tag uint32
	MAC string
	// IP is the host's address in type 2, the originator's in type 3.
	IP string
	// VNI is the raw 24-bit label of type 2.
	VNI uint32
	// PMSI is type and flags, "ingress-replication 0".
	PMSI      string
	PMSILabel uint32
	// TunnelEnd is the identifier in the PMSI attribute.
	TunnelEnd string
	NextHop   string
	LocalPref uint32
	// MED is empty when the attribute is absent.
	MED string
	// RTs and Communities (all others) are sorted.
	RTs         []string
	Communities []string
	Originator  string
	Clusters    []string
}

const (
	ingressReplication = "ingress-replication 0"
	encapVXLAN         = "encap:vxlan"
)

// An evi is what the routes of one E-VPN instance of one node have in common.
type evi struct {
	rd  string
	vni uint32
	rts []string
	// originator and nextHop are those of the multicast route; tunnel is where
	// tunnels end, the next hop of MAC routes.
	originator, nextHop, tunnel string
}

// evi describes the instance of a node, which has to be there already. The
// multicast route may name the BGP local address or the tunnel's, where they
// differ.
func (n *node) evi(instance string, rts ...string) evi {
	n.t.Helper()
	vni := n.instanceVNI(instance)
	r := n.multicast(vni)
	if !strings.HasPrefix(r.RD, n.routerID+":") {
		n.t.Errorf("%s: route distinguisher %s does not start with the router id %s", n.label, r.RD, n.routerID)
	}
	for _, addr := range []string{r.IP, r.NextHop} {
		if addr != n.local && addr != n.tunnel {
			n.t.Errorf("%s: multicast route names %s, which is neither %s nor %s", n.label, addr, n.local, n.tunnel)
		}
	}
	return evi{rd: r.RD, vni: vni, rts: rts, originator: r.IP, nextHop: r.NextHop, tunnel: n.tunnel}
}

// multicast returns the expected type 3 route.
func (e evi) multicast() evpnRoute {
	return evpnRoute{
		Kind: kindMulticast, RD: e.rd, IP: e.originator, PMSI: ingressReplication, PMSILabel: e.vni,
		TunnelEnd: e.tunnel, NextHop: e.nextHop, LocalPref: 100, RTs: e.rts, Communities: []string{encapVXLAN},
	}
}

// macIP returns the expected type 2 route; ip is empty for a MAC-only route.
func (e evi) macIP(mac, ip string) evpnRoute {
	return evpnRoute{
		Kind: kindMACIP, RD: e.rd, ESI: "0", MAC: mac, IP: ip, VNI: e.vni,
		NextHop: e.tunnel, LocalPref: 100, RTs: e.rts, Communities: []string{encapVXLAN},
	}
}

// routes returns the expected routes of the instance with all addresses of the
// vms attached.
func (e evi) routes(vms ...*vm) []evpnRoute {
	out := []evpnRoute{e.multicast()}
	for _, v := range vms {
		for i := range v.ips {
			out = append(out, e.macIP(v.mac, v.ip(i)))
		}
	}
	return out
}

// reflectedByFRR is reflected by FRR, which adds a MED of 0.
func reflectedByFRR(routes []evpnRoute, originator, cluster string) []evpnRoute {
	out := reflected(routes, originator, cluster)
	for i := range out {
		out[i].MED = "0"
	}
	return out
}

// reflected returns the routes as a route reflector passes them on.
func reflected(routes []evpnRoute, originator, cluster string) []evpnRoute {
	out := slices.Clone(routes)
	for i := range out {
		out[i].Originator, out[i].Clusters = originator, []string{cluster}
	}
	return out
}

func sorted(routes []evpnRoute) []evpnRoute {
	key := func(r evpnRoute) string { return r.Kind + r.RD + r.MAC + r.IP + r.Originator + r.NextHop }
	slices.SortFunc(routes, func(a, b evpnRoute) int { return strings.Compare(key(a), key(b)) })
	return routes
}

// wantRoutes waits until get returns exactly the wanted routes.
func wantRoutes(t testing.TB, what string, get func() ([]evpnRoute, error), want ...[]evpnRoute) {
	t.Helper()
	defer noteSlow(t, what)()
	all := sorted(slices.Concat(want...))
	var got []evpnRoute
	var err error
	nstest.Eventually(t, routeTimeout, func() bool {
		got, err = get()
		return err == nil && cmp.Equal(all, sorted(got), emptyIsNil)
	}, func() string {
		if err != nil {
			return what + ": " + err.Error()
		}
		return what + ": (-want +got)\n" + cmp.Diff(all, got, emptyIsNil)
	})
}

// emptyIsNil makes no difference between an empty list and none.
var emptyIsNil = cmp.FilterValues(
	func(a, b []string) bool { return len(a) == 0 && len(b) == 0 },
	cmp.Comparer(func(a, b []string) bool { return true }),
)

// The looking glass texts of routes, as the original prints them.
var (
	macIPText     = regexp.MustCompile(`^evpn:macadv::([^ ]+:\d+):(-|[0-9A-Fa-f:]+):(\d+):([0-9A-F:]{17})/48:([0-9a-f.:]*): label (\d+) \((\d+)\)$`)
	multicastText = regexp.MustCompile(`^evpn:multicast::([^ ]+?:\d+):(\d+):([0-9a-f.:]+)$`)
	pmsiText      = regexp.MustCompile(`^pmsi:ingressreplication:(-|\d+):(?:\d+\()?(\d+)\)?:([0-9a-f.:]+)$`)
)

// parseLookingGlass brings a looking glass route into the common form.
func parseLookingGlass(nlri string, in lookingGlassRoute) (evpnRoute, error) {
	r := evpnRoute{NextHop: in.NextHop, LocalPref: 100}
	if in.Family != "l2vpn/evpn" {
		return r, fmt.Errorf("route %s is of family %q", nlri, in.Family)
	}
	if m := macIPText.FindStringSubmatch(nlri); m != nil {
		r.Kind, r.RD, r.ESI, r.Tag, r.MAC, r.IP = kindMACIP, m[1], m[2], number(m[3]), strings.ToLower(m[4]), m[5]
		r.VNI = number(m[7])
		if r.ESI == "-" {
			r.ESI = "0"
		}
		if number(m[6]) != r.VNI>>4 {
			return r, fmt.Errorf("route %s: label %s is not %d >> 4", nlri, m[6], r.VNI)
		}
	} else if m := multicastText.FindStringSubmatch(nlri); m != nil {
		r.Kind, r.RD, r.Tag, r.IP = kindMulticast, m[1], number(m[2]), m[3]
	} else {
		return r, fmt.Errorf("looking glass route in an unknown form: %q", nlri)
	}
	for name, value := range in.Attributes {
		switch name {
		case "local-preference":
			r.LocalPref = number(value)
		case "med":
			r.MED = value
		case "originator-id":
			r.Originator = value
		case "cluster-list":
			r.Clusters = textList(value)
		case "extended-community":
			r.addCommunities(textList(value))
		case "pmsi-tunnel":
			m := pmsiText.FindStringSubmatch(value)
			if m == nil {
				return r, fmt.Errorf("route %s: PMSI attribute in an unknown form: %q", nlri, value)
			}
			// Flags are "-" or "0" for none, the label is "1(16)" or "16".
			r.PMSI = "ingress-replication " + strings.ReplaceAll(m[1], "-", "0")
			r.PMSILabel, r.TunnelEnd = number(m[2]), m[3]
		default:
			return r, fmt.Errorf("route %s: unexpected attribute %s %q", nlri, name, value)
		}
	}
	if rts := cleanRTs(in.RTs); !slices.Equal(rts, r.RTs) {
		return r, fmt.Errorf("route %s: route_targets %v differ from those of its communities %v", nlri, rts, r.RTs)
	}
	return r, nil
}

// addCommunities sorts the texts of extended communities into r.
func (r *evpnRoute) addCommunities(texts []string) {
	for _, c := range texts {
		if rt, ok := strings.CutPrefix(c, "target:"); ok {
			r.RTs = append(r.RTs, rt)
		} else {
			r.Communities = append(r.Communities, strings.ToLower(c))
		}
	}
	slices.Sort(r.RTs)
	slices.Sort(r.Communities)
}

func cleanRTs(in []string) []string {
	var out []string
	for _, rt := range in {
		out = append(out, strings.TrimPrefix(rt, "target:"))
	}
	slices.Sort(out)
	return out
}

// textList splits "[ a b ]" or a bare "a".
func textList(s string) []string {
	return strings.Fields(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
}

// number reads a decimal number that a pattern has matched already.
func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 1<<32 - 1
	}
	return uint32(n)
}
