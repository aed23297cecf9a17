// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// patience is how long the test waits before it calls something hanging.
const patience = 60 * time.Second

// Addresses of the node, the feeder and the reflector.
const (
	asn        = 64512
	nodeAddr   = "192.0.2.1"
	feederAddr = "192.0.2.2"
	rrAddr     = "192.0.2.3"
)

// process is a program in a namespace with its output in a file.
type process struct {
	t    testing.TB
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

func start(t testing.TB, ns *nstest.NS, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	// "ip netns exec" becomes the program, so that its process id is the program's.
	p.cmd = ns.Command(context.Background(), args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if text, _ := os.ReadFile(p.log); t.Failed() {
			t.Logf("output of %s, last part:\n%s", name, text[max(0, len(text)-6<<10):])
		}
	})
	return p
}

// end sends a signal and waits for the end of the process.
func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%v to %s: %v", sig, p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not end by %v", p.name, sig)
	}
}

// node is the node under test, with the namespaces around it.
type node struct {
	*nstest.NS
	t       *testing.T
	dir     string
	conf    string
	text    string // of the configuration
	proc    *process
	api     *client.Client
	machine *nstest.NS // other ends of the ports
	peer    *nstest.NS // feeder and reflector
	rr      *process
	feeder  *feeder
}

// newNode makes the namespaces and writes the configuration; ipvpn are its lines for the
// IP VPN driver.
func newNode(t *testing.T, ipvpn string) *node {
	t.Helper()
	n := &node{NS: nstest.New(t, "soak-node"), t: t, dir: t.TempDir(), machine: nstest.New(t, "soak-vms"), peer: nstest.New(t, "soak-peer")}
	nstest.Connect(n.NS, "eth0", n.peer, "eth0")
	n.Run("ip", "address", "add", nodeAddr+"/24", "dev", "eth0")
	n.peer.Run("ip", "address", "add", feederAddr+"/24", "dev", "eth0")
	n.peer.Run("ip", "address", "add", rrAddr+"/24", "dev", "eth0")
	n.conf = filepath.Join(n.dir, "bgp.conf")
	n.text = "[BGP]\nlocal_address = " + nodeAddr + "\nmy_as = " + strconv.Itoa(asn) + "\npeers = " + feederAddr + ", " + rrAddr + "\n" +
		"passive_peers = " + feederAddr + "\nlisten = true\ngraceful_restart = full\nconnect_retry_time = 1\n" +
		"[COMMON]\nsweep_delay = 1\nstate_directory = " + filepath.Join(n.dir, "state") + "\n" +
		"[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\n[DATAPLANE_DRIVER_IPVPN]\n" + ipvpn
	n.configure("")
	var err error
	n.api, err = client.New(client.WithHTTPClient(&http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: netspace.Dialer(n.Name), DisableKeepAlives: true, // an open connection would count
	}}))
	if err != nil {
		t.Fatal(err)
	}
	n.feeder = &feeder{t: t, ns: n.peer.Name, node: nodeAddr + ":179"}
	return n
}

// configure writes the configuration with more lines.
func (n *node) configure(more string) {
	n.t.Helper()
	if err := os.WriteFile(n.conf, []byte(n.text+more), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// startReflector starts "bagpipe rr", which the node connects to.
func (n *node) startReflector() {
	n.t.Helper()
	n.rr = start(n.t, n.peer, n.dir, "rr", filepath.Join(programs, "bagpipe"), "rr", "--as", strconv.Itoa(asn), "--router-id", rrAddr, "--listen", rrAddr)
	n.eventually("the reflector listens", func() error {
		text, err := os.ReadFile(n.rr.log)
		if err == nil && !bytes.Contains(text, []byte(rr.ListeningMessage)) {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
}

// start starts the daemon and waits for its API.
func (n *node) start() {
	n.t.Helper()
	n.proc = start(n.t, n.NS, n.dir, "bagpipe-bgp", filepath.Join(programs, "bagpipe-bgp"), "--config-file", n.conf)
	n.eventually("the API answers", func() error {
		select {
		case <-n.proc.done:
			n.t.Fatalf("the daemon has ended: %v", n.proc.cmd.ProcessState)
		default:
		}
		_, err := n.api.Ping(n.t.Context())
		return err
	})
}

// eventually waits until check returns no error.
func (n *node) eventually(what string, check func() error) {
	n.t.Helper()
	var err error
	nstest.Eventually(n.t, patience, func() bool { err = check(); return err == nil }, func() string { return fmt.Sprintf("%s: %v", what, err) })
}

// metrics reads the metrics, each by its name with labels.
func (n *node) metrics() (map[string]float64, error) {
	text, err := n.api.Get(n.t.Context(), client.DefaultBaseURL+"/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), " "); ok && name != "#" {
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out, nil
}

// await waits until all metrics have the values.
func (n *node) await(what string, want map[string]float64) {
	n.t.Helper()
	n.eventually(what, func() error {
		have, err := n.metrics()
		for name, v := range want {
			if err == nil && have[name] != v {
				err = fmt.Errorf("%s is %v: want %v", name, have[name], v)
			}
		}
		return err
	})
}
