// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

const benchRoutes = 100_000

// benchWorld has EVPN routes of one peer, of which each run of some shares its
// attributes.
func benchWorld(b *testing.B, shared int) *world {
	b.Helper()
	w := newWorld(b)
	src := w.addPeer(peer1)
	for n := 0; n < benchRoutes; n += shared {
		var routes []wire.Route
		for i := range shared {
			mac := ethernet.MAC{2, 0}
			binary.BigEndian.PutUint32(mac[2:], uint32(n+i))
			routes = append(routes, wire.Route{NLRI: wire.MACIPRoute(rd1, mac, netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})), Label: 5000})
		}
		w.announce(src, uint32(n+1), routes...)
	}
	return w
}

// sink is a station that counts octets, and tells when it has them all.
type sink struct {
	net.Listener
	want chan int64
	done chan struct{}
}

func newSink(b *testing.B) *sink {
	b.Helper()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &sink{Listener: l, want: make(chan int64, 1), done: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, conn, <-s.want); err != nil {
				b.Error(err)
			}
			s.done <- struct{}{}
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	b.Cleanup(func() { _ = l.Close(); <-ended })
	return s
}

// sendAll sends all routes to the sink once; size is what to wait for.
func sendAll(b *testing.B, w *world, s *sink, size int64) {
	b.Helper()
	e, err := New(Config{Stations: []string{s.Addr().String()}, Peers: w.fakePeers, Routes: w.rib})
	if err != nil {
		b.Fatal(err)
	}
	s.want <- size
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	<-s.done
	cancel()
	<-ended
}

// size returns the octets of a dump without the Termination.
func size(b *testing.B, w *world) int64 {
	b.Helper()
	l, _ := listen(b)
	e, err := New(Config{Stations: []string{l.Addr().String()}, Peers: w.fakePeers, Routes: w.rib})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	eventually(b, "all routes", func() bool { return e.Status()[0].Routes == benchRoutes })
	n := int64(e.Status()[0].Bytes)
	cancel()
	<-ended
	return n
}

// BenchmarkDump sends the Adj-RIB-In of 100,000 routes over loopback. The floor is
// the same number of octets, copied.
func BenchmarkDump(b *testing.B) {
	for name, shared := range map[string]int{"attributes of 100 routes": 100, "attributes of each": 1} {
		w := benchWorld(b, shared)
		octets := size(b, w)
		b.Run(name+"/BMP", func(b *testing.B) {
			s := newSink(b)
			b.SetBytes(octets)
			b.ReportAllocs()
			for b.Loop() {
				sendAll(b, w, s, octets)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRoutes, "ns/route")
		})
		b.Run(name+"/copy", func(b *testing.B) {
			s, buf := newSink(b), make([]byte, chunk)
			b.SetBytes(octets)
			for b.Loop() {
				s.want <- octets
				conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", s.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				for left := octets; left > 0; left -= int64(len(buf)) {
					if _, err := conn.Write(buf[:min(left, chunk)]); err != nil {
						b.Fatal(err)
					}
				}
				<-s.done
				_ = conn.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRoutes, "ns/route")
		})
	}
}
