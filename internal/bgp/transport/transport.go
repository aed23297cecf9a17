// SPDX-License-Identifier: Apache-2.0

// Package transport makes the TCP connections of BGP sessions: dialled or
// accepted, with TCP-MD5 signatures (RFC 2385), TTL security (GTSM, RFC 5082)
// and bound to a device where a neighbour asks for it.
//
// Options are those of one neighbour. A Listener serves all neighbours of an
// address: it has a key per neighbour or prefix, and Apply puts the other options
// on a connection once it is known whose it is.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxPassword is the longest TCP-MD5 password, in octets.
const MaxPassword = unix.TCP_MD5SIG_MAXKEYLEN

// Options are a neighbour's; the zero value is a plain connection.
type Options struct {
	// Password is the key of TCP-MD5 signatures, at most MaxPassword octets; "" is
	// none.
	Password string
	// TTLSecurity is how many hops away the neighbour may be, 1 to 254: packets that
	// come from farther are dropped (RFC 5082 §3). 0 turns it off.
	TTLSecurity int
	// Device is the interface that packets must take; "" is any.
	Device string
}

// Key is a TCP-MD5 password for the addresses of a prefix. The longest prefix
// counts.
type Key struct {
	Prefix   netip.Prefix
	Password string
}

const (
	maxTTL = 255
	// controlClass is DSCP CS6, network control (RFC 4594 §3.1), as TOS octet.
	controlClass = 0xc0
)

// Dial connects from local, an address without port, to a neighbour.
func Dial(ctx context.Context, local netip.Addr, to netip.AddrPort, o Options) (net.Conn, error) {
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: local.AsSlice(), Zone: local.Zone()},
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(s socket) error {
				if o.Password != "" {
					if err := s.key(Key{netip.PrefixFrom(to.Addr().WithZone(""), to.Addr().BitLen()), o.Password}); err != nil {
						return err
					}
				}
				return errors.Join(s.class(), s.apply(o))
			})
		},
	}
	d.SetMultipathTCP(false) // which has no signatures
	return d.DialContext(ctx, "tcp", to.String())
}

// Listener accepts connections on one address.
type Listener struct{ *net.TCPListener }

// Listen listens at an address. Packets go out with the largest TTL, since a
// neighbour may use TTL security and the handshake comes before Apply.
func Listen(ctx context.Context, at netip.AddrPort) (*Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(s socket) error {
			return errors.Join(s.class(), s.ttl(), unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1))
		})
	}}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return &Listener{l.(*net.TCPListener)}, nil
}

// SetKeys sets the passwords of neighbours: a connection from one of these
// prefixes is refused unless it is signed.
func (l *Listener) SetKeys(keys []Key) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(s socket) error {
		for _, k := range keys {
			if err := s.key(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Apply puts options on an accepted connection, all but the password, which the
// listener has.
func (o Options) Apply(c net.Conn) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("connection of type %T: want TCP", c)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(s socket) error {
		if err := s.checkSYN(o); err != nil {
			return err
		}
		return s.apply(o)
	})
}

// socket is a TCP socket of one address family.
type socket struct {
	fd int
	v6 bool
}

// control calls f with the socket of a connection.
func control(c syscall.RawConn, f func(socket) error) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		s := socket{fd: int(fd)}
		family, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			inner = err
			return
		}
		s.v6 = family == unix.AF_INET6
		inner = f(s)
	})
	return errors.Join(err, inner)
}

func (s socket) apply(o Options) error {
	if o.Device != "" {
		if err := unix.BindToDevice(s.fd, o.Device); err != nil {
			return fmt.Errorf("bind to device %s: %w", o.Device, err)
		}
	}
	if o.TTLSecurity == 0 {
		return nil
	}
	lowest := maxTTL + 1 - o.TTLSecurity
	if err := errors.Join(s.ttl(), s.set(unix.IP_MINTTL, unix.IPV6_MINHOPCOUNT, lowest)); err != nil {
		return fmt.Errorf("TTL security of %d hops: %w", o.TTLSecurity, err)
	}
	return nil
}

// checkSYN refuses a connection whose first packet came from too far away: more of
// them may have come before the socket had its least TTL. With SYN cookies there
// is no first packet any more.
func (s socket) checkSYN(o Options) error {
	if o.TTLSecurity == 0 {
		return nil
	}
	var b [128]byte // the headers of a SYN: 60 and 60 octets at most
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("first packet of the connection: %w", errno)
	}
	if size == 0 {
		return nil
	}
	ttl := int(b[8])
	if b[0]>>4 == 6 {
		ttl = int(b[7])
	}
	if lowest := maxTTL + 1 - o.TTLSecurity; ttl < lowest {
		return fmt.Errorf("first packet with TTL %d: want at least %d (TTL security)", ttl, lowest)
	}
	return nil
}

func (s socket) ttl() error { return s.set(unix.IP_TTL, unix.IPV6_UNICAST_HOPS, maxTTL) }

func (s socket) class() error { return s.set(unix.IP_TOS, unix.IPV6_TCLASS, controlClass) }

// set sets the option of the socket's address family.
func (s socket) set(v4, v6, value int) error {
	if s.v6 {
		return unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, v6, value)
	}
	return unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, v4, value)
}

// key sets a TCP-MD5 password.
func (s socket) key(k Key) error {
	if len(k.Password) > MaxPassword {
		return fmt.Errorf("TCP-MD5 password of %d octets for %s: want at most %d", len(k.Password), k.Prefix, MaxPassword)
	}
	sig := unix.TCPMD5Sig{
		Flags: unix.TCP_MD5SIG_FLAG_PREFIX, Prefixlen: uint8(k.Prefix.Bits()), Keylen: uint16(len(k.Password)),
	}
	copy(sig.Key[:], k.Password)
	addr := k.Prefix.Masked().Addr()
	// The address lies behind the port in an IPv4 socket address, and behind port
	// and flow information in an IPv6 one.
	if addr.Is4() {
		sig.Addr.Family = unix.AF_INET
		fill(sig.Addr.Data[2:], addr.AsSlice())
	} else {
		sig.Addr.Family = unix.AF_INET6
		fill(sig.Addr.Data[6:], addr.AsSlice())
	}
	if err := unix.SetsockoptTCPMD5Sig(s.fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG_EXT, &sig); err != nil {
		return fmt.Errorf("TCP-MD5 password for %s: %w", k.Prefix, err)
	}
	return nil
}

// fill copies octets into a field of another octet type.
func fill[T ~int8 | ~uint8](to []T, from []byte) {
	for i, b := range from {
		to[i] = T(b)
	}
}
