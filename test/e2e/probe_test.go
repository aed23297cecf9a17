// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/losstable"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const (
	// probeEvery is the time between two packets of a probe.
	probeEvery = 5 * time.Millisecond
	// probeWait is how long an answer may take.
	probeWait = time.Second
)

// probe sends numbered packets at a steady pace and notes which arrived. A gap
// is a run of lost packets; its length is the time between the sending of those
// around it that arrived. So a machine that is slow to run the test makes no gap.
type probe struct {
	t        testing.TB
	name     string
	out, in  net.PacketConn // packets leave by out, and their effect is seen at in
	to       net.Addr
	encode   func(number uint32) []byte
	decode   func(packet []byte) (number uint32, ok bool)
	stopping chan struct{}
	wg       sync.WaitGroup
	once     sync.Once

	mu      sync.Mutex
	sent    []time.Time
	arrived []bool
}

// listen opens a socket inside a namespace.
func listen(t testing.TB, ns *nstest.NS, network, address string) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	err := netspace.Do(ns.Name, func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		t.Fatalf("listen in %s: %v", ns.Name, err)
	}
	return conn
}

// startStream begins to send UDP one way, from a machine to an address of another.
func startStream(t testing.TB, from, to *vm, address netip.Addr) *probe {
	t.Helper()
	in := listen(t, to.NS, udp(address), netip.AddrPortFrom(address, 5000).String())
	p := &probe{
		name: fmt.Sprintf("stream %s -> %s", from.tap, address), to: in.LocalAddr(), in: in, out: listen(t, from.NS, udp(address), ""),
		encode: number, decode: numbered,
	}
	return p.start(t)
}

// startEcho begins to send UDP from a machine to an address of others, which send it back.
// Ping is not for what must not be lost: the kernel answers with a socket that is one for all
// namespaces, and is silent when answers elsewhere wait for a neighbour.
func startEcho(t testing.TB, from *vm, address netip.Addr, at ...*vm) *probe {
	t.Helper()
	for _, v := range at {
		v.echoes(address)
	}
	conn := listen(t, from.NS, udp(address), "")
	p := &probe{
		name: fmt.Sprintf("echo %s -> %s", from.tap, address), in: conn, out: conn, to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, echoPort)),
		encode: number, decode: numbered,
	}
	return p.start(t)
}

const echoPort = 7

// echoes has the machine send back what comes to the echo port of one of its addresses.
func (v *vm) echoes(address netip.Addr) {
	t := v.node.t
	t.Helper()
	if slices.Contains(v.echoing, address) {
		return
	}
	v.echoing = append(v.echoing, address)
	conn := listen(t, v.NS, udp(address), netip.AddrPortFrom(address, echoPort).String())
	var wg sync.WaitGroup
	wg.Go(func() {
		for buf := make([]byte, 64); ; {
			n, peer, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteTo(buf[:n], peer)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); wg.Wait() })
}

// udp returns the network of UDP over the version of an address.
func udp(a netip.Addr) string {
	if a.Is6() {
		return "udp6"
	}
	return "udp4"
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func numbered(b []byte) (uint32, bool) {
	if len(b) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

func (p *probe) start(t testing.TB) *probe {
	p.t, p.stopping = t, make(chan struct{})
	p.wg.Go(p.send)
	var receiver sync.WaitGroup
	receiver.Go(p.receive)
	t.Cleanup(func() {
		p.halt()
		_ = p.in.Close()
		_ = p.out.Close()
		receiver.Wait()
	})
	return p
}

func (p *probe) halt() {
	p.once.Do(func() { close(p.stopping) })
	p.wg.Wait()
}

func (p *probe) send() {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		p.mu.Lock()
		number := len(p.sent)
		p.sent, p.arrived = append(p.sent, time.Now()), append(p.arrived, false)
		p.mu.Unlock()
		// An error, such as a host that is not reachable, is a lost packet.
		_, _ = p.out.WriteTo(p.encode(uint32(number)), p.to)
		select {
		case <-p.stopping:
			return
		case <-ticker.C:
		}
	}
}

func (p *probe) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := p.in.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			continue
		}
		number, ok := p.decode(buf[:n])
		p.mu.Lock()
		if ok && int(number) < len(p.arrived) {
			p.arrived[number] = true
		}
		p.mu.Unlock()
	}
}

// count returns the number of packets sent so far.
func (p *probe) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// flows waits until the last packets arrive, at least so many in a row that
// were all sent after the call.
func (p *probe) flows(row int) {
	p.t.Helper()
	p.inARow(row, true)
}

// stopped waits until the last packets do not arrive, so many of them in a row.
func (p *probe) stopped(row int) {
	p.t.Helper()
	p.inARow(row, false)
}

// inARow waits until so many packets in a row that are sent from now on have arrived, or until
// so many at the end have not.
func (p *probe) inARow(row int, arrived bool) {
	p.t.Helper()
	first := p.count()
	eventually(p.t, routeTimeout, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		run := 0
		for i := first; i < len(p.arrived); i++ {
			if run++; p.arrived[i] != arrived {
				run = 0
			}
			if arrived && run == row {
				return nil
			}
		}
		if !arrived && run >= row {
			return nil
		}
		return fmt.Errorf("%s: %d sent since, %d in a row at the end with arrived=%t, want %d", p.name, len(p.arrived)-first, run, arrived, row)
	})
}

// result returns the outcome of the packets in [from, to), when the answers
// have had their time. A gap at the edge is as long as it is known to be.
func (p *probe) result(from, to int) losstable.Cell {
	p.t.Helper()
	p.settle(to)
	p.mu.Lock()
	defer p.mu.Unlock()
	o := losstable.Cell{Sent: to - from}
	since := p.sent[from]
	for i := from; i < to; i++ {
		gap := p.sent[i].Sub(since)
		if !p.arrived[i] {
			o.Lost++
			o.Longest = max(o.Longest, gap)
			continue
		}
		if i > from && !p.arrived[i-1] {
			o.Longest = max(o.Longest, gap)
		}
		since = p.sent[i]
	}
	return o
}

// settle waits until all packets before one have arrived or had their time.
func (p *probe) settle(to int) {
	missing := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range to {
			if !p.arrived[i] && time.Since(p.sent[i]) < probeWait {
				return true
			}
		}
		return false
	}
	nstest.Eventually(p.t, 2*probeWait, func() bool { return !missing() }, func() string { return "answers to come in" })
}

// stop ends the probe and returns the outcome of all packets since one.
func (p *probe) stop(from int) losstable.Cell {
	p.t.Helper()
	p.halt()
	o := p.result(from, p.count())
	p.t.Logf("%s: %v", p.name, o)
	return o
}

// pings tells whether a machine reaches an address with all of a few packets.
func pings(t testing.TB, from *vm, to netip.Addr, options ...string) error {
	t.Helper()
	args := append([]string{"ping", "-n", "-c", "2", "-i", "0.1", "-W", "1"}, options...)
	out, err := from.Try(append(args, to.String())...)
	if err != nil {
		return fmt.Errorf("ping %s -> %s: %w: %s", from.tap, to, err, out)
	}
	return nil
}

// reaches waits until a machine reaches all addresses of others.
func (v *vm) reaches(others ...*vm) {
	v.node.t.Helper()
	for _, o := range others {
		for _, a := range []netip.Addr{o.v4.Addr(), o.v6.Addr()} {
			eventually(v.node.t, routeTimeout, func() error { return pings(v.node.t, v, a) })
		}
	}
}
