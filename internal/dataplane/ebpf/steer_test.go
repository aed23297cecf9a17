// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/steertest"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// frameOfPacket returns a packet as it comes from a port.
func frameOfPacket(p *steertest.Packet) []byte {
	payload := make([]byte, 20)
	binary.BigEndian.PutUint16(payload, p.Sport)
	binary.BigEndian.PutUint16(payload[2:], p.Dport)
	if p.Src.Is6() {
		src, dst := p.Src.As16(), p.Dst.As16()
		protocol := p.Protocol
		if p.Fragment {
			protocol = 44
			payload = append([]byte{p.Protocol, 0, 0, 1, 0, 0, 0, 1}, payload...)
		}
		h := append([]byte{0x60, 0, 0, 0, 0, byte(len(payload)), protocol, 64}, append(src[:], dst[:]...)...)
		return frameOf(etherIPv6, append(h, payload...))
	}
	fragment := 0
	if p.Fragment {
		fragment = 0x2000
	}
	h := ipv4(p.Protocol, p.Src.As4(), p.Dst.As4(), len(payload), 1, 0)
	h[8], h[10], h[11] = 64, 0, 0
	binary.BigEndian.PutUint16(h[6:], uint16(fragment))
	binary.BigEndian.PutUint16(h[10:], ^sum16(h))
	return frameOf(etherIPv4, append(h, payload...))
}

// newSteering is a bench with a VRF 1 and others, in each of which what has no route goes to the
// MAC address with its number.
func newSteering(t *testing.T, vrfs uint32) (*bench, *handle) {
	t.Helper()
	b := newBench(t)
	d := &Driver{maps: b.m, open: map[string]*handle{}, vrfs: map[uint32]vrfValue{}, ports: map[int]map[uint32]plug{}, steered: map[uint32]bool{}}
	for n := uint32(1); n <= vrfs; n++ {
		id := fmt.Sprint("vrf", n)
		d.open[id] = &handle{d: d, vrf: n, classes: classes{}}
		d.vrfs[n] = valueOf(dataplane.Instance{ID: id, VNI: n})
		b.put(t, b.m.Fallbacks, n, &fallbackValue{MACs: [12]byte{2, 0, 0, 0, 0, byte(n)}, Index: 1})
		b.put(t, b.m.VRFs, n, new(vrfValue))
	}
	b.put(t, b.m.Ports, uint32(1), &portValue{VRF: 1, Flags: portFrom | portClasses})
	return b, d.open["vrf1"]
}

// Packets are routed where the first class in order that holds them says, with random classes coming
// and going; a new process finds the same classes.
func TestClassesOfPackets(t *testing.T) {
	const vrfs = 9
	b, h := newSteering(t, vrfs)
	r := rand.New(rand.NewPCG(1, 2))
	model := map[dataplane.Classifier]uint32{}
	full := 0
	for step := range 3000 {
		c := steertest.RandomClass(r)
		switch target := 2 + r.Uint32N(vrfs-1); {
		case r.IntN(3) == 0:
			if err := h.setClass(true, &dataplane.Entry{Class: &c}); err != nil {
				t.Fatal(err)
			}
			delete(model, c)
		default:
			if err := h.setClass(false, &dataplane.Entry{Class: &c, Target: fmt.Sprint("vrf", target)}); err != nil {
				full++
				continue
			}
			model[c] = target
		}
		if step%500 == 250 { // a new process
			if err := h.readClasses(); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			p := steertest.RandomPacket(r)
			want := uint32(1)
			if c, ok := steertest.First(model, &p); ok {
				want = model[c]
			}
			code, out := run(t, b.p.port, frameOfPacket(&p))
			if code != redirected || uint32(out[5]) != want {
				t.Fatalf("step %d: %+v went to VRF %d (action %d), want %d of\n%v", step, p, out[5], code, want, model)
			}
		}
	}
	if full == 0 || full > 2000 {
		t.Errorf("%d of 3000 classes had no room", full)
	}
	entries := h.installedClasses(nil)
	if len(entries) != len(model) {
		t.Errorf("%d classes installed, want %d", len(entries), len(model))
	}
	for _, e := range entries {
		if want := fmt.Sprint("vrf", model[*e.Class]); e.Target != want {
			t.Errorf("%s: want target %s", e, want)
		}
	}
	for c := range model {
		if err := h.setClass(true, &dataplane.Entry{Class: &c}); err != nil {
			t.Fatal(err)
		}
	}
	left := 0
	_ = each(b.m.Classes, func(uint32, classValue) { left++ })
	_ = each(b.m.Lists, func(classKey, classList) { left++ })
	if left > 0 || h.d.steered[h.vrf] {
		t.Errorf("%d entries left, steered %v", left, h.d.steered)
	}
}

// Two VMs on another node: classes of one's packets take the way of another instance, to a VM of the
// same address.
func TestRedirectedTraffic(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{AntiSpoofing: true})
	other := p.y.vm(17) // as b, in another VRF
	p.y.vrf("other", other.ends(2002), other.routes(p.y.hop(2002, encap.GRE)), p.a.routes(p.x.hop(1001, encap.GRE)))
	p.x.vrf("redirect", other.routes(p.y.hop(2002, encap.GRE)))
	class := func(dst netip.Addr, protocol int16, port uint16) dataplane.Entry {
		c := dataplane.Classifier{
			Destination: netip.PrefixFrom(dst, dst.BitLen()), Source: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Protocol: protocol,
			DestinationPorts: dataplane.AllPorts, SourcePorts: dataplane.AllPorts,
		}
		if dst.Is6() {
			c.Source = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if port != 0 {
			c.DestinationPorts = dataplane.PortRange{First: port, Last: port}
		}
		return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: "redirect"}
	}
	listen(t, p.b.NS, netip.IPv6Unspecified(), 5001)
	listen(t, p.b.NS, netip.IPv6Unspecified(), 5002)
	listen(t, other.NS, netip.IPv6Unspecified(), 5001)
	reaches := func(to netip.Addr, port int, want *vm) {
		t.Helper()
		seen := map[*vm]*sniffer{p.b: sniff(t, p.b.NS, "eth0"), other: sniff(t, other.NS, "eth0")}
		if err := transfer(p.a.NS, to, port, 1000); err != nil {
			t.Errorf("%s port %d: %v", to, port, err)
		}
		for v, s := range seen {
			got := len(s.all(func(f frame) bool {
				return f.b[12] == 8 && f.b[13] == 0 && f.b[23] == 6 || f.b[12] == 0x86 && f.b[20] == 6
			}))
			if (got > 0) != (v == want) {
				t.Errorf("%s port %d: %d packets at %s", to, port, got, v.Name)
			}
		}
	}
	reaches(p.b.ip4, 5001, p.b)
	entries := []dataplane.Entry{class(p.b.ip4, 6, 5001), class(p.b.ip6, 6, 5001), class(p.b.ip4, 1, 0)}
	add(t, p.ha, entries...)
	reaches(p.b.ip4, 5001, other)
	reaches(p.b.ip6, 5001, other)
	reaches(p.b.ip4, 5002, p.b)
	sameInstalled(t, p.ha, slices.Concat(entries, p.a.ends(1001), p.a.routes(p.x.hop(1001, encap.MPLSInUDP)), p.b.routes(p.y.hop(2001, encap.MPLSInUDP))))
	if err := p.x.d.Close(); err != nil {
		t.Fatal(err)
	}
	p.x.start()
	p.x.vrf("redirect")
	p.ha = p.x.vrf("red")
	reaches(p.b.ip4, 5001, other)
	apply(t, p.ha, changes(true, entries...))
	reaches(p.b.ip4, 5001, p.b)
	reaches(p.b.ip6, 5001, p.b)
	if err := p.ha.Apply(t.Context(), changes(false, class(p.b.ip4, 6, 80), dataplane.Entry{Kind: dataplane.Redirect, Class: entries[0].Class, Target: "none"}))[1]; err == nil || !strings.Contains(err.Error(), `no instance "none"`) {
		t.Errorf("redirect to no instance: %v", err)
	}
	add(t, p.ha, entries...)
	if err := errors.Join(p.ha.Remove(t.Context()), p.x.d.open["redirect"].Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	p.x.empty(t)
}

// A port that forwards for others may send from any address.
func TestTransitPort(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{AntiSpoofing: true})
	p.a.Run("ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
	back := dataplane.Entry{Kind: dataplane.Prefix, Prefix: netip.MustParsePrefix("203.0.113.1/32"), NextHops: []dataplane.NextHop{p.x.hop(1001, encap.MPLSInUDP)}}
	add(t, p.hb, back)
	p.a.noPing(t, p.b.ip4, "-I", "203.0.113.1")
	port := p.a.ends(1001)[0]
	port.Transit = true
	add(t, p.ha, port)
	p.a.ping(t, p.b.ip4, "-I", "203.0.113.1")
	got, err := p.ha.Installed(t.Context())
	if err != nil || !slices.ContainsFunc(got, port.Equal) {
		t.Errorf("installed %v (%v), want %s", got, err, port)
	}
	port.Transit = false
	add(t, p.ha, port)
	p.a.noPing(t, p.b.ip4, "-I", "203.0.113.1")
}

// What has no route goes to a device, with other Ethernet addresses.
func TestFallback(t *testing.T) {
	p := newPair(t, false, encap.MPLSInUDP, Config{})
	out := p.x.vm(33)
	f := dataplane.Entry{Kind: dataplane.Fallback, Port: out.port, MAC: out.mac, Source: ethernet.MAC{0x02, 0, 0, 0, 0, 0x77}}
	add(t, p.ha, f)
	sameInstalled(t, p.ha, slices.Concat([]dataplane.Entry{f}, p.a.ends(1001), p.a.routes(p.x.hop(1001, encap.MPLSInUDP)), p.b.routes(p.y.hop(2001, encap.MPLSInUDP))))
	falls := func(to string) int {
		s := sniff(t, out.NS, "eth0")
		_, _ = p.a.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", to)
		return len(s.all(func(f frame) bool {
			return slices.Equal(f.b[:6], out.mac[:]) && slices.Equal(f.b[6:12], []byte{2, 0, 0, 0, 0, 0x77})
		}))
	}
	if n := falls("203.0.113.9"); n < 2 {
		t.Errorf("%d packets without route came to the device", n)
	}
	if n := falls("2001:db8:99::9"); n < 2 {
		t.Errorf("%d IPv6 packets without route came to the device", n)
	}
	if n := falls(p.b.ip4.String()); n > 0 {
		t.Errorf("%d packets with a route came to the device", n)
	}
	p.x.ns.Run("ip", "link", "set", out.port, "name", "was")
	p.x.ns.Run("ip", "link", "add", out.port, "type", "veth", "peer", "name", "other0")
	if drift, err := p.x.d.Drifted(t.Context()); err != nil || len(drift) != 1 || !slices.Equal(drift[0].Ports, []string{out.port}) {
		t.Errorf("drift %v, %v: want %s", drift, err, out.port)
	}
	apply(t, p.ha, changes(true, f))
	before := p.x.dropped("red", "no-route")
	if n := falls("203.0.113.9"); n > 0 || p.x.dropped("red", "no-route") == before {
		t.Errorf("%d packets came to the device without a fallback", n)
	}
	for _, bad := range []string{"", "none"} {
		f.Port = bad
		var in *dataplane.InputError
		if err := p.ha.Apply(t.Context(), changes(false, f))[0]; !errors.As(err, &in) || in.Field != "fallback" {
			t.Errorf("device %q: %v", bad, err)
		}
	}
}

// Of flows to n instances of a service, when one goes only those move that it had, about 1/n, and
// both directions of a flow meet the same instance.
func TestFlowsThatMove(t *testing.T) {
	b, h := newSteering(t, 1)
	const instances, flows = 5, 2000
	var hops []dataplane.NextHop
	for i := range uint32(instances) {
		hops = append(hops, dataplane.NextHop{Addr: netip.MustParseAddr("192.0.2.1"), Label: 100 + i, Order: i})
		b.put(t, b.m.Labels, &labelKey{Label: 100 + i}, &targetValue{VRF: 1, Index: 1, MAC: [6]byte{2, 0, 0, 0, 1, byte(i)}})
	}
	h.d.cfg = Config{LocalAddr: netip.MustParseAddr("192.0.2.1"), Encaps: allEncaps, MaxRoutes: 10}
	h.groups = map[netip.Prefix]uint32{}
	var err error
	if h.routes4, err = h.table(b.m.Routes4, 4); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.routes4.Close() }()
	instanceOf := func(hops []dataplane.NextHop, back bool) (out [flows]byte) {
		p := netip.MustParsePrefix("10.0.0.0/8")
		v, err := h.routeOf(p, hops)
		if err != nil {
			t.Fatal(err)
		}
		k := key4Of(p)
		b.put(t, h.routes4, &k, &v)
		for i := range out {
			f := steertest.Packet{Src: netip.MustParseAddr("10.1.1.1"), Dst: netip.MustParseAddr("10.2.2.2"), Protocol: 6, Sport: uint16(1024 + i), Dport: 80}
			if back {
				f.Src, f.Dst, f.Sport, f.Dport = f.Dst, f.Src, f.Dport, f.Sport
			}
			code, frame := run(t, b.p.port, frameOfPacket(&f))
			if code != redirected || frame[4] != 1 {
				t.Fatalf("flow %d: action %d, frame %x", i, code, frame[:14])
			}
			out[i] = frame[5]
		}
		return out
	}
	all, back, left := instanceOf(hops, false), instanceOf(hops, true), instanceOf(hops[:instances-1], false)
	if all != back {
		t.Error("the two directions of flows meet different instances")
	}
	steertest.OnlyItsFlowsMove(t, all[:], left[:], instances, 4./3)
}
