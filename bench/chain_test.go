// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// chainLoads are the loads of BenchmarkChain.
var chainLoads = []struct {
	name string
	load load
}{
	{"10k in groups of 1..100", load{Routes: 10_000, Targets: 1, Group: 100, Mix: onlyVPNv4, Encap: encap.MPLSInUDP}},
	{"10k, one per UPDATE", load{Routes: 10_000, Targets: 1, Group: 1, Mix: onlyVPNv4, Encap: encap.MPLSInUDP}},
}

// BenchmarkChain has three nodes in a row announce routes again, each for a service
// between two VRFs: one imports the routes, the other announces them to the next
// node. All have the eBPF driver; a fourth node imports what the third announces.
// The baseline is the fourth node alone, which gets the routes from the source.
func BenchmarkChain(b *testing.B) {
	bin := binaries(b)
	var t table
	t.row("load", "hops", "source to last dataplane ms", "ratio", "CPU us/route and hop", "CPU us/route of the last node", "withdrawal us/route and hop", "peak MiB of a hop")
	for _, cl := range chainLoads {
		var direct, chained []chainResult
		b.Run(cl.name, func(b *testing.B) {
			for range rounds {
				direct = append(direct, chainRun(b, bin, 0, cl.load))
				chained = append(chained, chainRun(b, bin, 3, cl.load))
			}
		})
		if len(direct) < rounds || len(chained) < rounds {
			continue // failed, and said so
		}
		alone, three := median(direct), median(chained)
		t.row(cl.name, "0", fmt.Sprintf("%.0f", alone.wall), "1.00", "-", fmt.Sprintf("%.2f", alone.last), "-", "-")
		t.row(cl.name, "3", fmt.Sprintf("%.0f", three.wall), ratio(three.wall, alone.wall), fmt.Sprintf("%.2f", three.hop),
			fmt.Sprintf("%.2f", three.last), fmt.Sprintf("%.2f", three.withdrawn), fmt.Sprintf("%.0f", three.peak))
	}
	t.print("chain (medians of three)")
}

// chainResult is what one run needed: milliseconds, and microseconds of CPU for each
// route; of hops, the mean of all.
type chainResult struct{ wall, hop, last, withdrawn, peak float64 }

func median(runs []chainResult) chainResult {
	of := func(field func(chainResult) float64) float64 {
		var list []float64
		for _, r := range runs {
			list = append(list, field(r))
		}
		return percentile(list, 50)
	}
	return chainResult{
		wall:      of(func(r chainResult) float64 { return r.wall }),
		hop:       of(func(r chainResult) float64 { return r.hop }),
		last:      of(func(r chainResult) float64 { return r.last }),
		withdrawn: of(func(r chainResult) float64 { return r.withdrawn }),
		peak:      of(func(r chainResult) float64 { return r.peak }),
	}
}

// chainNode is a node of a chain.
type chainNode struct {
	*process
	api *client.Client
	own int // prefixes of its own endpoints in its dataplane
}

// entries returns how many prefixes of others are in the node's dataplane.
func (n *chainNode) entries() int {
	n.b.Helper()
	_, entries, err := routeCounts(n.api)
	if err != nil {
		n.b.Fatal(err)
	}
	return entries - n.own
}

// chainRun sends a load through a number of hops and takes it back.
func chainRun(b *testing.B, bin string, hops int, l load) (r chainResult) {
	b.Helper()
	net := newSegment(b)
	nodes := make([]*chainNode, hops+1)
	for i := range nodes {
		nodes[i] = startChainNode(b, net, bin, i, i < hops)
	}
	source := net.host("source", 100)
	s := startSender(b, chainAddr(1)+":179", chainAddr(100), "ip", "netns", "exec", source.Name)
	s.prepare(l)
	last := nodes[hops]
	var before []time.Duration
	for _, n := range nodes {
		cpu, _ := n.quiet()
		before = append(before, cpu)
	}
	start := time.Now()
	s.send()
	awaitEvery(b, 2*time.Millisecond, "routes in the last node's dataplane", func() bool { return last.entries() == l.Routes })
	r.wall = float64(time.Since(start).Microseconds()) / 1000
	s.sent()
	perRoute := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(l.Routes) }
	for i, n := range nodes {
		cpu, _ := n.quiet()
		if i == hops {
			r.last = perRoute(cpu - before[i])
			continue
		}
		r.hop += perRoute(cpu-before[i]) / float64(hops)
		r.peak += memory(b, n.pid, "VmHWM") / float64(hops)
		if got := n.entries(); got != l.Routes {
			b.Fatalf("hop %d has %d routes in its dataplane: want %d", i+1, got, l.Routes)
		}
	}
	for i, n := range nodes {
		before[i], _ = n.quiet()
	}
	s.do("withdraw")
	s.sent()
	awaitEvery(b, 2*time.Millisecond, "no routes in the last node's dataplane", func() bool { return last.entries() == 0 })
	for i, n := range nodes[:hops] {
		cpu, _ := n.quiet()
		r.withdrawn += perRoute(cpu-before[i]) / float64(hops)
	}
	s.close()
	for _, n := range nodes {
		n.stop()
	}
	return r
}

// segment is an Ethernet that nodes are connected to.
type segment struct {
	b      *testing.B
	bridge *nstest.NS
}

func newSegment(b *testing.B) segment {
	b.Helper()
	s := segment{b, nstest.New(b, "segment")}
	s.bridge.Run("ip", "link", "add", "underlay", "type", "bridge", "mcast_snooping", "0")
	s.bridge.Run("ip", "link", "set", "underlay", "up")
	return s
}

func chainAddr(number int) string { return fmt.Sprintf("192.0.2.%d", number) }

// host connects a host with an address of 192.0.2.0/24.
func (s segment) host(label string, number int) *nstest.NS {
	s.b.Helper()
	ns := nstest.New(s.b, label)
	nstest.Connect(ns, "eth0", s.bridge, "to-"+label)
	s.bridge.Run("ip", "link", "set", "to-"+label, "master", "underlay")
	ns.Run("ip", "address", "add", chainAddr(number)+"/24", "dev", "eth0")
	return ns
}

// startChainNode starts node i of a chain, which connects to the one before it. It
// imports a route target, and announces what has it again with the next one if it is
// a hop.
func startChainNode(b *testing.B, net segment, bin string, i int, hop bool) *chainNode {
	b.Helper()
	ns, own := net.host(fmt.Sprintf("node%d", i+1), i+1), chainAddr(i+1)
	addPorts(b, ns, 2)
	p := place{b: b, ns: ns, dir: b.TempDir(), bin: bin}
	text := "[BGP]\nlocal_address = " + own + "\nmy_as = 64512\nlisten = true\ndynamic_neighbors = 192.0.2.0/24\nconnect_retry_time = 1\n"
	if i > 0 {
		text += "peers = " + chainAddr(i) + "\n"
	}
	text += "[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ebpf\nencapsulations = mpls-udp\n"
	n := &chainNode{process: p.launch(filepath.Join(bin, "bagpipe-bgp"), "--config-file", p.write("bgp.conf", text)), api: apiOf(b, ns)}
	awaitEvery(b, 20*time.Millisecond, "the API", func() bool {
		_, err := n.api.Ping(context.Background())
		return err == nil
	})
	attach := func(port int, r client.AttachRequest) {
		r.VPNType, r.VPNInstanceID = client.IPVPN, fmt.Sprint(port)
		r.MACAddress, r.LocalPort = fmt.Sprintf("06:00:00:00:%02x:%02x", i, port), client.LocalPort{LinuxIF: fmt.Sprintf("p%d", port)}
		r.IPAddress, r.GatewayIP = fmt.Sprintf("198.51.100.%d/28", 32*i+16*port+2), fmt.Sprintf("198.51.100.%d", 32*i+16*port+1)
		if err := n.api.Attach(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
	rt := func(n int) []string { return []string{fmt.Sprintf("%d:%d", benchAS, firstRT+n)} }
	attach(0, client.AttachRequest{ImportRT: rt(i), ExportRT: []string{}})
	if hop {
		attach(1, client.AttachRequest{ImportRT: []string{}, ExportRT: []string{}, Readvertise: &client.Readvertise{FromRT: rt(i), ToRT: rt(i + 1)}})
	}
	if i > 0 {
		awaitEvery(b, 20*time.Millisecond, "the session with the node before", func() bool {
			up, err := n.api.LookingGlass(context.Background(), "summary", "BGP_established_peers")
			return err == nil && fmt.Sprint(up) == "1"
		})
	}
	n.own = n.entries()
	return n
}
