// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Addresses of the node and of its neighbour in tests with sessions.
const (
	liveNode = "127.0.0.77"
	livePeer = "127.0.0.78"
)

var noRTC = slices.DeleteFunc(slices.Clone(wire.Families), func(f wire.Family) bool { return f == wire.RTC })

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

// newLive returns a server whose speaker runs and listens on a free port of
// loopback, with one neighbour that it does not dial.
func newLive(t *testing.T, set speaker.Settings, change func(*speaker.Config)) *server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", liveNode+":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	if set.Families == nil {
		set.Families = noRTC
	}
	set.HoldTime, set.RetryMax, set.Irrelevant = 90, time.Second, speaker.Keep
	s := newServerWith(t, func(c *speaker.Config) {
		c.Local, c.Listen, c.ListenPort = addr(liveNode), true, port
		c.Settings = set
		c.Peers = []speaker.PeerConfig{{Addr: addr(livePeer), Passive: true}}
		if change != nil {
			change(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Speaker.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// neighbour is a BGP neighbour played over TCP.
type neighbour struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// fullOpen is an OPEN with most capabilities.
func fullOpen(families ...wire.Family) wire.Open {
	return wire.Open{
		AS: 64512, HoldTime: 90, RouterID: addr("192.0.2.9"), Families: families,
		FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true,
		GracefulRestart: &wire.GracefulRestart{Time: 60, Families: []wire.ForwardingState{{Family: wire.EVPN, Preserved: true}}},
	}
}

// connect brings a session with the server up.
func (s *server) connect(t *testing.T, o wire.Open) *neighbour {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr(livePeer), 0))}
	var nc net.Conn
	eventually(t, "node listens", func() (ok bool) {
		var err error
		nc, err = d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(s.Speaker.Local, s.Speaker.ListenPort).String())
		return err == nil
	})
	t.Cleanup(func() { _ = nc.Close() })
	n := &neighbour{t, nc, bufio.NewReader(nc)}
	msg, err := o.Message()
	if err != nil {
		t.Fatal(err)
	}
	n.write(msg)
	n.await(wire.MsgOpen)
	n.await(wire.MsgKeepalive)
	n.write(wire.Keepalive())
	eventually(t, "session", func() bool { return s.Speaker.Established() == 1 })
	return n
}

func (n *neighbour) write(msg []byte) {
	n.t.Helper()
	if _, err := n.nc.Write(msg); err != nil {
		n.t.Fatal(err)
	}
}

// await reads messages up to one of a type and returns its body.
func (n *neighbour) await(want wire.MsgType) []byte {
	n.t.Helper()
	_ = n.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		head := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(n.r, head); err != nil {
			n.t.Fatalf("no %s: %v", want, err)
		}
		typ, length, werr := wire.ParseHeader(head, wire.MaxExtMessage)
		if werr != nil {
			n.t.Fatal(werr)
		}
		body := make([]byte, length-wire.HeaderLen)
		if _, err := io.ReadFull(n.r, body); err != nil {
			n.t.Fatal(err)
		}
		if typ == want {
			return body
		}
	}
}

// macs makes an UPDATE that announces E-VPN routes of n MACs from the first on.
func macs(first, n int) []byte {
	hop := addr(livePeer)
	p := wire.NewPacker(wire.MaxMessage)
	attrs := wire.LocalAttrs{NextHop: hop, RTs: []wire.RT{target("64512:300")}, Communities: []wire.ExtCommunity{wire.EncapCommunity(encap.VXLAN)}}
	p.Announce(wire.EVPN, attrs.Build().Raw, hop)
	for i := first; i < first+n; i++ {
		mac := ethernet.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		p.Add(wire.Route{NLRI: wire.MACIPRoute(wire.MakeRD(hop, 1), mac, netip.Addr{}), Label: 5000})
	}
	return slices.Clone(p.Flush())
}

// page returns a looking glass page below the live neighbour, without what
// differs from run to run.
func (s *server) page(path string) string {
	body := s.get("/looking-glass/" + path).Body.String()
	return varying.ReplaceAllString(body, `"$1":"-"`)
}

var varying = regexp.MustCompile(`"(last_transition_time|UPDATE|since|until|local_port|peer_port|start_time|transmit_interval|packets_received|packets_sent|detection_time)":("[^"]*"|[0-9.]+)`)

// shows waits until a page has a text.
func (s *server) shows(t *testing.T, path, text string) {
	t.Helper()
	var page string
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(page, text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come to show %s: %s", path, text, page)
		}
		page = s.page(path)
	}
}
