// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const (
	// Message types of BGP (RFC 4271 §4.1).
	msgOpen, msgUpdate, msgKeepalive = 1, 2, 4
	// openASN is the AS number as an OPEN without four-octet AS capability has it.
	openASN   = asn
	badNumber = 66
)

// message makes a BGP message, well formed or not.
func message(kind byte, body ...byte) []byte {
	b := bytes.Repeat([]byte{0xff}, 16)
	b = binary.BigEndian.AppendUint16(b, uint16(19+len(body)))
	return append(append(b, kind), body...)
}

// openMessage is a good OPEN for E-VPN and RT constraint of an AS and a router id.
func openMessage(as uint16, number byte) []byte {
	capabilities := []byte{
		1, 4, 0, 25, 0, 70, // multiprotocol: L2VPN E-VPN
		1, 4, 0, 1, 0, 132, // multiprotocol: IPv4 RT constraint
	}
	parameters := append([]byte{2, byte(len(capabilities))}, capabilities...)
	fixed := []byte{4, byte(as >> 8), byte(as), 0, 90, 192, 0, 2, number, byte(len(parameters))}
	return message(msgOpen, append(fixed, parameters...)...)
}

// noise is the same on every run.
func noise(size int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, size)
	_, _ = r.Read(b)
	return b
}

// attack is what a bad peer sends. "Welcome" peers speak BGP properly until
// their session is up, and only then send it.
type attack struct {
	name    string
	welcome bool
	data    []byte
}

func attacks() []attack {
	evil := func(body ...byte) []byte { return message(msgUpdate, body...) }
	reach := func(nlri ...byte) []byte { // an UPDATE with MP_REACH_NLRI for E-VPN
		attr := slices.Concat([]byte{0, 25, 70, 4, 192, 0, 2, badNumber, 0}, nlri)
		attrs := slices.Concat([]byte{0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x80, 14, byte(len(attr))}, attr)
		return evil(slices.Concat([]byte{0, 0, 0, byte(len(attrs))}, attrs)...)
	}
	endless := message(msgOpen)
	binary.BigEndian.PutUint16(endless[16:], 65535)
	return []attack{
		{"says nothing", false, nil},
		{"noise", false, noise(64 << 10)},
		{"a web browser", false, []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")},
		{"a header of length 0", false, append(bytes.Repeat([]byte{0xff}, 16), 0, 0, 1)},
		{"a message that never ends", false, append(endless, noise(1<<20)...)},
		{"another AS", false, openMessage(64999, badNumber)},
		{"the reflector's identifier", false, openMessage(openASN, reflectorNumber)},
		{"the node's own identifier", false, openMessage(openASN, 11)},
		{"an UPDATE before OPEN", false, evil(0, 0, 0, 0)},
		{"noise when up", true, noise(64 << 10)},
		{"an UPDATE with lengths beyond its end", true, evil(0xff, 0xff, 1, 2, 3)},
		{"attributes beyond the end", true, evil(0, 0, 0xff, 0xff, 0x40, 1, 1, 0)},
		{"a type 2 route cut short", true, reach(2, 33, 0, 0, 1)},
		{"a type 2 route with an address of 77 bits", true, reach(slices.Concat([]byte{2, 34}, make([]byte, 22), []byte{48}, noise(6), []byte{77}, noise(4))...)},
		{"an unknown type of route", true, reach(slices.Concat([]byte{200, 20}, noise(20))...)},
	}
}

// TestBadPeers lets strangers connect, and one that has the address of the
// reflector, and send what nobody should. The node stays healthy, keeps its
// session with the reflector and forwards without loss.
func TestBadPeers(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	s := waitsForAny(f, netip.Addr{})
	s.peers = f.reflectors()
	a := f.nodeWith("a", 11, s)
	b := f.node("b", 12)
	bad := f.host("bad", badNumber)
	a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
	a1.attach(red)
	b1.attach(red)
	a1.reaches(b1)
	want := forwarding{}.behind(b.addr, b1)
	a.forwards(red, want)
	before, err := a.session(f.addr(reflectorNumber))
	if err != nil || before.State != "Established" {
		t.Fatalf("session with the reflector: %+v, %v", before, err)
	}
	number, p, w := a.number(), startEcho(t, b1, a1.ip4(), a1), a.watch(red)
	p.flows(10)

	for _, from := range []*nstest.NS{bad, f.hub} {
		for _, at := range attacks() {
			answered := 0
			for range 3 {
				answered += at.run(t, from, a.addr)
			}
			// A node that hung up on all would make this test an easy one.
			if at.welcome && answered == 0 {
				t.Errorf("%s: the node did not even answer the OPEN", at.name)
			}
			if status, body := a.get("/healthz"); status != http.StatusOK {
				t.Errorf("%s: /healthz: %d %s", at.name, status, body)
			}
		}
	}
	flood(t, bad, a.addr)
	if now := a.number(); now != number || a.proc.exited() {
		t.Fatal("the daemon has ended")
	}
	if now, err := a.session(f.addr(reflectorNumber)); err != nil || now != before {
		t.Errorf("session with the reflector is %+v, was %+v, %v", now, before, err)
	}
	p.flows(10)
	p.noLoss(0)
	w.never(gone, b1)
	a.forwards(red, want) // and nothing of the bad ones
	a2 := a.vm("a2", 12)
	a2.attach(red)
	b1.reaches(a2)
}

// run connects, attacks, and waits until the node hangs up, or for a moment. It
// returns 1 when the node has said something, else 0.
func (at attack) run(t *testing.T, from *nstest.NS, to netip.Addr) int {
	t.Helper()
	conn := dialBGP(t, from, to)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if at.welcome {
		_, _ = conn.Write(slices.Concat(openMessage(openASN, badNumber), message(msgKeepalive)))
	}
	_, _ = conn.Write(at.data)
	answer, _ := io.ReadAll(conn) // until it hangs up, by a reset perhaps
	return min(len(answer), 1)
}

func dialBGP(t *testing.T, from *nstest.NS, to netip.Addr) net.Conn {
	t.Helper()
	conn, err := netspace.Dialer(from.Name)(t.Context(), "tcp", netip.AddrPortFrom(to, 179).String())
	if err != nil {
		t.Fatalf("connect to the node: %v", err)
	}
	return conn
}

// flood opens many connections at once and keeps them open together.
func flood(t *testing.T, from *nstest.NS, to netip.Addr) {
	t.Helper()
	var all []net.Conn
	for i := range 100 {
		conn := dialBGP(t, from, to)
		all = append(all, conn)
		_, _ = fmt.Fprintf(conn, "connection %d", i)
	}
	for _, c := range all {
		_ = c.Close()
	}
}
