// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"golang.org/x/sys/unix"
)

// listen opens a TCP port in a namespace that swallows what it is sent and answers with
// one octet at the end.
func listen(t *testing.T, ns *nstest.NS, addr netip.Addr, port int) {
	t.Helper()
	var l net.Listener
	var err error
	ns.Do(func() {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, uint16(port)).String())
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				_, _ = io.Copy(io.Discard, c)
				_, _ = c.Write([]byte{1})
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}

// transfer sends octets by TCP and waits until they have arrived.
func transfer(ns *nstest.NS, to netip.Addr, port, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := netspace.Dialer(ns.Name)(ctx, "tcp", netip.AddrPortFrom(to, uint16(port)).String())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1<<16)
	for sent := 0; sent < size; {
		n, err := c.Write(buf[:min(len(buf), size-sent)])
		if err != nil {
			return fmt.Errorf("after %d octets: %w", sent, err)
		}
		sent += n
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadFull(c, buf[:1])
	return err
}

// sniffer sees the frames that come in on a device, also those that a program takes.
type sniffer struct {
	fd int
	t  *testing.T
}

func sniff(t *testing.T, ns *nstest.NS, dev string) *sniffer {
	t.Helper()
	s := &sniffer{t: t}
	var err error
	ns.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(dev); err != nil {
			return
		}
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err == nil {
			err = unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24)
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	return s
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// frame is one frame: its first octets, and how long it was.
type frame struct {
	b        []byte
	length   int
	outgoing bool
}

// next returns the next frame that matches, or false after a while.
func (s *sniffer) next(within time.Duration, match func(frame) bool) (frame, bool) {
	deadline := time.Now().Add(within)
	for {
		buf := make([]byte, 2048)
		n, from, err := unix.Recvfrom(s.fd, buf, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			if time.Now().After(deadline) { // a slow machine still has frames then
				return frame{}, false
			}
			fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(fds, 20)
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		f := frame{b: buf[:min(n, len(buf))], length: n}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		if match(f) {
			return f, true
		}
	}
}

// all returns the frames that have come in and match.
func (s *sniffer) all(match func(frame) bool) (out []frame) {
	for {
		f, ok := s.next(50*time.Millisecond, match)
		if !ok {
			return out
		}
		out = append(out, f)
	}
}

// isTunnel tells whether a frame has come in with a tunnel header of ours around it.
func isTunnel(f frame) bool {
	if f.outgoing || len(f.b) < 60 {
		return false
	}
	next, at := f.b[23], 34
	if f.b[12] == 0x86 {
		next, at = f.b[20], 54
	}
	port := binary.BigEndian.Uint16(f.b[at+2:])
	return next == unix.IPPROTO_GRE || next == unix.IPPROTO_UDP && (port == mplsUDPPort || port == defaultVXLANPort)
}
