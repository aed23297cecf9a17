// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// bench runs the programs on frames, without devices: the kernel gives them the
// loopback interface, which here is a port of VRF 1.
type bench struct {
	m maps
	p programs
}

const (
	redirected = 7 // TC_ACT_REDIRECT
	shot       = 2 // TC_ACT_SHOT
)

func newBench(t *testing.T) *bench {
	t.Helper()
	nstest.RequireRoot(t)
	spec, err := specification(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	if b.p, err = load(spec, &b.m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.p.close()
		_ = b.m.close()
	})
	c := configValue{Local: netip.MustParseAddr("192.0.2.1").As16(), VXLANPort: [2]byte{0x12, 0xb5}, DefaultTx: txMPLSUDP}
	b.put(t, b.m.Config, uint32(0), &c)
	b.put(t, b.m.Ports, uint32(1), &portValue{VRF: 1, Flags: portFrom})
	one := uint32(1)
	for _, gw := range []string{"198.51.100.14", "2001:db8::fe"} {
		b.put(t, b.m.Gateways, &gatewayKey{VRF: 1, Addr: netip.MustParseAddr(gw).As16()}, &one)
	}
	d := &Driver{maps: b.m, cfg: Config{MaxRoutes: 10}}
	h := &handle{d: d, vrf: 1}
	r4, err := h.table(b.m.Routes4, 4)
	if err != nil {
		t.Fatal(err)
	}
	r6, err := h.table(b.m.Routes6, 16)
	if err != nil {
		t.Fatal(err)
	}
	far := routeValue{Hop: hopValue{Remote: netip.MustParseAddr("192.0.2.2").As16(), Label: 100}}
	b.put(t, r4, &key4{Bits: 24, Addr: [4]byte{203, 0, 113}}, &far)
	k6 := key6Of(netip.MustParsePrefix("2001:db8:1::/48"))
	b.put(t, r6, &k6, &far)
	d.background.Wait()
	_, _ = r4.Close(), r6.Close()
	return b
}

func (b *bench) put(t *testing.T, m *ebpf.Map, k, v any) {
	t.Helper()
	if err := m.Put(k, v); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, p *ebpf.Program, in []byte) (uint32, []byte) {
	t.Helper()
	o := ebpf.RunOptions{Data: in, DataOut: make([]byte, 2048)}
	ret, err := p.Run(&o)
	if err != nil {
		t.Fatal(err)
	}
	return ret, o.DataOut
}

var vmMAC = []byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}

func frameOf(kind uint16, packet []byte) []byte {
	f := append(bytes.Clone(dataplane.GatewayMAC[:]), vmMAC...)
	return append(binary.BigEndian.AppendUint16(f, kind), packet...)
}

// fromVM returns a packet from the VM to a far address with a TTL.
func fromVM(protocol, ttl byte, v6 bool, payload []byte) []byte {
	if v6 {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, protocol, ttl
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		src, dst := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("2001:db8:1::1").As16()
		copy(h[8:], src[:])
		copy(h[24:], dst[:])
		return frameOf(etherIPv6, append(h, payload...))
	}
	h := ipv4(protocol, [4]byte{198, 51, 100, 1}, [4]byte{203, 0, 113, 1}, len(payload), 1, 0)
	h[8], h[10], h[11] = ttl, 0, 0
	binary.BigEndian.PutUint16(h[10:], ^sum16(h))
	return frameOf(etherIPv4, append(h, payload...))
}

// An ICMP error has a right checksum, and still has it after somebody has filled in the
// checksum of the quoted packet, as happens to one that its sender had left open.
func TestChecksumOfErrors(t *testing.T) {
	b := newBench(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		for _, v6 := range []bool{false, true} {
			for protocol, quote := range map[byte][2]int{unix.IPPROTO_TCP: {20, 16}, unix.IPPROTO_UDP: {8, 6}, unix.IPPROTO_SCTP: {8, 0}} {
				payload := make([]byte, 100)
				for i := range payload {
					payload[i] = byte(rnd.Uint32())
				}
				ret, out := run(t, b.p.port, fromVM(protocol, 1, v6, payload))
				if ret != redirected || len(out) != map[bool]int{false: 62, true: 102}[v6]+quote[0] {
					t.Fatalf("protocol %d v6=%v: action %d, %d octets", protocol, v6, ret, len(out))
				}
				if !bytes.Equal(out[:6], vmMAC) || !bytes.Equal(out[6:12], dataplane.GatewayMAC[:]) {
					t.Fatalf("Ethernet header %x", out[:14])
				}
				check := func() {
					t.Helper()
					if !v6 && (sum16(out[14:34]) != 0xffff || sum16(out[34:]) != 0xffff) {
						t.Fatalf("protocol %d: wrong checksum in %x", protocol, out)
					}
					if v6 {
						pseudo := append(bytes.Clone(out[22:54]), 0, 0, 0, byte(len(out)-54), 0, 0, 0, unix.IPPROTO_ICMPV6)
						if sum16(append(pseudo, out[54:]...)) != 0xffff {
							t.Fatalf("protocol %d: wrong ICMPv6 checksum in %x", protocol, out)
						}
					}
				}
				check()
				if quote[1] > 0 {
					l4 := out[len(out)-quote[0]:]
					binary.BigEndian.PutUint16(l4[quote[1]:], ^sum16(l4))
					check()
				}
			}
		}
	}
}

// No ICMP error is sent about another, nor about a later fragment.
func TestNoErrorAboutErrors(t *testing.T) {
	b := newBench(t)
	for name, f := range map[string][]byte{
		"unreachable":    fromVM(unix.IPPROTO_ICMP, 1, false, append([]byte{3, 1, 0, 0}, make([]byte, 40)...)),
		"IPv6 too big":   fromVM(unix.IPPROTO_ICMPV6, 1, true, append([]byte{2, 0, 0, 0}, make([]byte, 40)...)),
		"later fragment": frameOf(etherIPv4, append(ipv4(17, [4]byte{198, 51, 100, 1}, [4]byte{203, 0, 113, 1}, 40, 1, 5), make([]byte, 40)...)),
	} {
		f = bytes.Clone(f)
		if name == "later fragment" {
			f[22] = 1
		}
		if ret, _ := run(t, b.p.port, f); ret != shot {
			t.Errorf("%s with TTL 1: action %d, want it dropped", name, ret)
		}
	}
	if ret, _ := run(t, b.p.port, fromVM(unix.IPPROTO_ICMP, 1, false, append([]byte{8, 0, 0, 0}, make([]byte, 40)...))); ret != redirected {
		t.Errorf("echo request with TTL 1: action %d, want an error sent", ret)
	}
}

// Frames of all kinds are taken by the programs without harm, and what is no IP packet
// that can be routed is dropped.
func TestRandomFrames(t *testing.T) {
	b := newBench(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		f := fromVM(byte(rnd.Uint32N(256)), byte(rnd.Uint32N(3)), rnd.Uint32N(2) == 0, make([]byte, rnd.Uint32N(80)))
		for range rnd.Uint32N(8) {
			f[12+rnd.Uint32N(uint32(len(f)-12))] = byte(rnd.Uint32())
		}
		f = f[:min(len(f), 54+int(rnd.Uint32N(70)))] // the kernel wants a whole IP header
		for _, p := range []*ebpf.Program{b.p.port, b.p.underlay} {
			if ret, _ := run(t, p, f); ret != shot && ret != redirected && ret != 0xffffffff {
				t.Fatalf("%x: action %d", f, ret)
			}
		}
	}
	for name, f := range map[string][]byte{
		"IPX":                frameOf(0x8137, make([]byte, 60)),
		"short ARP":          frameOf(0x0806, make([]byte, 20)),
		"IPv4 to multicast":  frameOf(etherIPv4, append(ipv4(17, [4]byte{198, 51, 100, 1}, [4]byte{224, 0, 0, 1}, 8, 0, 0), make([]byte, 8)...)),
		"IPv4 from loopback": frameOf(etherIPv4, append(ipv4(17, [4]byte{127, 0, 0, 1}, [4]byte{203, 0, 113, 1}, 8, 0, 0), make([]byte, 8)...)),
		"longer than it is":  frameOf(etherIPv4, ipv4(17, [4]byte{198, 51, 100, 1}, [4]byte{203, 0, 113, 1}, 800, 0, 0)),
	} {
		if ret, _ := run(t, b.p.port, f); ret != shot {
			t.Errorf("%s: action %d, want it dropped", name, ret)
		}
	}
}
