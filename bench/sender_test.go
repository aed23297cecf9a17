// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

const (
	benchAS   = 64512
	firstRT   = 1000
	remotePEs = 500
)

// load describes the routes of a sender: half EVPN type 2 (MAC and IP), half
// VPNv4, in groups that share attributes, spread over instances. Instance n
// imports the route target 64512:(1000+n); even ones are EVIs, odd ones VRFs.
// With MACOnly all instances are EVIs and no route has an IP address.
type load struct {
	Routes, Instances, Group int
	MACOnly                  bool
}

func (l load) String() string {
	return fmt.Sprintf("%d %d %d %v", l.Routes, l.Instances, l.Group, l.MACOnly)
}

func parseLoad(s string) (l load, err error) {
	_, err = fmt.Sscanf(s, "%d %d %d %v", &l.Routes, &l.Instances, &l.Group, &l.MACOnly)
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
	attrs  *wire.Attrs
	routes []wire.Route
}

// groups makes the routes of a load; the same load gives the same routes.
func (l load) groups() []group {
	rnd := rand.New(rand.NewPCG(1, 2))
	var out []group
	for made := 0; made < l.Routes; {
		inst := rnd.IntN(l.Instances)
		pe := rnd.IntN(remotePEs)
		evpn := l.MACOnly || inst%2 == 0
		t := encap.MPLS
		if evpn {
			t = encap.VXLAN
		}
		g := group{attrs: wire.LocalAttrs{
			NextHop: peAddr(pe), RTs: []wire.RT{instanceRT(inst)}, Communities: []wire.ExtCommunity{wire.EncapCommunity(t)},
		}.Build()}
		g.attrs.Raw = append(g.attrs.Raw, reflected(pe)...)
		rd := wire.MakeRD(peAddr(pe), uint16(inst))
		for range min(1+rnd.IntN(l.Group), l.Routes-made) {
			g.routes = append(g.routes, l.makeRoute(evpn, rd, made, inst))
			made++
		}
		out = append(out, g)
	}
	return out
}

// reflected returns ORIGINATOR_ID and CLUSTER_LIST as a route reflector adds them.
func reflected(pe int) []byte {
	id := peAddr(pe).As4()
	b := append([]byte{0x80, 9, 4}, id[:]...)
	return append(b, 0x80, 10, 4, 10, 0, 0, 1)
}

func (l load) makeRoute(evpn bool, rd wire.RD, n, inst int) wire.Route {
	ip := netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
	if !evpn {
		return wire.Route{NLRI: wire.VPNRoute(rd, netip.PrefixFrom(ip, 32)), Label: wire.LabelField(uint32(100 + inst))}
	}
	mac := ethernet.MAC{2}
	binary.BigEndian.PutUint32(mac[2:], uint32(n))
	if l.MACOnly {
		ip = netip.Addr{}
	}
	return wire.Route{NLRI: wire.MACIPRoute(rd, mac, ip), Label: uint32(5000 + inst)}
}

// messages encodes a load as UPDATE messages.
func (l load) messages() []byte {
	p := wire.NewPacker(wire.MaxMessage)
	for _, g := range l.groups() {
		p.Announce(g.routes[0].NLRI.Kind.Family(), g.attrs.Raw, g.attrs.NextHop)
		for _, r := range g.routes {
			p.Add(r)
		}
	}
	return append([]byte(nil), p.Flush()...)
}

// runSender is the sender process: it connects to BENCH_SENDER, brings a
// session up, says "ready", and on each line of standard input sends the load
// that the line describes, then says "sent".
func runSender() error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(os.Getenv("BENCH_SENDER_FROM"))}}
	c, err := d.Dial("tcp", os.Getenv("BENCH_SENDER"))
	if err != nil {
		return err
	}
	open := wire.Open{
		AS: benchAS, HoldTime: 0, RouterID: netip.MustParseAddr("10.0.0.1"),
		Families: []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN}, FourOctetAS: true, RouteRefresh: true,
	}
	msg, err := open.Message()
	if err != nil {
		return err
	}
	if _, err := c.Write(append(msg, wire.Keepalive()...)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	for range 2 { // OPEN, KEEPALIVE
		if err := skipMessage(r); err != nil {
			return err
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		l, err := parseLoad(in.Text())
		if err != nil {
			return err
		}
		b := l.messages()
		fmt.Println("made")
		if !in.Scan() {
			return nil
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		fmt.Println("sent")
	}
	return nil
}

func skipMessage(r *bufio.Reader) error {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	_, err := r.Discard(int(binary.BigEndian.Uint16(head[16:])) - wire.HeaderLen)
	return err
}

// sender drives a sender process.
type sender struct {
	b     *testing.B
	in    io.WriteCloser
	out   *bufio.Scanner
	close func()
}

// startSender starts a process that connects to addr from a loopback address.
func startSender(b *testing.B, addr, from string, wrap ...string) *sender {
	b.Helper()
	args := append(wrap, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "BENCH_SENDER="+addr, "BENCH_SENDER_FROM="+from)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &sender{b: b, in: in, out: bufio.NewScanner(out)}
	s.close = sync.OnceFunc(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b.Cleanup(s.close)
	s.expect("ready")
	return s
}

func (s *sender) expect(word string) {
	s.b.Helper()
	if !s.out.Scan() || strings.TrimSpace(s.out.Text()) != word {
		s.b.Fatalf("sender said %q: want %q", s.out.Text(), word)
	}
}

// prepare makes the sender encode a load; go makes it send.
func (s *sender) prepare(l load) {
	s.b.Helper()
	fmt.Fprintln(s.in, l)
	s.expect("made")
}

func (s *sender) send() { fmt.Fprintln(s.in, "go") }
