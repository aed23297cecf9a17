// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// binaries builds bagpipe and bagpipe-bgp, unless BAGPIPE_BENCH_PROGRAMS has them, and
// returns their directory.
func binaries(b *testing.B) string {
	b.Helper()
	if dir := os.Getenv("BAGPIPE_BENCH_PROGRAMS"); dir != "" {
		return dir
	}
	dir := b.TempDir()
	for _, name := range []string{"bagpipe", "bagpipe-bgp"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), "../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("build %s: %v: %s", name, err, out)
		}
	}
	return dir
}

// lab brings two nodes and a reflector up and returns the nodes' namespaces.
func lab(b *testing.B, dir string) (a, c *nstest.NS) {
	b.Helper()
	nstest.RequireRoot(b)
	var suffix [3]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		b.Fatal(err)
	}
	name := "bench" + hex.EncodeToString(suffix[:])
	bin := filepath.Join(dir, "bagpipe")
	b.Cleanup(func() {
		if out, err := exec.Command(bin, "lab", "down", "--name", name).CombinedOutput(); err != nil {
			b.Errorf("lab down: %v: %s", err, out)
		}
	})
	if out, err := exec.Command(bin, "lab", "up", "--name", name).CombinedOutput(); err != nil {
		b.Fatalf("lab up: %v: %s", err, out)
	}
	return nstest.Existing(b, name+"-node-a"), nstest.Existing(b, name+"-node-b")
}

// apiOf returns a client of the daemon inside a namespace.
func apiOf(b *testing.B, ns *nstest.NS) *client.Client {
	b.Helper()
	dial := func(_ context.Context, network, addr string) (c net.Conn, err error) {
		ns.Do(func() { c, err = net.DialTimeout(network, addr, time.Second) })
		return c, err
	}
	c, err := client.New(client.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}}))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// addPorts makes local devices p0..pn-1 in a namespace.
func addPorts(b *testing.B, ns *nstest.NS, n int) {
	b.Helper()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "link add p%d type veth peer name q%d\n", i, i)
	}
	cmd := ns.Command(context.Background(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("make ports: %v: %s", err, out)
	}
}

func request(n, instances int, instance string) client.AttachRequest {
	rt := []string{fmt.Sprintf("64512:%d", 2000+n%instances)}
	return client.AttachRequest{
		VPNType: "evpn", VPNInstanceID: instance, MACAddress: fmt.Sprintf("02:aa:00:00:%02x:%02x", n>>8, n&255),
		IPAddress: fmt.Sprintf("198.51.%d.%d/16", n>>8, n&255), LocalPort: client.LocalPort{LinuxIF: fmt.Sprintf("p%d", n)},
		ImportRT: rt, ExportRT: rt,
	}
}

// BenchmarkAttach measures 1,000 REST attaches to a node with the linux driver,
// 10 ports in each of 100 instances.
func BenchmarkAttach(b *testing.B) {
	const attaches, instances = 1000, 100
	a, _ := lab(b, binaries(b))
	addPorts(b, a, attaches)
	api := apiOf(b, a)
	var took []float64
	for n := range attaches {
		start := time.Now()
		if err := api.Attach(context.Background(), request(n, instances, strconv.Itoa(n%instances))); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "p50-ms")
	b.ReportMetric(percentile(took, 99), "p99-ms")
}

// BenchmarkAttachToRemoteFDB measures from an attach request on one node to the
// FDB entry in the kernel of the other, through the route reflector.
func BenchmarkAttachToRemoteFDB(b *testing.B) {
	const attaches = 50
	a, c := lab(b, binaries(b))
	addPorts(b, a, attaches)
	api := apiOf(b, a)
	var kernel *netlinkx.Conn
	var err error
	c.Do(func() { kernel, err = netlinkx.Dial() })
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = kernel.Close() }()
	vxlan := vxlanIndex(b, kernel)
	var took []float64
	for n := range attaches {
		r := request(n, 1, "lab")
		r.ImportRT, r.ExportRT = []string{"64512:100"}, []string{"64512:100"}
		mac, err := ethernet.ParseMAC(r.MACAddress)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		go func() {
			if err := api.Attach(context.Background(), r); err != nil {
				b.Error(err)
			}
		}()
		for {
			if _, ok, err := kernel.VXLANFDB(vxlan, mac); err == nil && ok {
				break
			}
			if time.Since(start) > 10*time.Second {
				b.Fatalf("%s did not appear on the other node", mac)
			}
			time.Sleep(50 * time.Microsecond)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "p50-ms")
	b.ReportMetric(percentile(took, 99), "max-ms")
}

func vxlanIndex(b *testing.B, c *netlinkx.Conn) int {
	b.Helper()
	links, err := c.Links(0)
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range links {
		if l.Kind == "vxlan" {
			return l.Index
		}
	}
	b.Fatal("no VXLAN device")
	return 0
}

// BenchmarkStart measures the time from starting the daemon to an answer of its
// API, and its memory when idle.
func BenchmarkStart(b *testing.B) {
	dir := binaries(b)
	ns := nstest.New(b, "start")
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	conf := filepath.Join(dir, "bgp.conf")
	text := "[BGP]\nlocal_address=192.0.2.1\nmy_as=64512\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver=linux\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	var took, rss []float64
	for range 10 {
		t, r := startOnce(b, ns, filepath.Join(dir, "bagpipe-bgp"), conf)
		took, rss = append(took, t), append(rss, r)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "ready-ms")
	b.ReportMetric(percentile(rss, 50), "idle-RSS-MiB")
}

func startOnce(b *testing.B, ns *nstest.NS, bin, conf string) (readyMS, rssMiB float64) {
	b.Helper()
	start := time.Now()
	cmd := ns.Command(context.Background(), bin, "--config-file", conf)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	api := apiOf(b, ns)
	for {
		if _, err := api.Ping(context.Background()); err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			b.Fatal("the API does not answer")
		}
		time.Sleep(time.Millisecond)
	}
	ready := time.Since(start)
	time.Sleep(time.Second) // idle, not just started
	return float64(ready.Microseconds()) / 1000, memory(b, cmd.Process.Pid, "VmRSS")
}
