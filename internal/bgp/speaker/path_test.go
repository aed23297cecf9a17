// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// A prefix of dynamic neighbours has a password: who does not know it, does not
// get as far as an OPEN.
func TestPasswordOfDynamicNeighbours(t *testing.T) {
	t.Parallel()
	listener := startNode(t, func(c *Config) {
		c.Dynamic = []Group{{Prefix: netip.MustParsePrefix("127.0.3.0/24"), Settings: &Settings{
			HoldTime: 90, Families: noRTC, Transport: transport.Options{Password: "secret"},
		}}}
	})
	dialler := func(local, password string) *node {
		return startNode(t, func(c *Config) {
			c.Local, c.RouterID, c.Listen = netip.MustParseAddr(local), peerID, false
			c.Transport.Password = password
			c.Peers = []PeerConfig{{Addr: nodeAddr, Port: listener.ListenPort}}
		})
	}
	wrong := dialler("127.0.3.1", "Secret")
	right := dialler("127.0.3.2", "secret")
	right.established(nodeAddr)
	listener.established(right.Local)
	if got := wrong.neighbour(nodeAddr).Status(); got.State >= session.OpenSent || got.Established > 0 {
		t.Errorf("with the wrong password: %s", got.State)
	}
	if n := len(listener.Neighbours()); n != 1 {
		t.Errorf("%d neighbours", n)
	}
}

// A neighbour that dies without a word is noticed by BFD long before the hold
// time; its routes go, or are kept where it may be restarting (RFC 5882 §4.3). One
// whose operator closed BFD is left alone (RFC 5882 §4.2).
func TestBFD(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name    string
		restart *Restart
		// every is the interval of the neighbour's BFD packets as it tells: the 100th missed tells that it
		// is gone. Busy machines pause tests for some.
		every time.Duration
		end   func(*bfdPeer)
		want  string // what becomes of session and route
	}{
		{"dies", nil, 20 * time.Millisecond, (*bfdPeer).die, "gone"},
		{"dies, with graceful restart", &Restart{Time: 60, StaleTime: time.Minute}, 20 * time.Millisecond, (*bfdPeer).die, "stale"},
		{"is closed by the operator", nil, time.Second, (*bfdPeer).close, "stays"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := netip.AddrFrom4([4]byte{127, 4, byte(i), 1}), netip.AddrFrom4([4]byte{127, 4, byte(i), 2})
			p := newBFDPeer(t, theirs, tt.every)
			one := startNode(t, func(c *Config) {
				c.Local, c.Restart, c.BFD = ours, tt.restart, bfd.NewNode(nil)
				c.Settings.BFD = &bfd.Config{MinTx: 20 * time.Millisecond, MinRx: 20 * time.Millisecond, Multiplier: 3}
				c.Peers = []PeerConfig{{Addr: theirs, Passive: true}}
			})
			two := startNode(t, func(c *Config) {
				c.Local, c.RouterID, c.Restart, c.Listen = theirs, peerID, tt.restart, false
				c.Peers = []PeerConfig{{Addr: ours, Port: one.ListenPort}}
				c.RetryMax = time.Hour
			})
			two.announce(tagged(rt100), macRoute(1))
			n, name := one.neighbour(theirs), macRoute(1).NLRI.String()
			state := func() string {
				st, ok := n.Path()
				r, have := one.received(theirs)[name]
				switch {
				case ok && st.State == bfd.Up && have:
					return "up"
				case st.State == bfd.Up:
					return "BFD is up"
				case n.Status().State == session.Established && n.Status().Established == 1:
					return "stays"
				case n.Status().LastLoss.Sent == nil || n.Status().LastLoss.Sent.Subcode != wire.CeaseBFDDown:
					return "not told why"
				case have:
					return r.Stale.String()
				}
				return "gone"
			}
			eventuallyEqual(t, "before", "up", state)
			tt.end(p)
			eventuallyEqual(t, "after", tt.want, state)
			if tt.want == "stays" { // also for what comes later
				two.announce(tagged(rt100), macRoute(2))
				name = macRoute(2).NLRI.String()
				eventuallyEqual(t, "another route", true, func() bool { _, have := one.received(theirs)[name]; return have })
				eventuallyEqual(t, "after another route", tt.want, state)
			}
		})
	}
}

// bfdPeer is the other side of a BFD session, which can end as the test likes.
type bfdPeer struct {
	c     *net.UDPConn
	every time.Duration
	last  atomic.Pointer[netip.AddrPort]
	disc  atomic.Uint32 // of the node
	done  chan struct{}
}

const bfdPort = 3784

func newBFDPeer(t *testing.T, at netip.Addr, every time.Duration) *bfdPeer {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, bfdPort)))
	if err != nil {
		t.Fatal(err)
	}
	p := &bfdPeer{c: c, every: every, done: make(chan struct{})}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, 255) // RFC 5881 §5
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.die)
	go p.answer()
	return p
}

// answer goes along with the states of the node.
func (p *bfdPeer) answer() {
	defer close(p.done)
	b := make([]byte, 64)
	for {
		n, from, err := p.c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n < 24 {
			continue
		}
		p.disc.Store(binary.BigEndian.Uint32(b[4:]))
		to := netip.AddrPortFrom(from.Addr(), bfdPort)
		p.last.Store(&to)
		state := byte(bfd.Up)
		if b[1]>>6 == byte(bfd.Down) {
			state = byte(bfd.Init)
		}
		p.send(state, b[1]>>5&1) // a Poll is answered with Final
	}
}

func (p *bfdPeer) send(state, final byte) {
	to := p.last.Load()
	if to == nil {
		return
	}
	b := []byte{0x20, state<<6 | final<<4, 100, 24, 0, 0, 0, 9}
	b = binary.BigEndian.AppendUint32(b, p.disc.Load())
	for _, interval := range []uint32{uint32(p.every.Microseconds()), 20000, 0} {
		b = binary.BigEndian.AppendUint32(b, interval)
	}
	_, _ = p.c.WriteToUDPAddrPort(b, *to)
}

// die ends without a word, close with one, which is the last: an answer after it would begin
// another session.
func (p *bfdPeer) die() { _ = p.c.Close(); <-p.done }

func (p *bfdPeer) close() {
	_ = p.c.SetReadDeadline(time.Unix(1, 0))
	<-p.done
	p.send(byte(bfd.AdminDown), 0)
	p.die()
}
