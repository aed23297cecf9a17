// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

func benchDriver(b *testing.B) (*Driver, *nstest.NS) {
	ns := nstest.New(b, "bench")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	var d *Driver
	var err error
	ns.Do(func() { d, err = New(Config{LocalAddr: netip.MustParseAddr("192.0.2.1")}, nil) })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d, ns
}

// BenchmarkRoutes installs, lists and deletes 100000 routes of one next hop.
func BenchmarkRoutes(b *testing.B) {
	d, _ := benchDriver(b)
	h, err := d.Open(b.Context(), dataplane.Instance{ID: "red", Type: dataplane.IPVPN, VNI: 100})
	if err != nil {
		b.Fatal(err)
	}
	const n = 100000
	var entries []dataplane.Entry
	for i := range uint32(n) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|i<<4)
		entries = append(entries, dataplane.Entry{
			Kind: dataplane.Prefix, Prefix: netip.PrefixFrom(netip.AddrFrom4(a), 28),
			NextHops: []dataplane.NextHop{{Addr: netip.MustParseAddr("192.0.2.2"), Label: 100, Encap: encap.MPLSInUDP}},
		})
	}
	var add, list, del time.Duration
	for b.Loop() {
		for _, step := range []struct {
			d *time.Duration
			f func() int
		}{
			{&add, func() int {
				return len(slices.DeleteFunc(h.Apply(b.Context(), changes(false, entries...)), func(e error) bool { return e == nil }))
			}},
			{&list, func() int { l, _ := h.Installed(b.Context()); return len(l) - n }},
			{&del, func() int {
				return len(slices.DeleteFunc(h.Apply(b.Context(), changes(true, entries...)), func(e error) bool { return e == nil }))
			}},
		} {
			start := time.Now()
			if bad := step.f(); bad != 0 {
				b.Fatalf("%d wrong", bad)
			}
			*step.d += time.Since(start)
		}
	}
	for name, took := range map[string]time.Duration{"adds/s": add, "listed/s": list, "deletes/s": del} {
		b.ReportMetric(float64(n)*float64(b.N)/took.Seconds(), name)
	}
}

// BenchmarkAttach opens a VRF and plugs one endpoint into it, and takes it away.
func BenchmarkAttach(b *testing.B) {
	d, ns := benchDriver(b)
	ports := 0
	newPort := func() string { // the first program at a device costs most
		ports++
		ns.Run("ip", "link", "add", fmt.Sprintf("tap%d", ports), "type", "veth", "peer", "name", fmt.Sprintf("vm%d", ports))
		return fmt.Sprintf("tap%d", ports)
	}
	e := dataplane.Entry{
		Kind: dataplane.LocalPrefix, MAC: dataplane.GatewayMAC, Label: 1001, Direction: dataplane.Both,
		IP: netip.MustParseAddr("198.51.100.1"), Prefix: netip.MustParsePrefix("198.51.100.1/32"), Gateway: netip.MustParseAddr("198.51.100.14"),
	}
	route := dataplane.Entry{Kind: dataplane.Prefix, Prefix: e.Prefix,
		NextHops: []dataplane.NextHop{{Addr: d.cfg.LocalAddr, Label: 1001}}}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		e.Port = newPort()
		list := changes(false, dataplane.Entry{Kind: dataplane.LocalPort, Port: e.Port, Direction: dataplane.Both}, e, route)
		start := time.Now()
		h, err := d.Open(b.Context(), dataplane.Instance{ID: fmt.Sprint(i), Type: dataplane.IPVPN, VNI: 100})
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range h.Apply(b.Context(), list) {
			if err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(start))
		if err := h.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
