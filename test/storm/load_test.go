// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// tenants have an EVI and a VRF each on the node. There is one more tenant,
// whose routes no instance imports.
const tenants = 5

// load is a number of routes: of three in turn one is VPNv4, one VPNv6 and one
// EVPN type 2. Tenants take turns, too. Gen varies the attributes.
type load struct {
	count int
	gen   uint32
	admin byte // last octet of RDs and next hops; other loads have other routes
}

func (l load) nextHop(tenant int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, l.admin*10 + byte(tenant)})
}

func tenantOf(i int) int { return i / 3 % (tenants + 1) }

func tenantRT(tenant int) wire.RT { return rt(1000 + tenant) }

func rt(n int) wire.RT {
	r, err := wire.ParseRT(fmt.Sprintf("%d:%d", nodeAS, n))
	if err != nil {
		panic(err)
	}
	return r
}

// addr4, addr6 and mac number addresses.
func addr4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func addr6(i int) netip.Addr {
	a := netip.MustParseAddr("2001:db8::").As16()
	binary.BigEndian.PutUint32(a[12:], uint32(i))
	return netip.AddrFrom16(a)
}

func mac(i int) ethernet.MAC {
	return ethernet.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
}

// route returns a route of the load.
func (l load) route(i int) wire.Route {
	rd := wire.MakeRD(netip.AddrFrom4([4]byte{192, 0, 2, l.admin}), uint16(tenantOf(i)))
	switch i % 3 {
	case 0:
		return wire.Route{NLRI: wire.VPNRoute(rd, netip.PrefixFrom(addr4(i), 32)), Label: wire.LabelField(uint32(16 + i%1000))}
	case 1:
		return wire.Route{NLRI: wire.VPNRoute(rd, netip.PrefixFrom(addr6(i), 128)), Label: wire.LabelField(uint32(16 + i%1000))}
	}
	return wire.Route{NLRI: wire.MACIPRoute(rd, mac(i), addr4(i)), Label: uint32(5000 + tenantOf(i))}
}

// attrs returns the attributes of routes of a kind and tenant.
func (l load) attrs(kind, tenant int) wire.LocalAttrs {
	enc := encap.MPLS
	if kind == 2 {
		enc = encap.VXLAN
	}
	return wire.LocalAttrs{
		NextHop: l.nextHop(tenant), LocalPref: 100 + l.gen, RTs: []wire.RT{tenantRT(tenant)},
		Communities: []wire.ExtCommunity{wire.EncapCommunity(enc)},
	}
}

// announcements and withdrawals return all UPDATEs of the load.
func (l load) announcements() []byte { return l.updates(false) }
func (l load) withdrawals() []byte   { return l.updates(true) }

func (l load) updates(withdraw bool) []byte {
	p := wire.NewPacker(wire.MaxMessage)
	for kind, fam := range vpnFamilies {
		for tenant := range tenants + 1 {
			a := l.attrs(kind, tenant)
			if withdraw {
				p.Withdraw(fam)
			} else {
				p.Announce(fam, a.Build().Raw, a.NextHop)
			}
			for i := tenant*3 + kind; i < l.count; i += 3 * (tenants + 1) {
				p.Add(l.route(i))
			}
		}
	}
	return slices.Clone(p.Flush())
}

// endOfRIB returns the markers of families.
func endOfRIB(families ...wire.Family) (all []byte) {
	for _, f := range families {
		all = append(all, wire.EndOfRIBMessage(f)...)
	}
	return all
}

// tenantID is the external id of a tenant's instance.
func tenantID(t dataplane.VPNType, tenant int) string { return fmt.Sprintf("%s-%d", t, tenant) }

// attachTenants makes the instances, each with one endpoint.
func (n *node) attachTenants(edit func(*vpn.Attachment)) {
	n.tb.Helper()
	for _, t := range []dataplane.VPNType{dataplane.EVPN, dataplane.IPVPN} {
		for tenant := range tenants {
			a := vpn.Attachment{
				Type: t, InstanceID: tenantID(t, tenant), Port: "tap1", MAC: ethernet.MAC{2, 1, 0, 0, 0, 1},
				IP: netip.MustParsePrefix("198.18.0.1/24"), Imports: []wire.RT{tenantRT(tenant)}, Direction: dataplane.Both,
			}
			if edit != nil {
				edit(&a)
			}
			if err := n.Attach(context.Background(), a); err != nil {
				n.tb.Fatal(err)
			}
		}
	}
}

// want returns the remote entries that the loads make in an instance.
func want(t dataplane.VPNType, tenant int, loads ...load) []string {
	lines := []string{}
	for _, l := range loads {
		for i := range l.count {
			if tenantOf(i) != tenant || (i%3 == 2) != (t == dataplane.EVPN) {
				continue
			}
			r := l.route(i)
			hop := []dataplane.NextHop{{Addr: l.nextHop(tenant), Label: r.Label, Encap: encap.VXLAN}}
			if t == dataplane.IPVPN {
				hop[0].Label, hop[0].Encap = r.MPLSLabel(), encap.MPLS
				lines = append(lines, dataplane.Entry{Kind: dataplane.Prefix, Prefix: r.NLRI.Prefix(), NextHops: hop}.String())
				continue
			}
			lines = append(lines,
				dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: r.NLRI.MAC, NextHops: hop}.String(),
				dataplane.Entry{Kind: dataplane.Neighbour, IP: r.NLRI.IP(), MAC: r.NLRI.MAC}.String())
		}
	}
	slices.Sort(lines)
	return lines
}

// isRemote tells whether an entry comes from routes.
func isRemote(k dataplane.Kind) bool {
	return k == dataplane.RemoteMAC || k == dataplane.Neighbour || k == dataplane.Flood || k == dataplane.Prefix
}

// isOwn tells whether an entry is a VRF's own route, or another VRF's of the node.
func isOwn(e dataplane.Entry) bool {
	return e.Kind == dataplane.Prefix && len(e.NextHops) == 1 && e.NextHops[0].Addr == tunnels[dataplane.IPVPN]
}

// remote counts the remote entries of all instances. Of its own a VRF has one for
// each endpoint.
func (n *node) remote() (count int) {
	for _, i := range n.Instances() {
		if i.Type == dataplane.IPVPN {
			count -= i.Endpoints()
		}
		for k, c := range i.Forwarding().Desired() {
			if isRemote(k) {
				count += c
			}
		}
	}
	return count
}

// imported returns how many entries a load makes.
func imported(loads ...load) (count int) {
	for _, l := range loads {
		for i := range l.count {
			if tenantOf(i) < tenants {
				count++
				if i%3 == 2 {
					count++ // MAC and IP
				}
			}
		}
	}
	return count
}

// forwards waits until the desired forwarding of all tenants is just that of
// the loads, and compares it entry by entry.
func (n *node) forwards(loads ...load) {
	n.tb.Helper()
	total := imported(loads...)
	eventually(n.tb, fmt.Sprintf("%d remote entries", total), func() bool { return n.remote() == total })
	for _, t := range []dataplane.VPNType{dataplane.EVPN, dataplane.IPVPN} {
		for tenant := range tenants {
			id := tenantID(t, tenant)
			expected := want(t, tenant, loads...)
			eventually(n.tb, "forwarding of "+id, func() bool { return slices.Equal(expected, n.remoteLines(id)) })
		}
	}
}

// remoteLines returns the remote entries that an instance desires.
func (n *node) remoteLines(id string) []string {
	got := []string{}
	for _, e := range n.Instance(id).Forwarding().Entries() {
		if isRemote(e.Kind) && !isOwn(e) {
			got = append(got, e.String())
		}
	}
	slices.Sort(got)
	return got
}

// holds checks the counts of VPN routes by family, as the RIB has them from peers.
func (n *node) holds(loads ...load) {
	n.tb.Helper()
	expected := map[wire.Family]int{}
	for _, l := range loads {
		for kind, fam := range vpnFamilies {
			if c := (l.count + 2 - kind) / 3; c > 0 {
				expected[fam] += c
			}
		}
	}
	eventually(n.tb, fmt.Sprintf("routes from peers: %v", expected), func() bool {
		received, _ := n.rib.Counts()
		delete(received, wire.RTC)
		return cmp.Equal(expected, received)
	})
}
