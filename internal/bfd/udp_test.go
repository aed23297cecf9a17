// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const patience = 20 * time.Second

// live is a session over real sockets, inside of a namespace.
type live struct {
	t *testing.T
	*Session

	mu      sync.Mutex
	changes []Change
}

func newLive(t *testing.T, ns *nstest.NS, n *Node, c Config) *live {
	t.Helper()
	l := &live{t: t}
	var err error
	ns.Do(func() { l.Session, err = n.Add(c, l.told) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func (l *live) told(c Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, c)
}

func (l *live) has(like func(Change) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.changes, like)
}

// reach waits for what a status must be.
func (l *live) reach(what string, ok func(Status) bool) {
	l.t.Helper()
	nstest.Eventually(l.t, patience, func() bool { return ok(l.Status()) }, func() string { return fmt.Sprintf("%s: %+v", what, l.Status()) })
}

func up(s Status) bool { return s.State == Up && s.RemoteState == Up }

// quick is a configuration that a busy machine can keep.
func quick(local, remote string) Config {
	c := config(ip(local), ip(remote))
	c.Multiplier = 20
	return c
}

// together brings two sessions up and closes one, of which the other must hear.
func together(t *testing.T, a, b *live) {
	t.Helper()
	a.reach("up", up)
	b.reach("up", up)
	a.reach("polled", func(s Status) bool { return !s.Polling && s.TxInterval == 50*ms && s.DetectionTime == time.Second })
	a.Close()
	closed := Change{Previous: Up, State: Down, RemoteState: AdminDown, Diag: NeighborSignaledDown, RemoteDiag: AdministrativelyDown}
	nstest.Eventually(t, patience, func() bool {
		return b.has(func(c Change) bool { c.At = time.Time{}; return c == closed })
	}, func() string { return fmt.Sprintf("change %+v", closed) })
}

// Over loopback, two nodes with one address each.
func TestLoopback(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "bfd")
	ns.Run("ip", "address", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	ns.Run("ip", "address", "add", "2001:db8::2/128", "dev", "lo", "nodad")
	for _, tt := range []struct{ a, b, device string }{
		{"127.0.0.1", "127.0.0.2", ""},
		{"127.0.0.4", "127.0.0.5", "lo"},
		{"2001:db8::1", "2001:db8::2", ""},
	} {
		for _, multihop := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s %t", tt.b, tt.device, multihop), func(t *testing.T) {
				t.Parallel()
				ca, cb := quick(tt.a, tt.b), quick(tt.b, tt.a)
				ca.Device, ca.Multihop, cb.Device, cb.Multihop = tt.device, multihop, tt.device, multihop
				together(t, newLive(t, ns, NewNode(nil), ca), newLive(t, ns, NewNode(nil), cb))
			})
		}
	}
}

// Sessions of one address, with a device and without, have a socket each,
// whichever came first, and packets get to the right one.
func TestDeviceBesideNone(t *testing.T) {
	t.Parallel()
	nsA, nsB := linked(t)
	nsC := nstest.New(t, "bfdc")
	nstest.Connect(nsA, "eth1", nsC, "eth0")
	nsC.Run("ip", "address", "add", "198.51.100.9/32", "dev", "eth0")
	nsC.Run("ip", "route", "add", "192.0.2.1", "dev", "eth0", "src", "198.51.100.9")
	nsA.Run("ip", "route", "add", "198.51.100.9", "dev", "eth1")
	bound, free := quick("192.0.2.1", "192.0.2.2"), quick("192.0.2.1", "198.51.100.9")
	bound.Device = "eth0"
	for _, order := range [][]Config{{bound, free}, {free, bound}} {
		n := NewNode(nil)
		all := []*live{
			newLive(t, nsA, n, order[0]), newLive(t, nsA, n, order[1]),
			newLive(t, nsB, NewNode(nil), quick("192.0.2.2", "192.0.2.1")),
			newLive(t, nsC, NewNode(nil), quick("198.51.100.9", "192.0.2.1")),
		}
		for _, l := range all {
			l.reach("up", up)
		}
		for _, l := range all {
			l.Close()
		}
	}
}

// linked makes two namespaces with a link that has IPv4, global and link-local
// IPv6 addresses.
func linked(t *testing.T) (a, b *nstest.NS) {
	t.Helper()
	a, b = nstest.New(t, "bfda"), nstest.New(t, "bfdb")
	nstest.Connect(a, "eth0", b, "eth0")
	for i, ns := range []*nstest.NS{a, b} {
		ns.Run("ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		ns.Run("ip", "address", "add", fmt.Sprintf("fe80::%d/64", i+1), "dev", "eth0", "nodad")
	}
	return a, b
}

func TestLinkLocal(t *testing.T) {
	t.Parallel()
	a, b := linked(t)
	var device *net.Interface
	var err error
	a.Do(func() { device, err = net.InterfaceByName("eth0") })
	if err != nil {
		t.Fatal(err)
	}
	together(t, newLive(t, a, NewNode(nil), quick("fe80::1", fmt.Sprintf("fe80::2%%%d", device.Index))),
		newLive(t, b, NewNode(nil), quick("fe80::2%eth0", "fe80::1")))
}

// A link that fails is found out by silence, and comes back by itself.
func TestLinkFails(t *testing.T) {
	t.Parallel()
	nsA, nsB := linked(t)
	a := newLive(t, nsA, NewNode(nil), quick("192.0.2.1", "192.0.2.2"))
	b := newLive(t, nsB, NewNode(nil), quick("192.0.2.2", "192.0.2.1"))
	a.reach("up", up)
	b.reach("up", up)
	nsA.Run("ip", "link", "set", "eth0", "down")
	for _, l := range []*live{a, b} {
		l.reach("down", func(s Status) bool { return s.State == Down && s.Diag == DetectionTimeExpired && s.Flaps == 1 })
		nstest.Eventually(t, patience, func() bool {
			return l.has(func(c Change) bool {
				return c.Previous == Up && c.RemoteState == Down && c.Diag == DetectionTimeExpired
			})
		}, func() string { return "change to Down" })
	}
	nsA.Run("ip", "link", "set", "eth0", "up")
	a.reach("up again", up)
	b.reach("up again", up)
}

// An address may come later than its session.
func TestAddressComesLater(t *testing.T) {
	t.Parallel()
	nsA, nsB := linked(t)
	a := newLive(t, nsA, NewNode(nil), quick("192.0.2.7", "192.0.2.2"))
	b := newLive(t, nsB, NewNode(nil), quick("192.0.2.2", "192.0.2.7"))
	a.reach("send error", func(s Status) bool { return s.State == Down && s.SendErrors > 0 && s.LastSendError != "" })
	nsA.Run("ip", "address", "add", "192.0.2.7/24", "dev", "eth0")
	a.reach("up", up)
	b.reach("up", up)
}

// Behind a router the TTL is 254: too low for a single hop, and for a multihop
// session that wants more.
func TestRouter(t *testing.T) {
	t.Parallel()
	nsA, nsB, router := nstest.New(t, "bfda"), nstest.New(t, "bfdb"), nstest.New(t, "bfdr")
	router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	for i, ns := range []*nstest.NS{nsA, nsB} {
		dev := fmt.Sprintf("eth%d", i)
		nstest.Connect(ns, "eth0", router, dev)
		ns.Run("ip", "address", "add", fmt.Sprintf("198.51.100.%d/30", 4*i+1), "dev", "eth0")
		router.Run("ip", "address", "add", fmt.Sprintf("198.51.100.%d/30", 4*i+2), "dev", dev)
		ns.Run("ip", "route", "add", "default", "via", fmt.Sprintf("198.51.100.%d", 4*i+2))
	}
	for _, tt := range []struct {
		name     string
		multihop bool
		minTTL   uint8
		ok       bool
	}{{"single hop", false, 0, false}, {"minimum 255", true, 255, false}, {"minimum 254", true, 254, true}} {
		ca, cb := quick("198.51.100.1", "198.51.100.5"), quick("198.51.100.5", "198.51.100.1")
		ca.Multihop, ca.MinTTL, cb.Multihop, cb.MinTTL = tt.multihop, tt.minTTL, tt.multihop, tt.minTTL
		a, b := newLive(t, nsA, NewNode(nil), ca), newLive(t, nsB, NewNode(nil), cb)
		if tt.ok {
			together(t, a, b)
		} else {
			for _, l := range []*live{a, b} {
				l.reach(tt.name+" drops packets", func(s Status) bool { return s.Dropped[LowTTL] >= 2 && s.In == 0 && s.State == Down })
			}
		}
		a.Close()
		b.Close()
	}
}

// player is the other side of a session, played by the test over a real socket.
type player struct {
	*udpReceiver
	t    *testing.T
	last packet
	from netip.AddrPort
	ttl  uint8
}

func newPlayer(t *testing.T, ns *nstest.NS, addr string) *player {
	t.Helper()
	var r receiver
	var err error
	ns.Do(func() { r, err = (udp{}).listen(place{local: ip(addr)}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return &player{udpReceiver: r.(*udpReceiver), t: t}
}

// hear waits for a packet of a kind.
func (p *player) hear(what string, ok func(packet) bool) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 100); ; {
		n, oobn, _, from, err := p.conn.ReadMsgUDPAddrPort(b, p.oob[:])
		if err != nil {
			p.t.Fatalf("no packet %s: %v; the last was %+v", what, err, p.last)
		}
		pkt, why := parse(b[:n])
		if why != notDropped || n != packetLen {
			p.t.Fatalf("packet %x of %d octets: %s", b[:n], n, why)
		}
		if p.from.IsValid() && p.from != from {
			p.t.Fatalf("packets from %s and %s", p.from, from)
		}
		p.last, p.from, p.ttl = pkt, from, ttlOf(p.oob[:oobn])
		if ok(pkt) {
			return
		}
	}
}

// say sends a packet with a TTL to the session.
func (p *player) say(ttl int, pkt packet) {
	p.t.Helper()
	rc, err := p.conn.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) })
	}
	if err == nil {
		_, err = p.conn.WriteToUDPAddrPort(pkt.append(nil), netip.AddrPortFrom(p.from.Addr(), portSingleHop))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Packets on the wire, wrong ones that are dropped, and a side that dies
// without a word.
func TestPlayedPeer(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "bfd")
	p := newPlayer(t, ns, "127.0.0.2")
	l := newLive(t, ns, NewNode(nil), quick("127.0.0.1", "127.0.0.2"))
	p.hear("down", func(pkt packet) bool { return pkt.state == Down && pkt.yours == 0 })
	if p.from.Addr() != ip("127.0.0.1") || p.from.Port() < firstSourcePort || p.ttl != 255 {
		t.Errorf("packets from %s with TTL %d", p.from, p.ttl)
	}

	down := packet{state: Down, mult: 3, mine: 42, minTx: 300 * ms, minRx: 300 * ms}
	p.say(254, down)
	l.reach("low TTL is dropped", func(s Status) bool { return s.Dropped[LowTTL] == 1 && s.In == 0 && s.State == Down })
	wrong := down
	wrong.yours = p.last.mine + 1
	p.say(255, wrong)
	l.reach("wrong discriminator is dropped", func(s Status) bool { return s.Dropped[UnknownSession] == 1 && s.In == 0 && s.State == Down })

	p.say(255, down)
	p.hear("init", func(pkt packet) bool { return pkt.state == Init && pkt.yours == 42 })
	up := packet{state: Init, mult: 3, mine: 42, yours: p.last.mine, minTx: 300 * ms, minRx: 300 * ms, independent: true}
	p.say(255, up)
	up.state = Up
	p.hear("up", func(pkt packet) bool { return pkt.state == Up })
	up.poll = true
	said := time.Now()
	p.say(255, up)
	p.hear("final", func(pkt packet) bool { return pkt.final && !pkt.poll })
	p.hear("down", func(pkt packet) bool { return pkt.state == Down && pkt.diag == DetectionTimeExpired && pkt.yours == 0 })
	if d := time.Since(said); d < 900*ms {
		t.Errorf("down after %v: want 900 ms", d)
	}
	nstest.Eventually(t, patience, func() bool {
		return l.has(func(c Change) bool {
			return c.Previous == Up && c.State == Down && c.RemoteState == Down && c.Diag == DetectionTimeExpired && c.ControlPlaneIndependent
		})
	}, func() string { return fmt.Sprintf("change to Down: %+v", l.Status()) })
	l.Close()
	p.hear("admin down", func(pkt packet) bool { return pkt.state == AdminDown && pkt.diag == AdministrativelyDown })
}

// Sockets that cannot be opened say why.
func TestSocketErrors(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "bfd")
	for want, change := range map[string]func(*Config){
		`listen: listen udp4 127.0.0.1:3784: bind to device "none"`: func(c *Config) { c.Device = "none" },
		"eth9": func(c *Config) { c.Local, c.Remote = ip("2001:db8::1"), ip("fe80::1%eth9") },
	} {
		c := quick("127.0.0.1", "127.0.0.2")
		change(&c)
		n, err := NewNode(nil), error(nil)
		ns.Do(func() { _, err = n.Add(c, nil) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: want %s", err, want)
		}
	}
}

// A session's source port is its own, and of the range.
func TestSourcePort(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "bfd")
	var s sender
	var port int
	var err, second error
	ns.Do(func() {
		if s, err = (udp{}).dial(place{local: ip("127.0.0.1")}, ip("127.0.0.2")); err != nil {
			return
		}
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(s.(*udpSender).fd); err != nil {
			return
		}
		port = sa.(*unix.SockaddrInet4).Port
		var c *net.UDPConn
		if c, second = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); second == nil {
			_ = c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if port < firstSourcePort || second == nil {
		t.Errorf("source port %d, error of another socket %v", port, second)
	}
}
