// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// fakeKernel has what the driver puts into a kernel, and refuses what a kernel refuses:
// what is not there, and what others have.
type fakeKernel struct {
	last       int
	links      map[int]netlinkx.Link
	nexthops   map[uint32]netlinkx.Nexthop
	routes     map[string]netlinkx.Route
	mpls       map[uint32]netlinkx.MPLSRoute
	neighbours map[string]netlinkx.Neigh
	addresses  map[string]netlinkx.Address
	rulesOf    map[string]netlinkx.Rule
	sysctls    map[string]string
	// log has the requests that were carried out, batched ones only.
	log []string
	// refuse makes the error of a request that the kernel does not take.
	refuse func(netlinkx.Request) error
	// noPortMasks is set for a kernel that knows no masks of ports, and says nothing of it.
	noPortMasks bool
}

func newFakeKernel(ports ...string) *fakeKernel {
	k := &fakeKernel{
		links: map[int]netlinkx.Link{}, nexthops: map[uint32]netlinkx.Nexthop{}, routes: map[string]netlinkx.Route{},
		mpls: map[uint32]netlinkx.MPLSRoute{}, neighbours: map[string]netlinkx.Neigh{}, addresses: map[string]netlinkx.Address{},
		rulesOf: map[string]netlinkx.Rule{}, sysctls: map[string]string{"net/mpls/platform_labels": "0", "net/ipv6/conf/all/forwarding": "0"},
	}
	for _, name := range append([]string{"eth0"}, ports...) {
		k.addLink(netlinkx.Link{Name: name, Kind: "veth", Ethernet: true, Up: true, Carrier: true})
	}
	for _, family := range families {
		r := netlinkx.Rule{Family: family, Table: unix.RT_TABLE_LOCAL, Protocol: unix.RTPROT_KERNEL}
		k.rulesOf[ruleKey(r)] = r
	}
	return k
}

func ruleKey(r netlinkx.Rule) string  { r.Protocol = 0; return fmt.Sprint(r.Family, " ", r) }
func routeID(r netlinkx.Route) string { return fmt.Sprint(r.Dst, r.Table, r.Metric) }

func (k *fakeKernel) addLink(l netlinkx.Link) int {
	k.last++
	l.Index = k.last
	k.links[l.Index] = l
	return l.Index
}

func (k *fakeKernel) Do(reqs []netlinkx.Request, errs []error) {
	for i, r := range reqs {
		err := k.do(r)
		if k.refuse != nil && err == nil {
			err = k.refuse(r)
		}
		if errs[i] = nil; err != nil {
			errs[i] = fmt.Errorf("%s: %w", r, err)
			continue
		}
		k.carryOut(r)
		k.log = append(k.log, k.name(r.String()))
	}
}

// name puts device names in the place of indexes.
func (k *fakeKernel) name(text string) string {
	for index, l := range k.links {
		text = strings.ReplaceAll(text+" ", fmt.Sprintf("#%d ", index), l.Name+" ")
		text = strings.TrimSuffix(text, " ")
	}
	return text
}

// do tells whether a kernel would take a request.
func (k *fakeKernel) do(r netlinkx.Request) error {
	there, mayBe := false, true
	switch r := r.(type) {
	case netlinkx.NexthopRequest:
		_, there = k.nexthops[r.ID]
		if r.Delete {
			break
		}
		for _, id := range r.Group {
			if _, ok := k.nexthops[id]; !ok {
				return unix.EINVAL
			}
		}
		if len(r.Group) == 0 && r.Via.IsValid() && r.Via.IsUnspecified() {
			return unix.EINVAL
		}
		if l := k.links[r.Index]; len(r.Group) == 0 && (!l.Up || l.Kind == "veth" && !l.Carrier) {
			return unix.ENETDOWN
		}
	case netlinkx.RouteRequest:
		_, there = k.routes[routeID(r.Route)]
		if _, ok := k.nexthops[r.Nexthop]; !r.Delete && r.Nexthop != 0 && !ok {
			return unix.EINVAL
		}
	case netlinkx.MPLSRequest:
		_, there = k.mpls[r.Label]
		mayBe = !r.New
	case netlinkx.AddressRequest:
		_, there = k.addresses[fmt.Sprint(r.Index, r.Prefix)]
	case netlinkx.RuleRequest:
		_, there = k.rulesOf[ruleKey(k.asTaken(r.Rule))]
		mayBe = false
		if !validPorts(r.SourcePorts) || !validPorts(r.DestinationPorts) || r.Goto != 0 && r.Goto <= r.Priority {
			return unix.EINVAL
		}
	case netlinkx.Message:
		_, there = k.neighbours[fmt.Sprint(r.Index, r.Addr)]
	}
	switch {
	case isDelete(r) && !there:
		return unix.ENOENT
	case !isDelete(r) && there && !mayBe:
		return unix.EEXIST
	}
	return nil
}

func validPorts(p netlinkx.Ports) bool {
	return p == netlinkx.Ports{} || p.First != 0 && p.First <= p.Last && p.Last != 65535 && (p.Mask == 0 || p.First == p.Last && p.First&^p.Mask == 0)
}

// asTaken is a rule as the kernel takes it.
func (k *fakeKernel) asTaken(r netlinkx.Rule) netlinkx.Rule {
	if k.noPortMasks {
		r.SourcePorts.Mask, r.DestinationPorts.Mask = 0, 0
	}
	return r
}

func set[K comparable, V any](m map[K]V, del bool, k K, v V) {
	if del {
		delete(m, k)
		return
	}
	m[k] = v
}

func (k *fakeKernel) carryOut(r netlinkx.Request) {
	switch r := r.(type) {
	case netlinkx.NexthopRequest:
		if set(k.nexthops, r.Delete, r.ID, r.Nexthop); r.Delete {
			k.dropNexthop(r.ID)
		}
	case netlinkx.RouteRequest:
		set(k.routes, r.Delete, routeID(r.Route), r.Route)
	case netlinkx.MPLSRequest:
		set(k.mpls, r.Delete, r.Label, r.MPLSRoute)
	case netlinkx.AddressRequest:
		set(k.addresses, r.Delete, fmt.Sprint(r.Index, r.Prefix), r.Address)
	case netlinkx.RuleRequest:
		set(k.rulesOf, r.Delete, ruleKey(k.asTaken(r.Rule)), k.asTaken(r.Rule))
	case netlinkx.Message:
		set(k.neighbours, r.Op == netlinkx.Delete, fmt.Sprint(r.Index, r.Addr), r.Neigh)
	}
}

// dropNexthop removes a nexthop object from groups, and the routes that have it.
func (k *fakeKernel) dropNexthop(id uint32) {
	delete(k.nexthops, id)
	maps.DeleteFunc(k.routes, func(_ string, r netlinkx.Route) bool { return r.Nexthop == id })
	for gid, g := range k.nexthops {
		if i := slices.Index(g.Group, id); i >= 0 {
			g.Group = slices.Delete(slices.Clone(g.Group), i, i+1)
			k.nexthops[gid] = g
			if len(g.Group) == 0 {
				k.dropNexthop(gid)
			}
		}
	}
}

// down is what a kernel does to a device that goes down.
func (k *fakeKernel) down(index int) {
	for id, n := range maps.Clone(k.nexthops) {
		if n.Group == nil && n.Index == index {
			k.dropNexthop(id)
		}
	}
	maps.DeleteFunc(k.mpls, func(_ uint32, m netlinkx.MPLSRoute) bool { return m.Index == index })
	maps.DeleteFunc(k.neighbours, func(_ string, n netlinkx.Neigh) bool { return n.Index == index })
}

func (k *fakeKernel) Link(r *netlinkx.LinkRequest) error {
	if r.Index == 0 {
		if _, taken, _ := k.LinkByName(r.Name); taken {
			return unix.EEXIST
		}
		k.addLink(netlinkx.Link{Name: r.Name, Kind: r.Kind, Table: r.Table, Group: *r.Group})
		return nil
	}
	l, ok := k.links[r.Index]
	if !ok {
		return unix.ENODEV
	}
	if r.Alias != nil {
		l.Alias = *r.Alias
	}
	if r.Group != nil {
		l.Group = *r.Group
	}
	if r.Master != nil && *r.Master != l.Master {
		l.Master = *r.Master
		k.down(l.Index)
	}
	l.Up = l.Up || r.Up
	k.links[r.Index] = l
	return nil
}

func (k *fakeKernel) DeleteLink(index int) error {
	if _, ok := k.links[index]; !ok {
		return unix.ENODEV
	}
	k.down(index)
	delete(k.links, index)
	for i, l := range k.links {
		if l.Master == index {
			l.Master = 0
			k.links[i] = l
			k.down(i)
		}
	}
	return nil
}

func (k *fakeKernel) LinkByName(name string) (netlinkx.Link, bool, error) {
	for _, l := range k.links {
		if l.Name == name {
			return l, true, nil
		}
	}
	return netlinkx.Link{}, false, nil
}

func (k *fakeKernel) LinkByIndex(index int) (netlinkx.Link, bool, error) {
	l, ok := k.links[index]
	return l, ok, nil
}

func (k *fakeKernel) Links(master int) (out []netlinkx.Link, err error) {
	for _, l := range k.links {
		if master == 0 || l.Master == master {
			out = append(out, l)
		}
	}
	return out, nil
}

func (k *fakeKernel) Nexthops() ([]netlinkx.Nexthop, error) {
	return slices.Collect(maps.Values(k.nexthops)), nil
}

func (k *fakeKernel) Nexthop(id uint32) (netlinkx.Nexthop, bool, error) {
	n, ok := k.nexthops[id]
	return n, ok, nil
}

func (k *fakeKernel) Routes(family uint8, table uint32, protocol uint8) (out []netlinkx.Route, err error) {
	for _, r := range k.routes {
		if r.Dst.Addr().Is4() == (family == unix.AF_INET) && (table == 0 || r.Table == table) && (protocol == 0 || r.Protocol == protocol) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (k *fakeKernel) MPLSRoutes() ([]netlinkx.MPLSRoute, error) {
	return slices.Collect(maps.Values(k.mpls)), nil
}

func (k *fakeKernel) Neighbours(family uint8, index int) (out []netlinkx.Neigh, err error) {
	for _, n := range k.neighbours {
		if n.Family == family && n.Index == index {
			out = append(out, n)
		}
	}
	return out, nil
}

func (k *fakeKernel) Addresses(index int) (out []netlinkx.Address, err error) {
	for _, a := range k.addresses {
		if a.Index == index {
			out = append(out, a)
		}
	}
	return out, nil
}

func (k *fakeKernel) Rules(family uint8) (out []netlinkx.Rule, err error) {
	for _, r := range k.rulesOf {
		if r.Family == family {
			out = append(out, r)
		}
	}
	return out, nil
}

func (k *fakeKernel) AddTunnel(name string, e encap.Type, _, _ netip.Addr) error {
	kind := map[encap.Type]string{encap.GRE: "gre", encap.MPLSInUDP: "ipip"}[e]
	mark := uint32(0)
	return k.Link(&netlinkx.LinkRequest{Name: name, Kind: kind, Group: &mark})
}

func (k *fakeKernel) OpenUDP() error { return nil }

func (k *fakeKernel) Sysctl(name string) (string, error) {
	v, ok := k.sysctls[name]
	if !ok {
		return "", os.ErrNotExist
	}
	return v, nil
}

func (k *fakeKernel) SetSysctl(name, value string) error {
	k.sysctls[name] = value
	return nil
}

func (k *fakeKernel) LoadModules(...string) {}
func (k *fakeKernel) Close() error          { return nil }

// state is all that there is, in words.
func (k *fakeKernel) state() []string {
	var out []string
	for _, l := range k.links {
		out = append(out, fmt.Sprintf("link %s %s master %s alias %q", l.Name, l.Kind, k.links[l.Master].Name, l.Alias))
	}
	for _, n := range k.nexthops {
		out = append(out, k.name("nexthop "+n.String()))
	}
	for _, r := range k.routes {
		out = append(out, r.String())
	}
	for _, m := range k.mpls {
		out = append(out, k.name(fmt.Sprintf("mpls %d via %s dev #%d", m.Label, m.MAC, m.Index)))
	}
	for _, n := range k.neighbours {
		out = append(out, k.name("neigh "+n.String()))
	}
	for _, a := range k.addresses {
		out = append(out, k.name(fmt.Sprintf("addr %s dev #%d", a.Prefix, a.Index)))
	}
	for _, r := range k.rulesOf {
		out = append(out, netlinkx.RuleRequest{Rule: r}.String())
	}
	sort.Strings(out)
	return out
}

// fakeDriver starts a driver on a fake kernel with the local address 192.0.2.1.
func fakeDriver(t testing.TB, k *fakeKernel, encaps ...encap.Type) *Driver {
	t.Helper()
	cfg := Config{LocalAddr: netip.MustParseAddr("192.0.2.1"), Encaps: encaps, MPLSInterface: "eth0"}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	d, err := start(cfg, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
