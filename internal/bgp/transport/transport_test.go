// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// hosts are two namespaces on one link.
type hosts struct{ a, b *nstest.NS }

// newHosts makes hosts a (192.0.2.1, 2001:db8::1) and b (192.0.2.2, 2001:db8::2)
// that are one hop apart.
func newHosts(t *testing.T) hosts {
	h := hosts{nstest.New(t, "tra"), nstest.New(t, "trb")}
	nstest.Connect(h.a, "eth0", h.b, "eth0")
	for i, ns := range []*nstest.NS{h.a, h.b} {
		n := string(rune('1' + i))
		ns.Run("ip", "addr", "add", "192.0.2."+n+"/24", "dev", "eth0")
		ns.Run("ip", "addr", "add", "2001:db8::"+n+"/64", "dev", "eth0", "nodad")
		ns.Run("ip", "addr", "add", "198.51.100."+n+"/32", "dev", "lo")
	}
	return h
}

// connect dials from a to a listener on b and sends a word over; side is what
// each has.
func (h hosts) connect(t *testing.T, from, to string, dial Options, keys []Key, accept Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var l *Listener
	var err error
	h.b.Do(func() { l, err = Listen(ctx, netip.AddrPortFrom(netip.MustParseAddr(to), 0)) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- echo(l, accept) }()
	var c net.Conn
	h.a.Do(func() {
		c, err = Dial(ctx, netip.MustParseAddr(from), l.Addr().(*net.TCPAddr).AddrPort(), dial)
	})
	if err != nil {
		_ = l.Close()
		<-served
		return err
	}
	defer c.Close()
	err = exchange(c)
	_ = c.Close()
	_ = l.Close()
	return errors.Join(err, <-served)
}

// echo returns what one connection sends.
func echo(l *Listener, o Options) error {
	c, err := l.Accept()
	if err != nil {
		return nil // the test ended it
	}
	defer c.Close()
	if err := o.Apply(c); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.Copy(c, io.LimitReader(c, 4))
	return nil
}

func exchange(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	key := func(prefix, password string) []Key { return []Key{{netip.MustParsePrefix(prefix), password}} }
	for _, tt := range []struct {
		name     string
		from, to string
		password string
		keys     []Key
		fails    bool
	}{
		{"none", "192.0.2.1", "192.0.2.2", "", nil, false},
		{"same", "192.0.2.1", "192.0.2.2", "secret", key("192.0.2.1/32", "secret"), false},
		{"same, IPv6", "2001:db8::1", "2001:db8::2", "secret", key("2001:db8::1/128", "secret"), false},
		{"other", "192.0.2.1", "192.0.2.2", "secret", key("192.0.2.1/32", "Secret"), true},
		{"other, IPv6", "2001:db8::1", "2001:db8::2", "secret", key("2001:db8::1/128", "Secret"), true},
		{"missing where we dial", "192.0.2.1", "192.0.2.2", "", key("192.0.2.1/32", "secret"), true},
		{"missing where we listen", "192.0.2.1", "192.0.2.2", "secret", nil, true},
		{"of a prefix", "192.0.2.1", "192.0.2.2", "secret", key("192.0.2.0/24", "secret"), false},
		{"of a prefix, IPv6", "2001:db8::1", "2001:db8::2", "secret", key("2001:db8::/32", "secret"), false},
		{"of another prefix", "192.0.2.1", "192.0.2.2", "", key("192.0.2.64/26", "secret"), false},
		{
			"the longest prefix counts", "192.0.2.1", "192.0.2.2", "own",
			append(key("192.0.2.0/24", "secret"), key("192.0.2.1/32", "own")...), false,
		},
		{"as long as can be", "192.0.2.1", "192.0.2.2", strings.Repeat("x", MaxPassword), key("192.0.2.1/32", strings.Repeat("x", MaxPassword)), false},
		{"too long", "192.0.2.1", "192.0.2.2", strings.Repeat("x", MaxPassword+1), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := h.connect(t, tt.from, tt.to, Options{Password: tt.password}, tt.keys, Options{})
			if failed := err != nil; failed != tt.fails {
				t.Errorf("connect: %v; want an error: %t", err, tt.fails)
			}
		})
	}
}

// With TTL security a neighbour on the link is heard, and one that sends with a
// smaller TTL, as if it were farther away, is not.
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	near := Options{TTLSecurity: 1}
	for _, tt := range []struct {
		name         string
		from, to     string
		dial, accept Options
		fails        bool
	}{
		{"both sides", "192.0.2.1", "192.0.2.2", near, near, false},
		{"both sides, IPv6", "2001:db8::1", "2001:db8::2", near, near, false},
		{"where we dial", "192.0.2.1", "192.0.2.2", near, Options{}, false},
		{"the peer sends with the usual TTL", "192.0.2.1", "192.0.2.2", Options{}, near, true},
		{"the peer sends with the usual TTL, IPv6", "2001:db8::1", "2001:db8::2", Options{}, near, true},
		{"far away", "192.0.2.1", "192.0.2.2", Options{}, Options{TTLSecurity: 254}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := h.connect(t, tt.from, tt.to, tt.dial, nil, tt.accept)
			if failed := err != nil; failed != tt.fails {
				t.Errorf("connect: %v; want an error: %t", err, tt.fails)
			}
		})
	}
}

func TestDevice(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	eth := Options{Device: "eth0"}
	if err := h.connect(t, "192.0.2.1", "192.0.2.2", eth, nil, eth); err != nil {
		t.Errorf("through the device: %v", err)
	}
	if err := h.connect(t, "192.0.2.1", "192.0.2.2", Options{Device: "lo"}, nil, Options{}); err == nil {
		t.Error("a connection through a device that does not lead there")
	}
	err := h.connect(t, "192.0.2.1", "192.0.2.2", Options{Device: "eth9"}, nil, Options{})
	if err == nil || !strings.Contains(err.Error(), "bind to device eth9") {
		t.Errorf("a device that does not exist: %v", err)
	}
}

// BGP's packets are marked as network control.
func TestClass(t *testing.T) {
	t.Parallel()
	l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(t.Context(), netip.MustParseAddr("127.0.0.1"), l.Addr().(*net.TCPAddr).AddrPort(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for _, c := range []net.Conn{c, accepted} {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var tos int
		if err := control(raw, func(s socket) (err error) {
			tos, err = unix.GetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TOS)
			return err
		}); err != nil || tos != controlClass {
			t.Errorf("TOS %#x, %v: want %#x", tos, err, controlClass)
		}
	}
}

func TestApplyWantsTCP(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := (Options{}).Apply(a); err == nil {
		t.Error("no error for a pipe")
	}
}
