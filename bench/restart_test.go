// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// restartSize is what a node has when it is restarted.
type restartSize struct {
	endpoints, ports, instances, routes int
}

func (s restartSize) loadOf(routes int) load {
	return load{Routes: routes, Targets: s.instances, Instances: s.instances, Group: 100, Mix: mixed, Encap: encap.MPLSInUDP}
}

const (
	// restartRounds is how often a node is killed.
	restartRounds = 3
	// restartSweep is sweep_delay, in seconds.
	restartSweep = 10
)

// sweptMessage is logged when the sweep has removed something.
const sweptMessage = "removed forwarding state of an earlier run"

// BenchmarkRestart kills a node that keeps its state and starts it again, with dataplane
// drivers linux and ebpf, and a peer that keeps routes and has fewer of them when the node
// is back. It takes the time to the answer of the API, to the moment when all endpoints and routes
// are there again and found to be forwarded, and to the sweep; beside the first start,
// from nothing, with all attachments over the API.
func BenchmarkRestart(b *testing.B) {
	bin := binaries(b)
	var t table
	t.row("node", "start", "API answers s", "forwarding verified s", "ratio", "swept s", "CPU s", "waited for a core s", "peak MiB")
	for _, s := range []restartSize{{1000, 100, 20, 10_000}, {10_000, 1000, 100, 100_000}} {
		if limit, err := strconv.Atoi(os.Getenv("BENCH_MOST")); err == nil && s.routes > limit {
			continue
		}
		name := fmt.Sprintf("%d endpoints, %d routes", s.endpoints, s.routes)
		b.Run(name, func(b *testing.B) {
			r := newRestart(b, bin, s)
			first := r.fromNothing()
			t.row(name, "from nothing", seconds(first.api), seconds(first.verified), "1.00", "-", seconds(first.cpu), seconds(first.waited), fmt.Sprintf("%.0f", first.peak))
			for n := range restartRounds {
				again := r.again()
				t.row(name, fmt.Sprintf("restart %d", n+1), seconds(again.api), seconds(again.verified),
					ratio(again.verified.Seconds(), first.verified.Seconds()), seconds(again.swept), seconds(again.cpu), seconds(again.waited), fmt.Sprintf("%.0f", again.peak))
			}
		})
	}
	t.print("restart (ratio: to the first start)")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// startTimes are when a node was so far, from its start on.
type startTimes struct {
	api, verified, swept time.Duration
	cpu, waited          time.Duration // until verified: CPU time, and waiting for a core
	peak                 float64       // MiB
}

// restart is a node that is restarted.
type restart struct {
	restartSize
	place
	conf   string
	api    *client.Client
	sender *sender
	node   *process
	began  time.Time
}

func newRestart(b *testing.B, bin string, s restartSize) *restart {
	b.Helper()
	net := newLab2(b)
	r := &restart{restartSize: s, place: place{b: b, ns: net.receiver, dir: b.TempDir(), bin: bin}, api: apiOf(b, net.receiver)}
	addPorts(b, net.receiver, s.ports)
	r.conf = r.write("bgp.conf", fmt.Sprintf("[BGP]\nlocal_address = %s\nmy_as = %d\npeers = %s\npassive_peers = %s\nlisten = true\ngraceful_restart = full\n"+
		"[COMMON]\nsweep_delay = %d\nstate_directory = %s\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ebpf\n",
		receiverAddr, benchAS, senderAddr, senderAddr, restartSweep, filepath.Join(r.dir, "state")))
	r.sender = launchSender(b, []string{
		"BENCH_SENDER=" + receiverAddr + ":179", "BENCH_SENDER_FROM=" + senderAddr, "BENCH_SENDER_HOLD=90", "BENCH_SENDER_GRACEFUL=1",
	}, "ip", "netns", "exec", net.sender.Name)
	return r
}

// start starts the daemon and returns when its API answers.
func (r *restart) start() (api time.Duration) {
	r.b.Helper()
	r.began = time.Now()
	r.node = r.launch(filepath.Join(r.bin, "bagpipe-bgp"), "--config-file", r.conf)
	await(r.b, "API", func() bool { _, err := r.api.Ping(context.Background()); return err == nil })
	return time.Since(r.began)
}

// fromNothing starts the daemon for the first time and attaches everything, some at a time.
func (r *restart) fromNothing() (t startTimes) {
	r.b.Helper()
	r.sender.prepare(r.loadOf(r.routes))
	t.api = r.start()
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= r.endpoints {
					return
				}
				if err := r.api.Attach(context.Background(), r.request(n)); err != nil {
					r.b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	r.verified(&t)
	return t
}

// request returns the attachment of endpoint n; instances are E-VPN and IP VPN in turn.
func (r *restart) request(n int) client.AttachRequest {
	port := n % r.ports
	instance := port % r.instances
	rt := []string{fmt.Sprintf("%d:%d", benchAS, firstRT+instance)}
	a := client.AttachRequest{
		VPNType: client.EVPN, VPNInstanceID: strconv.Itoa(instance), MACAddress: fmt.Sprintf("06:00:00:00:%02x:%02x", n>>8, n&255),
		IPAddress: fmt.Sprintf("198.18.%d.%d/16", n>>8, n&255), LocalPort: client.LocalPort{LinuxIF: fmt.Sprintf("p%d", port)}, ImportRT: rt, ExportRT: rt,
	}
	if instance%2 == 1 {
		a.VPNType, a.GatewayIP = client.IPVPN, "198.18.255.254"
	}
	return a
}

// verified waits until all that the sender has announced, and all endpoints, are in the dataplane.
func (r *restart) verified(t *startTimes) {
	r.b.Helper()
	want := r.sender.entries + r.endpoints/2 // each endpoint of a VRF is a prefix, too
	got := ""
	end := time.Now().Add(2 * time.Minute)
	for ; ; time.Sleep(50 * time.Millisecond) {
		ready, err := r.api.Ready(context.Background())
		if err == nil && ready.Ready {
			var entries int
			_, entries, err = routeCounts(r.api)
			if entries == want {
				break
			}
			got = fmt.Sprintf("%d entries of %d", entries, want)
		}
		if time.Now().After(end) {
			r.b.Fatalf("not all is forwarded: %s %+v %v", got, ready, err)
		}
	}
	t.verified = time.Since(r.began)
	t.cpu, t.waited = r.node.used()
	t.peak = memory(r.b, r.node.pid, "VmHWM")
}

// again kills the daemon, takes some of the peer's routes away, and starts it.
func (r *restart) again() (t startTimes) {
	r.b.Helper()
	r.node.stop()
	r.routes -= r.routes / 100
	r.sender.prepare(r.loadOf(r.routes))
	if err := os.Rename(filepath.Join(r.dir, "output.log"), filepath.Join(r.dir, "earlier.log")); err != nil {
		r.b.Fatal(err)
	}
	t.api = r.start()
	r.verified(&t)
	await(r.b, "sweep", func() bool {
		text, err := os.ReadFile(filepath.Join(r.dir, "output.log"))
		return err == nil && bytes.Contains(text, []byte(sweptMessage))
	})
	t.swept = time.Since(r.began)
	text, _ := os.ReadFile(filepath.Join(r.dir, "output.log"))
	if bytes.Contains(text, []byte("ERROR")) {
		r.b.Errorf("log: %s", text)
	}
	if out := r.ns.Run("ip", "-br", "link"); strings.Count(out, "\n") < r.ports {
		r.b.Errorf("ports are gone: %s", out)
	}
	return t
}
