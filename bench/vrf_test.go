// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	kernel "github.com/cilium/ebpf"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ebpf"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// BenchmarkWireToEBPF measures from the first octet of 100k VPNv4 routes on TCP to the
// last one in the kernel's maps, in 100 VRFs, and compares it with the same entries
// by prepared batches alone.
func BenchmarkWireToEBPF(b *testing.B) {
	if inNamespace(b, "BenchmarkWireToEBPF") {
		return
	}
	l := load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyVPNv4, Encap: encap.MPLSInUDP}
	makePorts(b, l.Instances)
	if out, err := exec.Command("ip", "link", "add", "u0", "type", "veth", "peer", "name", "u1").CombinedOutput(); err != nil {
		b.Fatalf("make underlay: %v: %s", err, out)
	}
	local := netip.MustParseAddr("192.0.2.1")
	d, err := ebpf.New(ebpf.Config{LocalAddr: local, Underlay: []string{"u0"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	e := startEngine(b, l, nil, d, local, speaker.DropIfAsked)
	defer e.stop()
	againstFloor(b, e, l, func() time.Duration { return trieFloor(b, l) }, func() { checkVRFs(b, e, l) })
}

// trieFloor puts as many routes as the load has into a trie per instance, in batches of
// as many as the engine hands on at once, and returns the time.
func trieFloor(b *testing.B, l load) time.Duration {
	b.Helper()
	const keySize, valueSize, batch = 8, 40, 1000
	tries := make([]*kernel.Map, l.Instances)
	for i := range tries {
		m, err := kernel.NewMap(&kernel.MapSpec{
			Type: kernel.LPMTrie, KeySize: keySize, ValueSize: valueSize, MaxEntries: 1 << 20, Flags: 1, // BPF_F_NO_PREALLOC
		})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		tries[i] = m
	}
	keys, values := make([][keySize]byte, batch), make([][valueSize]byte, batch)
	start := time.Now()
	for n := 0; n < l.Routes; n += batch {
		for i := range keys {
			binary.NativeEndian.PutUint32(keys[i][:], 32)
			binary.BigEndian.PutUint32(keys[i][4:], uint32(172<<24|16<<16)+uint32(n+i))
		}
		if _, err := tries[n/batch%len(tries)].BatchUpdate(keys, values, nil); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}

// checkVRFs counts the routes in the kernel.
func checkVRFs(b *testing.B, e *engine, l load) {
	b.Helper()
	n := 0
	for _, i := range e.manager.Instances() {
		for kind, count := range i.Forwarding().Desired() {
			if kind == dataplane.Prefix {
				n += count
			}
		}
	}
	if own := l.Instances; n != l.Routes+own {
		b.Fatalf("%d prefixes in the VRFs: want %d and %d of their own", n, l.Routes, own)
	}
}

// BenchmarkAttachVRF measures REST attaches to a VRF of a node, 10 ports in each of
// 100 VRFs, by driver.
func BenchmarkAttachVRF(b *testing.B) {
	const attaches, instances = 1000, 100
	dir := binaries(b)
	ns := nstest.New(b, "attach")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "u1")
	ns.Run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
	ns.Run("ip", "link", "set", "eth0", "up")
	addPorts(b, ns, attaches)
	p := place{b: b, ns: ns, dir: dir}
	conf := p.write("bgp.conf", "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ebpf\n")
	p.launch(filepath.Join(dir, "bagpipe-bgp"), "--config-file", conf)
	api := apiOf(b, ns)
	await(b, "API", func() bool { _, err := api.Ping(context.Background()); return err == nil })
	var took []float64
	for n := range attaches {
		r := request(n, instances, "vrf"+strconv.Itoa(n%instances))
		r.VPNType, r.GatewayIP = client.IPVPN, "198.51.255.254"
		r.IPAddress = fmt.Sprintf("198.51.%d.%d/16", n>>8, n&255)
		start := time.Now()
		if err := api.Attach(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "p50-ms")
	b.ReportMetric(percentile(took, 99), "p99-ms")
}
