// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

const (
	benchAS   = 64512
	firstRT   = 1000
	remotePEs = 500
)

// mix is what routes a load has.
type mix int

const (
	mixed mix = iota // for even instances EVPN type 2 with MAC and IP, for odd ones VPNv4
	onlyVPNv4
	onlyEVPN
	onlyMACs // EVPN type 2 without IP address
)

func (m mix) String() string { return [...]string{"mixed", "VPNv4", "EVPN", "EVPN MACs"}[m] }

// evpn tells whether instance n is an EVI.
func (m mix) evpn(n int) bool { return m == onlyEVPN || m == onlyMACs || m == mixed && n%2 == 0 }

// load describes the routes of a sender, in groups that share attributes, spread
// over the route targets 64512:(1000+n), of as many VPNs. Instance n imports the
// n-th of them.
type load struct {
	Routes, Targets int
	Group           int  // most routes with the same attributes
	Exact           bool // each group is that large, else its size is chosen at random
	Mix             mix
	Instances       int        // of the receiver
	Encap           encap.Type // of VPN routes; MPLS over Ethernet when zero
}

func (l load) String() string {
	return fmt.Sprintf("%d %d %d %t %d %d %d", l.Routes, l.Targets, l.Group, l.Exact, l.Mix, l.Instances, l.Encap)
}

func parseLoad(s string) (l load, err error) {
	_, err = fmt.Sscanf(s, "%d %d %d %t %d %d %d", &l.Routes, &l.Targets, &l.Group, &l.Exact, &l.Mix, &l.Instances, &l.Encap)
	return l, err
}

func instanceRT(n int) wire.RT {
	rt, err := wire.ParseRT(fmt.Sprintf("%d:%d", benchAS, firstRT+n))
	if err != nil {
		panic(err)
	}
	return rt
}

func peAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }

// group is a run of routes with the same attributes.
type group struct {
	instance int
	attrs    *wire.Attrs
	routes   []wire.Route
}

// groups calls f for the groups of a load, one at a time; the same load gives the
// same ones.
func (l load) groups(f func(group)) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for made := 0; made < l.Routes; {
		inst, pe, size := rnd.IntN(l.Targets), rnd.IntN(remotePEs), l.Group
		if !l.Exact {
			size = 1 + rnd.IntN(l.Group)
		}
		g := group{instance: inst, attrs: l.attrs(inst, pe)}
		rd := wire.MakeRD(peAddr(pe), uint16(inst))
		for range min(size, l.Routes-made) {
			g.routes = append(g.routes, l.makeRoute(rd, made, inst))
			made++
		}
		f(g)
	}
}

// attrs returns the attributes of a node's routes in a VPN, as a reflector hands
// them on.
func (l load) attrs(inst, pe int) *wire.Attrs {
	t := encap.MPLS
	switch {
	case l.Mix.evpn(inst):
		t = encap.VXLAN
	case l.Encap != 0:
		t = l.Encap
	}
	a := wire.LocalAttrs{
		NextHop: peAddr(pe), RTs: []wire.RT{instanceRT(inst)}, Communities: []wire.ExtCommunity{wire.EncapCommunity(t)},
	}.Build()
	id := peAddr(pe).As4()
	a.Raw = append(append(a.Raw, 0x80, 9, 4), id[:]...) // ORIGINATOR_ID
	a.Raw = append(a.Raw, 0x80, 10, 4, 10, 0, 0, 1)     // CLUSTER_LIST
	return a
}

func (l load) makeRoute(rd wire.RD, n, inst int) wire.Route {
	ip := netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
	if !l.Mix.evpn(inst) {
		return wire.Route{NLRI: wire.VPNRoute(rd, netip.PrefixFrom(ip, 32)), Label: wire.LabelField(uint32(100 + inst))}
	}
	mac := ethernet.MAC{2}
	binary.BigEndian.PutUint32(mac[2:], uint32(n))
	if l.Mix == onlyMACs {
		ip = netip.Addr{}
	}
	return wire.Route{NLRI: wire.MACIPRoute(rd, mac, ip), Label: uint32(5000 + inst)}
}

// made is a load as messages, with what a receiver makes of it.
type made struct {
	announce, withdraw []byte
	relevant           int // routes that instances import
	entries            int // forwarding entries that they mean: two for a MAC with an IP address
}

// encode makes the messages of a load.
func (l load) encode() made {
	var m made
	p := wire.NewPacker(wire.MaxMessage)
	down := map[wire.Family]*wire.Packer{wire.VPNv4: wire.NewPacker(wire.MaxMessage), wire.EVPN: wire.NewPacker(wire.MaxMessage)}
	for f, d := range down {
		d.Withdraw(f)
	}
	l.groups(func(g group) {
		f := g.routes[0].NLRI.Kind.Family()
		p.Announce(f, g.attrs.Raw, g.attrs.NextHop)
		for _, r := range g.routes {
			p.Add(r)
			down[f].Add(r)
		}
		if g.instance < l.Instances {
			m.relevant += len(g.routes)
			m.entries += len(g.routes)
			if f == wire.EVPN && l.Mix != onlyMACs {
				m.entries += len(g.routes)
			}
		}
	})
	m.announce = p.Flush()
	for _, d := range down {
		m.withdraw = append(m.withdraw, d.Flush()...)
	}
	return m
}
