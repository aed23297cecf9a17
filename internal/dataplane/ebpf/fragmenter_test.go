// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"encoding/binary"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// fragmenter sends tunnelled packets from a node to a VM of another, in two fragments.
type fragmenter struct {
	v6         bool
	from, to   *node
	vm, remote *vm
}

// packet returns an inner UDP packet of about 1200 octets.
func (f *fragmenter) packet(v6 bool) []byte {
	payload := make([]byte, 1200)
	binary.BigEndian.PutUint16(payload[2:], 9)
	binary.BigEndian.PutUint16(payload[4:], uint16(len(payload)))
	if v6 {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		src, dst := f.remote.ip6.As16(), f.vm.ip6.As16()
		copy(h[8:], src[:])
		copy(h[24:], dst[:])
		return append(h, payload...)
	}
	return append(ipv4(unix.IPPROTO_UDP, f.remote.ip4.As4(), f.vm.ip4.As4(), len(payload), 0, 0), payload...)
}

func ipv4(protocol byte, src, dst [4]byte, length int, id, fragment uint16) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	binary.BigEndian.PutUint16(h[10:], ^sum16(h))
	return h
}

// sum16 is the sum of the Internet checksum.
func sum16(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		if i+1 < len(b) {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		} else {
			sum += uint32(b[i]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// send sends a packet with a label in two fragments.
func (f *fragmenter) send(t *testing.T, e encap.Type, label uint32, inner6 bool) {
	t.Helper()
	var b []byte
	protocol := byte(unix.IPPROTO_UDP)
	inner := f.packet(inner6)
	switch e {
	case encap.GRE:
		protocol = unix.IPPROTO_GRE
		b = binary.BigEndian.AppendUint32(nil, etherMPLS)
		b = binary.BigEndian.AppendUint32(b, label<<12|1<<8|64)
	case encap.MPLSInUDP:
		b = udp(mplsUDPPort, 4+len(inner))
		b = binary.BigEndian.AppendUint32(b, label<<12|1<<8|64)
	case encap.VXLAN:
		b = udp(defaultVXLANPort, 22+len(inner))
		b = append(b, 8, 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, label<<8)
		b = append(b, make([]byte, 12)...)
		b = binary.BigEndian.AppendUint16(b, map[bool]uint16{false: etherIPv4, true: etherIPv6}[inner6])
	}
	b = append(b, inner...)
	const half = 600 // a multiple of 8
	f.frame(t, protocol, b[:half], 0, true)
	f.frame(t, protocol, b[half:], half, false)
}

func udp(port uint16, length int) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, 50000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(8+length))
	return b
}

// frame sends one fragment.
func (f *fragmenter) frame(t *testing.T, protocol byte, b []byte, offset uint16, more bool) {
	t.Helper()
	var packet []byte
	kind := uint16(etherIPv4)
	if f.v6 {
		kind = etherIPv6
		h := make([]byte, 48)
		h[0], h[6], h[7], h[40] = 0x60, unix.IPPROTO_FRAGMENT, 64, protocol
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(b)))
		src, dst := f.from.addr.As16(), f.to.addr.As16()
		copy(h[8:], src[:])
		copy(h[24:], dst[:])
		field := offset
		if more {
			field |= 1
		}
		binary.BigEndian.PutUint16(h[42:], field)
		h[47] = 7
		packet = append(h, b...)
	} else {
		field := offset / 8
		if more {
			field |= 0x2000
		}
		packet = append(ipv4(protocol, f.from.addr.As4(), f.to.addr.As4(), len(b), 7, field), b...)
	}
	dst := linkMAC(t, f.to)
	eth := append(dst[:], 2, 0, 0, 0, 0, 9)
	eth = binary.BigEndian.AppendUint16(eth, kind)
	f.from.ns.Do(func() {
		l, err := f.from.d.indexOf("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Sendto(fd, append(eth, packet...), 0, &unix.SockaddrLinklayer{Ifindex: l}); err != nil {
			t.Error(err)
		}
	})
}

func (d *Driver) indexOf(name string) (int, error) {
	l, err := d.nl.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

func linkMAC(t *testing.T, x *node) ethernet.MAC {
	t.Helper()
	l, err := x.d.nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return ethernet.MAC(l.Attrs().HardwareAddr)
}
