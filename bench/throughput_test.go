// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// path is a way from one machine to another.
type path struct {
	name     string
	from, to *nstest.NS
	address  string // of the machine at to
}

// labPath is a path between the nodes of a lab.
func labPath(b *testing.B, dir, name, address string, options ...string) path {
	b.Helper()
	var suffix [3]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		b.Fatal(err)
	}
	id, bin := "bench"+hex.EncodeToString(suffix[:]), filepath.Join(dir, "bagpipe")
	b.Cleanup(func() {
		if out, err := exec.Command(bin, "lab", "down", "--name", id).CombinedOutput(); err != nil {
			b.Errorf("lab down: %v: %s", err, out)
		}
	})
	if out, err := exec.Command(bin, append([]string{"lab", "up", "--name", id}, options...)...).CombinedOutput(); err != nil {
		b.Fatalf("lab up %v: %v: %s", options, err, out)
	}
	return path{name: name, from: nstest.Existing(b, id+"-vm-a1"), to: nstest.Existing(b, id+"-vm-b1"), address: address}
}

// barePath is a cable between two namespaces.
func barePath(b *testing.B) path {
	b.Helper()
	from, to := nstest.New(b, "bare-a"), nstest.New(b, "bare-b")
	nstest.Connect(from, "eth0", to, "eth0")
	for i, ns := range []*nstest.NS{from, to} {
		ns.Run("ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		ns.Run("ip", "link", "set", "eth0", "mtu", "1420", "up")
	}
	return path{name: "bare veth pair", from: from, to: to, address: "192.0.2.2"}
}

// iperf is what iperf3 reports.
type iperf struct {
	Error string `json:"error"`
	End   struct {
		Received struct {
			Bits float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Packets, Lost float64
			Seconds       float64
		} `json:"sum"`
	} `json:"end"`
}

// measure runs iperf3 over a path.
func (p path) measure(b *testing.B, options ...string) iperf {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server := p.to.Command(ctx, "iperf3", "-s", "-1")
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cancel(); _ = server.Wait() }()
	await(b, "iperf3 to listen", func() bool { return p.to.Command(ctx, "sh", "-c", "ss -Hltn sport = :5201 | grep -q .").Run() == nil })
	args := append([]string{"iperf3", "-J", "-c", p.address, "-t", strconv.Itoa(throughputSeconds(b))}, options...)
	out, err := p.from.Command(ctx, args...).Output()
	var got iperf
	if jerr := json.Unmarshal(out, &got); err != nil || jerr != nil || got.Error != "" {
		b.Fatalf("%s: %v: %v %v %s", p.name, args, err, jerr, got.Error)
	}
	return got
}

// throughputSeconds is the length of one measurement.
func throughputSeconds(b *testing.B) int {
	b.Helper()
	s := os.Getenv("BAGPIPE_BENCH_SECONDS")
	if s == "" {
		return 3
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatalf("BAGPIPE_BENCH_SECONDS: %v", err)
	}
	return n
}

// BenchmarkThroughput measures TCP and 64-octet UDP from machine to machine through
// each driver, round by round, and compares with a bare cable, and with Linux bridge and
// VXLAN.
func BenchmarkThroughput(b *testing.B) {
	dir := binaries(b)
	const l3 = "198.51.100.50"
	paths := []path{
		barePath(b),
		labPath(b, dir, "Linux bridge + VXLAN", "198.51.100.21"),
		labPath(b, dir, "eBPF, MPLS/UDP", l3, "--vpn", "ipvpn", "--dataplane", "ebpf"),
		labPath(b, dir, "Open vSwitch (userspace), MPLS/GRE", l3, "--vpn", "ipvpn", "--dataplane", "ovs"),
	}
	compare(b, paths)
}

// compare measures paths, the second of which is what the others are compared with.
func compare(b *testing.B, paths []path) {
	b.Helper()
	tcp, udp := make([][]float64, len(paths)), make([][]float64, len(paths))
	for range rounds {
		for i, p := range paths {
			tcp[i] = append(tcp[i], p.measure(b).End.Received.Bits/1e9)
			u := p.measure(b, "-u", "-b", "0", "-l", "18").End.Sum
			udp[i] = append(udp[i], (u.Packets-u.Lost)/u.Seconds/1e3)
		}
	}
	var t table
	t.row("path", "TCP Gbit/s", "of VXLAN", "UDP kpps", "of VXLAN")
	tcpBase, udpBase := percentile(tcp[1], 50), percentile(udp[1], 50)
	for i, p := range paths {
		g, k := percentile(tcp[i], 50), percentile(udp[i], 50)
		t.row(p.name, fmt.Sprintf("%.2f", g), ratio(g, tcpBase), fmt.Sprintf("%.0f", k), ratio(k, udpBase))
	}
	t.print("Throughput, one flow")
	b.ReportMetric(0, "ns/op")
}
