// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// families are those of the feeder's routes.
var families = []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN}

// group is a run of routes with the same attributes.
type group struct {
	attrs  *wire.Attrs
	routes []wire.Route
}

// feeder is a BGP peer, a route reflector as far as the node can tell: it keeps routes
// over a restart (RFC 4724), and announces its routes again when the node asks for them.
type feeder struct {
	t        testing.TB
	ns, node string // namespace, and address of the node with port

	mu   sync.Mutex // guards now, and writes to conn
	conn net.Conn
	now  []group
	// ended is closed when the reader of the session has ended.
	ended chan struct{}
}

// connect brings a session up and announces all routes.
func (f *feeder) connect() {
	f.t.Helper()
	var err error
	nstest.Eventually(f.t, patience, func() bool { err = f.open(); return err == nil },
		func() string { return fmt.Sprintf("session of the feeder: %v", err) })
}

func (f *feeder) open() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c, err := netspace.Dialer(f.ns)(ctx, "tcp", f.node)
	if err != nil {
		return err
	}
	o := wire.Open{
		AS: asn, HoldTime: 90, RouterID: netip.MustParseAddr(feederAddr), Families: families, FourOctetAS: true, RouteRefresh: true,
		GracefulRestart: &wire.GracefulRestart{Time: 60, Notification: true},
	}
	for _, fam := range families {
		o.GracefulRestart.Families = append(o.GracefulRestart.Families, wire.ForwardingState{Family: fam, Preserved: true})
	}
	msg, err := o.Message()
	if err != nil {
		return err
	}
	r := bufio.NewReader(c)
	err = func() error {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(append(msg, wire.Keepalive()...)); err != nil {
			return err
		}
		for _, want := range []wire.MsgType{wire.MsgOpen, wire.MsgKeepalive} {
			if typ, _, err := readMessage(r); err != nil || typ != want {
				return errors.Join(fmt.Errorf("message of type %d: want %d", typ, want), err)
			}
		}
		return c.SetDeadline(time.Time{})
	}()
	if err != nil {
		_ = c.Close()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn, f.ended = c, make(chan struct{})
	go f.read(r, c, f.ended)
	go keepAlive(f, c, f.ended)
	for _, fam := range families {
		f.send(announcements(f.now, fam), wire.EndOfRIBMessage(fam))
	}
	return nil
}

// keepAlive sends KEEPALIVEs until the session ends.
func keepAlive(f *feeder, c net.Conn, ended chan struct{}) {
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			f.mu.Lock()
			_, _ = c.Write(wire.Keepalive())
			f.mu.Unlock()
		}
	}
}

// read answers requests for routes until the session ends.
func (f *feeder) read(r *bufio.Reader, c net.Conn, ended chan struct{}) {
	defer close(ended)
	defer func() { _ = c.Close() }()
	for {
		typ, body, err := readMessage(r)
		if err != nil || typ == wire.MsgNotification {
			return
		}
		if typ == wire.MsgRouteRefresh {
			fam, _, werr := wire.ParseRouteRefresh(body)
			if werr != nil {
				f.t.Errorf("ROUTE-REFRESH of the node: %v", werr)
				return
			}
			f.mu.Lock()
			_, _ = c.Write(announcements(f.now, fam))
			f.mu.Unlock()
		}
	}
}

func readMessage(r *bufio.Reader) (typ wire.MsgType, body []byte, err error) {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	body = make([]byte, max(0, int(binary.BigEndian.Uint16(head[16:]))-wire.HeaderLen))
	_, err = io.ReadFull(r, body)
	return wire.MsgType(head[18]), body, err
}

// send writes messages; a session that has ended is no error, the next one has all
// routes. The caller holds mu.
func (f *feeder) send(msgs ...[]byte) {
	_, _ = f.conn.Write(slices.Concat(msgs...))
}

// announce replaces what is announced: what is not in groups is withdrawn.
func (f *feeder) announce(groups []group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := map[wire.NLRI]bool{}
	for _, g := range groups {
		for _, r := range g.routes {
			keep[r.NLRI] = true
		}
	}
	p := wire.NewPacker(wire.MaxMessage)
	for _, fam := range families {
		p.Withdraw(fam)
		for _, g := range f.now {
			for _, r := range g.routes {
				if r.NLRI.Kind.Family() == fam && !keep[r.NLRI] {
					p.Add(r)
				}
			}
		}
	}
	f.send(p.Flush())
	f.now = groups
	for _, fam := range families {
		f.send(announcements(groups, fam))
	}
}

// announcements returns the UPDATEs for the routes of a family.
func announcements(groups []group, fam wire.Family) []byte {
	p := wire.NewPacker(wire.MaxMessage)
	for _, g := range groups {
		p.Announce(fam, g.attrs.Raw, g.attrs.NextHop)
		for _, r := range g.routes {
			if r.NLRI.Kind.Family() == fam {
				p.Add(r)
			}
		}
	}
	return slices.Clone(p.Flush())
}

// leave ends the session with a NOTIFICATION, or without a word, and waits for its end.
func (f *feeder) leave(politely bool) {
	f.mu.Lock()
	if politely {
		f.send(wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseAdminReset}.Message())
	} else {
		_ = f.conn.(*net.TCPConn).SetLinger(0)
	}
	_ = f.conn.Close()
	ended := f.ended
	f.mu.Unlock()
	<-ended
}

// routeTarget returns the n-th route target.
func routeTarget(n int) string { return fmt.Sprintf("%d:%d", asn, 1000+n) }

// load returns routes for each route target, of EVPN for the first half of them, of VPNv4
// and VPNv6 for the others. Routes of different cycles are different; without one of four when thin;
// their attributes are those of the generation.
func load(cycle, gen int, thin bool) (groups []group) {
	n := 0
	for target := range targets {
		rt, err := wire.ParseRT(routeTarget(target))
		if err != nil {
			panic(err)
		}
		pe := netip.AddrFrom4([4]byte{10, 1, byte(gen), byte(1 + target)})
		rd := wire.MakeRD(pe, uint16(cycle))
		evpn := target < targets/2
		attrs := wire.LocalAttrs{NextHop: pe, RTs: []wire.RT{rt}, LocalPref: uint32(100 + gen)}
		if evpn {
			attrs.Communities = []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}
			flood := attrs
			flood.PMSI = &wire.PMSI{TunnelType: wire.PMSIIngressReplication, Label: uint32(5000 + target), Endpoint: pe}
			groups = append(groups, group{flood.Build(), []wire.Route{{NLRI: wire.IMETRoute(rd, pe)}}})
		} else {
			attrs.Communities = []wire.ExtCommunity{wire.EncapCommunity(encap.MPLSInUDP), wire.EncapCommunity(encap.GRE)}
		}
		g := group{attrs: attrs.Build()}
		for i := range routesPerTarget {
			n++
			if !thin || i%4 != 0 {
				g.routes = append(g.routes, makeRoute(rd, evpn, uint32(cycle%200*targets*routesPerTarget+n), target))
			}
		}
		groups = append(groups, g)
	}
	return groups
}

func makeRoute(rd wire.RD, evpn bool, n uint32, target int) wire.Route {
	v4 := netip.AddrFrom4([4]byte{172, byte(16 + n>>16&15), byte(n >> 8), byte(n)})
	if evpn {
		mac := ethernet.MAC{2}
		binary.BigEndian.PutUint32(mac[2:], n)
		return wire.Route{NLRI: wire.MACIPRoute(rd, mac, v4), Label: uint32(5000 + target)}
	}
	p := netip.PrefixFrom(v4, 32)
	if n%2 == 0 {
		v6 := netip.MustParseAddr("2001:db8:ffff::").As16()
		binary.BigEndian.PutUint32(v6[12:], n)
		p = netip.PrefixFrom(netip.AddrFrom16(v6), 128)
	}
	return wire.Route{NLRI: wire.VPNRoute(rd, p), Label: wire.LabelField(uint32(100 + target))}
}
