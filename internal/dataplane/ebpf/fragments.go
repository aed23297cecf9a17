// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// Octets of headers, and numbers in them.
const (
	udpHeader   = 8
	greHeader   = 4
	mplsEntry   = 4
	vxlanHeader = 8
	etherHeader = 14

	etherMPLS = 0x8847
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// reassembly is the way of packets whose outer packet came in fragments, which the
// program leaves to the kernel. Sockets get them when they are whole again: packets with
// a tunnel header of ours come to the host only so. It is slow, and works while the
// process runs; nodes with this driver send no such packets.
type reassembly struct {
	d       *Driver
	out     int // a packet socket
	sources []source
	wg      sync.WaitGroup
}

// source is a socket with packets of one encapsulation.
type source struct {
	encap encap.Type
	file  *os.File
	// read finds the tunnelled packet in what the socket gives.
	read func([]byte) (parcel, bool)
}

// startReassembly opens the sockets, in the driver's namespace.
func startReassembly(d *Driver) (*reassembly, error) {
	r := &reassembly{d: d, out: -1}
	if err := d.hooks.do(r.open); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for fragmented packets: %w", err), r.close())
	}
	for _, s := range r.sources {
		r.wg.Go(func() { r.serve(s) })
	}
	return r, nil
}

func (r *reassembly) open() (err error) {
	if r.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	for _, e := range r.d.cfg.Encaps {
		err := r.listen(e)
		if errors.Is(err, unix.EADDRINUSE) {
			r.d.log.Warn("fragmented packets of an encapsulation are lost: somebody else has its port", "encap", e)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listen opens the socket of an encapsulation. MPLS in UDP has a port of its own. That of
// VXLAN may be the kernel's, so that a program looks which packets are for our VNIs.
func (r *reassembly) listen(e encap.Type) error {
	local := r.d.cfg.LocalAddr
	family, kind, protocol := unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP
	if local.Is6() {
		family = unix.AF_INET6
	}
	s, port := source{encap: e}, 0
	switch e {
	case encap.MPLSInUDP:
		kind, port, s.read = unix.SOCK_DGRAM, mplsUDPPort, popLabel
	case encap.GRE:
		protocol, s.read = unix.IPPROTO_GRE, r.payload(openGRE)
	default:
		s.read = r.payload(openVXLAN)
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	s.file = os.NewFile(uintptr(fd), e.String())
	switch {
	case e == encap.VXLAN:
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, r.d.progs.whole.FD())
	case kind == unix.SOCK_DGRAM && local.Is6():
		err = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(local, port))
	}
	if err != nil {
		return errors.Join(err, s.file.Close())
	}
	r.sources = append(r.sources, s)
	return nil
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

// payload makes a reader of what follows the IP header, which raw sockets give with IPv4.
func (r *reassembly) payload(read func([]byte) (parcel, bool)) func([]byte) (parcel, bool) {
	if r.d.cfg.LocalAddr.Is6() {
		return read
	}
	return func(b []byte) (parcel, bool) { return read(afterIPv4(b)) }
}

// close ends it and waits until it has ended.
func (r *reassembly) close() error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, s := range r.sources {
		errs = append(errs, s.file.Close())
	}
	r.wg.Wait()
	if r.out >= 0 {
		errs = append(errs, unix.Close(r.out))
	}
	return errors.Join(errs...)
}

// serve delivers what comes in until the socket is closed. What reading reports besides
// does not last: an ICMP error, or no memory.
func (r *reassembly) serve(s source) {
	buf := make([]byte, 1<<16)
	for {
		n, err := s.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			r.d.log.Debug("cannot read a fragmented packet", "encap", s.encap, "err", err)
			continue
		}
		if p, ok := s.read(buf[:n]); ok {
			if err := r.deliver(p); err != nil {
				r.d.log.Debug("cannot deliver a fragmented packet", "encap", s.encap, "err", err)
			}
		}
	}
}

// afterIPv4 returns what follows an IPv4 header, nil for what is none.
func afterIPv4(b []byte) []byte {
	if len(b) < 20 || b[0]>>4 != 4 {
		return nil
	}
	header := int(b[0]&15) * 4
	if header < 20 || header > len(b) {
		return nil
	}
	return b[header:]
}

// parcel is a packet out of a tunnel, and the label it came with.
type parcel struct {
	key    labelKey
	to     ethernet.MAC // of the inner frame, with VXLAN
	packet []byte       // from the IP header on
}

// openGRE reads a GRE header and a label.
func openGRE(b []byte) (p parcel, ok bool) {
	if len(b) < greHeader || binary.BigEndian.Uint32(b) != etherMPLS {
		return p, false
	}
	return popLabel(b[greHeader:])
}

// popLabel takes one label off, with an explicit null before it.
func popLabel(b []byte) (p parcel, ok bool) {
	for range 2 {
		if len(b) < mplsEntry+1 {
			return p, false
		}
		entry := binary.BigEndian.Uint32(b)
		b = b[mplsEntry:]
		label, bottom := entry>>12, entry&0x100 != 0
		if bottom {
			return parcel{key: labelKey{Space: spaceMPLS, Label: label}, packet: b}, true
		}
		if label != 0 && label != 2 {
			return p, false
		}
	}
	return p, false
}

// openVXLAN reads UDP, VXLAN and Ethernet headers.
func openVXLAN(b []byte) (p parcel, ok bool) {
	if len(b) < udpHeader+vxlanHeader+etherHeader+1 || b[udpHeader]&8 == 0 {
		return p, false
	}
	b = b[udpHeader:]
	p.key = labelKey{Space: spaceVXLAN, Label: binary.BigEndian.Uint32(b[4:]) >> 8}
	frame := b[vxlanHeader:]
	copy(p.to[:], frame)
	p.packet = frame[etherHeader:]
	return p, true
}

// destination returns the destination of an IP packet.
func destination(b []byte) (netip.Addr, bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[16:20])), true
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return netip.Addr{}, false
}

// deliver sends a packet to the port that its label is of.
func (r *reassembly) deliver(p parcel) error {
	dst, ok := destination(p.packet)
	if !ok {
		return errors.New("no IP packet")
	}
	m := &r.d.maps
	var t targetValue
	if err := m.Labels.Lookup(&p.key, &t); err != nil {
		return fmt.Errorf("label %d: %w", p.key.Label, err)
	}
	if t.Kind == targetVRF {
		if p.to != r.d.routerMAC() {
			return fmt.Errorf("frame to %s, which is not ours", p.to)
		}
		label, err := r.labelBehind(t.VRF, dst)
		if err != nil {
			return err
		}
		if err := m.Labels.Lookup(&labelKey{Space: spaceMPLS, Label: label}, &t); err != nil || t.Kind != targetPort {
			return fmt.Errorf("label %d: no port (%w)", label, err)
		}
	}
	var port portValue
	if err := m.Ports.Lookup(t.Index, &port); err != nil {
		return fmt.Errorf("port #%d: %w", t.Index, err)
	}
	frame := make([]byte, etherHeader, etherHeader+len(p.packet))
	copy(frame, t.MAC[:])
	copy(frame[6:], dataplane.GatewayMAC[:])
	binary.BigEndian.PutUint16(frame[12:], etherIPv4)
	if dst.Is6() {
		binary.BigEndian.PutUint16(frame[12:], etherIPv6)
	}
	return unix.Sendto(r.out, append(frame, p.packet...), 0, &unix.SockaddrLinklayer{Ifindex: int(t.Index)})
}

// labelBehind returns the label of the endpoint of a VRF that an address is of.
func (r *reassembly) labelBehind(vrf uint32, dst netip.Addr) (uint32, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.open {
		if h.vrf != vrf {
			continue
		}
		var v routeValue
		p := netip.PrefixFrom(dst, dst.BitLen())
		var err error
		if dst.Is4() {
			k := key4Of(p)
			err = h.routes4.Lookup(&k, &v)
		} else {
			k := key6Of(p)
			err = h.routes6.Lookup(&k, &v)
		}
		if err != nil {
			return 0, fmt.Errorf("route to %s: %w", dst, err)
		}
		if v.Group != 0 || v.Hop.Flags&hopSelf == 0 {
			return 0, fmt.Errorf("no endpoint has %s alone", dst)
		}
		return v.Hop.Label, nil
	}
	return 0, errors.New("the instance is not open")
}
