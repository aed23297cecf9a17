// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ports of RFC 5881 §4 and RFC 5883 §5.
const (
	portSingleHop   = 3784
	portMultihop    = 4784
	firstSourcePort = 49152
	sourcePorts     = 65536 - firstSourcePort
)

// control is the traffic class of network control, DSCP CS6: BFD must get
// through where the path is full (RFC 5880 §7).
const control = 0xc0

// udp is the network of the kernel. Sockets belong to the network namespace of
// the thread that opens them.
type udp struct{}

func (p place) port() int {
	if p.multihop {
		return portMultihop
	}
	return portSingleHop
}

// option is an integer option of a socket.
type option struct{ level, name, value int }

// both are the options of either kind of socket. An address may come later than
// its session, or go for a while.
func (p place) both() []option {
	if p.local.Is4() {
		return []option{{unix.IPPROTO_IP, unix.IP_FREEBIND, 1}}
	}
	return []option{{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1}, {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}}
}

// listening are the options of the receiving socket. The address is reused
// because a socket without a device may be beside one with.
func (p place) listening() []option {
	o := append(p.both(), option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	if p.local.Is4() {
		return append(o, option{unix.IPPROTO_IP, unix.IP_RECVTTL, 1})
	}
	return append(o, option{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1})
}

// sending are the options of a session's sending socket.
func (p place) sending() []option {
	if p.local.Is4() {
		return append(p.both(), option{unix.IPPROTO_IP, unix.IP_TTL, fullTTL}, option{unix.IPPROTO_IP, unix.IP_TOS, control})
	}
	return append(p.both(), option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, fullTTL}, option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, control})
}

// prepare sets options and binds to the device.
func (p place) prepare(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set socket option %d/%d: %w", o.level, o.name, err)
		}
	}
	if p.device == "" {
		return nil
	}
	if err := unix.BindToDevice(fd, p.device); err != nil {
		return fmt.Errorf("bind to device %q: %w", p.device, err)
	}
	return nil
}

func (udp) listen(p place) (receiver, error) {
	network := "udp4"
	if p.local.Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var failed error
		if err := rc.Control(func(fd uintptr) { failed = p.prepare(int(fd), p.listening()) }); err != nil {
			return err
		}
		return failed
	}}
	c, err := lc.ListenPacket(context.Background(), network, netip.AddrPortFrom(p.local, uint16(p.port())).String())
	if err != nil {
		return nil, err
	}
	return &udpReceiver{conn: c.(*net.UDPConn)}, nil
}

// udpReceiver is a receiving socket.
type udpReceiver struct {
	conn *net.UDPConn
	oob  [128]byte
}

func (r *udpReceiver) receive(b []byte) (int, netip.Addr, uint8, error) {
	n, oobn, _, from, err := r.conn.ReadMsgUDPAddrPort(b, r.oob[:])
	if err != nil {
		return 0, netip.Addr{}, 0, err
	}
	return n, from.Addr().Unmap(), ttlOf(r.oob[:oobn]), nil
}

func (r *udpReceiver) Close() error { return r.conn.Close() }

// ttlOf finds the TTL or hop limit in control messages, 0 when it is not there.
func ttlOf(oob []byte) uint8 {
	for len(oob) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		v4 := h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL
		v6 := h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT
		if (v4 || v6) && len(data) >= 4 {
			return uint8(binary.NativeEndian.Uint32(data))
		}
		oob = rest
	}
	return 0
}

func (udp) dial(p place, to netip.Addr) (sender, error) {
	target, err := sockaddr(to, p.port())
	if err != nil {
		return nil, err
	}
	family := unix.AF_INET
	if p.local.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = p.prepare(fd, p.sending()); err == nil {
		err = bindSource(fd, p.local)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &udpSender{fd, target}, nil
}

// bindSource binds to a free source port (RFC 5881 §4). The search begins
// anywhere, so that a restart does not look like the session of before.
func bindSource(fd int, local netip.Addr) error {
	start := rand.IntN(sourcePorts)
	for i := range sourcePorts {
		sa, err := sockaddr(local, firstSourcePort+(start+i)%sourcePorts)
		if err != nil {
			return err
		}
		if err = unix.Bind(fd, sa); !errors.Is(err, unix.EADDRINUSE) {
			return os.NewSyscallError("bind", err)
		}
	}
	return fmt.Errorf("no source port from %d on is free at %s", firstSourcePort, local)
}

// udpSender is a sending socket. It is never read: the other side sends to the
// port of the place. It is not connected, so that ICMP errors, which anyone can
// send, do not get to it.
type udpSender struct {
	fd int
	to unix.Sockaddr
}

func (s *udpSender) send(b []byte) error {
	return os.NewSyscallError("sendto", unix.Sendto(s.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, s.to))
}

func (s *udpSender) Close() error { return unix.Close(s.fd) }

// sockaddr converts an address for the kernel.
func sockaddr(a netip.Addr, port int) (unix.Sockaddr, error) {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	if a.Zone() != "" {
		i, err := net.InterfaceByName(a.Zone())
		if err != nil {
			return nil, fmt.Errorf("zone of %s: %w", a, err)
		}
		sa.ZoneId = uint32(i.Index)
	}
	return sa, nil
}

// interfaceName turns a zone that is an interface's index into its name.
func interfaceName(zone string) string {
	index, err := strconv.Atoi(zone)
	if err != nil {
		return zone
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return zone
	}
	return i.Name
}
