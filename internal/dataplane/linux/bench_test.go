// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"strconv"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// benchEntries is the number of remote MACs per round.
const benchEntries = 100_000

func benchChanges() []dataplane.Change {
	changes := make([]dataplane.Change, benchEntries)
	for i := range changes {
		changes[i].Entry = remoteMAC(i+1, "192.0.2.9", 100)
	}
	return changes
}

// benchRound times f, which installs all entries into a new instance.
func benchRound(b *testing.B, f func(*handle)) {
	host := newHost(b, "bench")
	d := host.driver(local4)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		h := mustOpen(b, d, instance("red", 100))
		b.StartTimer()
		f(h)
		b.StopTimer()
		if got, err := h.Installed(b.Context()); err != nil || len(got) != benchEntries {
			b.Fatalf("%d entries (%v), want %d", len(got), err, benchEntries)
		}
		if err := h.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchEntries, "ns/entry")
}

// BenchmarkFloor is what the kernel takes for 100,000 remote MACs: octets made
// beforehand, written to a socket, the bare acknowledgement read.
func BenchmarkFloor(b *testing.B) {
	const batch = 128
	fd := -1
	benchRound(b, func(h *handle) {
		b.StopTimer()
		if fd < 0 {
			fd = benchSocket(b, h.d)
		}
		batches := prebuilt(b, h, batch)
		answer := make([]byte, 4096)
		b.StartTimer()
		for _, octets := range batches {
			if _, err := unix.Write(fd, octets); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Read(fd, answer); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchSocket(b *testing.B, d *Driver) (fd int) {
	b.Helper()
	var err error
	if nsErr := d.inNamespace(func() {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	}); err != nil || nsErr != nil {
		b.Fatal(err, nsErr)
	}
	b.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func prebuilt(b *testing.B, h *handle, batch int) [][]byte {
	b.Helper()
	p := planner{bridge: h.bridge, vxlan: h.vxlan, local: h.d.cfg.LocalAddr}
	var msgs []netlinkx.Message
	for _, c := range benchChanges() {
		var err error
		if msgs, err = p.plan(msgs, c, 0); err != nil {
			b.Fatal(err)
		}
	}
	var batches [][]byte
	for len(msgs) > 0 {
		n := min(batch, len(msgs))
		var octets []byte
		for i := range n {
			octets = netlinkx.AppendMessage(octets, &msgs[i], uint32(i), i == n-1)
		}
		batches, msgs = append(batches, octets), msgs[n:]
	}
	return batches
}

// BenchmarkDriverApply is the same through Handle.Apply.
func BenchmarkDriverApply(b *testing.B) {
	changes := benchChanges()
	benchRound(b, func(h *handle) {
		for _, err := range h.Apply(b.Context(), changes) {
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDriverWithdraw deletes 100,000 remote MACs.
func BenchmarkDriverWithdraw(b *testing.B) {
	changes := benchChanges()
	gone := benchChanges()
	for i := range gone {
		gone[i].Delete = true
	}
	host := newHost(b, "bench")
	h := mustOpen(b, host.driver(local4), instance("red", 100))
	for b.Loop() {
		b.StopTimer()
		h.Apply(b.Context(), changes)
		b.StartTimer()
		h.Apply(b.Context(), gone)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchEntries, "ns/entry")
}

// BenchmarkInstalled reads back remote MACs. The kernel walks the table from
// its beginning for each 32 kB of answer, so that the time grows with the square.
func BenchmarkInstalled(b *testing.B) {
	for _, n := range []int{1000, 10_000, benchEntries} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			host := newHost(b, "bench")
			h := mustOpen(b, host.driver(local4), instance("red", 100))
			h.Apply(b.Context(), benchChanges()[:n])
			b.ReportAllocs()
			for b.Loop() {
				if got, err := h.Installed(b.Context()); err != nil || len(got) != n {
					b.Fatal(len(got), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}

// BenchmarkOpen opens 500 instances and removes them.
func BenchmarkOpen(b *testing.B) {
	const n = 500
	host := newHost(b, "bench")
	d := host.driver(local4)
	for b.Loop() {
		var handles []*handle
		for i := range n {
			handles = append(handles, mustOpen(b, d, instance(strconv.Itoa(i), uint32(i+1))))
		}
		b.StopTimer()
		for _, h := range handles {
			if err := h.Remove(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/instance")
}
